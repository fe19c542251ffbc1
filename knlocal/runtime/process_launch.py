"""Starting a shim, and hearing from it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from knlocal.clock import Timer
from knlocal.runtime.api import RuntimeFailure
from knlocal.runtime.process_shim import FAILED, STARTED
from knlocal.runtime.realtime import CLOCK

SHIM = Path(__file__).with_name("process_shim.py")
#: Seconds a shim may take to say whether the process started.
START_DEADLINE = 30.0
#: Seconds after which a shim that was taken has a successor.
REFILL = 0.3
#: Bytes that every pipe takes at once: who is told more is not told through one.
PIPE = 16 * 1024


@dataclass(frozen=True, slots=True)
class Launch:
    """What the shim is told."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    log_max: int
    user: int | None = None
    group: int | None = None
    groups: Sequence[int] = ()

    def encoded(self, folder: Path) -> bytes:
        fields = [
            str(folder),
            str(self.log_max),
            "" if self.user is None else str(self.user),
            "" if self.group is None else str(self.group),
            ",".join(map(str, self.groups)),
            str(self.cwd),
            str(len(self.argv)),
            *self.argv,
            *(f"{name}={value}" for name, value in self.env.items()),
        ]
        if any("\0" in field for field in fields):
            raise RuntimeFailure(
                "CreateContainerError", "a command or environment value contains a NUL character"
            )
        return "\0".join(fields).encode(errors="surrogateescape")


class Bell:
    """The daemon's end of a shim's FIFO: `logged` at new lines, `ended` once when it is gone."""

    def __init__(
        self, folder: Path, logged: Callable[[], object], ended: Callable[[], object]
    ) -> None:
        self._path = folder / "bell"
        self._logged = logged
        self._ended = ended
        self._fd = -1

    async def launch(self, launch: Launch, shims: Shims) -> None:
        """Give the process to a shim; RuntimeFailure when it cannot start it."""
        loop = asyncio.get_running_loop()
        os.mkfifo(self._path, 0o600)
        # Both ends are held until the shim has its own: a FIFO without a writer looks ended.
        both = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        first: asyncio.Future[bytes] = loop.create_future()
        self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            loop.add_reader(self._fd, self._hear_first, first)
            shim = shims.give(launch.encoded(self._path.parent))
            try:
                async with CLOCK.timeout(START_DEADLINE):
                    with _watched(shim, functools.partial(self._shim_ended, first)):
                        word = await first
            except TimeoutError:
                raise RuntimeFailure(
                    "RunContainerError", f"the process did not start within {START_DEADLINE:g} s"
                ) from None
            finally:
                _reap_later(shim)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(both)
        loop.remove_reader(self._fd)
        loop.add_reader(self._fd, self._hear)
        if word[:1] == FAILED:
            self.close()
            raise RuntimeFailure("RunContainerError", _message(self._path.parent))

    def listen(self) -> bool:
        """To a shim that an earlier daemon started; False when it is gone."""
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            alive = os.read(self._fd, 65536) != b""
        except BlockingIOError:
            alive = True
        if alive:
            asyncio.get_running_loop().add_reader(self._fd, self._hear)
        else:
            self.close()
        return alive

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)

    def _hear_first(self, first: asyncio.Future[bytes]) -> None:
        word = os.read(self._fd, 1)
        if word in (STARTED, FAILED) and not first.done():
            first.set_result(word)

    def _shim_ended(self, first: asyncio.Future[bytes]) -> None:
        with contextlib.suppress(BlockingIOError):
            self._hear_first(first)  # its last word may be on its way
        if not first.done():
            killed = RuntimeFailure("RunContainerError", "what starts the process was killed")
            first.set_exception(killed)

    def _hear(self) -> None:
        try:
            heard = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        if heard:
            self._logged()
        else:
            self.close()
            self._ended()


class Shims:
    """Starts shims. One is kept started ahead: to be a Python program takes it as long as some
    services take to start. It waits for what it is told, and ends with the daemon."""

    def __init__(self) -> None:
        self._spare: tuple[int, int] | None = None
        """Its process id, and the end of the pipe that it reads."""
        self._refill: Timer | None = None
        self._closed = False

    def give(self, told: bytes) -> int:
        """Have a shim do this; its process id. RuntimeFailure when there can be none."""
        spare, self._spare = self._spare, None
        if self._refill is None and not self._closed:
            # Later: what is just being started needs the processor more.
            self._refill = CLOCK.call_later(REFILL, self._start_ahead)
        if spare is not None:
            shim, pipe = spare
            taken = len(told) <= PIPE and _write(pipe, told)
            os.close(pipe)
            _reap_later(shim)
            if taken:
                return shim
        with tempfile.TemporaryFile() as spec:
            spec.write(told)
            spec.seek(0)
            return _spawn(spec.fileno())

    def close(self) -> None:
        """The spare one ends."""
        self._closed = True
        if self._refill is not None:
            self._refill.cancel()
        if self._spare is not None:
            shim, pipe = self._spare
            self._spare = None
            os.close(pipe)
            _reap_later(shim)

    def _start_ahead(self) -> None:
        self._refill = None
        reader, writer = os.pipe()
        try:
            self._spare = _spawn(reader), writer
        except RuntimeFailure:
            os.close(writer)
        finally:
            os.close(reader)


def _write(pipe: int, told: bytes) -> bool:
    """False when nobody reads: the shim was killed."""
    try:
        return os.write(pipe, told) == len(told)
    except OSError:
        return False


def _spawn(stdin: int) -> int:
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", str(SHIM)],
            dict(os.environ),
            file_actions=[(os.POSIX_SPAWN_DUP2, stdin, 0)],
        )
    except OSError as failed:
        raise RuntimeFailure(
            "RunContainerError", f"cannot start a process: {failed.strerror}"
        ) from failed


@contextlib.contextmanager
def _watched(pid: int, ended: Callable[[], object]) -> Iterator[None]:
    """Call `ended` when a child ends. Elsewhere than on Linux nobody tells."""
    try:
        fd = os.pidfd_open(pid)
    except (AttributeError, OSError):
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, ended)
    try:
        yield
    finally:
        loop.remove_reader(fd)
        os.close(fd)


_shims: set[int] = set()


def _reap_later(shim: int) -> None:
    _shims.add(shim)
    reap()


def reap() -> None:
    """Take the exit status of shims that have ended, so that none stays as a zombie."""
    for shim in list(_shims):
        try:
            if os.waitpid(shim, os.WNOHANG)[0]:
                _shims.discard(shim)
        except ChildProcessError:
            _shims.discard(shim)


def _message(folder: Path) -> str:
    try:
        return (folder / "exit").read_text().split("\n", 2)[2].strip()
    except (OSError, IndexError):
        return "the process could not be started"
