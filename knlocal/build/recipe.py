"""What is known about a source folder once it was looked at: the words of `recipes`."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Environment variables that change the base images of generated Dockerfiles.
BASE_IMAGE_VARIABLE = "KNLOCAL_BASE_IMAGE"

LAUNCHER = Path(__file__).parent / "launchers"

#: Files that say which libraries a program needs: changed ones need a new image.
DEPENDENCIES = (
    "requirements*.txt", "constraints*.txt", "pyproject.toml", "setup.py", "setup.cfg", "uv.lock",
    "poetry.lock", "Pipfile*", "Procfile", "package.json", "package-lock.json", "yarn.lock",
    "pnpm-lock.yaml", "go.mod", "go.sum",
)  # fmt: skip


class NotASource(Exception):
    """The folder is nothing that can be built or run; the message says what was looked for."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a project says about building."""

    dockerfile: str | None = None
    base_image: str | None = None
    args: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    debug: bool = False
    """Whether generated Dockerfiles bring a debugger."""
    buildpacks: bool = False
    """Whether the builder finds out by itself what a folder is."""

    def base(self, usual: str) -> str:
        return self.base_image or os.environ.get(BASE_IMAGE_VARIABLE) or usual


@dataclass(frozen=True, slots=True)
class Deploy:
    """What a func.yaml says about the Service that is made of it, in the words of the API.

    A project file's own words go before it.
    """

    env: Mapping[str, str | Mapping[str, Any]] = field(default_factory=dict)
    """Values, or the `valueFrom` of an EnvVar."""
    env_from: Sequence[Mapping[str, Any]] = ()
    volumes: Sequence[tuple[str, Mapping[str, Any]]] = ()
    """Mount path, and the volume without its name."""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Of the Service and of its Revisions."""
    scale: Mapping[str, str] = field(default_factory=dict)
    """Annotations of its Revisions only."""
    resources: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int | None = None
    service_account: str = ""
    probes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """`livenessProbe`, `readinessProbe`."""
    subscriptions: Sequence[tuple[str, Mapping[str, str]]] = ()
    """Names of Brokers, each with the attributes that events must have."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a folder becomes something that serves."""

    kind: str
    """For people: "Dockerfile", "Python folder", "function (python)", …"""
    dockerfile: str | None
    """Its text; None when the folder can only be run as a process."""
    dockerfile_name: str = "Dockerfile"
    generated: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict)
    run: tuple[str, ...] | None = None
    """What the process runtime runs in the folder; None when nothing is known."""
    why_not: str = ""
    """Why `run` is None."""
    language: str = ""
    """"python", "node", or "" where it is not known."""
    program: tuple[str, ...] = ()
    """What the image runs."""
    deploy: Deploy = Deploy()
    target: str | None = None
    """Where in the image the folder's files lie unchanged: a later save may be mounted there."""
    rebuild: tuple[str, ...] = ()
    """Patterns of files whose change needs a new image."""
    args: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """What pip is told to install, where a Python program runs as a local process."""


def json_words(command: Sequence[str]) -> str:
    """A command as a Dockerfile's exec form has it."""
    return json.dumps(list(command), ensure_ascii=False)


def in_shell(command: str) -> list[str] | None:
    """A command line whose program a shell can become: `A=b prog words`, nothing cleverer.

    Without another process in between, signals reach the program.
    """
    if any(letter in command for letter in "|&;<>()`\n"):
        return None
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    settings = 0
    while settings < len(words) and words[settings].partition("=")[0].isidentifier():
        if "=" not in words[settings]:
            break
        settings += 1
    if settings == len(words):
        return None
    return ["sh", "-c", f"exec env {command}" if settings else f"exec {command}"]
