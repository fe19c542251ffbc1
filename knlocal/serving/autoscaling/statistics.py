"""What a revision's requests do, measured by the request path itself.

Knative scrapes queue-proxies and adds what activators report; here every request passes through
one process, which therefore knows the exact concurrency at any moment.
"""

from __future__ import annotations

from collections.abc import Callable

from knlocal.serving.autoscaling.windows import TimeWindow, make_window


class RevisionStatistics:
    """Concurrency (as an integral over time) and arrivals of one revision, second by second.

    `arrived` and `left` are on the path of each request: they only add numbers. A revision that
    nobody asks for costs nothing.
    """

    __slots__ = (
        "_area",
        "_count",
        "_now",
        "_second",
        "_since",
        "concurrency",
        "panic_concurrency",
        "panic_rps",
        "stable_concurrency",
        "stable_rps",
    )

    def __init__(
        self,
        now: Callable[[], float],
        stable_window: float = 60.0,
        panic_window: float = 6.0,
        algorithm: str = "linear",
    ) -> None:
        self._now = now
        self.concurrency = 0
        """Requests here now, waiting ones included."""
        self._area = 0.0
        self._count = 0
        self._since = now()
        self._second = int(self._since)
        self.stable_concurrency: TimeWindow
        self.resize(stable_window, panic_window, algorithm)

    def resize(self, stable_window: float, panic_window: float, algorithm: str = "linear") -> None:
        """Measure over other windows, from now on."""
        self.stable_concurrency = make_window(algorithm, stable_window)
        self.panic_concurrency = make_window(algorithm, panic_window)
        self.stable_rps = make_window(algorithm, stable_window)
        self.panic_rps = make_window(algorithm, panic_window)

    def arrived(self) -> None:
        now = self._now()
        if int(now) != self._second:
            self._turn(now)
        self._area += self.concurrency * (now - self._since)
        self._since = now
        self.concurrency += 1
        self._count += 1

    def left(self) -> None:
        now = self._now()
        if int(now) != self._second:
            self._turn(now)
        self._area += self.concurrency * (now - self._since)
        self._since = now
        self.concurrency -= 1

    def _turn(self, now: float) -> None:
        """Close the seconds that passed. While nobody was there, none of them is written."""
        second = int(now)
        self._area += self.concurrency * (self._second + 1 - self._since)
        self._write(self._area, self._count)
        # After a long silence only the last seconds can matter; each is as the one before.
        first = max(self._second + 1, second - self.stable_concurrency.seconds)
        if self.concurrency:
            for passed in range(first, second):
                self._second = passed
                self._write(float(self.concurrency), 0)
        self._second, self._since = second, float(second)
        self._area, self._count = 0.0, 0

    def _write(self, concurrency: float, count: int) -> None:
        second = self._second
        self.stable_concurrency.record(second, concurrency)
        self.panic_concurrency.record(second, concurrency)
        self.stable_rps.record(second, count)
        self.panic_rps.record(second, count)

    def tick(self) -> None:
        """Bring the record up to now: for a revision that has pods, silence is a measurement."""
        now = self._now()
        second = int(now)
        if second == self._second:
            return
        self._turn(now)
        if self.concurrency == 0:
            for window in self._windows():
                window.record(second - 1, 0.0)

    def averages(self, metric: str) -> tuple[float, float]:
        """(stable, panic) averages of "concurrency" or "rps" at this moment.

        The running second counts with what is known of it, so that the very first request is
        seen at once.
        """
        now = self._now()
        if int(now) != self._second:
            self.tick()
        if metric == "rps":
            return (
                self._with_running(self.stable_rps, self._count),
                self._with_running(self.panic_rps, self._count),
            )
        passed = now - self._second
        area = self._area + self.concurrency * (now - self._since)
        running = area / passed if passed > 0 else 0.0
        if self.panic_concurrency.average(self._second) == 0:
            # Out of silence: what is here now says more than how short a time it has been.
            running = max(running, float(self.concurrency))
        return (
            self._with_running(self.stable_concurrency, running),
            self._with_running(self.panic_concurrency, running),
        )

    def _with_running(self, window: TimeWindow, value: float) -> float:
        average = window.average(self._second)
        if value <= average:  # the second is young: it must not hide what the others show
            return average
        return window.average_with(self._second, value)

    def _windows(self) -> tuple[TimeWindow, ...]:
        return (self.stable_concurrency, self.panic_concurrency, self.stable_rps, self.panic_rps)
