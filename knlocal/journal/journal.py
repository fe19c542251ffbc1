"""The journal: trails in a ring, found by event id, saved in the background, followed live."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from knlocal.clock import Clock, Timer
from knlocal.events import Event
from knlocal.journal.disk import JournalFile, Row
from knlocal.journal.selection import Selection
from knlocal.journal.trail import ENDS, Considered, Door, Step, Trail

log = logging.getLogger(__name__)

Listener = Callable[[Trail, Step | None], object]
"""Called when an event came to a door (Step None) and at each step after."""


#: Seconds after which a tail that waits for outcomes shows an event without one.
PATIENCE_SECONDS = 1.0


class Tail:
    """Events as they come, as JSON data: an asynchronous iterator, to be closed (or `with`)."""

    def __init__(
        self, journal: Journal, selection: Selection, outcomes: bool, backlog: int
    ) -> None:
        self._selection = selection
        self._outcomes = outcomes
        self._backlog = backlog
        self._clock = journal.clock
        self._pending: dict[int, Timer] = {}
        self._waiting: deque[Trail] = deque()
        self._arrived = asyncio.Event()
        self._missed = 0
        self._closed = False
        self._stop = journal.listen(self._note)

    def __enter__(self) -> Tail:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> Tail:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        entry = self._waiting.popleft().to_json()
        if self._missed:
            entry["missed"], self._missed = self._missed, 0
        return entry

    def close(self) -> None:
        """End it; what has arrived can still be read."""
        if not self._closed:
            self._closed = True
            self._stop()
            for timer in self._pending.values():
                timer.cancel()
            self._arrived.set()

    def _note(self, trail: Trail, step: Step | None) -> None:
        if not self._outcomes:
            if step is None:
                self._show(trail)
        elif not trail.pending:
            if step is None or step.kind in ENDS:
                timer = self._pending.pop(trail.seq, None)
                if timer is not None:
                    timer.cancel()
                self._show(trail)
        elif step is None and len(self._pending) < self._backlog:
            self._pending[trail.seq] = self._clock.call_later(PATIENCE_SECONDS, self._show, trail)

    def _show(self, trail: Trail) -> None:
        if self._selection.matches(trail):
            if len(self._waiting) >= self._backlog:
                self._waiting.popleft()
                self._missed += 1
            self._waiting.append(trail)
            self._arrived.set()


class Journal:
    """Writing costs a few dictionary and list operations; all rendering waits for a reader.

    Under a load that outruns the saving (`save_batch` trails each `SAVE_SECONDS`), the oldest
    trails leave the ring unsaved; `unsaved` counts them.
    """

    SAVE_SECONDS = 0.1

    def __init__(
        self,
        clock: Clock,
        path: Path | None = None,
        *,
        max_trails: int = 20_000,
        max_bytes: int = 64 * 1024 * 1024,
        max_saved: int = 100_000,
        save_batch: int = 200,
    ) -> None:
        self.clock = clock
        self.unsaved = 0
        self._max_trails = max_trails
        self._max_bytes = max_bytes
        self._save_batch = save_batch
        self._file = JournalFile(path, max_saved) if path else None
        self._seq = self._file.last_seq() if self._file else 0
        self._trails: deque[Trail] = deque()
        self._bytes = 0
        #: Nearly every id comes once: a container is made for the others only.
        self._by_id: dict[str, Trail | deque[Trail]] = {}
        self._listeners: list[Listener] = []
        self._changed: dict[int, Trail] = {}
        self._unsaved_work = asyncio.Event()
        self._saver: asyncio.Task[None] | None = None

    # -- writing ------------------------------------------------------------------------------

    def open(
        self,
        door: Door,
        event: Event,
        considered: Sequence[Considered],
        matched: Sequence[Considered],
        *,
        at: datetime | None = None,
        parent: Trail | None = None,
        via: str = "",
        refused: str = "",
    ) -> Trail:
        """An event came to a door (now, or `at`): who was considered, who is to get it (all at
        once, or nobody when the door `refused` it)."""
        self._seq = seq = self._seq + 1
        at = at or self.clock.now()
        trail = Trail(seq, at, door, event, considered, matched, parent, via, refused)
        trails = self._trails
        trails.append(trail)
        self._bytes += trail.size
        event_id = event.id
        if event_id in self._by_id:
            self._index_another(event_id, trail)
        else:
            self._by_id[event_id] = trail
        if len(trails) > self._max_trails or self._bytes > self._max_bytes:
            self._forget_oldest()
        if self._file is not None:
            self._keep(trail)
        for listener in self._listeners:
            listener(trail, None)
        return trail

    def step(self, trail: Trail, step: Step) -> None:
        """Something happened to an event on its way."""
        trail.steps += (step,)
        if self._file is not None:
            self._keep(trail)
        for listener in self._listeners:
            listener(trail, step)

    # -- reading ------------------------------------------------------------------------------

    def find(self, event_id: str) -> list[Trail]:
        """The trails in memory of events with this id, the oldest first."""
        found = self._by_id.get(event_id, ())
        return [found] if isinstance(found, Trail) else list(found)

    def trails(self) -> list[Trail]:
        """All trails in memory, the oldest first."""
        return list(self._trails)

    def explain(self, event_id: str) -> list[dict[str, Any]]:
        """Everything known about events with this id, and about the replies to them (`replies`),
        as JSON data; empty when the id was never seen, or is forgotten."""
        return [self._with_replies(entry, set()) for entry in self._entries(event_id)]

    def recent(self, selection: Selection = Selection(), limit: int = 100) -> list[dict[str, Any]]:
        """The newest `limit` trails that match, the oldest of them first."""
        found: list[dict[str, Any]] = []
        oldest = self._seq + 1
        for trail in reversed(self._trails):
            oldest = trail.seq
            if len(found) == limit:
                return found[::-1]
            if selection.matches(trail):
                found.append(trail.to_json())
        if self._file is not None:
            for entry in self._file.newest(oldest):
                if len(found) == limit:
                    break
                if selection.matches_rendered(entry):
                    found.append(entry)
        return found[::-1]

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` at each event and step, on the event loop; returns what ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def tail(
        self, selection: Selection = Selection(), *, outcomes: bool = False, backlog: int = 10_000
    ) -> Tail:
        """Matching events from now on; close it after use. With `outcomes`, each is shown when it
        has been dealt with, and one for which that takes a while before, too.

        A reader who falls more than `backlog` behind loses the oldest; the next entry then says how
        many, in `missed`.
        """
        return Tail(self, selection, outcomes, backlog)

    def _entries(self, event_id: str) -> list[dict[str, Any]]:
        live = {trail.seq: trail.to_json() for trail in self.find(event_id)}
        saved = self._file.by_id(event_id) if self._file else []
        merged = {entry["seq"]: entry for entry in saved} | live
        return [merged[seq] for seq in sorted(merged)]

    def _with_replies(self, entry: dict[str, Any], seen: set[int]) -> dict[str, Any]:
        seen.add(entry["seq"])
        for subscriber in entry["subscribers"]:
            reply = subscriber.get("reply")
            if reply is None:
                continue
            trails = [
                self._with_replies(child, seen)
                for child in self._entries(reply["id"])
                if child.get("parent") == entry["seq"]
                and child.get("via") == subscriber["name"]
                and child["seq"] not in seen
            ]
            if trails:
                reply["trails"] = trails
        return entry

    def _index_another(self, event_id: str, trail: Trail) -> None:
        known = self._by_id[event_id]
        if isinstance(known, deque):
            known.append(trail)
        else:
            self._by_id[event_id] = deque((known, trail))

    # -- bounds -------------------------------------------------------------------------------

    def _forget_oldest(self) -> None:
        while self._trails and (
            len(self._trails) > self._max_trails or self._bytes > self._max_bytes
        ):
            trail = self._trails.popleft()
            self._bytes -= trail.size
            event_id = trail.event.id
            same = self._by_id[event_id]
            if isinstance(same, deque):
                same.popleft()
            if same is trail or not same:
                del self._by_id[event_id]
            if self._changed.pop(trail.seq, None) is not None and trail.saved < 0:
                self.unsaved += 1

    # -- saving -------------------------------------------------------------------------------

    async def start(self) -> None:
        if self._file is not None and self._saver is None:
            self._saver = asyncio.create_task(self._save_for_ever(), name="journal")

    async def stop(self) -> None:
        """Save what is not saved, and let go of the file."""
        if self._saver is not None:
            self._saver.cancel()
            await asyncio.wait([self._saver], timeout=5)
            self._saver = None
        if self._file is not None:
            while self._changed:
                self._file.write(self._batch())
            self._file.close()
            self._file = None

    async def flush(self) -> None:
        """Save everything now."""
        while self._file is not None and self._changed:
            await asyncio.to_thread(self._file.write, self._batch())

    async def _save_for_ever(self) -> None:
        assert self._file is not None
        while True:
            # Nothing to save, nothing ticks: an idle daemon sleeps, and virtual time leaps.
            await self._unsaved_work.wait()
            await self.clock.sleep(self.SAVE_SECONDS)
            if len(self._changed) <= self._save_batch:
                self._unsaved_work.clear()
            try:
                await asyncio.to_thread(self._file.write, self._batch())
            except Exception:
                log.exception("cannot save the journal")

    def _keep(self, trail: Trail) -> None:
        if not self._changed:
            self._unsaved_work.set()
        self._changed[trail.seq] = trail

    def _batch(self) -> list[Row]:
        """Rendered here, on the event loop's thread, where the trails do not change meanwhile."""
        rows = []
        for seq in list(islice(self._changed, self._save_batch)):
            trail = self._changed.pop(seq)
            trail.saved = len(trail.steps)
            body = trail.to_bytes()
            rows.append(Row(seq, trail.at.timestamp(), trail.event.id, body))
        return rows
