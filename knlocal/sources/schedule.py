"""Cron lines as Knative's PingSource reads them (robfig/cron v3: optional seconds, descriptors)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from knlocal.resources.cron import ZONE_PREFIX, as_cronsim

_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class ScheduleError(ValueError):
    """The line, or its time zone, says nothing; the message names the part that is wrong."""


class Schedule:
    """When something is due. `next_after` is None for a line that can never fire (30 February)."""

    def __init__(self, line: str, timezone: str = "") -> None:
        match = ZONE_PREFIX.fullmatch(line.strip())
        if match:
            timezone, line = match.groups()
        self._zone = _zone(timezone)
        line = line.strip()
        if line.startswith("@"):
            if line not in _DESCRIPTORS:
                raise ScheduleError(f"unrecognized descriptor: {line}")
            line = _DESCRIPTORS[line]
        self._line = as_cronsim(line)
        self._never = False
        try:
            self._from(datetime(2024, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            if not _impossible_day(self._line):
                raise ScheduleError(f"{error} in schedule {line!r}") from error
            self._never = True

    def next_after(self, moment: datetime) -> datetime | None:
        """The first due moment after `moment`, in UTC."""
        if self._never:
            return None
        try:
            return next(self._from(moment)).astimezone(UTC)
        except StopIteration:
            return None

    def _from(self, moment: datetime) -> Iterator[datetime]:
        return CronSim(self._line, moment.astimezone(self._zone))


def _zone(name: str) -> tzinfo:
    if not name or name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ScheduleError(f"provided bad location {name}: unknown time zone {name}") from error


def _impossible_day(line: str) -> bool:
    """Whether the line is fine but for a day that its months never have."""
    fields = line.split()
    if len(fields) not in (5, 6):
        return False
    fields[-2] = "*"
    try:
        CronSim(" ".join(fields), datetime(2024, 1, 1, tzinfo=UTC))
    except CronSimError:
        return False
    return True
