"""`completion`: scripts that make shells complete knlocal's commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from knlocal.cli.context import echo
from knlocal.cli.exits import CliError, Exit


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> int:
    """Print the completion script of a shell.

    \b
    bash: eval "$(knlocal completion bash)"
    zsh:  eval "$(knlocal completion zsh)"
    fish: knlocal completion fish | source
    """
    cls = get_completion_class(shell)
    if cls is None:
        raise CliError(f"no completion for {shell}", Exit.USAGE)
    echo(cls(ctx.find_root().command, {}, "knlocal", "_KNLOCAL_COMPLETE").source())
    return Exit.OK
