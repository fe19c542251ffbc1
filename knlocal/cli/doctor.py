"""`doctor`: what works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from knlocal.cli.context import Context, echo, is_terminal, pass_context
from knlocal.cli.exits import CliError, Exit

if TYPE_CHECKING:
    from knlocal.project.settings import Settings

State = Literal["ok", "note", "bad"]
_MARK = {"ok": "ok  ", "note": "note", "bad": "BAD "}
_COLOUR = {"ok": "green", "note": "yellow", "bad": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    state: State
    said: str
    hint: str = ""


@click.command("doctor")
@click.option("-o", "--output", type=click.Choice(["json"]))
@pass_context
def doctor_command(context: Context, output: str | None) -> int:
    """Check what works on this machine. Exit code 1 when something is in the way of `up`."""
    findings = asyncio.run(_all(context))
    if output == "json":
        from knlocal.cli.output import as_text

        echo(as_text([asdict(finding) for finding in findings], "json"))
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            mark = _MARK[finding.state]
            if is_terminal():
                mark = click.style(mark, fg=_COLOUR[finding.state])
            echo(f"{mark}  {finding.what.ljust(width)}  {finding.said}")
            if finding.hint:
                echo(f"      {' ' * width}  {finding.hint}")
    return Exit.FAILURE if any(f.state == "bad" for f in findings) else Exit.OK


async def _all(context: Context) -> list[Finding]:
    findings = list(_machine())
    settings, about_project = _project(context)
    findings.append(about_project)
    engine = [finding async for finding in _engine(settings)]
    findings += engine
    findings += [finding async for finding in _builders()]
    findings += _names_and_ports(context, settings)
    findings += _tools()
    if settings is not None:
        findings += _not_simulated(context, docker=engine[0].state == "ok")
    return findings


# -- the machine ----------------------------------------------------------------------------------


def _machine() -> Iterator[Finding]:
    version = platform.python_version()
    fits = sys.version_info >= (3, 11)
    hint = "" if fits else "install Python 3.11 or newer"
    yield Finding("Python", "ok" if fits else "bad", version, hint)
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    low = free < 1
    yield Finding("disk", "note" if low else "ok", f"{free:.1f} GiB free here")


def _project(context: Context) -> tuple[Settings | None, Finding]:
    from knlocal.project.errors import ProjectError

    try:
        settings = context.settings
    except CliError:
        return None, Finding("project", "note", "no knlocal.toml here", "`knlocal init` makes one")
    except ProjectError as error:
        first, *rest = str(error).splitlines()
        return None, Finding("project", "bad", first, "\n".join(line.strip() for line in rest))
    home = context.home
    place = home.folder if home.folder.exists() else home.folder.parent
    if not os.access(place, os.W_OK):
        hint = "make it writable, or set state_dir under [project]"
        return settings, Finding("project", "bad", f"{place} cannot be written", hint)
    card = home.read_card() if home.is_held() else None
    state = f"up (pid {card.pid}, {card.runtime})" if card else "not up"
    return settings, Finding("project", "ok", f"{settings.project.name}: {state}")


# -- engines and builders -------------------------------------------------------------------------


async def _engine(settings: Settings | None) -> AsyncIterator[Finding]:
    wanted = settings.project.runtime if settings else "auto"
    why, info = await asyncio.to_thread(_docker_info)
    if info is None:
        state: State = "bad" if wanted == "docker" else "note"
        yield Finding(
            "Docker", state, why, "services with a source folder run as local processes without it"
        )
        return
    version, driver = info.get("ServerVersion", "?"), info.get("Driver", "?")
    cgroup = info.get("CgroupVersion", "1")
    said = (
        f"{version} ({driver}, cgroup v{cgroup}, {info.get('OSType')}/{info.get('Architecture')})"
    )
    yield Finding("Docker", "ok", said)
    if not info.get("MemoryLimit", True):
        yield Finding("Docker limits", "note", "the engine cannot limit memory here")


def _docker_info() -> tuple[str, dict[str, Any] | None]:
    import docker

    try:
        client = docker.from_env(timeout=5)
        try:
            return "", client.info()
        finally:
            client.close()
    except Exception as error:
        return f"no engine answers: {str(error).splitlines()[0][:160]}", None


async def _builders() -> AsyncIterator[Finding]:
    from knlocal.build.api import BuildFailure
    from knlocal.build.builders import BUILDERS, Builders

    builders = Builders()
    try:
        for name in BUILDERS:
            try:
                why = await builders.get(name).problem()
            except BuildFailure as error:
                why = str(error)
            if why is None:
                yield Finding(f"builder {name}", "ok", "can run here")
            else:
                yield Finding(f"builder {name}", "note", why)
    finally:
        await builders.close()


# -- names, ports, tools --------------------------------------------------------------------------


def _names_and_ports(context: Context, settings: Settings | None) -> Iterator[Finding]:
    name = "hello.default.localhost"
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(name, 80)}
        local = found <= {"127.0.0.1", "::1"}
        said = f"resolve to {', '.join(sorted(found))}"
        yield Finding("*.localhost", "ok" if local else "note", said)
    except OSError:
        yield Finding(
            "*.localhost", "note", "this system's resolver does not know such names",
            "browsers and curl do; elsewhere: `knlocal invoke SERVICE`, or the Host header",
        )  # fmt: skip
    from knlocal.project.ports import holder_of

    port = settings.gateway.port if settings else 8080
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            if settings is not None and context.home.is_held():
                card = context.home.read_card()
                if card is not None and card.gateway.rpartition(":")[2] == str(port):
                    yield Finding(f"port {port}", "ok", "this project answers there")
                    return
            said = f"held by {holder_of(port)}"
            yield Finding(f"port {port}", "note", said, "`up` then takes the next free one")
        else:
            yield Finding(f"port {port}", "ok", "free")


def _tools() -> Iterator[Finding]:
    for tool, arguments in (("kubectl", ("version", "--client")), ("kn", ("version",))):
        if shutil.which(tool) is None:
            yield Finding(tool, "note", "not installed (optional)")
            continue
        try:
            done = subprocess.run(
                [tool, *arguments], capture_output=True, text=True, timeout=10, check=False
            )
            lines = [line.strip() for line in done.stdout.splitlines() if "ersion" in line]
            yield Finding(tool, "ok", lines[0] if lines else "installed")
        except (OSError, subprocess.TimeoutExpired) as error:
            yield Finding(tool, "note", f"does not run: {error}")


def _not_simulated(context: Context, *, docker: bool) -> Iterator[Finding]:
    """Fields that are accepted and kept, and change nothing here: of the project's own files."""
    from knlocal.project import manifests, objects
    from knlocal.project.errors import ProjectError
    from knlocal.resources import unsimulated

    try:
        settings = context.settings
        found = manifests.load(settings.project.manifests, settings.root)
        found += objects.manifests(settings)
    except ProjectError as error:
        yield Finding("files", "bad", str(error).splitlines()[0])
        return
    processes = settings.project.runtime == "process" or not docker
    count = 0
    for manifest in found:
        for field in unsimulated.of(manifest.obj, processes=processes):
            count += 1
            name = f"{manifest.obj['kind']} {manifest.obj['metadata'].get('name')}"
            what = f"{name}: {field.path or 'the whole object'}"
            yield Finding("not simulated", "note", what, field.why)
    if not count:
        yield Finding("parity", "ok", "everything in the project's files is simulated")
