"""One daemon for many tests: the expensive part, started once per session (and xdist worker)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Literal, TypeVar

from knlocal.clock import SystemClock, TravelClock
from knlocal.daemon import Daemon
from knlocal.project import config
from knlocal.project.door import Told
from knlocal.runtime.api import Runtime
from knlocal.testing.faults import FaultSwitch
from knlocal.testing.loop import LoopThread
from knlocal.testing.matching import hidden, seconds

__tracebackhide__ = hidden

T = TypeVar("T")
CLOCK = SystemClock()
RuntimeName = Literal["auto", "docker", "process"]


class Leak(AssertionError):
    """Something was left behind."""


class Host:
    """The real daemon in this process, on a thread and a clock of its own, on free ports.

    It runs no project itself: each `LocalProject` brings one into a namespace of its own.
    """

    #: How long, in real time, `advance` lets one moment's work take before it goes on: a container
    #: that takes its real time, or a delivery that waits for a later moment, must not hold it up.
    SETTLE_SECONDS = 0.25
    #: And how often, at least, it looks in each of these seconds: on a machine that has no time for
    #: this process, real time passes while nothing gets on.
    _LOOKS_PER_SECOND = 1000

    def __init__(
        self, state_dir: Path, runtime: RuntimeName = "auto", engine: Runtime | None = None
    ) -> None:
        self.loop = LoopThread()
        self.clock = TravelClock()
        settings = config.parse("", root=state_dir)
        self.settings = settings.model_copy(
            update={
                "project": settings.project.model_copy(
                    update={"name": "test", "state_dir": str(state_dir), "runtime": runtime}
                ),
                "gateway": settings.gateway.model_copy(update={"port": 0, "internal_port": 0}),
            }
        )
        self.daemon = Daemon(self.settings, clock=self.clock, runtime=engine, told=Told())
        self._patience = self.SETTLE_SECONDS

    def start(self, within: float | str = "60s") -> Host:
        """Raises what the daemon refuses, in its words."""
        try:
            self.run(self._start(), seconds(within))
        except BaseException:
            self.loop.stop()
            raise
        return self

    def stop(self, within: float | str = "60s") -> None:
        """Bring everything down. Raises Leak when containers or tasks stay behind."""
        try:
            self.run(self.daemon.shutdown(), seconds(within))
            left = [task.get_name() for task in self.loop.tasks()]
        finally:
            self.loop.stop()
        if left:
            raise Leak(f"tasks that did not end with the daemon: {', '.join(sorted(left))}")

    def __enter__(self) -> Host:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _start(self) -> None:
        await self.daemon.start()
        self.clock.settle = self._settle
        self.faults = FaultSwitch(self)

    async def _settle(self) -> None:
        """Between two timers: let controllers and deliveries do what the first one began."""
        for _ in range(self.clock.SETTLE_ROUNDS):
            await asyncio.sleep(0)
        if await self._comes_to_rest():
            self._patience = self.SETTLE_SECONDS
        else:
            # Whatever it is, it is likely to be there at the next moments, too.
            self._patience = max(self._patience / 4, 0.001)

    async def _comes_to_rest(self) -> bool:
        until = CLOCK.monotonic() + self._patience
        looks = self._patience * self._LOOKS_PER_SECOND
        calm = 0
        while calm < 3:
            if not self.daemon.busy:
                calm += 1
                await asyncio.sleep(0)
            elif looks > 0 or CLOCK.monotonic() < until:
                calm, looks = 0, looks - 1
                await asyncio.sleep(0.001)
            else:
                return False
        return True

    def run(self, work: Coroutine[Any, Any, T], within: float | None = 60) -> T:
        """Run a coroutine on the daemon's loop and wait for it."""
        return self.loop.run(work, within)

    async def aio(self, work: Coroutine[Any, Any, T]) -> T:
        return await self.loop.aio(work)
