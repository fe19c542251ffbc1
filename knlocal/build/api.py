"""What a builder is: it turns a source folder into an image that the local engine has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

Progress = Callable[[str], None]
"""Called with one line of what a build says, as it says it."""


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """One image to be made."""

    name: str
    """For people: the service's name."""
    image: str
    """The name the image gets, with its tag."""
    context: Path
    ignored: Sequence[str]
    """Patterns, as in .dockerignore, of what does not belong to the context."""
    dockerfile: str
    """The text of the Dockerfile."""
    dockerfile_name: str = "Dockerfile"
    """What to call it in messages, and its path in the context when it is there."""
    generated: bool = False
    """True when nobody wrote the Dockerfile but knlocal."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Further files for the context, by path: what a generated Dockerfile needs."""
    args: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


class BuiltImage(NamedTuple):
    """An image that was built here, by one of its names ("" when a newer one took its name)."""

    name: str
    id: str
    label: str
    """The value of the label that was asked for."""


class BuildFailure(Exception):
    """A build went wrong. `str()` is for people: the step, its line, the end of its output."""

    def __init__(
        self, name: str, what: str, *, file: str = "", line: int = 0, step: str = "",
        tail: str = "", hint: str = "",
    ) -> None:  # fmt: skip
        self.name, self.what, self.file, self.line = name, what, file, line
        self.step, self.tail = step, tail
        place = f"{file}:{line}: " if file and line else f"{file}: " if file else ""
        text = f"{name}: {place}{what}"
        if step:
            text += f"\n  in step: {step}"
        if tail:
            text += "".join(f"\n  | {said}" for said in tail.splitlines())
        if hint:
            text += f"\n  {hint}"
        super().__init__(text)


class Builder(ABC):
    """One way to build images. Every call has a deadline; all failures are BuildFailures."""

    name: str

    @abstractmethod
    async def problem(self) -> str | None:
        """Why this builder cannot run here, or None when it can."""

    @abstractmethod
    async def image_id(self, image: str) -> str | None:
        """The id of the engine's image of this name; None when it has none."""

    @abstractmethod
    async def build(self, request: BuildRequest, progress: Progress) -> str:
        """Make the image and return its id. Cancelling the call gives the build up."""

    @abstractmethod
    async def built(self, label: str) -> list[BuiltImage]:
        """The engine's images that have this label, newest first."""

    @abstractmethod
    async def remove(self, image: str) -> bool:
        """Remove an image; False when something still needs it, or it is not there."""

    async def close(self) -> None:  # noqa: B027
        """Let go of connections."""
