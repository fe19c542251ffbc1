"""Which runtime: Docker when it answers, local processes when it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from knlocal.clock import Clock
from knlocal.runtime.api import EngineUnavailable, Runtime, RuntimeFailure

Setting = Literal["auto", "docker", "process"]


async def choose(
    setting: Setting, *, project: str, clock: Clock, state_dir: Path
) -> tuple[Runtime, str]:
    """The runtime, started, and a sentence that says which it is and why.

    EngineUnavailable when `docker` was asked for and does not answer.
    """
    if setting == "process":
        return await _process(project, clock, state_dir), (
            'Running services as local processes, because runtime = "process".'
        )
    # Imported here: a machine without an engine does not need the engine's client.
    from knlocal.runtime.docker import DockerRuntime

    docker = DockerRuntime(project, clock, state_dir)
    try:
        await docker.start()
    except RuntimeFailure as failed:
        await docker.close()
        if setting == "docker":
            raise EngineUnavailable(
                f'{failed.message} (runtime = "docker" in knlocal.toml; "auto" would run services'
                " as local processes)"
            ) from failed
        return await _process(project, clock, state_dir), (
            f"Running services as local processes, because there is no engine: {failed.message}"
        )
    why = "it answers" if setting == "auto" else 'runtime = "docker"'
    return docker, f"Running services in containers on Docker ({docker.where}), because {why}."


async def _process(project: str, clock: Clock, state_dir: Path) -> Runtime:
    from knlocal.runtime.process import ProcessRuntime

    runtime = ProcessRuntime(project, clock, state_dir)
    await runtime.start()
    return runtime
