"""Single keys in the foreground `up`: what they do, in one line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import webbrowser
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from knlocal.cli.narrator import Line
from knlocal.cli.trails import headline

if TYPE_CHECKING:
    from knlocal.cli.screen import Screen
    from knlocal.daemon import Daemon

HELP = "keys: r reload   l logs of one service   e events   o open   q quit"


class Keys:
    """Acts on keys. `press` may be called with any; what means nothing shows the line again."""

    def __init__(self, daemon: Daemon, screen: Screen, quit_: Callable[[], object]) -> None:
        self._daemon = daemon
        self._screen = screen
        self._quit = quit_
        self._events: asyncio.Task[None] | None = None

    def press(self, key: str) -> None:
        action = {
            "r": self._reload, "l": self._logs, "e": self._toggle_events, "o": self._open,
            "q": self._quit,
        }.get(key.lower())  # fmt: skip
        if action is None:
            self._screen.print(f"  {HELP}")
        else:
            action()

    def close(self) -> None:
        if self._events is not None:
            self._events.cancel()

    def _reload(self) -> None:
        self._screen.line(Line("reload", "reading everything again"))
        self._daemon.reloader.reload_all()

    def _logs(self) -> None:
        """All services, then each by itself, then none, then all again."""
        names = [obj["metadata"]["name"] for obj in self._screen.services(self._daemon)]
        choices: list[str | None] = [None, *names, ""]
        now = self._screen.logs_of
        self._screen.logs_of = choices[(choices.index(now) + 1) % len(choices) if now in choices
                                       else 0]  # fmt: skip
        shown = {None: "of all services", "": "of none"}.get(
            self._screen.logs_of, f"of {self._screen.logs_of}"
        )
        self._screen.line(Line("logs", shown))

    def _toggle_events(self) -> None:
        if self._events is not None:
            self._events.cancel()
            self._events = None
            self._screen.line(Line("events", "no longer shown"))
            return
        self._screen.line(Line("events", "shown as they come"))
        self._events = asyncio.create_task(self._tail(), name="events")

    async def _tail(self) -> None:
        with self._daemon.journal.tail(outcomes=True) as tail:
            async for entry in tail:
                self._screen.print(f"          {headline(entry)}")

    def _open(self) -> None:
        for obj in self._screen.services(self._daemon):
            url = (obj.get("status") or {}).get("url")
            if url:
                self._screen.line(Line("open", url))
                webbrowser.open(url)
                return


@contextlib.contextmanager
def reading(press: Callable[[str], object]) -> Iterator[bool]:
    """Call `press` with each key while the block lasts; False where there is no keyboard."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield False
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()

    def is_ours() -> bool:
        """Whether the terminal is: in the background, touching it would stop the process."""
        try:
            return os.tcgetpgrp(descriptor) == os.getpgrp()
        except OSError:
            return False

    def ready() -> None:
        if not is_ours():
            return
        for key in os.read(descriptor, 32).decode("utf-8", "ignore"):
            press(key)

    def back() -> None:
        """After Ctrl-Z and `fg` the shell has given the terminal its own settings."""
        if is_ours():
            tty.setcbreak(descriptor)

    back()
    loop.add_reader(descriptor, ready)
    loop.add_signal_handler(signal.SIGCONT, back)
    try:
        yield True
    finally:
        loop.remove_signal_handler(signal.SIGCONT)
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
