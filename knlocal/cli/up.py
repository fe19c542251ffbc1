"""`up` and `down`: the daemon, in front of a person or in the background."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knlocal.cli.context import Context, echo, note, pass_context
from knlocal.cli.exits import CliError, Exit

if TYPE_CHECKING:
    from knlocal.cli.screen import Screen
    from knlocal.daemon import Daemon

#: Seconds: for services, and for all else, to get ready before the table is shown, for a daemon to
#: go.
SHOW_AFTER, OTHERS_AFTER, DOWN_WITHIN = 20.0, 3.0, 60.0
#: Bytes: less than this on the disk, and the log did not even take a line.
ROOM = 65_536
#: Where the background daemon reports to the command that started it.
REPORT_VARIABLE = "KNLOCAL_REPORT_FD"


@click.command("up")
@click.option("-d", "--detach", is_flag=True, help="Run in the background; `knlocal down` ends it.")
@click.option("--logs/--no-logs", default=True, help="Show what containers print, too (default).")
@click.option("--runtime", type=click.Choice(["auto", "docker", "process"]), help="Only this time.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the gateway, this time.")
@pass_context
def up_command(
    context: Context, detach: bool, logs: bool, runtime: str | None, port: int | None
) -> int:
    """Run the project: apply its files and serve them until Ctrl-C.

    Ctrl-C removes every container; objects are kept in .knlocal/ for the next time. With -d the
    exit code is 1 when some of the project could not be built or applied; the rest runs.
    """
    settings = context.settings
    if runtime is not None:
        changed = settings.project.model_copy(update={"runtime": runtime})
        settings = settings.model_copy(update={"project": changed})
    if port is not None:
        gateway = settings.gateway.model_copy(update={"port": port})
        settings = settings.model_copy(update={"gateway": gateway})
    context.settings = settings
    if detach:
        return _detach(context, runtime, port)
    report = os.environ.pop(REPORT_VARIABLE, None)
    _log_to(context.home.log if report else None, settings.logs.level)
    from knlocal.cli.screen import Screen

    screen = Screen(settings.project.namespace, with_logs=logs and report is None)
    if report is not None:
        screen.report_to(int(report))
    return _run(_serve(context, screen))


def _run(main: object) -> int:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.run(main)  # type: ignore[arg-type]
    result: int = uvloop.run(main)  # type: ignore[arg-type]
    return result


async def _serve(context: Context, screen: Screen) -> int:
    from knlocal.cli.keys import HELP, Keys, reading
    from knlocal.daemon import Daemon

    daemon = Daemon(context.settings, told=screen.told())
    asked_to_stop = _stop_on_signals()
    begun = asyncio.ensure_future(daemon.start())
    stopped = asyncio.ensure_future(asked_to_stop.wait())
    await asyncio.sleep(0)  # whoever reads that it starts can stop it: the project is held
    screen.header(context.settings)
    with contextlib.closing(screen):
        await asyncio.wait({begun, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not begun.done():
            daemon.leave_nothing()
            begun.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await begun
            await _remove_left_over(context)  # of a daemon before, too
            return Exit.INTERRUPTED
        begun.result()
        try:
            screen.follow(daemon)
            keys = Keys(daemon, screen, asked_to_stop.set)
            with contextlib.closing(keys), reading(keys.press) as has_keys:
                screen.keys_help = HELP if has_keys else ""
                await _first_table(daemon, screen, stopped)
                await stopped
        finally:
            screen.goodbye()
            await daemon.shutdown()
    return Exit.OK


async def _first_table(daemon: Daemon, screen: Screen, stopped: asyncio.Future[Any]) -> None:
    """Show the services once each is ready, or has failed, or takes long."""
    begun = time.monotonic()
    while not stopped.done():
        waited = time.monotonic() - begun
        others = waited > OTHERS_AFTER or screen.others_known(daemon)
        if waited > SHOW_AFTER or (others and screen.all_known(daemon)):
            break
        await asyncio.sleep(0.02)
    screen.table(daemon)


def _stop_on_signals() -> asyncio.Event:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    def stop() -> None:
        if event.is_set():
            note("stopping at once; `knlocal down` removes what is left")
            os._exit(Exit.INTERRUPTED)
        event.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    return event


def _log_to(file: Path | None, level: str) -> None:
    """What the daemon says about itself: to the terminal's error stream, or to a file."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(file) if file else logging.StreamHandler()
    form = (
        "%(asctime)s %(levelname)s %(name)s: %(message)s" if file else "%(levelname)s: %(message)s"
    )
    handler.setFormatter(logging.Formatter(form))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.ERROR)


