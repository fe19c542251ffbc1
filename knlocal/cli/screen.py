"""What `up` shows: news, builds, containers' output, and the table of services.

On a terminal with colour; plain lines when piped; to the starting command when in the background.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import datetime
from typing import IO, TYPE_CHECKING

import click

from knlocal import __version__
from knlocal.cli.context import is_terminal
from knlocal.cli.narrator import (
    SERVICE,
    TOLD_GROUPS,
    Line,
    Mood,
    Narrator,
    readiness,
    service_rows,
)
from knlocal.cli.output import aligned
from knlocal.project.door import Told

if TYPE_CHECKING:
    from knlocal.daemon import Daemon
    from knlocal.project.settings import Settings
    from knlocal.resources.base import Obj
    from knlocal.store.watch import WatchEvent

_STYLE: dict[Mood, str | None] = {"good": "green", "plain": None, "bad": "red"}
_COLOURS = ("cyan", "magenta", "yellow", "blue", "bright_cyan", "bright_magenta")


#: Seconds that something not ready gets to put itself right before it is worth a line.
PATIENCE = 1.0
#: Characters of the column of names.
WIDEST_NAME = 24
_SOURCES = {
    "ping": "pingsource", "container": "containersource", "apiserver": "apiserversource",
    "binding": "sinkbinding",
}  # fmt: skip


class Screen:
    """Everything that the daemon tells a person."""

    def __init__(self, namespace: str, *, with_logs: bool) -> None:
        self._namespace = namespace
        self._with_logs = with_logs
        self.logs_of: str | None = None
        """Whose containers' output is shown: None for all, "" for nobody's."""
        self.keys_help = ""
        self._narrator = Narrator()
        self._report: IO[str] | None = None
        self._colour = is_terminal()
        self._width = 10
        self._colours: dict[str, str] = {}
        self._unsubscribe: Callable[[], object] = lambda: None
        self._logs: dict[tuple[str, str, int], asyncio.Task[None]] = {}
        self._waiting: dict[str, tuple[asyncio.TimerHandle, Line]] = {}
        self._table_shown = False
        self._problems = 0
        self._daemon: Daemon | None = None

    def report_to(self, descriptor: int) -> None:
        """Tell another process (the command that started us in the background)."""
        os.set_inheritable(descriptor, False)  # or services would hold it when we are killed
        self._report = os.fdopen(descriptor, "w", encoding="utf-8", buffering=1)

    def close(self) -> None:
        self._unsubscribe()
        for timer, _ in self._waiting.values():
            timer.cancel()
        for task in self._logs.values():
            task.cancel()
        self._logs.clear()
        self._end_report()

    # -- what is told -------------------------------------------------------------------------

    def told(self) -> Told:
        """Where the project's door reports to."""
        return Told(
            build=lambda name, line: self.line(Line(name, line)),
            note=lambda name, text: self.line(Line(name or "note", text)),
            problem=self._problem,
        )

    def _problem(self, name: str, text: str) -> None:
        self._problems += 1
        first, *rest = text.splitlines() or [""]
        self.line(Line(name or "problem", first, "bad"))
        for line in rest:
            self.line(Line("", line, "bad"))

    def header(self, settings: Settings) -> None:
        names = [*settings.services, *(f"broker {name}" for name in settings.brokers)]
        names += [f"trigger {name}" for name in settings.triggers]
        names += [f"{_SOURCES[one.kind]} {name}" for name, one in settings.sources.items()]
        self._width = min(max(map(len, ["stopping", *names])), WIDEST_NAME)
        title = f"knlocal {__version__}: {settings.project.name}"
        self.print(click.style(title, bold=True) if self._colour else title)

    def line(self, line: Line) -> None:
        """`12:01:03  hello  ready at http://…`"""
        self._width = max(self._width, min(len(line.about), WIDEST_NAME))
        moment = datetime.now().strftime("%H:%M:%S") if line.about else " " * 8
        about, text = line.about.ljust(self._width), line.text
        colour = _STYLE[line.mood]
        if self._colour:
            moment = click.style(moment, dim=True)
            about = click.style(about, fg=self._colour_of(line.about))
            text = "\n".join(click.style(t, fg=colour) for t in text.splitlines() or [""])
        first, *rest = text.splitlines() or [""]
        self.print(f"{moment}  {about}  {first}")
        for more in rest:
            self.print(f"{' ' * (self._width + 12)}{more}")

    def _colour_of(self, about: str) -> str:
        return self._colours.setdefault(about, _COLOURS[len(self._colours) % len(_COLOURS)])

    def print(self, text: str = "") -> None:
        if self._report is not None:
            try:
                self._report.write(click.unstyle(text) + "\n")
            except BrokenPipeError:
                self._report = None
        else:
            click.echo(text, color=self._colour)

    # -- a running daemon ---------------------------------------------------------------------

    def follow(self, daemon: Daemon) -> None:
        """Tell how things are, and from now on what changes."""
        self._daemon = daemon
        for text in daemon.notes:
            self.line(Line("note", text))
        self._unsubscribe = daemon.store.subscribe(self._changed)
        for event in daemon.store_as_events():
            self._changed(event)

    def _changed(self, event: WatchEvent) -> None:
        for line in self._narrator.feed(event):
            if (waiting := self._waiting.pop(line.about, None)) is not None:
                waiting[0].cancel()
            if line.wait:
                self._wait(line)
            else:
                self.line(line)
        if self._with_logs and event.obj["kind"] == "Pod":
            self._follow_logs(event.obj)

    def _late(self, line: Line) -> None:
        self._waiting.pop(line.about, None)
        if self._daemon and not self._table_shown and not self.all_known(self._daemon):
            self._wait(line)  # it may wait for a service that starts
        else:
            self.line(line)

    def _wait(self, line: Line) -> None:
        timer = asyncio.get_running_loop().call_later(PATIENCE, self._late, line)
        self._waiting[line.about] = timer, line

    def services(self, daemon: Daemon) -> list[Obj]:
        return daemon.store.list(SERVICE)

    def all_known(self, daemon: Daemon) -> bool:
        """Whether each service is ready or has failed."""
        return all(readiness(obj)[0] != "Unknown" for obj in self.services(daemon))

    def others_known(self, daemon: Daemon) -> bool:
        """Whether the same is so of brokers, triggers, sources, …, and whoever is not ready was
        given the time to become it."""
        told = [kind for kind in daemon.store.kinds_in_use() if kind.group in TOLD_GROUPS]
        objects = [obj for kind in told for obj in daemon.store.list(kind)]
        return not self._waiting and all(readiness(obj)[0] != "Unknown" for obj in objects)

    def table(self, daemon: Daemon) -> None:
        self._table_shown = True
        for timer, late in self._waiting.values():
            timer.cancel()
            self.line(late)
        self._waiting.clear()
        rows = service_rows(self.services(daemon), self._namespace)
        self.print()
        if len(rows) > 1:
            for line in aligned(rows, colour=self._colour and self._report is None):
                self.print(f"  {line}")
        elif self._problems:
            self.print("  no services: see above; a save of what is wrong is applied at once")
        else:
            self.print("  no services yet; `knlocal apply -f FILE` adds some")
        self.print()
        self.print('  kubectl and kn: eval "$(knlocal env)"')
        if self._report is None:
            self.print("  Ctrl-C stops everything")
            if self.keys_help:
                self.print(f"  {self.keys_help}")
        self.print()
        if self._report is not None:
            self._report.write(f"\x04{self._problems}\n")
            self._end_report()

    def _end_report(self) -> None:
        if self._report is not None:
            report, self._report = self._report, None
            try:
                report.close()
            except OSError:
                pass
            # From here on nobody reads us: news go to the log.

    def goodbye(self) -> None:
        self._unsubscribe()
        self._unsubscribe = lambda: None
        for task in self._logs.values():
            task.cancel()
        self.print()
        self.line(Line("stopping", "removing containers"))

    # -- containers' output -------------------------------------------------------------------

    def _follow_logs(self, pod: Obj) -> None:
        metadata = pod["metadata"]
        for status in (pod.get("status") or {}).get("containerStatuses") or ():
            key = (metadata["uid"], status["name"], int(status.get("restartCount") or 0))
            state = status.get("state") or {}
            if status["name"] == "queue-proxy" or key in self._logs:
                continue
            if "running" in state or "terminated" in state:
                about = metadata.get("labels", {}).get("serving.knative.dev/service")
                task = asyncio.create_task(
                    self._read(pod, status["name"], about or metadata["name"]), name="logs"
                )
                self._logs[key] = task

    async def _read(self, pod: Obj, container: str, about: str) -> None:
        from knlocal.resources.status import StatusError
        from knlocal.runtime.api import LogOptions

        assert self._daemon is not None
        try:
            async for chunk in self._daemon.pod_looks.logs(pod, container, LogOptions(follow=True)):
                for line in chunk.decode("utf-8", "replace").splitlines():
                    self._output(about, line)
        except StatusError:
            return

    def _output(self, about: str, text: str) -> None:
        if self.logs_of is not None and about != self.logs_of:
            return
        label = about.ljust(self._width)
        if self._colour:
            label = click.style(label, fg=self._colour_of(about))
            text = click.style(text, dim=True)
        self.print(f"          {label}  | {text}")
