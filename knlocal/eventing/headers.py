"""Which HTTP headers go with an event from one hop to the next; all others are dropped (behaviour
E22; knative.dev/eventing pkg/utils `PassThroughHeaders`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

Forward = tuple[tuple[str, str], ...]
"""Headers that go on."""

_TRACE = frozenset({"traceparent", "tracestate", "baggage"})
_FORWARDED = _TRACE | {"x-request-id", "retry-after"}
_FORWARDED_PREFIXES = ("knative-", "x-b3-")


def forwarded(headers: Mapping[str, str]) -> Forward:
    """Those of a message's headers that go on."""
    return picked(tuple(headers.keys()), tuple(headers.values()))


def picked(names: tuple[str, ...], values: tuple[str, ...]) -> Forward:
    """The same, of headers by name and value."""
    return tuple([(names[place], values[place]) for place in _places(names)])


def forwarded_with_reply(asked: Forward, answer: Mapping[str, str]) -> Forward:
    """What goes on with a reply: headers of the answer that it came in, and the trace of the event
    that it replies to."""
    found = forwarded(answer)
    told = {name.lower() for name, _ in found}
    if not told & _TRACE:
        found += tuple([pair for pair in asked if pair[0].lower() in _TRACE])
    return found


@lru_cache(maxsize=512)
def _places(names: tuple[str, ...]) -> tuple[int, ...]:
    """Which of the headers go on."""
    lower = [name.lower() for name in names]
    return tuple(
        place
        for place, name in enumerate(lower)
        if name in _FORWARDED or name.startswith(_FORWARDED_PREFIXES)
    )
