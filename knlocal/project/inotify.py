"""Changes of files as the Linux kernel tells them: nobody asks, so nothing runs while nothing
happens, and a save is known in the moment it is made (inotify(7))."""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import struct
import sys
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

from knlocal.clock import SystemClock

_CREATE, _DELETE, _DELETE_SELF, _MOVE_SELF = 0x100, 0x200, 0x400, 0x800
_MODIFY, _ATTRIB, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO = 0x2, 0x4, 0x8, 0x40, 0x80
_OVERFLOW, _IGNORED, _ONLYDIR = 0x4000, 0x8000, 0x01000000
_WANTED = (
    _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF | _MODIFY | _ATTRIB | _CLOSE_WRITE
    | _MOVED_FROM | _MOVED_TO | _ONLYDIR
)  # fmt: skip
#: Watch, mask, cookie, length of the name that follows.
_HEAD = struct.Struct("iIII")


def available() -> bool:
    """Whether the kernel tells of changes here. It does not for the Windows drives of WSL."""
    wsl = "microsoft" in platform.release().lower()
    return sys.platform == "linux" and not wsl and not os.environ.get("WATCHFILES_FORCE_POLLING")


async def changes(
    folders: Iterable[Path], stop: asyncio.Event, *, quiet: float, longest: float
) -> AsyncGenerator[set[Path], None]:
    """Paths that changed in `folders` (not below them), batch by batch, until `stop`.

    A batch is complete after `quiet` seconds without a change, and after `longest` anyway. A folder
    is in it when it went away itself; all are when there was more than the kernel could hold.
    Raises OSError when there are no more watches to be had, or a folder is not there.
    """
    clock, watches = SystemClock(), _Watches(folders)
    try:
        while await watches.any(stop):
            until = clock.monotonic() + longest
            while clock.monotonic() < until:
                watches.heard.clear()
                try:
                    async with clock.timeout(quiet):
                        await watches.heard.wait()
                except TimeoutError:
                    break
            yield watches.take()
    finally:
        watches.close()


class _Watches:
    def __init__(self, folders: Iterable[Path]) -> None:
        self.heard = asyncio.Event()
        self._changed: set[Path] = set()
        self._folders: dict[int, Path] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify")
        try:
            for folder in folders:
                name = os.fsencode(folder)
                watch = self._libc.inotify_add_watch(self._fd, name, _WANTED)
                self._folders[self._checked(watch, str(folder))] = folder
        except BaseException:
            os.close(self._fd)
            raise
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    async def any(self, stop: asyncio.Event) -> bool:
        """Wait for a change; False when it is `stop` that came."""
        waits = [asyncio.create_task(event.wait()) for event in (self.heard, stop)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return not stop.is_set()

    def take(self) -> set[Path]:
        changed, self._changed = self._changed, set()
        self.heard.clear()
        return changed

    def _read(self) -> None:
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # nothing after all
            return
        at = 0
        while at < len(data):
            watch, mask, _, length = _HEAD.unpack_from(data, at)
            name = data[at + _HEAD.size : at + _HEAD.size + length].rstrip(b"\0")
            at += _HEAD.size + length
            if mask & _OVERFLOW:
                self._changed |= set(self._folders.values())
            elif not mask & _IGNORED and watch in self._folders:
                folder = self._folders[watch]
                self._changed.add(folder / os.fsdecode(name) if name else folder)
        if self._changed:
            self.heard.set()

    @staticmethod
    def _checked(result: int, what: str) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), what)
        return result
