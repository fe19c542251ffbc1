"""Durations: Go's ("1m30s"), used by Knative Serving, and ISO 8601's ("PT0.2S"), by Eventing.

Seconds are floats everywhere else; nanoseconds (Go's own resolution) only where exactness counts.
"""

from __future__ import annotations

import re
from decimal import Decimal

NANOSECOND = 1
MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

_UNITS = {
    "ns": NANOSECOND,
    "us": MICROSECOND,
    "µs": MICROSECOND,  # U+00B5, micro sign
    "μs": MICROSECOND,  # U+03BC, Greek letter mu
    "ms": MILLISECOND,
    "s": SECOND,
    "m": MINUTE,
    "h": HOUR,
}
_PART = re.compile(r"([0-9]*)(\.([0-9]*))?([^0-9.]*)")
_MAX = (1 << 63) - 1


def parse_nanoseconds(text: str) -> int:
    """Whole nanoseconds of a Go duration. Raises ValueError with Go's words."""
    wrong = ValueError(f'time: invalid duration "{text}"')
    rest = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    if rest == "0":
        return 0
    if not rest:
        raise wrong
    total = Decimal(0)
    while rest:
        part = _PART.match(rest)
        assert part is not None
        whole, _, fraction, unit = part.groups()
        if not whole and not fraction:
            raise wrong
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        total += Decimal(f"{whole or 0}.{fraction or 0}") * _UNITS[unit]
        rest = rest[part.end() :]
    nanoseconds = int(total)
    if nanoseconds > _MAX:
        raise wrong
    return -nanoseconds if text.startswith("-") else nanoseconds


def parse(text: str) -> float:
    """Seconds of a Go duration ("1m30s" → 90.0). Raises ValueError with Go's words."""
    return parse_nanoseconds(text) / SECOND


def format_nanoseconds(nanoseconds: int) -> str:
    """As Go's Duration.String: "1m30s", "1h0m0s", "200ms", "0s"."""
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if rest == 0:
        return "0s"
    if rest < SECOND:
        for unit, size in (("ns", NANOSECOND), ("µs", MICROSECOND), ("ms", MILLISECOND)):
            if rest < size * 1000:
                return f"{sign}{_decimal(rest, size)}{unit}"
    hours, rest = divmod(rest, HOUR)
    minutes, rest = divmod(rest, MINUTE)
    text = f"{_decimal(rest, SECOND)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else f"{sign}{text}"


def format_duration(seconds: float) -> str:
    """Seconds as a Go duration."""
    return format_nanoseconds(round(Decimal(repr(seconds)) * SECOND))


def _decimal(value: int, unit: int) -> str:
    return f"{(Decimal(value) / unit).normalize():f}"


_ISO = re.compile(
    r"(?P<sign>[+-])?P(?:(?P<Y>[0-9.,]+)Y)?(?:(?P<M>[0-9.,]+)M)?(?:(?P<W>[0-9.,]+)W)?"
    r"(?:(?P<D>[0-9.,]+)D)?(?P<T>T(?:(?P<h>[0-9.,]+)H)?(?:(?P<m>[0-9.,]+)M)?(?:(?P<s>[0-9.,]+)S)?)?"
)
_ISO_SECONDS = {
    "Y": Decimal(31556952),  # 365.2425 days
    "M": Decimal("2629746"),  # a twelfth of it
    "W": Decimal(604800),
    "D": Decimal(86400),
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
}


def parse_iso8601(text: str) -> float:
    """Seconds of an ISO 8601 duration ("PT0.2S" → 0.2). Years and months take their mean length.

    Raises ValueError.
    """
    wrong = ValueError(f"{text!r} is not an ISO 8601 duration (as PT5S or P1DT12H)")
    match = _ISO.fullmatch(text)
    if match is None:
        raise wrong
    parts = {unit: match[unit] for unit in _ISO_SECONDS if match[unit]}
    if not parts or match["T"] == "T":
        raise wrong
    try:
        total = sum(
            (Decimal(number.replace(",", ".")) * _ISO_SECONDS[unit])
            for unit, number in parts.items()
        )
    except ArithmeticError:
        raise wrong from None
    return float(-total if match["sign"] == "-" else total)


def format_iso8601(seconds: float) -> str:
    """Seconds as ISO 8601, in hours, minutes and seconds."""
    rest = Decimal(repr(abs(seconds)))
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    text = "".join(
        f"{number.normalize():f}{unit}"
        for number, unit in ((hours, "H"), (minutes, "M"), (rest, "S"))
        if number
    )
    return f"{'-' if seconds < 0 else ''}PT{text or '0S'}"
