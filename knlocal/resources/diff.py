"""Differences between two values as knative.dev/pkg/kmp prints them, for refusals of changes.

{v1.RevisionSpec}.PodSpec.Containers[0].Image:
\t-: "busybox"
\t+: "helloworld"
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

GoName = Callable[[str], str]
"""Turns a JSON field name into the path step that Go would show."""


def go_name(name: str) -> str:
    return name[:1].upper() + name[1:]


def short_diff(old: Any, new: Any, root: str, step: GoName = go_name) -> str:
    """One entry per differing leaf; "" when nothing differs. Missing and empty are the same."""
    return "".join(_differences(old, new, root, step))


def _differences(old: Any, new: Any, path: str, step: GoName) -> list[str]:
    if old == new or (_is_empty(old) and _is_empty(new)):
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            entry
            for name in sorted({*old, *new})
            for entry in _differences(old.get(name), new.get(name), _join(path, name, step), step)
        ]
    if isinstance(old, list) and isinstance(new, list):
        entries = []
        for index in range(max(len(old), len(new))):
            before = old[index] if index < len(old) else None
            after = new[index] if index < len(new) else None
            entries += _differences(before, after, f"{path}[{_position(index, old, new)}]", step)
        return entries
    return [f'{path}:\n\t-: "{_shown(old)}"\n\t+: "{_shown(new)}"\n']


def _position(index: int, old: list[Any], new: list[Any]) -> str:
    if index >= len(old):
        return f"?->{index}"
    return f"{index}->?" if index >= len(new) else str(index)


def _join(path: str, name: str, step: GoName) -> str:
    # Labels, annotations and resource names are keys of maps, not fields.
    return f'{path}["{name}"]' if set(name) & set("./-") else f"{path}.{step(name)}"


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, dict | list) and not value)


def _shown(value: Any) -> str:
    if value is None:
        return "<nil>"
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
