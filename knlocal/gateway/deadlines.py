"""Many deadlines for the price of one timer.

Every request has deadlines of its revision's few durations, and nearly all are taken back. A timer
each would cost more than parsing the request; deadlines of one duration fall due in the order in
which they were set, so a dictionary per duration and one timer for its oldest entry are enough.
"""

from __future__ import annotations

from collections.abc import Callable

from knlocal.clock import Clock, Timer

Expire = Callable[[], object]


class Deadlines:
    """Deadlines of one duration. `add` returns what `cancel` takes."""

    __slots__ = ("_clock", "_entries", "_last", "_seconds", "_timer")

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._entries: dict[int, tuple[float, Expire]] = {}
        self._last = 0
        self._timer: Timer | None = None

    def add(self, expire: Expire) -> int:
        """Call `expire()` after the duration, unless cancelled."""
        self._last = token = self._last + 1
        self._entries[token] = (self._clock.monotonic() + self._seconds, expire)
        if self._timer is None:
            self._timer = self._clock.call_later(self._seconds, self._fire)
        return token

    def cancel(self, token: int) -> None:
        """Take a deadline back; nothing happens when it is over."""
        self._entries.pop(token, None)

    def close(self) -> None:
        """Forget all."""
        self._entries.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        due = []
        for token, (when, expire) in self._entries.items():
            if when > now + 1e-9:
                self._timer = self._clock.call_later(when - now, self._fire)
                break
            due.append((token, expire))
        for token, expire in due:
            if self._entries.pop(token, None) is not None:
                expire()


class DeadlineBook:
    """The `Deadlines` of each duration in use."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_seconds: dict[float, Deadlines] = {}

    def of(self, seconds: float) -> Deadlines:
        found = self._by_seconds.get(seconds)
        if found is None:
            # Durations come from few settings; a caller that computes them must not grow this.
            if len(self._by_seconds) >= 256:
                self._forget_unused()
            found = self._by_seconds[seconds] = Deadlines(self._clock, seconds)
        return found

    def _forget_unused(self) -> None:
        for seconds, deadlines in list(self._by_seconds.items()):
            if not deadlines._entries:
                deadlines.close()
                del self._by_seconds[seconds]

    def close(self) -> None:
        for deadlines in self._by_seconds.values():
            deadlines.close()
