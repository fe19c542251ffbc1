"""Turns changes of objects into the sentences that a person at the terminal wants to read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from knlocal.resources.base import GroupKind, Obj, group_kind_of, labels_of
from knlocal.store.watch import WatchEvent

SERVING = "serving.knative.dev"
SERVICE = GroupKind(SERVING, "Service")
REVISION = GroupKind(SERVING, "Revision")
POD_AUTOSCALER = GroupKind("autoscaling.internal.knative.dev", "PodAutoscaler")
POD = GroupKind("", "Pod")
EVENT = GroupKind("", "Event")

#: Other kinds whose readiness is worth a line.
TOLD_GROUPS = (
    "eventing.knative.dev", "messaging.knative.dev", "flows.knative.dev", "sources.knative.dev",
    "sinks.knative.dev", "tekton.dev",
)  # fmt: skip

#: Characters of a reason in the table of services.
WIDEST = 72

Mood = Literal["good", "plain", "bad"]


class Line(NamedTuple):
    """One sentence about one thing."""

    about: str
    text: str
    mood: Mood = "plain"
    wait: bool = False
    """True for what often puts itself right in a moment: said when it is still so then."""


@dataclass(slots=True)
class _Service:
    ready: str = "Unknown"
    ready_once: bool = False
    bad: bool = False
    said: str = ""
    latest: str = ""
    serving: str = ""
    pods: int | None = None


@dataclass(slots=True)
class Narrator:
    """Fed with every change, in order; says only what is new to a reader."""

    _services: dict[str, _Service] = field(default_factory=dict)
    _starting: dict[str, str] = field(default_factory=dict)
    """By Revision that is neither ready nor failed: its Service; "" once that was told."""
    _others: dict[str, str] = field(default_factory=dict)
    _restarts: dict[str, int] = field(default_factory=dict)
    _unhealthy: dict[str, str] = field(default_factory=dict)
    """By Deployment: what its pods' last failed probe said."""

    def feed(self, event: WatchEvent) -> Iterator[Line]:
        kind = group_kind_of(event.obj)
        if kind == SERVICE:
            yield from self._service(event)
        elif kind == REVISION:
            yield from self._revision(event)
        elif kind == POD_AUTOSCALER:
            yield from self._scale(event.obj)
        elif kind == POD:
            yield from self._pod(event)
        elif kind == EVENT:
            yield from self._probe_failure(event.obj)
        elif kind.group in TOLD_GROUPS and not event.obj["metadata"].get("ownerReferences"):
            yield from self._other(event)

    # -- services -----------------------------------------------------------------------------

    def _service(self, event: WatchEvent) -> Iterator[Line]:
        obj = event.obj
        name = obj["metadata"]["name"]
        if event.type == "DELETED":
            self._services.pop(_place(obj), None)
            yield Line(name, "deleted")
            return
        known = self._services.setdefault(_place(obj), _Service())
        status = obj.get("status") or {}
        ready, why = readiness(obj)
        if ready == "True" and (known.bad or not known.ready_once):
            known.bad, known.ready_once = False, True
            yield Line(name, f"ready at {status.get('url', '')}", "good")
        elif ready == "False" and (known.ready != "False" or why != known.said):
            latest, serving = (
                status.get("latestCreatedRevisionName"),
                status.get("latestReadyRevisionName"),
            )
            known.bad = True
            if "timed out progressing" in why:
                probe = self._unhealthy.get(f"{latest}-deployment", "")
                why_not = f"; {probe}" if probe else ""
            else:
                why_not = ""
            keeps = f" ({serving} keeps serving)" if serving and serving != latest else ""
            yield Line(name, f"not ready: {why}{why_not}{keeps}", "bad")
        known.ready, known.said = ready, why
        serving = _most_traffic(status)
        if serving and serving != known.serving:
            if known.serving:
                yield Line(name, f"{serving} takes over from {known.serving}", "good")
            known.serving = serving

    def _revision(self, event: WatchEvent) -> Iterator[Line]:
        obj = event.obj
        place, name = _place(obj), obj["metadata"]["name"]
        service = labels_of(obj).get(f"{SERVING}/service", name)
        if event.type == "DELETED":
            self._starting.pop(place, None)
            return
        if event.type == "ADDED" and self._known_service(obj, service).serving:
            yield Line(service, f"new revision {name}")
        if readiness(obj)[0] == "Unknown":
            self._starting.setdefault(place, service)
        else:
            self._starting.pop(place, None)

    def _known_service(self, child: Obj, service: str) -> _Service:
        place = f"{child['metadata'].get('namespace')}/{service}"
        return self._services.setdefault(place, _Service())

    def _scale(self, obj: Obj) -> Iterator[Line]:
        """Pods of the revision that serves; of others it is nobody's business."""
        service = labels_of(obj).get(f"{SERVING}/service")
        actual = (obj.get("status") or {}).get("actualScale")
        if not service or actual is None:
            return
        known = self._known_service(obj, service)
        if obj["metadata"]["name"] != known.serving:
            return
        before, known.pods = known.pods, int(actual)
        if before is None or before == known.pods:
            return
        if known.pods == 0:
            yield Line(service, "idle: scaled to zero")
        elif before == 0:
            yield Line(service, f"awake: {_count(known.pods, 'pod')}")
        else:
            yield Line(service, f"{_count(known.pods, 'pod')} (was {before})")

    def _pod(self, event: WatchEvent) -> Iterator[Line]:
        """Containers that ended when they should not have."""
        obj = event.obj
        uid = obj["metadata"]["uid"]
        if event.type == "DELETED":
            for key in [key for key in self._restarts if key.startswith(uid)]:
                del self._restarts[key]
            return
        about = labels_of(obj).get(f"{SERVING}/service") or obj["metadata"]["name"]
        if obj["metadata"].get("deletionTimestamp"):
            return
        for status in (obj.get("status") or {}).get("containerStatuses") or ():
            key, count = f"{uid}/{status['name']}", int(status.get("restartCount") or 0)
            if count > self._restarts.get(key, 0):
                ended = (status.get("lastState") or {}).get("terminated") or {}
                code = ended.get("exitCode", "?")
                reason = "ran out of memory" if ended.get("reason") == "OOMKilled" else "ended"
                yield Line(
                    about,
                    f"{status['name']} {reason} with exit code {code}; restart {count}",
                    "bad",
                )
            self._restarts[key] = count

    def _probe_failure(self, event: Obj) -> Iterator[Line]:
        """That time ran out says little; that nobody listened on the port says all."""
        if event.get("reason") != "Unhealthy":
            return
        pod = str((event.get("involvedObject") or {}).get("name") or "")
        deployment = pod.rsplit("-", 2)[0]
        why = str(event.get("message") or "").strip()
        self._unhealthy[deployment] = why
        revision = deployment.removesuffix("-deployment")
        place = f"{event['metadata'].get('namespace', '')}/{revision}"
        if int(event.get("count") or 1) > 1 and (service := self._starting.get(place)):
            self._starting[place] = ""
            asks = "; does it listen on $PORT?" if "connection refused" in why else ""
            yield Line(service, f"{revision} is still starting: {why}{asks}", "bad")

    # -- everything else ----------------------------------------------------------------------

    def _other(self, event: WatchEvent) -> Iterator[Line]:
        obj = event.obj
        about = f"{obj['kind'].lower()} {obj['metadata']['name']}"
        place = f"{obj['kind']} {_place(obj)}"
        if event.type == "DELETED":
            if self._others.pop(place, None) is not None:
                yield Line(about, "deleted")
            return
        ready, why = readiness(obj)
        said = ready if ready != "False" else f"False {why}"
        if self._others.get(place) == said:
            return
        self._others[place] = said
        if ready == "True":
            yield Line(about, "ready", "good")
        elif ready == "False":
            yield Line(about, f"not ready: {why}", "bad", wait=True)


