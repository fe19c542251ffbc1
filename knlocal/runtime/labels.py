"""Labels are the runtime's memory: what every container carries, and its name.

A restarted daemon reads them back to know which containers are whose. Containers of one project
never match another's, so that two projects share an engine without seeing each other.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from knlocal.runtime.api import ContainerPlan, PodId, PodPlan

PREFIX = "dev.knlocal."
PROJECT = PREFIX + "project"
NAMESPACE = PREFIX + "namespace"
POD = PREFIX + "pod"
UID = PREFIX + "uid"
CONTAINER = PREFIX + "container"
ROLE = PREFIX + "role"
ATTEMPT = PREFIX + "attempt"
PLAN_HASH = PREFIX + "plan-hash"
PORTS = PREFIX + "ports"

Role = Literal["sandbox", "container", "init"]


@dataclass(frozen=True, slots=True)
class Tag:
    """What the labels of one container say."""

    id: PodId
    container: str
    """"" for the sandbox."""
    role: str
    attempt: int
    plan_hash: str


def of_sandbox(project: str, plan: PodPlan) -> dict[str, str]:
    return _own(project, plan, "", "sandbox", 0, "") | {PORTS: ",".join(map(str, plan.ports))}


def of_container(
    project: str, plan: PodPlan, container: ContainerPlan, role: Role, attempt: int
) -> dict[str, str]:
    return _own(project, plan, container.name, role, attempt, plan_hash(container))


def _own(
    project: str, plan: PodPlan, container: str, role: Role, attempt: int, digest: str
) -> dict[str, str]:
    own = {
        PROJECT: project,
        NAMESPACE: plan.id.namespace,
        POD: plan.id.name,
        UID: plan.id.uid,
        CONTAINER: container,
        ROLE: role,
        ATTEMPT: str(attempt),
        PLAN_HASH: digest,
    }
    return {**plan.labels, **own}


def read(labels: Mapping[str, str]) -> Tag | None:
    """None when the labels are not ours (or were cut short)."""
    try:
        return Tag(
            PodId(labels[NAMESPACE], labels[POD], labels[UID]),
            labels[CONTAINER],
            labels[ROLE],
            int(labels.get(ATTEMPT) or 0),
            labels.get(PLAN_HASH, ""),
        )
    except (KeyError, ValueError):
        return None


def others(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that the plan brought (image labels may be among them)."""
    return {key: value for key, value in labels.items() if not key.startswith(PREFIX)}


def plan_hash(container: ContainerPlan) -> str:
    """Changes when the container would have to be made anew."""
    content = json.dumps(asdict(container), sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def container_name(project: str, pod: PodId, container: str, attempt: int) -> str:
    """A name that people can read in `docker ps`, and that makes creating idempotent."""
    readable = f"{project}.{pod.namespace}.{pod.name}.{container or 'sandbox'}"
    digest = hashlib.sha256(
        "\0".join((project, *pod, container or "\0sandbox")).encode()
    ).hexdigest()[:10]
    return f"knlocal.{re.sub(r'[^a-zA-Z0-9_.-]', '-', readable)[:180]}.{digest}.{attempt}"
