"""Averages over windows, and what requests do to them."""

import pytest

from knlocal.serving.autoscaling.statistics import RevisionStatistics
from knlocal.serving.autoscaling.windows import MaxWindow, TimeWindow, WeightedTimeWindow


def test_the_mean_runs_over_what_was_filled_so_far() -> None:
    window = TimeWindow(60)
    assert window.average(0) == 0
    window.record(0, 10)
    assert window.average(0) == 10
    window.record(1, 0)
    assert window.average(1) == 5
    window.record(1, 20)
    assert window.average(1) == 15


def test_old_seconds_leave_the_window() -> None:
    window = TimeWindow(3)
    for second, value in enumerate((9, 0, 3, 6)):
        window.record(second, value)
    assert window.average(3) == 3
    assert window.average(4) == 4.5  # second 1 is out, second 4 not measured yet
    assert window.average(5) == 6
    assert window.average(6) == 0


def test_a_silence_as_long_as_the_window_starts_it_anew() -> None:
    window = TimeWindow(5)
    window.record(0, 100)
    window.record(50, 7)
    assert window.average(50) == 7


def test_the_weighted_mean_trusts_recent_seconds() -> None:
    window = WeightedTimeWindow(60)
    for second in range(60):
        window.record(second, 0)
    window.record(60, 100)
    assert window.average(60) == pytest.approx(20, abs=0.1)
    for second in range(61, 90):
        window.record(second, 100)
    assert window.average(89) > 99


def test_the_largest_recent_value_is_remembered() -> None:
    window = MaxWindow(10)
    values = ((0, 3), (2, 5), (4, 1), (11, 2), (13, 0), (30, 0))
    assert [window.record(t, v) for t, v in values] == [
        3, 5, 5, 5, 2, 0,
    ]  # fmt: skip


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_concurrency_is_an_integral_over_time() -> None:
    time = Time()
    seen = RevisionStatistics(time)
    seen.arrived()
    time.now = 0.5
    seen.left()
    time.now = 1.0
    seen.tick()
    assert seen.averages("concurrency") == (0.5, 0.5)
    for _ in range(4):
        seen.arrived()
    time.now = 3.0
    seen.tick()
    assert seen.averages("concurrency")[0] == pytest.approx((0.5 + 4 + 4) / 3)


def test_the_first_request_is_seen_at_once() -> None:
    time = Time()
    seen = RevisionStatistics(time)
    time.now = 1000.3
    seen.arrived()
    assert seen.averages("concurrency") == (1, 1)
    assert seen.averages("rps") == (1, 1)


def test_requests_are_counted_by_the_second() -> None:
    time = Time()
    seen = RevisionStatistics(time)
    for second in range(10):
        for _ in range(5):
            seen.arrived()
            seen.left()
        time.now = second + 1.0
    seen.tick()
    assert seen.averages("rps") == (5, 5)


def test_a_long_request_counts_for_all_of_its_seconds() -> None:
    time = Time()
    seen = RevisionStatistics(time)
    seen.arrived()
    time.now = 100.0
    assert seen.averages("concurrency") == (1, 1)
    seen.left()
    for second in range(101, 161):
        time.now = float(second)
        seen.tick()
    assert seen.averages("concurrency") == (0, 0)
