"""A body on its way in: one protocol feeds it, one reader takes it, neither runs far ahead."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from multidict import CIMultiDict

HIGH_WATER = 256 * 1024
"""Bytes that may wait for the reader before the sender is told to pause."""


class Incoming:
    """Pieces of a body. `pause` and `resume` steer the transport it comes from."""

    __slots__ = (
        "_error",
        "_pause",
        "_paused",
        "_pieces",
        "_resume",
        "_size",
        "_waiter",
        "ended",
        "trailers",
    )

    def __init__(self, pause: Callable[[], object], resume: Callable[[], object]) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._pause = pause
        self._resume = resume
        self._paused = False
        self.ended = False
        self.trailers: CIMultiDict[str] | None = None

    def feed(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER and not self._paused:
            self._paused = True
            self._pause()
        if self._waiter is not None:
            self._wake()

    def end(self, trailers: CIMultiDict[str] | None = None) -> None:
        self.ended = True
        self.trailers = trailers
        if self._waiter is not None:
            self._wake()

    def fail(self, error: BaseException) -> None:
        """The reader gets what has arrived, then `error`."""
        if not self.ended and self._error is None:
            self._error = error
            if self._waiter is not None:
                self._wake()

    async def read(self) -> bytes:
        """All that has arrived since the last read; b"" at the end."""
        while not self._pieces:
            if self.ended:
                return b""
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self.take()

    def take(self) -> bytes:
        """What has arrived, without waiting."""
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            self._resume()
        return data

    def peek(self) -> bytes:
        """What has arrived, left where it is."""
        pieces = self._pieces
        if len(pieces) > 1:
            data = b"".join(pieces)
            pieces.clear()
            pieces.append(data)
        return pieces[0] if pieces else b""

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
