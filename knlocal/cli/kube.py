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
        echo("set -e KUBECONFIG" if shell == "fish" else "unset KUBECONFIG")
        return Exit.OK
    card = context.card
    host, _, port = card.gateway.rpartition(":")
    values = {
        "KUBECONFIG": str(context.home.kubeconfig),
        "KNLOCAL_GATEWAY": f"http://{host}:{port}",
        # What Knative's own end-to-end suites look for.
        "GATEWAY_OVERRIDE": "kourier",
        "GATEWAY_NAMESPACE_OVERRIDE": "kourier-system",
        "SYSTEM_NAMESPACE": "knative-serving",
    }
    for key, value in values.items():
        quoted = shlex.quote(value)
        echo(f"set -gx {key} {quoted};" if shell == "fish" else f"export {key}={quoted}")
    return Exit.OK
