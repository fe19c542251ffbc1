"""From a Route's traffic targets to revisions (knative.dev/serving/pkg/reconciler/route/traffic).

Behaviours B94 to B98: targets are resolved together or not at all, and what is wrong is said in
Knative's words.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from knlocal.control.conditions import find_condition
from knlocal.resources.base import Obj, labels_of, spec_of, status_of
from knlocal.serving.kinds import (
    CONFIGURATION,
    CONFIGURATION_LABEL,
    REVISION,
    SERVICE_LABEL,
)
from knlocal.serving.rollout import ConfigurationRollout, Rollout
from knlocal.store.store import Store


@dataclass(frozen=True, slots=True)
class RevisionTarget:
    """One traffic target, resolved."""

    revision: str
    percent: int
    latest: bool
    tag: str = ""
    configuration: str = ""


@dataclass(frozen=True, slots=True)
class BadTarget:
    """Why a Route cannot be served as asked: what its condition AllTrafficAssigned says."""

    status: Literal["Unknown", "False"]
    reason: str
    message: str


@dataclass(slots=True)
class Traffic:
    """A Route's targets, resolved."""

    listed: list[RevisionTarget] = field(default_factory=list)
    """As the status shows them: one per spec target, in order."""
    by_tag: dict[str, list[RevisionTarget]] = field(default_factory=dict)
    """What each host serves; "" is the route itself."""

    def rollout(self) -> Rollout:
        """The state that is aimed for: each latest target with one revision."""
        found = [
            ConfigurationRollout.steady(target.configuration, tag, target.percent, target.revision)
            for tag, targets in self.by_tag.items()
            for target in targets
            if target.latest
        ]
        return Rollout(sorted(found, key=lambda c: (c.tag, c.configuration)))


def resolve(route: Obj, store: Store) -> Traffic | BadTarget:
    """Resolve all targets of a Route, or tell the worst thing that is wrong with them."""
    traffic = Traffic()
    bad: BadTarget | None = None
    for target in spec_of(route).get("traffic") or ():
        found = _resolve_target(route, target, store)
        if isinstance(found, RevisionTarget):
            _add(traffic, found)
        elif bad is None or found.status == "False":
            bad = found
    if bad is not None:
        return bad
    traffic.by_tag = {tag: _consolidated(targets) for tag, targets in traffic.by_tag.items()}
    return traffic


def _resolve_target(route: Obj, target: Obj, store: Store) -> RevisionTarget | BadTarget:
    namespace = route["metadata"]["namespace"]
    name = target.get("revisionName")
    configuration_name = target.get("configurationName") or ""
    if not name:
        configuration = store.find(CONFIGURATION, namespace, configuration_name)
        if configuration is None:
            return _missing("Configuration", configuration_name)
        name = status_of(configuration).get("latestReadyRevisionName")
        if not name:
            return _no_ready_revision(configuration)
    revision = store.find(REVISION, namespace, name)
    if revision is None:
        return _missing("Revision", name)
    if target.get("revisionName"):
        bad = _not_ready(revision) or _not_owned(route, revision)
        if bad is not None:
            return bad
        configuration_name = labels_of(revision).get(CONFIGURATION_LABEL, "")
        if configuration_name and store.find(CONFIGURATION, namespace, configuration_name) is None:
            return _missing("Configuration", configuration_name)
    return RevisionTarget(
        revision=name,
        percent=int(target.get("percent") or 0),
        latest=bool(target.get("latestRevision", not target.get("revisionName"))),
        tag=target.get("tag") or "",
        configuration=configuration_name,
    )


def _add(traffic: Traffic, target: RevisionTarget) -> None:
    for index, known in enumerate(traffic.listed):
        same = (known.tag, known.revision, known.latest)
        if same == (target.tag, target.revision, target.latest):
            traffic.listed[index] = replace(known, percent=known.percent + target.percent)
            break
    else:
        traffic.listed.append(target)
    traffic.by_tag.setdefault("", []).append(target)
    if target.tag:
        traffic.by_tag.setdefault(target.tag, []).append(target)


def _consolidated(targets: list[RevisionTarget]) -> list[RevisionTarget]:
    """Targets of one host with the same revision become one; a single one gets everything."""
    merged: dict[str, RevisionTarget] = {}
    for target in targets:
        known = merged.get(target.revision)
        if known is None:
            merged[target.revision] = target
        else:
            merged[target.revision] = replace(
                known,
                percent=known.percent + target.percent,
                # The share of the latest revision rolls out, even if it is pinned as well.
                latest=known.latest or target.latest,
            )
    result = list(merged.values())
    return [replace(result[0], percent=100)] if len(result) == 1 else result


def why_not_ready(route: Obj, bad: BadTarget, store: Store) -> str:
    """What is wrong, and with the latest revision if that is it: for people."""
    reasons = [bad.message]
    for target in spec_of(route).get("traffic") or ():
        name = target.get("configurationName") or ""
        configuration = store.find(CONFIGURATION, route["metadata"]["namespace"], name)
        reasons.append((find_condition(configuration) or {}).get("message", ""))
    return "\n".join(dict.fromkeys(reason for reason in reasons if reason))


# -- what may be wrong (route_lifecycle.go, traffic/errors.go) ------------------------------------


def _missing(kind: str, name: str) -> BadTarget:
    return BadTarget("False", f"{kind}Missing", f'{kind} "{name}" referenced in traffic not found.')


def _no_ready_revision(configuration: Obj) -> BadTarget:
    name = configuration["metadata"]["name"]
    ready = find_condition(configuration) or {}
    if ready.get("status") == "False":
        message = f'Configuration "{name}" does not have any ready Revision.'
        return BadTarget("False", "RevisionMissing", message)
    message = f'Configuration "{name}" is waiting for a Revision to become ready.'
    return BadTarget("Unknown", "RevisionMissing", message)


def _not_ready(revision: Obj) -> BadTarget | None:
    name = revision["metadata"]["name"]
    status = (find_condition(revision) or {}).get("status", "Unknown")
    if status == "True":
        return None
    if status == "False":
        return BadTarget("False", "RevisionMissing", f'Revision "{name}" failed to become ready.')
    return BadTarget("Unknown", "RevisionMissing", f'Revision "{name}" is not yet ready.')


def _not_owned(route: Obj, revision: Obj) -> BadTarget | None:
    """A Service's Route serves that Service's revisions only."""
    service = labels_of(route).get(SERVICE_LABEL)
    other = labels_of(revision).get(SERVICE_LABEL)
    if not service or service == other:
        return None
    name = revision["metadata"]["name"]
    belongs = f'belongs to Service "{other}"' if other else "belongs to no Service"
    return BadTarget(
        "False", "RevisionNotOwned", f'Revision "{name}" {belongs}, not Service "{service}".'
    )
