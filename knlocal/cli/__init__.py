"""The command line. One file per group of commands, imported when one of them is used."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from knlocal import __version__
from knlocal.cli.context import Context
from knlocal.cli.exits import Exit, say

#: Command → module and what it does: help needs no imports.
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("up", "Run the project, here or (-d) in the background."),
    "down": ("up", "Stop the project and remove what it started."),
    "init": ("init", "Make a knlocal.toml for this folder."),
    "apply": ("objects", "Create or update objects from YAML."),
    "delete": ("objects", "Delete objects."),
    "get": ("objects", "List objects, or show one."),
    "describe": ("describe", "Tell all about an object."),
    "logs": ("logs", "Show what containers print."),
    "invoke": ("invoke", "Send a request to a service."),
    "traffic": ("traffic", "Show or split a service's traffic."),
    "revisions": ("traffic", "List a service's revisions."),
    "rollback": ("traffic", "Send all traffic to an earlier revision."),
    "send": ("events", "Send an event to a broker, channel, service or URL."),
    "events": ("events", "List the events that passed; -f follows."),
    "explain": ("events", "Tell what became of an event."),
    "replay": ("events", "Send events again."),
    "build": ("build", "Build images of source folders."),
    "export": ("export", "Print the project's objects for a real cluster."),
    "kubeconfig": ("kube", "Print the kubeconfig for kubectl and kn."),
    "env": ("kube", "Print `export KUBECONFIG=…` for the shell."),
    "doctor": ("doctor", "Check what works on this machine."),
    "completion": ("completion", "Print the completion script of a shell."),
}


class Commands(click.Group):
    """Imports a command's module only when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"knlocal.cli.{COMMANDS[name][0]}")
        command: click.Command = getattr(module, f"{name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from knlocal.project.errors import did_you_mean

            hint = did_you_mean(args[0], COMMANDS)
            hint = hint if hint.startswith("did") else "`knlocal --help` lists them"
            ctx.fail(f"no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


EPILOG = (
    "Exit codes: 0 done, 1 could not be done, 2 wrong command line or project files, "
    "3 the project is not up, 4 not found, 5 took too long, "
    "70 a bug in knlocal, 130 interrupted."
)


@click.command(
    cls=Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-C", "--project", "folder", metavar="FOLDER", default=".",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The project's folder (default: here, or the nearest above with a knlocal.toml).",
)  # fmt: skip
@click.version_option(__version__, prog_name="knlocal")
@click.pass_context
def root(ctx: click.Context, folder: Path) -> None:
    """Knative on one machine, without Kubernetes."""
    ctx.obj = Context(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. Never shows a traceback."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code."""
    output, errors = sys.stdout, sys.stderr
    try:
        result: Any = root.main(arguments, prog_name="knlocal", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and sys.stdout is output:
            return error.code if isinstance(error.code, int) else Exit.FAILURE
        # Whoever read our output has seen enough (click then wraps the streams and exits); Python
        # must not try to flush the rest.
        sys.stdout, sys.stderr = output, errors
        os.dup2(os.open(os.devnull, os.O_WRONLY), output.fileno())
        return Exit.OK
    except BaseException as error:
        return say(error)
    return result if isinstance(result, int) else Exit.OK
