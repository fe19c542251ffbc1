"""Running a command beside a local process: in its folder, with its environment."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from knlocal.runtime.api import ExecResult, ExecStream, RuntimeFailure
from knlocal.runtime.realtime import CLOCK

_READ = 65536
#: Bytes of a command's output that are kept; what it writes beyond is dropped.
MOST_OUTPUT = 1 << 20


async def run(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], timeout_seconds: float
) -> ExecResult:
    """To the end; the whole group is killed when it takes too long."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env=dict(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as failed:
        return _not_run(command, failed)
    output = bytearray()
    assert process.stdout is not None
    try:
        async with CLOCK.timeout(timeout_seconds):
            while data := await process.stdout.read(_READ):
                output += data[: max(0, MOST_OUTPUT - len(output))]
            await process.wait()
    except TimeoutError:
        raise RuntimeFailure(
            "DeadlineExceeded", f"command {list(command)!r} timed out after {timeout_seconds:g} s"
        ) from None
    finally:
        _kill_group(process.pid)
        await process.wait()
    return ExecResult(_code(process.returncode), bytes(output))


async def open_stream(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], *, stdin: bool, tty: bool
) -> ExecStream:
    stream = LocalStream()
    await stream.start(command, cwd, env, stdin=stdin, tty=tty)
    return stream


class LocalStream(ExecStream):
    """A command with pipes, or with a terminal of its own."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._terminal = -1
        self._pieces: asyncio.Queue[tuple[Literal["stdout", "stderr"], bytes] | None] = (
            asyncio.Queue(16)
        )
        self._failed: ExecResult | None = None
        self._pumps: list[asyncio.Task[None]] = []

    async def start(
        self, command: Sequence[str], cwd: Path, env: Mapping[str, str], *, stdin: bool, tty: bool
    ) -> None:
        pipe = asyncio.subprocess.PIPE
        far = -1
        if tty:
            self._terminal, far = pty.openpty()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                cwd=cwd,
                env=dict(env) | ({"TERM": "xterm"} if tty else {}),
                stdin=far if tty else pipe if stdin else asyncio.subprocess.DEVNULL,
                stdout=far if tty else pipe,
                stderr=far if tty else pipe,
                start_new_session=True,
            )
        except OSError as failed:
            self._failed = _not_run(command, failed)
        finally:
            if far >= 0:
                os.close(far)
        self._pumps = [asyncio.create_task(self._pump(tty))]

    async def _pump(self, tty: bool) -> None:
        try:
            if self._failed is not None:
                await self._pieces.put(("stderr", self._failed.output))
            elif tty:
                await self._pump_terminal()
            elif self._process is not None:
                await asyncio.gather(
                    self._pump_pipe("stdout", self._process.stdout),
                    self._pump_pipe("stderr", self._process.stderr),
                )
        finally:
            with contextlib.suppress(asyncio.QueueFull):
                self._pieces.put_nowait(None)

    async def _pump_pipe(
        self, name: Literal["stdout", "stderr"], pipe: asyncio.StreamReader | None
    ) -> None:
        while pipe is not None and (data := await pipe.read(_READ)):
            await self._pieces.put((name, data))

    async def _pump_terminal(self) -> None:
        while True:
            await _readable(self._terminal)
            try:
                data = os.read(self._terminal, _READ)
            except OSError:  # EIO: nobody holds the other end any more
                return
            if not data:
                return
            await self._pieces.put(("stdout", data))

    async def __aiter__(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        while True:
            if self._pieces.empty() and all(pump.done() for pump in self._pumps):
                return
            piece = await self._pieces.get()
            if piece is None:
                return
            yield piece

    async def write(self, data: bytes) -> None:
        if self._terminal >= 0:
            os.write(self._terminal, data or b"\x04")
        elif self._process is not None and (pipe := self._process.stdin) is not None:
            with contextlib.suppress(ConnectionError):
                if data:
                    pipe.write(data)
                    await pipe.drain()
                else:
                    pipe.close()

    async def resize(self, width: int, height: int) -> None:
        if self._terminal >= 0:
            fcntl.ioctl(
                self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0)
            )

    async def wait(self) -> int:
        if self._process is None:
            return self._failed.exit_code if self._failed is not None else 0
        return _code(await self._process.wait())

    async def close(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        if self._process is not None:
            _kill_group(self._process.pid)
            await self._process.wait()
            if (pipe := self._process.stdin) is not None:
                pipe.close()
        terminal, self._terminal = self._terminal, -1
        if terminal >= 0:
            os.close(terminal)


class LogStream(ExecStream):
    """`attach`: what a process writes from now on. Its stdin is at its end, as in Knative."""

    def __init__(self, lines: AsyncIterator[bytes], exit_code: Callable[[], int]) -> None:
        self._lines = lines
        self._exit_code = exit_code
        self._ended = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        async for lines in self._lines:
            yield "stdout", lines
        self._ended.set()

    async def write(self, data: bytes) -> None: ...

    async def resize(self, width: int, height: int) -> None: ...

    async def wait(self) -> int:
        await self._ended.wait()
        return self._exit_code()

    async def close(self) -> None:
        self._ended.set()


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


def _not_run(command: Sequence[str], failed: OSError) -> ExecResult:
    """As engines answer: 126 for what may not be run, 127 for what is not there."""
    code = 127 if isinstance(failed, FileNotFoundError) else 126
    name = command[0] if command else ""
    return ExecResult(code, f'exec: "{name}": {failed.strerror}\n'.encode())


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _code(returncode: int | None) -> int:
    return 0 if returncode is None else returncode if returncode >= 0 else 128 - returncode
