"""Keeps controllers from holding up requests.

A burst of changes makes dozens of objects due at once. Were all of them worked on in one turn of
the event loop, whoever waits for a socket (a request on its way to a pod, the engine's answer that
a pod runs) would wait for all of them, at each of its steps. So a turn of the loop spends a bounded
time on starting work; what is left waits, the more urgent first, with a few turns for others in
between.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from weakref import WeakKeyDictionary

#: Seconds that one turn of the loop may spend before further work has to wait.
BUDGET = 0.001
#: Turns of the loop between two pieces of work that had to wait: a few microseconds when nothing
#: else happens, and enough for an answer to be read and passed on.
SPACING = 4
#: Of so many pieces of work that had to wait, one is of the least urgent: a flood of others must
#: not hold it up for good.
GENEROSITY = 8


class Urgency(enum.IntEnum):
    """What comes first when much is to do: a request may be waiting for it."""

    PODS = 0
    """Brings a pod about."""
    TRAFFIC = 1
    """Brings requests to a pod that is ready."""
    REST = 2


class Pace:
    """One per event loop; `turn` returns when a piece of work may begin."""

    def __init__(self) -> None:
        self._waiting: list[deque[asyncio.Future[None]]] = [deque() for _ in Urgency]
        self._began: float | None = None
        self._turns = 0

    async def turn(self, urgency: Urgency = Urgency.REST) -> None:
        loop = asyncio.get_running_loop()
        if not any(self._waiting) and self._has_time(loop):
            return
        place: asyncio.Future[None] = loop.create_future()
        self._waiting[urgency].append(place)
        await place

    def _has_time(self, loop: asyncio.AbstractEventLoop) -> bool:
        now = loop.time()
        if self._began is None:
            self._began = now
            loop.call_soon(self._next_turn, loop)
        return now - self._began < BUDGET

    def _next_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop has come round: every few times, one of those who wait may begin."""
        self._began = loop.time()
        self._turns += 1
        if self._turns % SPACING == 0:
            self._release()
        if any(self._waiting):
            loop.call_soon(self._next_turn, loop)
        else:
            self._began = None

    def _release(self) -> None:
        generous = self._turns // SPACING % GENEROSITY == 0
        for waiting in self._waiting[:: -1 if generous else 1]:
            while waiting:
                place = waiting.popleft()
                if not place.done():  # cancelled meanwhile
                    place.set_result(None)
                    return


_paces: WeakKeyDictionary[asyncio.AbstractEventLoop, Pace] = WeakKeyDictionary()


def pace() -> Pace:
    """The pace of the running loop."""
    loop = asyncio.get_running_loop()
    found = _paces.get(loop)
    if found is None:
        found = _paces[loop] = Pace()
    return found
