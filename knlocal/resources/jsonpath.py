"""The JSONPath of printer columns and selectors (k8s.io/client-go/util/jsonpath), no templates.

`.status.url`, `.metadata.labels.serving\\.knative\\.dev/service`, `.spec.ports[0].name`,
`.status.conditions[?(@.type=='Ready')].reason`, `.spec.traffic[*].revisionName`, `['a']`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

Step = Callable[[Any], Iterator[Any]]

_NAME = re.compile(r"\.((?:\\.|[^.\[\\])+)")
_QUOTED = re.compile(r"\[(['\"])(.*?)\1\]")
_INDEX = re.compile(r"\[(-?\d+)\]")
_SLICE = re.compile(r"\[(-?\d*):(-?\d*)\]")
_ALL = re.compile(r"\[\*\]|\.\*")
_FILTER = re.compile(
    r"\[\?\(\s*@\.((?:\\.|[^=!<>\s\\])+)\s*(==|!=)\s*(?:'([^']*)'|\"([^\"]*)\"|([^)\s]+))\s*\)\]"
)


class JSONPathError(ValueError):
    """The path cannot be read."""


def find(path: str, obj: Any) -> list[Any]:
    """All values at `path` in `obj`; none when something on the way is missing."""
    values = [obj]
    for step in compile_path(path):
        values = [found for value in values for found in step(value)]
    return values


@lru_cache(maxsize=1024)
def compile_path(path: str) -> Sequence[Step]:
    """The steps of a path. Raises JSONPathError."""
    text = path.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    text = text.removeprefix("$")
    if text and text[0] not in ".[":
        text = f".{text}"
    steps: list[Step] = []
    at = 0
    while at < len(text):
        if text[at:] == ".":
            break
        step, at = _step(text, at)
        steps.append(step)
    return tuple(steps)


def _step(text: str, at: int) -> tuple[Step, int]:
    if match := _ALL.match(text, at):
        return _every, match.end()
    if match := _FILTER.match(text, at):
        field, operator, single, double, bare = match.groups()
        wanted = next(part for part in (single, double, bare) if part is not None)
        return _where(_unescaped(field), operator, wanted), match.end()
    if match := _QUOTED.match(text, at):
        return _field(_unescaped(match.group(2))), match.end()
    if match := _INDEX.match(text, at):
        return _at(int(match.group(1))), match.end()
    if match := _SLICE.match(text, at):
        start, stop = (int(part) if part else None for part in match.groups())
        return _between(start, stop), match.end()
    if match := _NAME.match(text, at):
        return _field(_unescaped(match.group(1))), match.end()
    raise JSONPathError(f"cannot read the JSONPath {text!r} at character {at + 1}")


def _unescaped(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name)


def _field(name: str) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _every(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _at(index: int) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= index < len(value):
            yield value[index]

    return step


def _between(start: int | None, stop: int | None) -> Step:
    def step(value: Any) -> Iterator[Any]:
        if isinstance(value, list):
            yield from value[start:stop]

    return step


def _where(field: str, operator: str, wanted: str) -> Step:
    names = field.split(".")

    def step(value: Any) -> Iterator[Any]:
        for item in value if isinstance(value, list) else ():
            found = item
            for name in names:
                found = found.get(name) if isinstance(found, dict) else None
            text = str(found).lower() if isinstance(found, bool) else str(found)
            if (text == wanted) == (operator == "=="):
                yield item

    return step
