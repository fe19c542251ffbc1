"""The daemon: how fast it is up, what it costs when idle, and with a thousand services.

`python -m benchmarks.up [times]`. The services' image is there, so nothing is built or fetched.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import IO

import psutil

from benchmarks._measure import Row, now, report
from benchmarks._product import Failed, Product, product, timed, until, until_answered
from tests.images import build

TITLE = "The daemon"
NEEDS = ("docker",)
IDLE_SECONDS = 10
SETTLE_SECONDS = 60
FEW, MANY = 100, 1000
SERVER = Path(__file__).parent.parent / "tests" / "images" / "server.py"
#: The text of Knative's own switch for services that start at zero.
ZERO = '[settings.autoscaler]\nallow-zero-initial-scale = "true"\n'


def run(times: int = 20) -> list[Row]:
    image = build.ensure("httpd")["httpd"]
    return [
        up(f'[services.hello]\nimage = "{image}"\n', "Docker", times),
        up('# runtime: process\n[services.hello]\nsource = "app"\n', "processes", times),
        *idle(image),
        *registered(image, times),
        *([apply(image)] if shutil.which("kubectl") else []),
    ]


def up(tables: str, where: str, times: int) -> Row:
    """`knlocal up` as a person starts it, to the first answer of a service (which is not asked
    before its address is known: the port is the same each time)."""
    took = []
    with product(tables, up=False) as it:
        (it.folder / "app").mkdir()
        shutil.copy(SERVER, it.folder / "app" / "main.py")
        it.up()
        port = it.port
        it.down()
        for _ in range(times):
            began = now()
            with subprocess.Popen(
                it.command("up", "--port", str(port), "--no-logs"),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=it.env(),
            ) as daemon:  # fmt: skip
                asyncio.run(until_answered(port, it.host("hello")))
                took.append(now() - began)
                daemon.terminate()
    return Row(
        f"`knlocal up` with nothing to build, {where}, to the first answer, against 2 s",
        statistics.median(took), 2.0, "s", at_most=1.0,
    )  # fmt: skip


def idle(image: str) -> list[Row]:
    with product(f'[services.hello]\nimage = "{image}"\n') as it:
        asyncio.run(until_answered(it.port, it.host("hello")))
        time.sleep(3)
        daemon = psutil.Process(it.pid)
        daemon.cpu_percent()
        time.sleep(IDLE_SECONDS)
        return [
            Row("idle daemon, CPU, against 1 %", daemon.cpu_percent(), 1.0, "%", at_most=1.0),
            Row("idle daemon, resident, against 120 MB", resident(it), 120, "MB", at_most=1.0),
        ]


def resident(it: Product) -> float:
    return float(psutil.Process(it.pid).memory_info().rss / 1e6)


def registered(image: str, times: int) -> list[Row]:
    """The time of a request to a warm service, and memory, with a hundred services and with a
    thousand (at zero)."""
    with product(f'{ZERO}[services.warm]\nimage = "{image}"\nscale = {{ min = 1 }}') as it:
        found = []
        known = 0
        for count in (FEW, MANY):
            put(it, image, known, count)
            known = count
            settled(it)
            asyncio.run(until_answered(it.port, it.host("warm")))
            found.append((asyncio.run(request_ms(it, times * 10)), resident(it)))
    (few_ms, few_mb), (many_ms, many_mb) = found
    what = f"{MANY:,} registered services, against {FEW}"
    return [
        Row(f"{what}: a request to one of them", many_ms, few_ms, at_most=1.1),
        Row(f"{what}: resident memory", many_mb, few_mb, "MB", at_most=2.0),
    ]


async def request_ms(it: Product, times: int) -> float:
    return statistics.median(
        [(await timed(it.port, it.host("warm")))[0] * 1000 for _ in range(times)]
    )


def apply(image: str) -> Row:
    """`kubectl apply` of a manifest with a hundred services, until a watch has shown all of them
    Ready. (`kubectl wait --all` would add 20 s of its own: it asks twice for each object, and
    throttles itself to ten requests a second.)"""
    with product(ZERO) as it:
        manifest = write(it, image, 0, FEW)
        began = now()
        with watching_ready(it) as ready:
            kubectl(it, "apply", "-f", str(manifest))
            until(lambda: len(ready) == FEW, f"{FEW} services Ready")
        took = now() - began
    return Row(
        f"`kubectl apply` of {FEW} services, to all Ready, against 10 s", took, 10.0, "s",
        at_most=1.0,
    )  # fmt: skip


@contextmanager
def watching_ready(it: Product) -> Iterator[set[str]]:
    """The names of services that `kubectl get --watch` has shown Ready by now."""
    ready: set[str] = set()
    shown = r'{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}'
    with subprocess.Popen(
        ["kubectl", "get", "ksvc", "--watch", "-o", f"jsonpath={shown}"],
        env={**os.environ, "KUBECONFIG": str(it.kubeconfig)}, stdout=subprocess.PIPE, text=True,
    ) as watch:  # fmt: skip
        assert watch.stdout is not None

        def read(lines: IO[str]) -> None:
            for line in lines:
                name, _, truth = line.strip().partition(" ")
                if truth == "True":
                    ready.add(name)

        Thread(target=read, args=(watch.stdout,), daemon=True).start()
        try:
            yield ready
        finally:
            watch.terminate()


# -- many services --------------------------------------------------------------------------------


def put(it: Product, image: str, first: int, last: int) -> None:
    it.run("apply", "-f", str(write(it, image, first, last)))


def write(it: Product, image: str, first: int, last: int) -> Path:
    manifest = it.folder / f"services-{first}.yaml"
    manifest.write_text("---\n".join(service(f"s-{n}", image) for n in range(first, last)))
    return manifest


def service(name: str, image: str) -> str:
    return f"""apiVersion: serving.knative.dev/v1
kind: Service
metadata: {{name: {name}}}
spec:
  template:
    metadata:
      annotations: {{autoscaling.knative.dev/initial-scale: "0"}}
    spec:
      containers: [{{image: "{image}"}}]
"""


def settled(it: Product) -> None:
    """Wait until the daemon has done what there was to do: services ready, standbys prepared. What
    a thousand services cost for ever after (autoscaler ticks) is no reason to wait on."""
    daemon = psutil.Process(it.pid)
    daemon.cpu_percent()
    end = time.monotonic() + SETTLE_SECONDS
    used: list[float] = []
    while time.monotonic() < end and (len(used) < 3 or max(used[-3:]) > 5):
        time.sleep(1)
        used.append(daemon.cpu_percent())


def kubectl(it: Product, *words: str) -> None:
    env = {**os.environ, "KUBECONFIG": str(it.kubeconfig)}
    done = subprocess.run(["kubectl", *words], env=env, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"kubectl {' '.join(words)}: {done.stderr[-1000:]}")


if __name__ == "__main__":
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    sys.exit(report(TITLE, run(times)))
