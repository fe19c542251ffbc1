"""What happens to containers, without gaps and without repeats.

The engine's event stream breaks when the engine restarts. So each connection begins with a look at
all containers, and the differences from what was known come first. A container only ever moves on
(created, running, exited, removed), because a restart makes a new container; only a sandbox may be
started again.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from knlocal.runtime import labels
from knlocal.runtime.api import ContainerEvent, RuntimeFailure
from knlocal.runtime.docker_http import Engine
from knlocal.runtime.realtime import CLOCK

#: Seconds between two attempts to reach an engine that went away.
RECONNECT = 0.5

_CREATED, _RUNNING, _EXITED, _REMOVED = range(4)
_RANKS = {"running": _RUNNING, "paused": _RUNNING, "restarting": _RUNNING, "created": _CREATED}
_ACTIONS = {"start": _RUNNING, "die": _EXITED, "destroy": _REMOVED}
_WORDS = {_RUNNING: "started", _EXITED: "exited", _REMOVED: "removed"}
_PAUSES = {"pause": "paused", "unpause": "unpaused"}


@dataclass
class _Known:
    tag: labels.Tag
    rank: int
    paused: bool = False


class EventFeed:
    """One reader of events. `is_current(tag, container_id)` says whether a container still stands
    for its name in the pod, rather than being an older attempt's remains."""

    def __init__(
        self, engine: Engine, project: str, is_current: Callable[[labels.Tag, str], bool]
    ) -> None:
        self._engine = engine
        self._project = project
        self._is_current = is_current
        self._known: dict[str, _Known] | None = None
        self._gone: deque[str] = deque(maxlen=1000)

    async def read(self) -> AsyncIterator[ContainerEvent]:
        while True:
            try:
                async for event in self._connected():
                    yield event
            except (RuntimeFailure, OSError, asyncio.IncompleteReadError, ValueError):
                pass  # the engine went away; others report that, this feed waits for it
            await CLOCK.sleep(RECONNECT)

    async def _connected(self) -> AsyncIterator[ContainerEvent]:
        wanted = {
            "type": ["container"],
            "label": [f"{labels.PROJECT}={self._project}"],
            "event": [*_ACTIONS, *_PAUSES, "oom"],
        }
        async with self._engine.stream("GET", "/events", params={"filters": wanted}) as body:
            for event in await self._differences():
                yield event
            while line := await body.readline():
                if line.strip() and (found := self._take(json.loads(line))):
                    yield found

    async def _differences(self) -> list[ContainerEvent]:
        """Compare all containers with what was known. Of the first look only programs' ends are
        told: whoever has just begun to listen may have seen them run a moment ago."""
        listed = await self._engine.get(
            "/containers/json",
            all=True,
            filters={"label": [f"{labels.PROJECT}={self._project}"]},
        )
        first, self._known = self._known is None, self._known or {}
        events = []
        seen = set()
        for one in listed:
            tag = labels.read(one.get("Labels") or {})
            if tag is None:
                continue
            seen.add(one["Id"])
            rank = _RANKS.get(str(one.get("State")), _EXITED)
            moved = self._move(one["Id"], tag, rank)
            paused = self._pause(one["Id"], tag, one.get("State") == "paused")
            if first:
                paused = None
                if rank != _EXITED or tag.role == "sandbox":
                    moved = None
            events += [event for event in (moved, paused) if event is not None]
        for gone in self._known.keys() - seen:
            if event := self._move(gone, self._known[gone].tag, _REMOVED):
                events.append(event)
        return events

    def _take(self, word: dict[str, Any]) -> ContainerEvent | None:
        actor = word.get("Actor") or {}
        container_id = str(actor.get("ID") or word.get("id") or "")
        tag = labels.read(actor.get("Attributes") or {})
        action = str(word.get("Action") or word.get("status") or "")
        if tag is None or not container_id:
            return None
        if action == "oom":
            return ContainerEvent(tag.id, tag.container, "oom")
        if action in _PAUSES:
            return self._pause(container_id, tag, action == "pause")
        return self._move(container_id, tag, _ACTIONS[action]) if action in _ACTIONS else None

    def _move(self, container_id: str, tag: labels.Tag, rank: int) -> ContainerEvent | None:
        assert self._known is not None
        if container_id in self._gone:
            return None
        known = self._known.setdefault(container_id, _Known(tag, _CREATED))
        again = tag.role == "sandbox" and known.rank == _EXITED and rank == _RUNNING
        if rank <= known.rank and not again:
            return None
        known.rank = rank
        if rank == _REMOVED:
            del self._known[container_id]
            self._gone.append(container_id)
        if rank >= _EXITED and not self._is_current(tag, container_id):
            return None
        return ContainerEvent(tag.id, tag.container, _WORDS[rank])  # type: ignore[arg-type]

    def _pause(self, container_id: str, tag: labels.Tag, paused: bool) -> ContainerEvent | None:
        known = (self._known or {}).get(container_id)
        if known is None or known.paused == paused:
            return None
        known.paused = paused
        return ContainerEvent(tag.id, tag.container, "paused" if paused else "unpaused")
