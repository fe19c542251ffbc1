"""A pod's status, worked out from its containers: pure.

Follows k8s.io/kubernetes pkg/kubelet/kubelet_pods.go (phase) and pkg/kubelet/status (conditions).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from knlocal.resources.base import Obj, spec_of, status_of, timestamp
from knlocal.workloads.containers import Container

_OWN = (
    "PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PodView:
    """What the status is worked out from, beside the pod object."""

    containers: Sequence[Container]
    now: datetime
    engine: str
    image_id: Callable[[Container], str]
    ip: str = ""
    host_ip: str = ""
    sandbox: bool = False
    failure: tuple[str, str] | None = None
    """Reason and message that end the pod as Failed, whatever its containers do."""


def pod_status(pod: Obj, view: PodView) -> dict[str, Any]:
    """The whole status to store."""
    before = status_of(pod)
    phase = pod_phase(pod, view)
    init = [c for c in view.containers if c.role in ("init", "sidecar")]
    apps = [c for c in view.containers if c.role in ("app", "shown")]
    status: dict[str, Any] = {
        **{k: v for k, v in before.items() if k not in ("reason", "message", "conditions")},
        "phase": phase,
        "conditions": _conditions(pod, view, phase),
        "qosClass": before.get("qosClass") or qos_class(pod),
        "containerStatuses": [c.status(view.engine, view.image_id(c)) for c in apps],
    }
    if init:
        status["initContainerStatuses"] = [c.status(view.engine, view.image_id(c)) for c in init]
    if view.failure:
        status["reason"], status["message"] = view.failure
    if view.host_ip:
        status |= {"hostIP": view.host_ip, "hostIPs": [{"ip": view.host_ip}]}
    if view.ip:
        status |= {"podIP": view.ip, "podIPs": [{"ip": view.ip}]}
    status.setdefault("startTime", timestamp(view.now))
    return status


def pod_phase(pod: Obj, view: PodView) -> str:
    """Pending, Running, Succeeded or Failed (kubelet's `getPhase`)."""
    if view.failure:
        return "Failed"
    policy = spec_of(pod).get("restartPolicy") or "Always"
    for one in view.containers:
        if one.role == "init" and not one.succeeded:
            if one.terminated is not None and policy == "Never":
                return "Failed"
            return "Pending"
        if one.role == "sidecar" and one.waiting is not None and one.last_terminated is None:
            return "Pending"
    apps = [c for c in view.containers if c.role == "app"]
    never_ran = [c for c in apps if c.waiting is not None and c.last_terminated is None]
    stopped = [c for c in apps if c.terminated is not None]
    if never_ran:
        return "Pending"
    if len(stopped) < len(apps) or not apps:
        return "Running"
    if policy == "Always":
        return "Running"
    if all(c.succeeded for c in stopped):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def _conditions(pod: Obj, view: PodView, phase: str) -> list[dict[str, Any]]:
    before = {c["type"]: c for c in status_of(pod).get("conditions") or ()}
    found = {
        "PodReadyToStartContainers": ("True" if view.sandbox else "False", "", ""),
        "Initialized": _initialized(view.containers, phase),
        "ContainersReady": _containers_ready(view.containers, phase),
        "PodScheduled": ("True", "", ""),
    }
    found["Ready"] = _ready(pod, found["ContainersReady"], before)
    own = [_condition(type_, *found[type_], before, view.now) for type_ in _OWN]
    return own + [condition for type_, condition in before.items() if type_ not in _OWN]


def _initialized(containers: Sequence[Container], phase: str) -> tuple[str, str, str]:
    if phase == "Succeeded":
        return "True", "PodCompleted", ""
    missing = [
        c.name
        for c in containers
        if (c.role == "init" and not c.succeeded) or (c.role == "sidecar" and not c.started)
    ]
    if not missing:
        return "True", "", ""
    message = f"containers with incomplete status: [{' '.join(missing)}]"
    return "False", "ContainersNotInitialized", message


def _containers_ready(containers: Sequence[Container], phase: str) -> tuple[str, str, str]:
    if phase == "Succeeded":
        return "False", "PodCompleted", ""
    if phase == "Failed":
        return "False", "PodFailed", ""
    unready = [c.name for c in containers if c.role != "init" and not c.ready]
    if not unready:
        return "True", "", ""
    return "False", "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"


def _ready(
    pod: Obj, containers_ready: tuple[str, str, str], before: dict[str, Any]
) -> tuple[str, str, str]:
    if containers_ready[0] != "True":
        return containers_ready
    gates = [g.get("conditionType") for g in spec_of(pod).get("readinessGates") or ()]
    for gate in gates:
        condition = before.get(gate)
        if condition is None:
            message = f'corresponding condition of pod readiness gate "{gate}" does not exist.'
            return "False", "ReadinessGatesNotReady", message
        if condition.get("status") != "True":
            message = f'the status of pod readiness gate "{gate}" is not "True", but False'
            return "False", "ReadinessGatesNotReady", message
    return "True", "", ""


def _condition(
    type_: str, status: str, reason: str, message: str, before: dict[str, Any], now: datetime
) -> dict[str, Any]:
    old = before.get(type_)
    changed = old is None or old.get("status") != status
    return {
        "type": type_,
        "status": status,
        "lastTransitionTime": timestamp(now) if changed or not old else old["lastTransitionTime"],
        **({"reason": reason} if reason else {}),
        **({"message": message} if message else {}),
    }


def qos_class(pod: Obj) -> str:
    """Guaranteed, Burstable or BestEffort (k8s.io/kubernetes pkg/apis/core/v1/helper/qos)."""
    spec = spec_of(pod)
    every = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    named, guaranteed = False, True
    for container in every:
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for resource in ("cpu", "memory"):
            limit, request = limits.get(resource), requests.get(resource, limits.get(resource))
            named = named or bool(limit or request)
            guaranteed = guaranteed and bool(limit) and limit == request
    if not named:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def is_terminal(pod: Obj) -> bool:
    return status_of(pod).get("phase") in ("Succeeded", "Failed")


def is_pod_ready(pod: Obj) -> bool:
    """Whether the pod's Ready condition is True."""
    return any(
        c.get("type") == "Ready" and c.get("status") == "True"
        for c in status_of(pod).get("conditions") or ()
    )
