"""Which trails somebody wants to see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from knlocal.events.event import canonical
from knlocal.journal.trail import Trail


@dataclass(frozen=True, slots=True)
class Selection:
    """All given conditions must hold. `type`, `source` and `attributes` may hold * and ?; `door` is
    "kind namespace/name", "namespace/name" or a name. Times are inclusive."""

    id: str = ""
    type: str = ""
    source: str = ""
    door: str = ""
    attributes: Mapping[str, str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    #: Only events that some subscriber has not got, and will not get.
    failed: bool = False

    def matches(self, trail: Trail) -> bool:
        event = trail.event
        if self.id and event.id != self.id:
            return False
        if self.type and not fnmatchcase(event.type, self.type):
            return False
        if self.source and not fnmatchcase(event.source, self.source):
            return False
        for name, pattern in (self.attributes or {}).items():
            if not fnmatchcase(canonical(event.attributes.get(name, "")), pattern):
                return False
        if self.since and trail.at < self.since:
            return False
        if self.until and trail.at > self.until:
            return False
        if self.failed and not _failed(trail):
            return False
        return not self.door or self._is_door(trail)

    def _is_door(self, trail: Trail) -> bool:
        door = trail.door
        return self.door in (str(door), f"{door.namespace}/{door.name}", door.name, door.url)

    def matches_rendered(self, entry: Mapping[str, Any]) -> bool:
        """The same for a trail that was read back from disk as JSON data."""
        event, door = entry["event"], entry["door"]
        moment = datetime.fromisoformat(entry["time"])
        names = (door["label"], f"{door['namespace']}/{door['name']}", door["name"], door["url"])
        attributes = self.attributes or {}
        return (
            (not self.id or event.get("id") == self.id)
            and (not self.type or fnmatchcase(str(event.get("type")), self.type))
            and (not self.source or fnmatchcase(str(event.get("source")), self.source))
            and all(
                fnmatchcase(canonical(event.get(name, "")), pattern)
                for name, pattern in attributes.items()
            )
            and (self.since is None or moment >= self.since)
            and (self.until is None or moment <= self.until)
            and (not self.failed or _failed_rendered(entry))
            and (not self.door or self.door in names)
        )


def _failed(trail: Trail) -> bool:
    return bool(trail.refused) or any(
        step.kind in ("dead-letter", "dropped") for step in trail.steps
    )


def _failed_rendered(entry: Mapping[str, Any]) -> bool:
    outcomes = {subscriber["outcome"] for subscriber in entry["subscribers"]}
    return bool(entry.get("refused")) or bool(outcomes & {"dead-lettered", "dropped"})
