"""Builders that are programs of their own: run, followed line by line, ended when cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from knlocal.build import dockerfile
from knlocal.build.api import BuildFailure, BuildRequest, Progress

#: Seconds without a word after which a build counts as stuck; lines of output kept for people.
SILENCE, TAIL = 900.0, 20

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


async def run(
    request: BuildRequest,
    command: Sequence[str],
    progress: Progress,
    env: Mapping[str, str] = {},
    cwd: Path | None = None,
) -> list[str]:
    """Run a build command; its last lines. BuildFailure with the failing step when it fails."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **env},
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise BuildFailure(request.name, f"{command[0]} is not installed") from None
    said: deque[str] = deque(maxlen=200)
    try:
        assert process.stdout is not None
        while line := await asyncio.wait_for(process.stdout.readline(), SILENCE):
            for text in plain_lines(line.decode("utf-8", "replace")):
                said.append(text)
                progress(text)
        code = await process.wait()
    except TimeoutError:
        raise BuildFailure(request.name, f"{command[0]} said nothing for {SILENCE:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if code:
        raise failure(request, list(said), f"{Path(command[0]).name} failed with exit code {code}")
    return list(said)


def plain_lines(text: str) -> list[str]:
    """What a program said, without colours and empty lines."""
    lines = (line.rstrip() for line in _ESCAPES.sub("", text).splitlines())
    return [line for line in lines if line]


def failure(request: BuildRequest, said: list[str], what: str) -> BuildFailure:
    """A failure with the step and line, where the program told them (as BuildKit does)."""
    place = next((m for text in said if (m := re.search(r"Dockerfile[^:\s]*:(\d+)", text))), None)
    line = int(place[1]) if place else 0
    step = next((i for i in dockerfile.parse(request.dockerfile) if i.line == line), None)
    return BuildFailure(
        request.name,
        what,
        file=request.dockerfile_name,
        line=0 if request.generated else line,
        step=f"{step.name} {step.value}" if step else "",
        tail="\n".join(said[-TAIL:]),
    )


def missing(program: str) -> str | None:
    """Why a program cannot be run, or None."""
    return None if shutil.which(program) else f"`{program}` is not installed"
