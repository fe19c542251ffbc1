"""Averages over time windows, in buckets of one second.

Mirrors knative.dev/serving/pkg/autoscaler/aggregation: the mean runs over the part of the window
that has been filled since the first record, and a window without any record is an average of 0.
"""

from __future__ import annotations

import math

#: Knative's constants: what share of the weights must lie inside the window, and the least decay.
_WEIGHT_PRECISION = 0.9999
_LEAST_COEFFICIENT = 0.2


class TimeWindow:
    """A mean over the last `seconds` whole seconds (behaviour D15: "linear")."""

    __slots__ = ("_buckets", "_first", "_last", "_total", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = max(1, math.ceil(seconds))
        self._buckets: list[float] = []  # made with the first record: most revisions sleep
        self._first = 0
        self._last = -1
        self._total = 0.0

    @property
    def empty(self) -> bool:
        return self._last < 0

    def record(self, second: int, value: float) -> None:
        """Add `value` to the bucket of `second`. After a silence as long as the window itself
        everything starts anew, as if this were the first record."""
        if self.empty or second - self._last >= self.seconds:
            self._buckets = [0.0] * self.seconds
            self._first = self._last = second
            self._total = 0.0
        elif second > self._last:
            self._forget(second)
        elif second <= self._last - self.seconds:
            return
        self._buckets[second % self.seconds] += value
        self._total += value

    def _forget(self, second: int) -> None:
        for passed in range(self._last + 1, second + 1):
            index = passed % self.seconds
            self._total -= self._buckets[index]
            self._buckets[index] = 0.0
        self._last = second

    def covers(self, second: int) -> bool:
        """Whether anything was recorded in the window that ends at `second`."""
        return not self.empty and second - self._last < self.seconds

    def average(self, second: int) -> float:
        """The mean at `second`; seconds after the last record count as not yet measured."""
        if not self.covers(second):
            return 0.0
        values = self._values(second)
        return round(math.fsum(values) / len(values), 6) if values else 0.0

    def average_with(self, second: int, value: float) -> float:
        """The mean as it would be if `second`, not recorded yet, had `value`."""
        if not self.covers(second):
            return value
        values = self._values(second)
        return round((math.fsum(values) + value) / (len(values) + 1), 6)

    def _values(self, second: int) -> list[float]:
        """The valid buckets, newest first."""
        oldest = max(self._first, max(second, self._last) - self.seconds + 1)
        return [self._buckets[s % self.seconds] for s in range(self._last, oldest - 1, -1)]


class WeightedTimeWindow(TimeWindow):
    """A mean that trusts recent seconds more (behaviour D15: "weighted-exponential")."""

    __slots__ = ("_coefficient",)

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self._coefficient = max(
            1 - math.pow(1 - _WEIGHT_PRECISION, 1 / self.seconds), _LEAST_COEFFICIENT
        )

    def average(self, second: int) -> float:
        if not self.covers(second):
            return 0.0
        # Seconds without a record yet weaken what came before them.
        weight = self._coefficient * (1 - self._coefficient) ** max(0, second - self._last)
        total = 0.0
        for value in self._values(second):
            total += value * weight
            weight *= 1 - self._coefficient
        return round(total, 6)

    def average_with(self, second: int, value: float) -> float:
        if not self.covers(second):
            return value
        before = self.average(second - 1)
        return round(value * self._coefficient + before * (1 - self._coefficient), 6)


def make_window(algorithm: str, seconds: float) -> TimeWindow:
    """A window for the annotation `metric-aggregation-algorithm` ("" and "linear" are the same)."""
    weighted = algorithm in ("weighted-exponential", "weightedExponential")
    return WeightedTimeWindow(seconds) if weighted else TimeWindow(seconds)


class MaxWindow:
    """The largest value of the last `seconds` (behaviour D12: scale-down-delay)."""

    __slots__ = ("_falling", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._falling: list[tuple[float, int]] = []

    def record(self, now: float, value: int) -> int:
        """Add a value and return the largest that still counts."""
        while self._falling and self._falling[-1][1] <= value:
            self._falling.pop()
        self._falling.append((now, value))
        while self._falling[0][0] <= now - self.seconds and len(self._falling) > 1:
            self._falling.pop(0)
        return self._falling[0][1]
