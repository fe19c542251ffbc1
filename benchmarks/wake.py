"""Waking a pod: from the decision to the first byte of an answer, against `docker run`.

The baseline is the command itself, `docker run --detach`, with no options that would slow it down
(no published port: the container is asked at its own address). A prepared pod is what a service at
zero keeps. Run it with `python -m benchmarks.wake [times]`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import uuid
from functools import partial
from pathlib import Path

from benchmarks._measure import Row, first_byte, medians_ms, now, report
from knlocal.clock import SystemClock
from knlocal.runtime.api import ContainerPlan, PodId, PodPlan
from knlocal.runtime.docker import DockerRuntime
from knlocal.runtime.docker_client import DockerSDK
from knlocal.runtime.docker_http import Engine
from knlocal.runtime.docker_state import address
from tests.images import build

TITLE = "Wake a pod, to the first byte"
NEEDS = ("docker",)
IMAGES = {"compiled": "httpd", "Python": "pyserver"}


def run(times: int = 20) -> list[Row]:
    return asyncio.run(measure(times))


async def measure(times: int) -> list[Row]:
    images = await asyncio.to_thread(build.ensure, *IMAGES.values())
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        runtime = DockerRuntime(f"bench-{uuid.uuid4().hex[:8]}", SystemClock(), Path(folder))
        await runtime.start()
        sdk = DockerSDK()
        engine = Engine(await sdk.endpoint())
        await engine.connect()
        try:
            for kind, image in ((kind, images[name]) for kind, name in IMAGES.items()):
                whole, start, thaw = await medians_ms(
                    partial(docker_run, engine, image),
                    partial(started, runtime, image),
                    partial(unfrozen, runtime, image),
                    times=times,
                )
                rows += [
                    Row(f"{kind}, stop: start a prepared container", start, whole, at_most=0.5),
                    Row(f"{kind}, freeze: un-freeze a paused container", thaw, whole, at_most=0.1),
                ]
        finally:
            for pod in await runtime.pods():
                await runtime.remove(pod.id)
            await runtime.close()
            await engine.close()
            sdk.close()
    return rows


async def docker_run(engine: Engine, image: str) -> float:
    name = f"knlocal-bench-{uuid.uuid4().hex[:8]}"
    start = now()
    try:
        command = await asyncio.create_subprocess_exec(
            *("docker", "run", "--detach", "--name", name, image),
            stdout=asyncio.subprocess.DEVNULL,
        )
        await command.wait()
        shown = await engine.get(f"/containers/{name}/json")
        await first_byte(address(shown), 8080)
        return now() - start
    finally:
        await engine.call("DELETE", f"/containers/{name}", params={"force": True})


async def started(runtime: DockerRuntime, image: str) -> float:
    plan = _plan(image)
    state = await runtime.prepare(plan)
    try:
        start = now()
        await runtime.start_container(plan, "user")
        await first_byte(*runtime.address(state, 8080))
        return now() - start
    finally:
        await runtime.remove(plan.id)


async def unfrozen(runtime: DockerRuntime, image: str) -> float:
    plan = _plan(image)
    state = await runtime.prepare(plan)
    try:
        await runtime.start_container(plan, "user")
        await first_byte(*runtime.address(state, 8080))
        await runtime.pause(plan.id)
        start = now()
        await runtime.unpause(plan.id)
        await first_byte(*runtime.address(state, 8080))
        return now() - start
    finally:
        await runtime.remove(plan.id)


def _plan(image: str) -> PodPlan:
    one = ContainerPlan("user", image, env={"PORT": "8080"})
    return PodPlan(PodId("bench", "pod", uuid.uuid4().hex), (one,), ports=(8080,))


if __name__ == "__main__":
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    sys.exit(report(f"{TITLE} (median of {times})", run(times), ours="pod", theirs="docker run"))
