"""What the tables of `knlocal.toml` are made of: durations, command lines, environments."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Discriminator, Field

_DURATION = re.compile(r"^(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+$")


def _duration(value: str) -> str:
    if value != "0" and not _DURATION.match(value):
        raise ValueError(f"{value!r} is no duration; write it like '30s', '1m30s' or '500ms'")
    return "0s" if value == "0" else value


def _seconds(value: Any) -> Any:
    """A bare number of seconds is a duration too."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value}s"
    return value


def _words(value: Any) -> Any:
    """A command line in one string becomes its words."""
    return shlex.split(value) if isinstance(value, str) else value


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _text(value: Any) -> Any:
    """Environment variables are text; a number or truth value is written as people would."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else value


Duration = Annotated[str, BeforeValidator(_seconds), AfterValidator(_duration)]
Words = Annotated[list[str], BeforeValidator(_words)]
Texts = Annotated[list[str], BeforeValidator(_several)]
EnvValue = Annotated[str, BeforeValidator(_text)]
Env = dict[str, EnvValue]
Percent = Annotated[int, Field(ge=0, le=100)]
Port = Annotated[int, Field(ge=0, le=65535)]

#: Alternatives that are told apart by being text or a table; the tags never show in messages.
TEXT, TABLE = "<text>", "<table>"
BY_SHAPE = Discriminator(lambda value: TEXT if isinstance(value, str) else TABLE)


class Table(BaseModel):
    """A TOML table: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
