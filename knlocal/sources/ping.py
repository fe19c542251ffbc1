"""PingSource: an event whenever a cron line is due (knative.dev/eventing pkg/adapter/mtping)."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from datetime import datetime

from knlocal.clock import Timer
from knlocal.control.conditions import Conditions
from knlocal.control.controller import Requeue
from knlocal.control.destinations import Destinations
from knlocal.resources.base import GroupKind, Key, Obj, key_of, spec_of, status_of
from knlocal.sources.base import SourceController
from knlocal.sources.emit import Emitter, overrides
from knlocal.sources.schedule import Schedule, ScheduleError
from knlocal.store.store import Store

EVENT_TYPE = "dev.knative.sources.ping"
#: Seconds slept at most before looking at the wall clock again: a machine that was suspended, or
#: whose clock was set, is late or early by no more than this.
LOOK_AGAIN = 600.0


@dataclass(slots=True)
class _Running:
    """What is planned for one source; `wanted` tells when a change means planning anew."""

    wanted: tuple[object, ...]
    schedule: Schedule
    due: datetime | None = None
    timer: Timer | None = None


class PingSourceController(SourceController):
    """Plans each source's next firing on the clock; sends are tasks, so a slow sink delays none."""

    kind = GroupKind("sources.knative.dev", "PingSource")

    def __init__(self, store: Store, destinations: Destinations, emitter: Emitter) -> None:
        super().__init__(store, destinations, emitter)
        self._running: dict[Key, _Running] = {}
        self._sending: set[asyncio.Task[bool]] = set()

    def event_types(self, obj: Obj) -> list[dict[str, str]]:
        return [{"type": EVENT_TYPE, "source": _source(obj)}]

    async def run(self, obj: Obj, sink: str, conditions: Conditions) -> Requeue | None:
        spec = spec_of(obj)
        key = key_of(obj)
        wanted = (spec.get("schedule", "* * * * *"), spec.get("timezone", ""))
        known = self._running.get(key)
        try:
            if known is None or known.wanted != wanted:
                await self.halt(key)
                self._running[key] = _Running(wanted, Schedule(*wanted))
                self._plan(key)
        except ScheduleError as error:
            conditions.false("Deployed", "InvalidSchedule", str(error))
            return None
        if self._running[key].due is None:
            conditions.true("Deployed", "NeverDue", "the schedule names no moment that ever comes")
        else:
            conditions.true("Deployed")
        return None

    async def halt(self, key: Key) -> None:
        running = self._running.pop(key, None)
        if running is not None and running.timer is not None:
            running.timer.cancel()

    async def stop(self) -> None:
        for key in list(self._running):
            await self.halt(key)
        for task in self._sending:
            task.cancel()
        if self._sending:
            await asyncio.wait(self._sending, timeout=5)

    def _plan(self, key: Key) -> None:
        running = self._running[key]
        # A timer may ring a moment early: what was due then must not be due twice.
        after = max(self.clock.now(), running.due) if running.due else self.clock.now()
        running.due = running.schedule.next_after(after)
        self._sleep(key, running)

    def _sleep(self, key: Key, running: _Running) -> None:
        running.timer = None
        if running.due is not None:
            left = (running.due - self.clock.now()).total_seconds()
            running.timer = self.clock.call_later(min(left, LOOK_AGAIN), self._wake, key)

    def _wake(self, key: Key) -> None:
        running = self._running[key]
        if running.due is not None and (running.due - self.clock.now()).total_seconds() > 0.5:
            self._sleep(key, running)
        else:
            self._fire(key)
            self._plan(key)

    def _fire(self, key: Key) -> None:
        obj = self.store.find_key(key)
        sink = status_of(obj or {}).get("sinkUri")
        if obj is None or not sink:
            return
        spec = spec_of(obj)
        event = self.emitter.event(
            EVENT_TYPE, _source(obj), _data(spec), spec.get("contentType") or "",
            extensions=overrides(spec),
        )  # fmt: skip
        task = asyncio.create_task(
            self.emitter.send(event, sink, key), name=f"ping {key.namespace}/{key.name}"
        )
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)


def _source(obj: Obj) -> str:
    metadata = obj["metadata"]
    return f"/apis/v1/namespaces/{metadata['namespace']}/pingsources/{metadata['name']}"


def _data(spec: Obj) -> bytes | None:
    if spec.get("dataBase64"):
        return base64.b64decode(spec["dataBase64"])
    return str(spec["data"]).encode() if spec.get("data") else None
