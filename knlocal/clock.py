"""Time, injected. Nothing else in knlocal reads a clock or sleeps.

`SystemClock` is real time. `VirtualClock` stands still until a test advances it; timers then fire
in order of their due time, and the event loop settles between two of them. `TravelClock` flows like
real time and can be advanced as well.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any


class Timer:
    """A callback that is due at a moment. `cancel` is idempotent."""

    __slots__ = ("_cancel", "callback", "cancelled", "due")

    def __init__(self, due: float, callback: Callable[[], object]) -> None:
        self.due = due
        self.callback = callback
        self.cancelled = False
        self._cancel: Callable[[], object] | None = None

    def cancel(self) -> None:
        self.cancelled = True
        if self._cancel is not None:
            self._cancel()
            self._cancel = None


class Clock(ABC):
    """What everything that waits or dates something is given."""

    @abstractmethod
    def now(self) -> datetime:
        """The wall time, aware, in UTC."""

    @abstractmethod
    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean something."""

    @abstractmethod
    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call `callback(*args)` on the event loop after `seconds` (at once when not positive)."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`; not positive means: let others run once."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        timer = self.call_later(seconds, wake)
        try:
            await woken
        finally:
            timer.cancel()

    def timeout(self, seconds: float | None) -> Deadline:
        """`async with clock.timeout(5):` raises TimeoutError when the block takes longer.

        None means no deadline.
        """
        return Deadline(self, seconds)

    async def wait_for(self, awaitable: Awaitable[Any], seconds: float | None) -> Any:
        """The result of `awaitable`, or TimeoutError after `seconds`."""
        async with self.timeout(seconds):
            return await awaitable


class Deadline:
    """The context manager behind `Clock.timeout`: cancels the task, then says TimeoutError."""

    def __init__(self, clock: Clock, seconds: float | None) -> None:
        self._clock = clock
        self._seconds = seconds
        self._timer: Timer | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self.expired = False

    async def __aenter__(self) -> Deadline:
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("a deadline needs a task")
        self._cancelling = self._task.cancelling()
        if self._seconds is not None:
            self._timer = self._clock.call_later(self._seconds, self._expire)
        return self

    def _expire(self) -> None:
        if self._task is not None and not self.expired:
            self.expired = True
            self._task.cancel()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        task, self._task = self._task, None
        # Someone else may have cancelled the task at the same moment: theirs must go through.
        if (
            self.expired
            and task is not None
            and task.uncancel() <= self._cancelling
            and exc_type is asyncio.CancelledError
        ):
            raise TimeoutError from exc


class SystemClock(Clock):
    """Real time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Timer:
        loop = asyncio.get_running_loop()
        seconds = max(0.0, seconds)
        timer = Timer(self.monotonic() + seconds, lambda: callback(*args))
        timer._cancel = loop.call_later(seconds, timer.callback).cancel
        return timer


class VirtualClock(Clock):
    """Time that moves only when told to, for tests."""

    #: How often the loop may run between two timers before it counts as settled.
    SETTLE_ROUNDS = 50

    def __init__(self, start: datetime | None = None) -> None:
        self._start = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._elapsed = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, Timer]] = []
        #: Called between two timers; a daemon under test puts "wait until idle" here.
        self.settle: Callable[[], Awaitable[None]] = self._yield_to_loop

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Timer:
        timer = Timer(self._elapsed + max(0.0, seconds), lambda: callback(*args))
        heapq.heappush(self._timers, (timer.due, next(self._order), timer))
        return timer

    def next_due(self) -> float | None:
        """Seconds until the next timer, or None when there is none."""
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0][0] - self._elapsed if self._timers else None

    async def advance(self, seconds: float) -> None:
        """Move time on by `seconds`, firing each timer that falls due, at its own moment."""
        await self.settle()
        end = self._elapsed + seconds
        while (wait := self.next_due()) is not None and self._elapsed + wait <= end:
            due, _, timer = heapq.heappop(self._timers)
            self._elapsed = max(self._elapsed, due)
            timer.callback()
            await self.settle()
        self._elapsed = end
        await self.settle()

    async def _yield_to_loop(self) -> None:
        for _ in range(self.SETTLE_ROUNDS):
            await asyncio.sleep(0)


class TravelClock(VirtualClock):
    """Time that flows, and jumps when told to: for tests against programs that keep real time."""

    def __init__(self, start: datetime | None = None) -> None:
        super().__init__(start)
        self._anchor = time.monotonic()
        self._travelling = False
        self._wake: asyncio.TimerHandle | None = None

    def monotonic(self) -> float:
        flown = 0.0 if self._travelling else time.monotonic() - self._anchor
        return self._elapsed + flown

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self.monotonic())

    def call_later(self, seconds: float, callback: Callable[..., object], *args: Any) -> Timer:
        if not self._travelling:
            self._catch_up()
        timer = super().call_later(seconds, callback, *args)
        self._arm()
        return timer

    async def advance(self, seconds: float) -> None:
        self._catch_up()
        self._travelling = True
        try:
            await super().advance(seconds)
        finally:
            self._travelling = False
            self._anchor = time.monotonic()
            self._arm()

    def _catch_up(self) -> None:
        self._elapsed = self.monotonic()
        self._anchor = time.monotonic()

    def _arm(self) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        wait = self.next_due()
        if wait is not None and not self._travelling:
            self._wake = asyncio.get_running_loop().call_later(max(0.0, wait), self._tick)

    def _tick(self) -> None:
        if self._travelling:
            return
        self._catch_up()
        while (wait := self.next_due()) is not None and wait <= 0:
            heapq.heappop(self._timers)[2].callback()
        self._arm()
