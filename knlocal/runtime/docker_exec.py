"""Running a command in a container, and attaching to what already runs there."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

from knlocal.runtime.api import ExecResult, ExecStream, RuntimeFailure
from knlocal.runtime.docker_http import NORMAL, Engine, EngineRefused
from knlocal.runtime.docker_streams import frames
from knlocal.runtime.realtime import CLOCK

#: Bytes of a command's output that are kept; what it writes beyond is dropped.
MOST_OUTPUT = 1 << 20


async def run(
    engine: Engine,
    container_id: str,
    command: Sequence[str],
    timeout_seconds: float,
    *,
    same_machine: bool,
) -> ExecResult:
    """Run to the end; a command that takes too long is killed where that is possible."""
    exec_id = await _create(engine, container_id, command, stdin=False, tty=False)
    output = bytearray()
    try:
        async with (
            CLOCK.timeout(timeout_seconds),
            engine.stream(
                "POST", f"/exec/{exec_id}/start", body={"Detach": False, "Tty": False}
            ) as body,
        ):
            async for _, data in frames(body, tty=False):
                output += data[: max(0, MOST_OUTPUT - len(output))]
    except TimeoutError:
        if same_machine:
            await _kill(engine, exec_id, container_id)
        raise RuntimeFailure(
            "DeadlineExceeded",
            f"command {list(command)!r} timed out after {timeout_seconds:g} s",
        ) from None
    except EngineRefused as refused:
        raise _refused(refused) from refused
    return ExecResult(await _exit_code(engine, exec_id), bytes(output))


async def open_stream(
    engine: Engine, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool
) -> ExecStream:
    exec_id = await _create(engine, container_id, command, stdin=stdin, tty=tty)
    path, body = f"/exec/{exec_id}/start", {"Detach": False, "Tty": tty}

    async def resize(width: int, height: int) -> None:
        await _resize(engine, f"/exec/{exec_id}/resize", width, height)

    async def wait() -> int:
        return await _exit_code(engine, exec_id)

    return await HijackedStream.open(engine, path, body, tty, resize, wait)


async def attach(engine: Engine, container_id: str, *, stdin: bool) -> ExecStream:
    """To the container's own program: what it writes from now on, and its stdin if it has one."""
    try:
        shown = await engine.get(f"/containers/{container_id}/json")
    except EngineRefused as refused:
        raise _refused(refused) from refused
    tty = bool(shown["Config"]["Tty"])
    base = f"/containers/{container_id}"
    path = f"{base}/attach?stream=1&stdout=1&stderr=1&stdin={int(stdin)}"

    async def resize(width: int, height: int) -> None:
        await _resize(engine, f"{base}/resize", width, height)

    async def wait() -> int:
        state = (await engine.get(f"{base}/json"))["State"]
        return 0 if state["Running"] else int(state["ExitCode"])

    stream = await HijackedStream.open(engine, path, None, tty, resize, wait)
    # Otherwise the engine takes the end of this client's stdin for the end of its interest.
    stream.ends_stdin = bool(shown["Config"].get("StdinOnce"))
    return stream


class HijackedStream(ExecStream):
    """An exec or attach connection; closing it lets the command see the end of its stdin."""

    def __init__(self, stack: AsyncExitStack, tty: bool, resize: Any, wait: Any) -> None:
        self._stack = stack
        self._tty = tty
        self._resize = resize
        self._wait = wait
        self._ended = asyncio.Event()
        self.ends_stdin = True
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    @classmethod
    async def open(
        cls, engine: Engine, path: str, body: Any, tty: bool, resize: Any, wait: Any
    ) -> HijackedStream:
        stream = cls(AsyncExitStack(), tty, resize, wait)
        try:
            stream._reader, stream._writer = await stream._stack.enter_async_context(
                engine.hijack(path, body)
            )
        except EngineRefused as refused:
            raise _refused(refused) from refused
        return stream

    async def __aiter__(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]:
        try:
            async for piece in frames(self._reader, tty=self._tty):
                yield piece
        except (ConnectionError, OSError):
            pass  # the engine went away, or we were closed: that is the end of the stream
        finally:
            self._ended.set()

    async def write(self, data: bytes) -> None:
        try:
            if data:
                self._writer.write(data)
                await self._writer.drain()
            elif self.ends_stdin and self._writer.can_write_eof():
                self._writer.write_eof()
        except (ConnectionError, OSError, RuntimeError):
            pass  # the command has ended; its exit code tells

    async def resize(self, width: int, height: int) -> None:
        await self._resize(width, height)

    async def wait(self) -> int:
        await self._ended.wait()
        return int(await self._wait())

    async def close(self) -> None:
        self._ended.set()
        await self._stack.aclose()


async def _create(
    engine: Engine, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool
) -> str:
    try:
        made = await engine.call(
            "POST",
            f"/containers/{container_id}/exec",
            body={
                "AttachStdin": stdin,
                "AttachStdout": True,
                "AttachStderr": True,
                "Tty": tty,
                "Cmd": list(command),
            },
        )
    except EngineRefused as refused:
        raise _refused(refused) from refused
    return str(made["Id"])


async def _exit_code(engine: Engine, exec_id: str) -> int:
    """The output may end a moment before the engine has noted the exit code."""
    try:
        async with CLOCK.timeout(NORMAL):
            while True:
                shown = await engine.get(f"/exec/{exec_id}/json")
                if not shown["Running"]:
                    return int(shown["ExitCode"] or 0)
                await CLOCK.sleep(0.01)
    except TimeoutError:
        raise RuntimeFailure("ExecError", "the command still runs; its output has ended") from None


async def _resize(engine: Engine, path: str, width: int, height: int) -> None:
    try:
        await engine.call("POST", path, params={"w": width, "h": height})
    except EngineRefused:
        pass  # not started yet, or ended: a window size is not worth an error


async def _kill(engine: Engine, exec_id: str, container_id: str) -> None:
    """The engine has no call to kill an exec; on one machine its process can be found."""
    try:
        pid = int((await engine.get(f"/exec/{exec_id}/json"))["Pid"])
        _kill_in_container(pid, container_id)
    except (RuntimeFailure, OSError, KeyError, ValueError):
        pass


def _kill_in_container(pid: int, container_id: str) -> None:
    if pid > 1 and container_id in Path(f"/proc/{pid}/cgroup").read_text():
        os.kill(pid, signal.SIGKILL)


def _refused(refused: EngineRefused) -> RuntimeFailure:
    reason = {404: "ContainerNotFound", 409: "ContainerNotRunning"}.get(refused.status, "ExecError")
    return RuntimeFailure(reason, refused.message)
