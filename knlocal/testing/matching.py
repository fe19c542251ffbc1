"""Which event a test means, and how near the ones came that did arrive."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from knlocal.events import Event


def hidden(excinfo: Any) -> bool:
    """Whether pytest leaves a frame of the plugin out (a module's `__tracebackhide__`): a failed
    expectation is shown where the test asked, a mistake of the plugin's own where it was made."""
    return isinstance(excinfo.value, AssertionError)


__tracebackhide__ = hidden


def seconds(duration: float | str) -> float:
    """Seconds from a number, or from text such as "5s", "250ms", "1m30s", "24h"."""
    if isinstance(duration, (int, float)):
        return float(duration)
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration.strip():
        raise ValueError(f'{duration!r} is no duration; write "5s", "250ms", "1m30s" or "24h"')
    return sum(float(number) * units[unit] for number, unit in parts)


def data_of(event: Event) -> Any:
    """An event's data as a test compares it: JSON parsed, other text as str, the rest as bytes."""
    if event.data is None:
        return None
    content_type = str(event.attributes.get("datacontenttype", ""))
    if not content_type or "json" in content_type:
        try:
            return orjson.loads(event.data)
        except orjson.JSONDecodeError:
            pass
    try:
        return event.data.decode()
    except UnicodeDecodeError:
        return event.data


def mismatches(event: Event, wanted: Mapping[str, Any]) -> list[str]:
    """What keeps `event` from being the wanted one; empty when it is.

    `wanted` maps attributes to a value, a compiled regular expression or a predicate; `data` is
    compared too, a mapping by the keys it names.
    """
    wrong = []
    for name, value in wanted.items():
        actual = data_of(event) if name == "data" else event.attributes.get(name)
        if not _fits(actual, value):
            wrong.append(f"{name} is {actual!r}, wanted {_shown(value)}")
    return wrong


def _fits(actual: Any, wanted: Any) -> bool:
    if isinstance(wanted, re.Pattern):
        return isinstance(actual, str) and wanted.search(actual) is not None
    if callable(wanted):
        return bool(wanted(actual))
    if isinstance(wanted, Mapping):
        return isinstance(actual, Mapping) and all(
            key in actual and _fits(actual[key], value) for key, value in wanted.items()
        )
    return bool(actual == wanted)


def _shown(wanted: Any) -> str:
    if isinstance(wanted, re.Pattern):
        return f"something like /{wanted.pattern}/"
    return getattr(wanted, "__name__", repr(wanted)) if callable(wanted) else repr(wanted)


def explain(events: Iterable[Event], wanted: Mapping[str, Any]) -> str:
    """A readable account of what did arrive, nearest first, for a failing expectation."""
    rated = sorted(
        ((mismatches(event, wanted), event) for event in events), key=lambda pair: len(pair[0])
    )
    if not rated:
        return "no event arrived at all"
    lines = [f"{len(rated)} other event{'s' if len(rated) > 1 else ''} arrived:"]
    for wrong, event in rated[:10]:
        lines.append(f"  - {event.type} {event.id} from {event.source}: {'; '.join(wrong)}")
    if len(rated) > 10:
        lines.append(f"  … and {len(rated) - 10} more")
    return "\n".join(lines)
