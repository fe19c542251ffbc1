"""Cron lines, in the grammar of robfig/cron."""

from __future__ import annotations

import re
from datetime import datetime

from cronsim import CronSim, CronSimError

_DESCRIPTORS = frozenset(
    {"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"}
)


ZONE_PREFIX = re.compile(r"(?:CRON_)?TZ=(\S+)\s+(.*)")
"""A time zone in front of a cron line, as robfig/cron reads it: the zone, and the line."""


_STEPS = re.compile(r"(?<![^,])\*/0*([2-9]|[1-9]\d+)(?![^,])")


def as_cronsim(line: str) -> str:
    """The line so that cronsim means by it what robfig/cron does: `?` is `*`; and a day field like
    `*/2` restricts, as `1-31/2` does: together with the other day field it means "or", where
    cronsim sees a star, and an "and"."""
    fields = line.replace("?", "*").split()
    if len(fields) in (5, 6):
        fields[-3] = _STEPS.sub(r"1-31/\1", fields[-3])
        fields[-1] = _STEPS.sub(r"0-6/\1", fields[-1])
    return " ".join(fields)


def schedule_problem(line: str, *, seconds: bool = True) -> str:
    """What is wrong with a cron line; "" when nothing is. `seconds` allows them as a sixth field.

    A day that no month has (30 February) is no problem: such a line simply never fires.
    """
    line = line.strip()
    if line.startswith("@"):
        return "" if line in _DESCRIPTORS else f"unrecognized descriptor: {line}"
    fields = line.replace("?", "*").split()
    allowed = (5, 6) if seconds else (5,)
    if len(fields) not in allowed:
        wanted = "5 to 6 fields" if seconds else "exactly 5 fields"
        return f"expected {wanted}, found {len(fields)}: [{line}]"
    try:
        # With every month any day of the field exists, so that only the grammar is checked.
        _check_cron([*fields[:-2], "*", fields[-1]])
        _check_cron(["*"] * (len(fields) - 2) + [fields[-2], "*"])
    except CronSimError as error:
        return f"{error} in schedule {line!r}"
    return _beyond_robfig(fields)


def _beyond_robfig(fields: list[str]) -> str:
    """What cronsim reads and robfig/cron does not: L and # for days, and 7 for Sunday."""
    for part in (*fields[-3].split(","), *fields[-1].split(",")):
        if "#" in part or "L" in part.upper():
            return (
                f'failed to parse int from {part}: strconv.Atoi: parsing "{part}": invalid syntax'
            )
    for part in fields[-1].split(","):
        if "7" in part.partition("/")[0].split("-"):
            return f"end of range (7) above maximum (6): {part}"
    return ""


def _check_cron(fields: list[str]) -> None:
    CronSim(" ".join(fields), datetime(2024, 1, 1))
