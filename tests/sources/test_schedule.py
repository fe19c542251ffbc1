"""Cron lines mean what they mean to PingSource."""

from datetime import UTC, datetime

import pytest

from knlocal.sources.schedule import Schedule, ScheduleError

MOMENT = datetime(2026, 1, 1, 12, 30, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "timezone", "due"),
    [
        ("* * * * *", "", datetime(2026, 1, 1, 12, 31, tzinfo=UTC)),
        ("* * * * */1", "", datetime(2026, 1, 1, 12, 31, tzinfo=UTC)),
        ("*/5 * * * *", "", datetime(2026, 1, 1, 12, 35, tzinfo=UTC)),
        ("*/10 * * * * *", "", datetime(2026, 1, 1, 12, 30, 20, tzinfo=UTC)),
        ("@hourly", "", datetime(2026, 1, 1, 13, tzinfo=UTC)),
        ("@daily", "", datetime(2026, 1, 2, tzinfo=UTC)),
        ("0 9 ? * MON-FRI", "", datetime(2026, 1, 2, 9, tzinfo=UTC)),
        ("0 9 * * *", "America/New_York", datetime(2026, 1, 1, 14, tzinfo=UTC)),
        ("CRON_TZ=Asia/Tokyo 0 9 * * *", "", datetime(2026, 1, 2, 0, tzinfo=UTC)),
        ("0 0 29 2 *", "", datetime(2028, 2, 29, tzinfo=UTC)),
        # Either of two restricted days will do, and */2 is a restriction to robfig/cron.
        ("0 0 */2 * MON", "", datetime(2026, 1, 3, tzinfo=UTC)),
        ("0 0 6 * */3", "", datetime(2026, 1, 3, tzinfo=UTC)),
        ("0 0 */1 * MON", "", datetime(2026, 1, 5, tzinfo=UTC)),
        ("0 0 */40 * *", "", datetime(2026, 2, 1, tzinfo=UTC)),
    ],
)
def test_the_next_moment_is_the_one_that_cron_means(line, timezone, due) -> None:
    assert Schedule(line, timezone).next_after(MOMENT) == due


@pytest.mark.parametrize("line", ["0 0 30 2 *", "0 0 31 4,6 *", "0 0 0 31 2 *"])
def test_a_line_that_can_never_fire_is_fine_and_never_fires(line: str) -> None:
    assert Schedule(line).next_after(MOMENT) is None


@pytest.mark.parametrize(
    ("line", "timezone", "words"),
    [
        ("", "", "schedule"),
        ("* * *", "", "Wrong number of fields"),
        ("61 * * * *", "", "minute"),
        ("@every 5m", "", "unrecognized descriptor: @every 5m"),
        ("* * * * *", "Mars/Olympus", "unknown time zone Mars/Olympus"),
    ],
)
def test_a_line_that_says_nothing_is_refused_with_the_part_that_is_wrong(
    line, timezone, words
) -> None:
    with pytest.raises(ScheduleError, match=words):
        Schedule(line, timezone)
