"""`kubeconfig`, `env`: pointing kubectl, kn and shells at the project."""

from __future__ import annotations

import shlex

import click

from knlocal.cli.context import Context, echo, pass_context
from knlocal.cli.exits import Exit


@click.command("kubeconfig")
@click.option("--path", is_flag=True, help="Print where the file is instead of its content.")
@pass_context
def kubeconfig_command(context: Context, path: bool) -> int:
    """Print the project's private kubeconfig. Your own kube context is never touched."""
    _ = context.card
    file = context.home.kubeconfig
    echo(str(file) if path else file.read_text().rstrip())
    return Exit.OK


#: What `env` sets; the last three are what Knative's own end-to-end suites look for.
_VARIABLES = (
    "KUBECONFIG", "KNLOCAL_GATEWAY",
    "GATEWAY_OVERRIDE", "GATEWAY_NAMESPACE_OVERRIDE", "SYSTEM_NAMESPACE",
)  # fmt: skip


@click.command("env")
@click.option("--unset", is_flag=True, help="Print what undoes it.")
@click.option("--shell", type=click.Choice(["sh", "fish"]), default="sh", show_default=True)
@pass_context
def env_command(context: Context, unset: bool, shell: str) -> int:
    """Print shell commands that point kubectl and kn at the project.

    \b
    eval "$(knlocal env)"
    kubectl get ksvc
    """
    if unset:
        echo(f"{'set -e' if shell == 'fish' else 'unset'} {' '.join(_VARIABLES)}")
        return Exit.OK
    card = context.card
    host, _, port = card.gateway.rpartition(":")
    values = (
        str(context.home.kubeconfig), f"http://{host}:{port}",
        "kourier", "kourier-system", "knative-serving",
    )  # fmt: skip
    for key, value in zip(_VARIABLES, values, strict=True):
        quoted = shlex.quote(value)
        echo(f"set -gx {key} {quoted};" if shell == "fish" else f"export {key}={quoted}")
    return Exit.OK
