"""Serving through the whole product: `knlocal up`, then requests at its door.

Wakes from zero against `docker run`, warm requests against nginx in front of the same container,
and many requests at once to a service at zero. `python -m benchmarks.serving [times]`.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time

from benchmarks._measure import Row, report
from benchmarks._product import Product, ask, product, timed, until
from benchmarks.gateway import CONNECTIONS, HOST, PORTS, nginx, wait_for, wrk
from tests.images import build

TITLE = "Serving, the whole product"
NEEDS = ("docker", "nginx", "wrk")
#: Services of each kind: so many wakes are measured for one wait until all are at zero again.
EACH = 4
AT_ONCE = 200
IMAGES = {"compiled": "httpd", "Python": "pyserver"}
TARGETS = {"stop": 0.5, "freeze": 0.1}


def run(times: int = 20) -> list[Row]:
    images = build.ensure(*IMAGES.values())
    names = {kind: images[image] for kind, image in IMAGES.items()}
    rows = []
    with product(tables(names)) as it:
        rows += asyncio.run(wakes(it, names, max(1, -(-times // EACH))))
    with product(f'[services.warm]\nimage = "{names["compiled"]}"\nscale = {{ min = 1 }}') as it:
        rows += warm(it, times)
    with product(burst_tables(names["compiled"])) as it:
        rows += asyncio.run(burst(it))
    return rows


# -- wakes ----------------------------------------------------------------------------------------


def tables(images: dict[str, str]) -> str:
    text = '[settings.autoscaler]\nscale-to-zero-grace-period = "1s"\n'
    for kind, image in images.items():
        for idle in TARGETS:
            for number in range(EACH):
                text += f'[services.{kind.lower()}-{idle}-{number}]\nimage = "{image}"\n'
                text += f'scale = {{ window = "6s", idle = "{idle}" }}\n'
    return text


async def wakes(it: Product, images: dict[str, str], cycles: int) -> list[Row]:
    ours: dict[tuple[str, str], list[float]] = {}
    runs: dict[str, list[float]] = {kind: [] for kind in images}
    for _ in range(cycles):
        await asyncio.to_thread(until, lambda: at_zero(it, len(images)), "all at zero")
        for number in range(EACH):
            for kind, image in images.items():
                for idle in TARGETS:
                    name = f"{kind.lower()}-{idle}-{number}"
                    took, _ = await timed(it.port, it.host(name))
                    ours.setdefault((kind, idle), []).append(took)
                runs[kind].append(await docker_run(image))
    return [
        Row(
            f"{kind} server, {idle}: from zero to the first byte, against `docker run`",
            statistics.median(seconds) * 1000,
            statistics.median(runs[kind]) * 1000,
            at_most=TARGETS[idle],
        )
        for (kind, idle), seconds in ours.items()
    ]


def at_zero(it: Product, kinds: int) -> bool:
    """Every service has no pod, but one in waiting."""
    found = it.containers()
    states = {one["pod"]: one["state"] for one in found}
    waiting = all(
        state == ("paused" if "-freeze-" in pod else "created") for pod, state in states.items()
    )
    return waiting and len(found) == kinds * len(TARGETS) * EACH


async def docker_run(image: str) -> float:
    """`docker run` of the same image, to the first byte of its answer."""
    from benchmarks.wake import docker_run
    from knlocal.runtime.docker_client import DockerSDK
    from knlocal.runtime.docker_http import Engine

    sdk = DockerSDK()
    engine = Engine(await sdk.endpoint())
    await engine.connect()
    try:
        return await docker_run(engine, image)
    finally:
        await engine.close()
        sdk.close()


# -- warm requests --------------------------------------------------------------------------------


def warm(it: Product, times: int) -> list[Row]:
    address = it.address("warm")
    host = it.host("warm")
    ours = f"http://{HOST}:{it.port}/"
    rates: list[float] = []
    theirs: list[float] = []
    added: list[float] = []
    with nginx(address):
        wait_for(PORTS["nginx"])
        for _ in range(times):
            rates.append(wrk(ours, CONNECTIONS, host)[0])
            theirs.append(wrk(f"http://{HOST}:{PORTS['nginx']}/", CONNECTIONS)[0])
    for _ in range(times):
        direct = wrk(f"http://{address}:8080/", 1)[1]
        added.append(wrk(ours, 1, host)[1] - direct)
    return [
        Row(
            f"warm requests, {CONNECTIONS} connections, against nginx with `keepalive`",
            statistics.median(rates), statistics.median(theirs), "req/s", at_least=0.35,
        ),
        Row(
            "added median latency, one connection, against 0.4 ms",
            statistics.median(added), 0.4, at_most=1.0,
        ),
    ]  # fmt: skip


# -- many at once ---------------------------------------------------------------------------------


def burst_tables(image: str) -> str:
    scale = "{ concurrency = 10, max = 5, initial = 0 }"
    setting = '[settings.autoscaler]\nallow-zero-initial-scale = "true"\n'
    return f'{setting}[services.burst]\nimage = "{image}"\nscale = {scale}\n'


async def burst(it: Product) -> list[Row]:
    """So many requests at once to a service at zero; each takes the server 50 ms."""
    most, over = 0, threading.Event()

    def look() -> None:
        nonlocal most
        while not over.is_set():
            running = [c for c in it.containers("burst", all=False) if c["state"] == "running"]
            most = max(most, len(running))
            time.sleep(0.1)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        calls = (
            ask(it.port, it.host("burst"), "/sleep?ms=50", deadline=60.0) for _ in range(AT_ONCE)
        )
        answers = await asyncio.gather(*calls, return_exceptions=True)
        await asyncio.sleep(1)
    finally:
        over.set()
        looking.join()
    lost = [answer for answer in answers if isinstance(answer, BaseException)]
    for one in lost[:3]:
        print(f"lost: {one!r}", file=sys.stderr)
    what = f"{AT_ONCE} requests at once to a service at zero (10 each, at most 5 pods)"
    return [
        Row(f"{what}: answered", AT_ONCE - len(lost), AT_ONCE, "", at_least=1.0),
        Row(f"{what}: pods", most, 5, "", at_most=1.0),
    ]


if __name__ == "__main__":
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    sys.exit(report(TITLE, run(times)))