# -- in the background ----------------------------------------------------------------------------


def _detach(context: Context, runtime: str | None, port: int | None) -> int:
    home = context.home
    with home.hold():  # or say who holds it, or why nobody can
        pass
    begun = home.log.stat().st_size if home.log.exists() else 0
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "knlocal", "-C", str(context.settings.root), "up"]
    command += ["--runtime", runtime] if runtime else []
    command += ["--port", str(port)] if port is not None else []
    with home.log.open("ab") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[writer],
            env={**os.environ, REPORT_VARIABLE: str(writer)},
        )
    os.close(writer)
    problems = _relay(reader)
    if problems is not None:
        echo(f"in the background (pid {child.pid}); stop it with `knlocal down`")
        if problems:
            raise CliError(
                f"it is up without all of it: {problems} problem{'s' * (problems > 1)}, told above",
                hint="mend and save the files: a running project applies them at once",
            )
        return Exit.OK
    code = child.wait(timeout=DOWN_WITHIN)
    with home.log.open("rb") as log:
        log.seek(begun)
        said = log.read().decode("utf-8", "replace").strip().removeprefix("knlocal: ")
    if not said and shutil.disk_usage(home.folder).free < ROOM:
        raise CliError("the disk is full", Exit.FAILURE, f"make space where {home.folder} is")
    raise CliError(
        said or f"the daemon did not come up (exit code {code})",
        Exit(code) if code in set(Exit) else Exit.FAILURE,
        f"log: {home.log}",
    )


def _relay(reader: int) -> int | None:
    """Print what the child reports until it says that it is up, and with how many problems; None
    when it ends before."""
    with os.fdopen(reader, "r", encoding="utf-8", errors="replace") as report:
        for line in report:
            if line.startswith("\x04"):
                return int(line[1:])
            if line.startswith("\x15"):
                note(line[1:].rstrip("\n"))
            else:
                click.echo(line, nl=False)
    return None


# -- down -----------------------------------------------------------------------------------------


@click.command("down")
@click.option("--purge", is_flag=True, help="Forget the project's objects and snapshots, too.")
@pass_context
def down_command(context: Context, purge: bool) -> int:
    """Stop the project and remove its containers. Its objects are kept for the next `up`."""
    home, name = context.home, context.project.name
    pid = home.holder()
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        _wait_until_free(context, pid)
        echo(f"{name} is down")
    elif home.folder.is_dir():
        removed = asyncio.run(_remove_left_over(context))
        what = f"removed {removed} left-over pods" if removed else "nothing was running"
        echo(f"{name} is down ({what})")
    else:
        echo(f"{name} was never up")
    if purge:
        shutil.rmtree(home.folder, ignore_errors=True)
    return Exit.OK


def _wait_until_free(context: Context, pid: int) -> None:
    until = time.monotonic() + DOWN_WITHIN
    while context.home.is_held():
        if time.monotonic() > until:
            raise CliError(
                f"the daemon (pid {pid}) is still there after {DOWN_WITHIN:g} s",
                Exit.TIMEOUT,
                f"end it with `kill -9 {pid}`, then run `knlocal down` again",
            )
        time.sleep(0.02)


async def _remove_left_over(context: Context) -> int:
    """After a crash: what still runs and belongs to nobody."""
    from knlocal.daemon import remove_left_over

    return await remove_left_over(context.settings)
