"""Medians, ratios, and a table: what every benchmark prints.

Figures are ratios within one run on one machine, so that they mean the same elsewhere.
"""

from __future__ import annotations

import asyncio
import importlib
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: ours, what it is compared with, and the target for the ratio (if any)."""

    name: str
    ours: float
    theirs: float
    unit: str = "ms"
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs if self.theirs else float("inf")

    @property
    def met(self) -> bool:
        return (self.at_most is None or self.ratio <= self.at_most) and (
            self.at_least is None or self.ratio >= self.at_least
        )

    def markdown(self, prefix: str = "") -> str:
        target = (
            f"≤ {self.at_most:g}"
            if self.at_most is not None
            else f"≥ {self.at_least:g}"
            if self.at_least is not None
            else "–"
        )
        verdict = "yes" if self.met else "**no**"
        return (
            f"| {prefix}{self.name} | {self.ours:.4g} {self.unit} | {self.theirs:.4g} {self.unit} |"
            f" {self.ratio:.3f} | {target} | {verdict} |"
        )


def rows_of(module: str, times: int) -> list[Row]:
    """The figures of a benchmark module, by its name."""
    rows: list[Row] = importlib.import_module(f"benchmarks.{module}").run(times)
    return rows


async def median_ms(measured: Callable[[], Awaitable[float]], times: int = 20) -> float:
    """The median of what `measured` returns (seconds), in milliseconds, after one warm-up."""
    await measured()
    return statistics.median([await measured() for _ in range(times)]) * 1000


async def medians_ms(*measured: Callable[[], Awaitable[float]], times: int = 20) -> list[float]:
    """Like `median_ms`, of several in turn: a busy moment of the machine then falls on each."""
    samples: list[list[float]] = [[] for _ in measured]
    for one in measured:
        await one()
    for _ in range(times):
        for one, found in zip(measured, samples, strict=True):
            found.append(await one())
    return [statistics.median(found) * 1000 for found in samples]


def now() -> float:
    """Seconds that only differ meaningfully (benchmarks measure the real thing)."""
    return time.perf_counter()


async def first_byte(host: str, port: int, path: str = "/", deadline: float = 30.0) -> None:
    """Ask until the first byte of an answer arrives."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    async with asyncio.timeout(deadline):
        while True:
            writer = None
            try:
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(request)
                if await reader.read(1):
                    return
            except OSError:
                pass
            finally:
                if writer is not None:
                    writer.close()
            await asyncio.sleep(0.001)


def report(title: str, rows: Sequence[Row], ours: str = "knlocal", theirs: str = "baseline") -> int:
    """Print a markdown table; 1 when a target is missed (what a script exits with)."""
    print(f"## {title}\n")
    print(f"| what | {ours} | {theirs} | ratio | target | met |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(row.markdown())
    print()
    sys.stdout.flush()
    return int(any(not row.met for row in rows))
