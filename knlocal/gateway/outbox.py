"""Writes of one pass of the event loop, sent together at its end.

Sending to a process that sleeps costs several times as much as sending to one that is awake: on a
virtual machine, waking the other core takes longer than everything else done for a request. When
all go together, the first write of a pass wakes the peer and the others find it busy; and the head,
the body and the end of one answer leave in one segment. At 16 connections this makes half as many
requests a second again (benchmarks/README.md).
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable
from typing import Final, cast

log = logging.getLogger(__name__)

_BIG: Final = 64 * 1024
"""Bytes in one write that are not worth holding back."""
_MANY: Final = 32
"""Pieces after which they are sent at once, so that a writer that never waits feels the peer."""


class Outbox:
    """The connections of one event loop that have something to send."""

    __slots__ = ("__weakref__", "_before", "_loop", "_planned", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._planned = False
        self._waiting: list[Writer] = []
        self._before: list[Callable[[], object]] = []

    def add(self, writer: Writer) -> None:
        self._waiting.append(writer)
        if not self._planned:
            self._plan()

    def before(self, callback: Callable[[], object]) -> None:
        self._before.append(callback)
        if not self._planned:
            self._plan()

    def _plan(self) -> None:
        self._planned = True
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        before = self._before
        if before:
            self._before = []
            for callback in before:
                try:
                    callback()
                except Exception:
                    log.exception("%r failed", callback)
        self._planned = False
        waiting = self._waiting
        self._waiting = []
        for writer in waiting:
            writer.flush()


_outboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Outbox] = (
    weakref.WeakKeyDictionary()
)


def _outbox_of(loop: asyncio.AbstractEventLoop) -> Outbox:
    found = _outboxes.get(loop)
    if found is None:
        found = _outboxes[loop] = Outbox(loop)
    return found


def before_sending(callback: Callable[[], object]) -> None:
    """Call `callback()` at the end of this pass of the event loop, before any connection sends: a
    commit, say, that what is sent depends on. What it sends itself leaves with the rest."""
    _outbox_of(asyncio.get_running_loop()).before(callback)


class Writer(asyncio.Protocol):
    """The sending half of a connection: collects, and waits while the peer does not take more."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._outbox = _outbox_of(self.loop)
        self._pieces: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.full = False
        """The peer takes less than it is sent: wait in `drained`."""
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._pieces.clear()
        self.resume_writing()

    def send(self, data: bytes) -> None:
        """Send at the end of this pass of the event loop."""
        pieces = self._pieces
        if not pieces:
            self._outbox.add(self)
        pieces.append(data)
        if len(data) >= _BIG or len(pieces) >= _MANY:
            self.flush()

    def flush(self) -> None:
        """Send now what was collected."""
        pieces = self._pieces
        if pieces:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            if not self.lost:
                self.transport.write(data)

    async def drained(self) -> None:
        """Wait until the peer has taken enough, or is lost."""
        while self.full and not self.lost:
            self._waiter = self.loop.create_future()
            await self._waiter

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def hang_up(self) -> None:
        """Send what was collected, then close."""
        self.flush()
        self.transport.close()

    def pause_reading(self) -> None:
        if not self.transport.is_closing() and self.transport.is_reading():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.transport.is_closing() and not self.transport.is_reading():
            self.transport.resume_reading()
