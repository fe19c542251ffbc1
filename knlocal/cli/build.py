"""`build`: images of source folders, without running anything."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from knlocal.cli.context import Context, echo, note, pass_context
from knlocal.cli.exits import CliError, Exit

if TYPE_CHECKING:
    from knlocal.project.sources import Wanted


@click.command("build")
@click.argument("services", nargs=-1)
@click.option("-q", "--quiet", is_flag=True, help="Only the names of the images.")
@pass_context
def build_command(context: Context, services: tuple[str, ...], quiet: bool) -> int:
    """Build images of the services' source folders (all of them, or those named).

    What did not change since the last time is not built again.
    """
    from knlocal.project.errors import did_you_mean
    from knlocal.project.sources import wanted

    known = context.settings.services
    for name in services:
        if name not in known:
            hint = did_you_mean(name, known, "services")
            raise CliError(f"no service {name!r} in knlocal.toml", Exit.USAGE, hint)
    wants = [w for w in wanted(context.settings) if not services or w.service in services]
    wants = [want for want in wants if want.table.source]
    if not wants:
        raise CliError("no service here has a source folder", Exit.USAGE)
    return asyncio.run(_build(context, wants, quiet))


async def _build(context: Context, wants: list[Wanted], quiet: bool) -> int:
    from knlocal.build.api import BuildFailure
    from knlocal.build.builders import Builders
    from knlocal.project.sources import Sources

    settings = context.settings
    builders = Builders(settings.build.builder or "docker", settings.build.parallel)
    try:
        if why := await builders.get().problem():
            raise CliError(why, hint="`knlocal doctor` tells more")
        context.home.make()
        sources = Sources(settings, context.home, "docker", builders)

        def told(name: str, line: str) -> None:
            if not quiet:
                note(f"{name}: {line}")

        results = await asyncio.gather(
            *(sources.origin(want, told, mount=False) for want in wants), return_exceptions=True
        )
    finally:
        await builders.close()
    failed = False
    for want, result in zip(wants, results, strict=True):
        if isinstance(result, BuildFailure):
            note(f"knlocal: {result}")
            failed = True
        elif isinstance(result, BaseException):
            raise result
        else:
            echo(result.image if quiet else f"{want.name}: {result.image}")
    return Exit.FAILURE if failed else Exit.OK
