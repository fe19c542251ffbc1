"""How a ConfigMap's strings become typed settings.

A settings class is a frozen dataclass whose fields say which key they come from:

    stable_window: float = setting("stable-window", 60.0, "…", parse=as_duration)

Earlier spellings of a key (`legacy`) are read too; the present spelling wins when both are there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeVar

import yaml

from knlocal.resources import duration, quantity

EXAMPLE_KEY = "_example"


class SettingsError(ValueError):
    """A ConfigMap that Knative would refuse; the text says which key and why."""


Parse = Callable[[str], Any]
T = TypeVar("T")


def setting(
    key: str,
    default: Any,
    doc: str,
    *,
    parse: Parse | None = None,
    legacy: tuple[str, ...] = (),
    shown: str | None = None,
) -> Any:
    """A field of a settings class. The parser follows from the default's type unless given;
    `shown` is how the default is written in the ConfigMap's example."""
    parse = parse or _PARSERS[type(default)]
    return dataclasses.field(
        default=default,
        metadata={"key": key, "doc": doc, "parse": parse, "legacy": legacy, "shown": shown},
    )


def read(cls: type[T], data: Mapping[str, str]) -> T:
    """The settings in `data`, defaults where it has none. Raises SettingsError."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if "key" not in field.metadata:
            continue
        for key in (*field.metadata["legacy"], field.metadata["key"]):
            if key in data:
                try:
                    values[field.name] = field.metadata["parse"](data[key])
                except _KeepDefault:
                    pass
                except (ValueError, yaml.YAMLError) as error:
                    raise SettingsError(f'failed to parse "{key}": {error}') from None
    return cls(**values)


def example(cls: type[Any]) -> str:
    """All keys of a settings class with their defaults, as a commented example block."""
    lines = []
    for field in dataclasses.fields(cls):
        if "key" not in field.metadata:
            continue
        shown = field.metadata["shown"]
        lines.append(f"# {field.metadata['doc']}")
        lines.append(
            f"{field.metadata['key']}: {_quoted(field.default if shown is None else shown)}"
        )
        lines.append("")
    return "\n".join(lines).strip() + "\n"


def _quoted(value: Any) -> str:
    if isinstance(value, bool):
        value = "true" if value else "false"
    elif isinstance(value, float):
        value = f"{value:g}"
    elif isinstance(value, frozenset):
        value = ",".join(sorted(value))
    elif value is None:
        value = ""
    text = str(value)
    return f"'{text}'" if '"' in text else f'"{text}"'


class _KeepDefault(Exception):
    """The text means nothing here: the default stays (Knative is lenient about flags)."""


def as_string(text: str) -> str:
    return text


def as_bool(text: str) -> bool:
    """True for "true" in any case; anything else is False, as knative.dev/pkg/configmap has it."""
    return text.strip().lower() in ("true", "t", "1")


def as_tri_state(text: str) -> bool | None:
    """True, False, or None for "default" and anything else."""
    return {"true": True, "false": False}.get(text.lower())


def as_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def as_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'strconv.ParseFloat: parsing "{text}": invalid syntax') from None


def as_duration(text: str) -> float:
    """Seconds of a Go duration."""
    return duration.parse(text)


def as_quantity(text: str) -> str:
    """The canonical spelling of a quantity."""
    return quantity.canonical(text)


def as_string_set(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())


def as_yaml(text: str) -> Any:
    return yaml.safe_load(text) if text.strip() else None


def as_choice(*choices: str, lenient: bool = False) -> Parse:
    """One of `choices`, in any case. Others are refused, or (lenient) leave the default."""

    def parse(text: str) -> str:
        for choice in choices:
            if text.strip().lower() == choice.lower():
                return choice
        if lenient:
            raise _KeepDefault
        raise ValueError(f"{text!r} is not one of {', '.join(choices)}")

    return parse


_PARSERS: dict[type, Parse] = {
    str: as_string,
    bool: as_bool,
    int: as_int,
    float: as_float,
    frozenset: as_string_set,
    Decimal: as_quantity,
}


def whole_seconds(seconds: float) -> bool:
    return float(seconds).is_integer()


def shown_duration(seconds: float) -> str:
    return duration.format_duration(seconds)
