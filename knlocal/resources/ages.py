"""How long ago, for people: "5s", "3m20s", "2d4h" (k8s.io/apimachinery/pkg/util/duration)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from knlocal.resources.base import parse_timestamp


def human_duration(seconds: float) -> str:
    """`HumanDuration`: two units at most, coarser the longer it is."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    if whole < 120:
        return f"{whole}s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 10:
        return _two(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 8 * 365:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def age(moment: Any, now: datetime) -> str:
    """How long ago an RFC 3339 moment was; `<unknown>` when there is none."""
    if not isinstance(moment, str) or not moment:
        return "<unknown>"
    try:
        return human_duration((now - parse_timestamp(moment)).total_seconds())
    except ValueError:
        return "<unknown>"


def _two(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"
