"""Reads Dockerfiles far enough to answer questions about them; building is the engine's work."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson


class Instruction(NamedTuple):
    """One instruction. `line` counts from 1; `value` has its continuation lines joined."""

    line: int
    name: str
    value: str


def parse(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, in order."""
    instructions: list[Instruction] = []
    start, gathered, heredoc = 0, "", ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if heredoc:
            heredoc = "" if line == heredoc else heredoc
            continue
        if not line or line.startswith("#"):
            continue
        start = start if gathered else number
        if line.endswith("\\"):
            gathered += line[:-1] + " "
            continue
        name, _, value = (gathered + line).partition(" ")
        instructions.append(Instruction(start, name.upper(), value.strip()))
        if name.upper() in ("RUN", "COPY") and (found := re.search(r"<<-?[\"']?(\w+)", value)):
            heredoc = found[1]
        gathered = ""
    return instructions


def arguments(text: str) -> set[str]:
    """The names of its build arguments."""
    return {i.value.partition("=")[0].strip() for i in parse(text) if i.name == "ARG"}


def substituted(image: str, args: Mapping[str, str]) -> str:
    """A base image with its build arguments filled in."""
    for key, value in args.items():
        image = image.replace(f"${{{key}}}", value).replace(f"${key}", value)
    return image


def step_line(instructions: list[Instruction], step: int) -> Instruction | None:
    """The instruction that the engine's "Step N/M" is (ARG before FROM counts too)."""
    return instructions[step - 1] if 0 < step <= len(instructions) else None


def command(instructions: list[Instruction]) -> list[str] | None:
    """What the image runs: its ENTRYPOINT and CMD."""
    entry: list[str] = []
    rest: list[str] = []
    for instruction in instructions:
        if instruction.name == "FROM":
            entry, rest = [], []
        elif instruction.name == "ENTRYPOINT":
            entry, rest = _words(instruction.value), []
        elif instruction.name == "CMD":
            rest = _words(instruction.value)
    return (entry + rest) or None


def _words(value: str) -> list[str]:
    if value.startswith("["):
        try:
            found: Any = orjson.loads(value)
            return [str(word) for word in found]
        except orjson.JSONDecodeError:
            return []
    try:
        return shlex.split(value.removeprefix("exec "))
    except ValueError:
        return []


#: Commands that write elsewhere than into the folder they run in.
_HARMLESS = re.compile(
    r"^(python3? -m )?pip3? install (?!.*(-t\b|--target))|^(apt-get|apk|adduser|useradd|groupadd)\b"
)


def source_target(instructions: list[Instruction]) -> str | None:
    """Where the whole source folder is copied to in the last stage, when nothing else is put there
    and nothing is made of it afterwards: then a newer source may stand in its place unbuilt."""
    folder, target = "/", None
    made: list[str] = []
    for instruction in instructions:
        if instruction.name == "FROM":
            folder, target, made = "/", None, []
        elif instruction.name == "WORKDIR":
            folder = posixpath.normpath(posixpath.join(folder, instruction.value.strip("\"'")))
        elif instruction.name in ("COPY", "ADD"):
            words = [w for w in _copy_words(instruction.value) if not w.startswith("--")]
            from_elsewhere = "--from" in instruction.value or "$" in instruction.value
            if len(words) == 2 and words[0] in (".", "./") and not from_elsewhere:
                target = posixpath.normpath(posixpath.join(folder, words[1]))
        elif instruction.name == "RUN":
            target = None
            if not _HARMLESS.match(instruction.value):
                made.append(folder)
    return None if target == "/" or target in made else target


def _copy_words(value: str) -> list[str]:
    return _words(value) if value.startswith("[") else value.split()


def copied(instructions: list[Instruction]) -> list[str]:
    """Single files that are copied on their own: steps in between depend on them."""
    found: list[str] = []
    for instruction in instructions:
        if instruction.name in ("COPY", "ADD") and "--from" not in instruction.value:
            words = [w for w in _copy_words(instruction.value) if not w.startswith("--")]
            found += [w.removeprefix("./") for w in words[:-1] if w not in (".", "./")]
    return found