def readiness(obj: Obj) -> tuple[str, str]:
    """The status of the Ready (or Succeeded) condition, and its reason for people. A condition
    about an older generation counts as Unknown."""
    status = obj.get("status") or {}
    if status.get("observedGeneration", 0) < obj["metadata"].get("generation", 0):
        return "Unknown", ""
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    ready = conditions.get("Ready") or conditions.get("Succeeded")
    if ready is None:
        return "Unknown", ""
    configuration = conditions.get("ConfigurationsReady") or {}
    if ready.get("reason") == "RevisionMissing" and configuration.get("status") == "Unknown":
        return "Unknown", ""  # after a failure, while the next Revision starts
    return str(ready["status"]), _why(ready, configuration)


def _why(ready: Obj, configuration: Obj) -> str:
    """A Service says that its Route has no ready Revision; the Configuration knows why."""
    cause = ready
    if ready.get("reason") == "RevisionMissing" and configuration.get("status") == "False":
        cause = configuration
    why = str(cause.get("message") or cause.get("reason") or "")
    why = why.rstrip(" .:\n")
    # A container that was killed, say for its memory, had no last words.
    return why.removesuffix(" with") if why.endswith("Container failed with") else why


def _most_traffic(status: Obj) -> str:
    targets = status.get("traffic") or ()
    most: Obj = max(targets, key=lambda target: target.get("percent") or 0, default={})
    return str(most.get("revisionName") or "")


def _short(why: str) -> str:
    """The line that names the error, or else the first, cut to what a table can hold: the lines
    above it, and `describe`, say all."""
    text = re.sub(r'^Revision ".*?" failed with message: ', "", why)
    named = re.search(r"^[\w.]*(Error|Exception|Exit|Interrupt): .*$", text, re.M)
    first = named.group() if named else text.partition("\n")[0]
    return first if len(first) <= WIDEST else first[: WIDEST - 1] + "…"


def _place(obj: Obj) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def service_rows(services: list[Obj], namespace: str) -> list[tuple[str, ...]]:
    """The table of services that `up` prints."""
    rows: list[tuple[str, ...]] = [("SERVICE", "URL", "READY", "REVISION")]
    for obj in services:
        ready, why = readiness(obj)
        status, metadata = obj.get("status") or {}, obj["metadata"]
        place = metadata.get("namespace")
        name = metadata["name"] if place == namespace else f"{metadata['name']} ({place})"
        word = {"True": "yes", "False": f"no: {_short(why)}"}.get(ready, "starting")
        rows.append((name, status.get("url", ""), word, status.get("latestReadyRevisionName", "")))
    return rows
