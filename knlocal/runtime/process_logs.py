"""Reading the logs that `process_shim.py` writes, in Kubernetes' container log format:
`2024-01-01T00:00:00.000000000Z stdout F text` (P for a piece of a longer line)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from knlocal.runtime.api import LogOptions

_CHUNK = 1 << 18


async def read(
    folder: Path,
    options: LogOptions,
    *,
    news: Callable[[], tuple[bool, asyncio.Event]] | None,
) -> AsyncIterator[bytes]:
    """The older file, then the newer. To follow, `news` says whether more may come, and what is
    set when it has."""
    show = _Shown(options.since, options.timestamps)
    path = folder / "log"
    log = _open(path)  # first: a rotation meanwhile moves what is open, and loses nothing
    held = b"".join(_whole(folder / "log.1", show)) if _is_older(folder, log) else b""
    try:
        if log is not None:
            held += _rest(log, show)
        if news is None:
            held += show.rest()
        if options.tail is not None:
            held = _last_lines(held, options.tail)
        if held:
            yield held
        while news is not None:
            alive, come = news()  # before reading: what comes meanwhile is not missed
            if log is not None and (lines := _rest(log, show)):
                yield lines
            if (turned := _turned(path, log)) is not None:
                if log is not None:
                    if lines := _rest(log, show):
                        yield lines
                    log.close()
                log = turned
                if lines := _rest(log, show):
                    yield lines
            if not alive:
                break
            await come.wait()
        if rest := show.rest():
            yield rest
    finally:
        if log is not None:
            log.close()


class _Shown:
    """Takes written lines, gives lines for people."""

    def __init__(self, since: datetime | None, timestamps: bool) -> None:
        # The dates have one length and one zone: they compare as text.
        self._since = (
            since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").encode() if since else b""
        )
        self._timestamps = timestamps
        self._cut = b""
        self._open: dict[bytes, bytes] = {}

    def add(self, data: bytes) -> bytes:
        *lines, self._cut = (self._cut + data).split(b"\n")
        out = []
        for line in lines:
            date, _, rest = line.partition(b" ")
            stream, _, rest = rest.partition(b" ")
            if date < self._since or not stream:
                continue
            tag, _, text = rest.partition(b" ")
            start = self._open.pop(stream, b"")
            if not start and self._timestamps:
                start = date + b" "
            if tag == b"P":
                self._open[stream] = start + text
            else:
                out.append(start + text + b"\n")
        return b"".join(out)

    def rest(self) -> bytes:
        left, self._open = b"".join(self._open.values()), {}
        return left


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _is_older(folder: Path, log: BinaryIO | None) -> bool:
    """Whether `log.1` is another file than the one that is open (it was not turned just now)."""
    try:
        older = (folder / "log.1").stat()
    except FileNotFoundError:
        return False
    return log is None or os.fstat(log.fileno()).st_ino != older.st_ino


def _whole(path: Path, show: _Shown) -> list[bytes]:
    file = _open(path)
    if file is None:
        return []
    with file:
        return [_rest(file, show)]


def _rest(file: BinaryIO, show: _Shown) -> bytes:
    out = []
    while data := file.read(_CHUNK):
        out.append(show.add(data))
    return b"".join(out)


def _turned(path: Path, log: BinaryIO | None) -> BinaryIO | None:
    """The new file under the name, when it is not the one that is open."""
    try:
        if log is not None and os.fstat(log.fileno()).st_ino == path.stat().st_ino:
            return None
    except FileNotFoundError:
        return None
    return _open(path)


def _last_lines(text: bytes, count: int) -> bytes:
    if count <= 0:
        return b""
    return b"".join(text.splitlines(keepends=True)[-count:])
