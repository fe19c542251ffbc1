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
    #: Knative has no other; it follows the ContainerSource that its controller makes.
    conditions = ("ContainerSourceReady",)
    sink_condition = running_condition = "ContainerSourceReady"

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
                _missing(spec),
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
            await self.emitter.send(event, sink, key)
            left = None if left is None else left - 1


def _missing(spec: Obj) -> str:
    """What a source that is not a timer would need to run here."""
    service = next((name for name in _AWS if (spec.get("aws") or {}).get(name) is not None), "")
    if not service:
        return "set spec.timer: knlocal runs no other integration source itself"
    return (
        f"spec.aws.{service} is not simulated: it needs Knative's image {_AWS[service]}, and "
        "AWS. Where both can be had, run the image as a ContainerSource"
    )


_AWS = {
    "s3": "aws-s3-source", "sqs": "aws-sqs-source", "ddbStreams": "aws-ddb-streams-source",
}  # fmt: skip
