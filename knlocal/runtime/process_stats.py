"""What processes use: cores and bytes, as `docker_stats.py` says it of containers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import psutil

from knlocal.clock import Clock
from knlocal.runtime.process_state import HeldProcess


class Usage:
    """Cores are measured between two readings; the first takes the process's whole life."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: dict[str, tuple[float, float]] = {}

    async def read(self, processes: Iterable[HeldProcess]) -> dict[str, tuple[float, int]]:
        """Container name to (cores, bytes), for those that run."""
        running = [one for one in processes if one.running]
        measured = await asyncio.gather(*(asyncio.to_thread(_measure, one) for one in running))
        found = {}
        for one, (spent, memory) in zip(running, measured, strict=True):
            now = self._clock.now().timestamp()
            before, then = self._last.get(str(one.run_folder), (0.0, one.born))
            self._last[str(one.run_folder)] = (spent, now)
            passed = now - then
            found[one.name] = (max(0.0, (spent - before) / passed) if passed > 0 else 0.0, memory)
        return found

    def forget(self, processes: Iterable[HeldProcess]) -> None:
        for one in processes:
            self._last.pop(str(one.run_folder), None)


def _measure(one: HeldProcess) -> tuple[float, int]:
    """CPU seconds and bytes of a process with its descendants."""
    spent, memory = 0.0, 0
    process = one.process()
    try:
        family = [process, *process.children(recursive=True)] if process is not None else []
    except psutil.Error:
        family = []
    for member in family:
        try:
            times = member.cpu_times()
            spent += times.user + times.system
            memory += member.memory_info().rss
        except psutil.Error:
            continue
    return spent, memory
