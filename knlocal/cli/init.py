"""`init`: a first knlocal.toml, made from what the folder holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from knlocal.cli.context import Context, echo, note, pass_context
from knlocal.cli.exits import CliError, Exit

_SKIPPED = {"node_modules", "venv", "dist", "build", "tests", "test", "docs"}
_MANIFESTS = ("k8s", "manifests", "deploy", "config", "kubernetes")

_HEAD = """\
# What knlocal runs here. `knlocal up` starts it, `knlocal export` prints it for a real cluster.
[project]
name = "{name}"
{manifests}"""

_EXAMPLE = """
# [services.hello]
# source = "./hello"                 # a Dockerfile, a func.yaml, or a plain Python or Node folder
# env = { GREETING = "hello" }
# scale = { min = 0, max = 4, concurrency = 10, window = "60s" }
#
# [services.audit]
# image = "acme/audit:1.4"
"""

_EVENTING = """
# [brokers.default]
#
# [triggers.created]
# broker = "default"
# filter = { type = "order.created" }
# sink = "SERVICE"
"""


@click.command("init")
@click.option("--name", help="The project's name (default: the folder's).")
@click.option("--force", is_flag=True, help="Replace a knlocal.toml that is there.")
@pass_context
def init_command(context: Context, name: str | None, force: bool) -> int:
    """Make a knlocal.toml for this folder, from the sources and YAML found in it."""
    from knlocal.project import config

    folder = context.folder.resolve()
    path = folder / config.FILE_NAME
    if path.exists() and not force:
        raise CliError(f"{path} is there already", Exit.USAGE, "--force replaces it")
    found = list(_services(folder))
    text = _HEAD.format(
        name=config.default_name(folder) if name is None else name,
        manifests=_manifests_line(folder),
    )
    for service, source, kind in found:
        text += f"\n[services.{service}]" + f'\nsource = "{source}"'.ljust(31) + f"# {kind}\n"
    text += "" if found else _EXAMPLE
    text += _EVENTING
    config.parse(text, config.FILE_NAME, folder)
    try:
        path.write_text(text)
    except OSError as error:
        raise CliError(f"{path}: {error.strerror}") from None
    echo(
        f"made {path.name}"
        + (f" with {len(found)} service{'s' * (len(found) > 1)}" if found else "")
    )
    for service, source, kind in found:
        echo(f"  {service}: {source} ({kind})")
    echo("next: knlocal up")
    return Exit.OK


def _services(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Name, path and kind of each source folder: this one, or those right below it."""
    from knlocal.build.functions import name_of
    from knlocal.build.recipes import NotASource, recognise
    from knlocal.project.config import default_name
    from knlocal.project.settings import is_name

    def named(place: Path) -> str:
        own = name_of(place)
        return own if is_name(own) else default_name(place)

    try:
        yield named(folder), ".", recognise(folder).kind
    except NotASource:
        pass
    else:
        return
    for place in sorted(folder.iterdir()):
        if place.is_dir() and not place.name.startswith(".") and place.name not in _SKIPPED:
            try:
                kind = recognise(place).kind
            except NotASource as error:
                if any((place / name).is_file() for name in ("func.yaml", "package.json")):
                    note(f"  left out: {error}")
                continue
            yield named(place), f"./{place.name}", kind


def _manifests_line(folder: Path) -> str:
    for name in _MANIFESTS:
        found = [kind for kind in ("*.yaml", "*.yml") if any((folder / name).glob(kind))]
        if found:
            patterns = ", ".join(f'"{name}/{kind}"' for kind in found)
            return f"manifests = [{patterns}]\n"
    return ""
