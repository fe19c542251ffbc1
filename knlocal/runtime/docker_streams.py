"""The engine's multiplexed streams (logs, exec, attach), and lines made of them.

Without a terminal, stdout and stderr come as frames: one byte for the stream, three zeros, the
length as four bytes big-endian, the data (Docker Engine API, "Attach to a container").
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, Protocol

StreamName = Literal["stdout", "stderr"]

#: A line longer than this is passed on in pieces rather than held in memory.
LONGEST_LINE = 1 << 20
_READ = 1 << 16


class Reader(Protocol):
    """asyncio's and aiohttp's stream readers."""

    async def read(self, n: int = -1, /) -> bytes: ...


async def frames(reader: Reader, *, tty: bool) -> AsyncIterator[tuple[StreamName, bytes]]:
    """Each frame's stream and data; with a terminal everything is stdout."""
    pending = bytearray()
    while chunk := await reader.read(_READ):
        if tty:
            yield "stdout", chunk
            continue
        pending += chunk
        start = 0
        while len(pending) - start >= 8:
            size = int.from_bytes(pending[start + 4 : start + 8], "big")
            if len(pending) - start - 8 < size:
                break
            name: StreamName = "stderr" if pending[start] == 2 else "stdout"
            yield name, bytes(pending[start + 8 : start + 8 + size])
            start += 8 + size
        del pending[:start]


class Lines:
    """Joins frames into whole lines, each stream by itself.

    The engine cuts lines at 16 KiB; with timestamps, it dates each piece, and only the first date
    belongs to the line.
    """

    def __init__(self, *, timestamps: bool) -> None:
        self._timestamps = timestamps
        self._open: dict[str, bytearray] = {}

    def add(self, stream: str, data: bytes) -> bytes:
        """The lines that are complete now (b"" when none is)."""
        held = self._open.setdefault(stream, bytearray())
        if held and self._timestamps:
            data = data.partition(b" ")[2]
        held += data
        end = held.rfind(b"\n") + 1
        if not end and len(held) > LONGEST_LINE:
            end = len(held)
        done = bytes(held[:end])
        del held[:end]
        return done

    def rest(self) -> bytes:
        """What was left without an end of line when the streams ended."""
        return b"".join(bytes(held) for held in self._open.values() if held)
