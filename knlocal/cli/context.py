"""What every command needs: which project, its settings, its daemon, its client."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knlocal.cli.exits import CliError, Exit

if TYPE_CHECKING:
    from knlocal.cli.client import Client
    from knlocal.project.home import Card, Home
    from knlocal.project.settings import Project, Settings


@dataclass
class Context:
    """The project that a command is about. `folder` is where `-C` points (default: here)."""

    folder: Path

    @cached_property
    def file(self) -> Path:
        """The project's knlocal.toml, here or above."""
        from knlocal.project import config

        path = config.find(self.folder)
        if path is None:
            raise CliError(
                f"no knlocal.toml in {self.folder.resolve()} or above it",
                Exit.USAGE,
                "`knlocal init` makes one; `knlocal -C FOLDER …` looks elsewhere",
            )
        return path

    @cached_property
    def settings(self) -> Settings:
        from knlocal.project import config

        return config.load(self.file)

    @cached_property
    def project(self) -> Project:
        """`[project]`, readable even while the rest of the file is being edited."""
        from knlocal.project import config

        return config.peek(self.file)

    @cached_property
    def home(self) -> Home:
        from knlocal.project.home import Home

        return Home(self.file.parent / self.project.state_dir)

    @cached_property
    def card(self) -> Card:
        """What the running daemon says of itself; exit code 3 when none runs."""
        card = self.home.read_card() if self.home.is_held() else None
        if card is None:
            raise CliError(
                f"project {self.project.name!r} is not up",
                Exit.NO_DAEMON,
                "`knlocal up` starts it",
            )
        return card

    @cached_property
    def client(self) -> Client:
        from knlocal.cli.client import Client

        _ = self.card
        return Client(self.home.kubeconfig)

    @property
    def namespace(self) -> str:
        return self.project.namespace


pass_context = click.make_pass_decorator(Context)


def namespace_option(function: Any) -> Any:
    return click.option(
        "-n", "--namespace", help="Namespace; the project's own when not given.", metavar="NAME"
    )(function)


def is_terminal() -> bool:
    """Whether there is somebody to show colours to (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def echo(text: str = "") -> None:
    click.echo(text)


def note(text: str) -> None:
    """A remark that is not part of the output."""
    click.echo(text, err=True)
