"""IntegrationSource: the timer, which needs no container here; AWS sources need their images.

Events of the timer as Knative's timer image sends them: type `dev.knative.eventing.timer`, source
`dev.knative.eventing.timer-source`, subject `timer-source`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from knlocal.control.conditions import Conditions
from knlocal.control.controller import Requeue
from knlocal.control.destinations import Destinations
from knlocal.resources.base import GroupKind, Key, Obj, key_of, spec_of
from knlocal.sources.base import SourceController
from knlocal.sources.emit import Emitter, overrides
from knlocal.store.store import Store

TIMER_TYPE = "dev.knative.eventing.timer"
TIMER_SOURCE = "dev.knative.eventing.timer-source"


class IntegrationSourceController(SourceController):
    """Runs one task per timer; its messages go out in order."""

    kind = GroupKind("sources.knative.dev", "IntegrationSource")
    conditions = ("SinkProvided", "ContainerSourceReady")

    def __init__(self, store: Store, destinations: Destinations, emitter: Emitter) -> None:
        super().__init__(store, destinations, emitter)
        self._running: dict[Key, tuple[tuple[Any, ...], asyncio.Task[None]]] = {}

    def event_types(self, obj: Obj) -> list[dict[str, str]]:
        return [{"type": TIMER_TYPE, "source": TIMER_SOURCE}] if "timer" in spec_of(obj) else []

    async def run(self, obj: Obj, sink: str, conditions: Conditions) -> Requeue | None:
        key, spec = key_of(obj), spec_of(obj)
        timer = spec.get("timer")
        if timer is None:
            conditions.false(
                "ContainerSourceReady", "NotSimulated",
                "knlocal runs the timer itself; the AWS sources need Knative's images: "
                "run one as a ContainerSource",
            )  # fmt: skip
            return None
        wanted = (timer, overrides(spec), sink)
        known = self._running.get(key)
        if known is None or known[0] != wanted:
            await self.halt(key)
            task = asyncio.create_task(
                self._tick(key, timer, overrides(spec), sink), name=f"timer {key.name}"
            )
            self._running[key] = (wanted, task)
        conditions.true("ContainerSourceReady")
        return None

    async def halt(self, key: Key) -> None:
        known = self._running.pop(key, None)
        if known is not None:
            known[1].cancel()
            await asyncio.wait([known[1]], timeout=5)

    async def stop(self) -> None:
        for key in list(self._running):
            await self.halt(key)

    async def _tick(
        self, key: Key, timer: Mapping[str, Any], extensions: dict[str, str], sink: str
    ) -> None:
        left = timer.get("repeatCount") or None
        while left is None or left > 0:
            await self.clock.sleep(timer.get("period", 1000) / 1000)
            event = self.emitter.event(
                TIMER_TYPE, TIMER_SOURCE, str(timer.get("message", "")).encode(),
                timer.get("contentType") or "text/plain",
                subject="timer-source", extensions=extensions,
            )  # fmt: skip
            await self.emitter.send(event, sink, key.namespace)
            left = None if left is None else left - 1
