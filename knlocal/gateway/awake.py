"""Keeps the event loop from falling asleep while an answer is on its way.

A sleeping loop is woken by the kernel, which on a virtual machine takes longer than a quick peer
takes to answer. Who delivers one message after the other waits for that each time; looking for the
answer a few times instead made half as many deliveries a second again (benchmarks/README.md).
"""

from __future__ import annotations

import asyncio
import os
import weakref
from typing import Final

TURNS: Final = 60
"""Turns of the loop that look for an answer: about 200 µs when nothing else is to be done."""


class Awake:
    """One per event loop; `keep` after sending what is answered soon."""

    __slots__ = ("__weakref__", "_left", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._left = 0

    def keep(self) -> None:
        """Stay awake for the next `TURNS` turns."""
        if not self._left:
            self._loop.call_soon(self._turn)
        self._left = TURNS

    def _turn(self) -> None:
        self._left -= 1
        if self._left:
            self._loop.call_soon(self._turn)


class _Asleep(Awake):
    """On a single core the peer can only answer while we sleep."""

    __slots__ = ()

    def keep(self) -> None:
        pass


_KIND: Final = Awake if (os.cpu_count() or 1) > 1 else _Asleep
_of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Awake] = weakref.WeakKeyDictionary()


def awake() -> Awake:
    """The running loop's."""
    loop = asyncio.get_running_loop()
    found = _of_loop.get(loop)
    if found is None:
        found = _of_loop[loop] = _KIND(loop)
    return found
