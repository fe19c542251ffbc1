"""What the pytest fixture costs with a warm session, and what a day of cron takes.

`python -m benchmarks.testing [times]`. The cost is all the fixture does around a test: a project
with one service and one broker up and ready, and gone again. What a program or container takes to
start (and a container to go) when it is run by hand is measured by itself and left out: any test of
it has to wait for that.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

from benchmarks._measure import Row, now, report
from benchmarks._product import until_answered
from benchmarks.eventing import free_port
from knlocal.testing.host import Host
from knlocal.testing.project import LocalProject
from tests.images import build

TITLE = "Testing"
NEEDS = ()
SOURCES = 10
TARGETS = {"process": 0.1, "docker": 0.5}
SERVER = Path(__file__).parent.parent / "tests" / "images" / "server.py"
SHOP = "[services.orders]\n{origin}\n[brokers.default]\n"


def run(times: int = 20) -> list[Row]:
    rows = []
    what = {
        "process": "the fixture around a test, processes, without the start of the program itself",
        "docker": "the fixture around a test, Docker, without its container by hand",
    }
    by_hand = {"process": program, "docker": container}
    for runtime, limit in TARGETS.items():
        if runtime == "docker" and not has_docker():
            print("skipped the fixture on Docker: no engine", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "state").mkdir()
            (folder / "knlocal.toml").write_text(SHOP.format(origin=origin(runtime, folder)))
            with Host(folder / "state", runtime) as host:  # type: ignore[arg-type]
                whole = fixture(host, folder, times)
                own = whole - by_hand[runtime](times)
                rows += [
                    Row(f"{what[runtime]}, against {limit} s", own, limit, "s", at_most=1.0),
                    Row("the same with it", whole, own, "s"),
                ]
                if runtime == "process":
                    rows.append(a_day(host, folder / "none", times))
    return rows


def has_docker() -> bool:
    return (
        bool(shutil.which("docker"))
        and not subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    )


def origin(runtime: str, folder: Path) -> str:
    if runtime == "docker":
        return f'image = "{build.ensure("httpd")["httpd"]}"'
    (folder / "orders").mkdir()
    shutil.copy(SERVER, folder / "orders" / "main.py")
    return 'source = "orders"'


def fixture(host: Host, folder: Path, times: int) -> float:
    """Seconds around a test, with its project's pod, until nothing of it is left."""
    took = []
    for _ in range(times + 1):
        began = now()
        with LocalProject(host, folder):
            pass  # the test would be here
        took.append(now() - began)
    return statistics.median(took[1:])


def program(times: int) -> float:
    """Seconds that the service's program takes to listen when it is just started: what any test
    of it has to wait for."""
    took = []
    for _ in range(times + 1):
        port = free_port()
        began = now()
        with subprocess.Popen(
            [sys.executable, SERVER], env={**os.environ, "PORT": str(port)}
        ) as it:
            asyncio.run(until_answered(port, "localhost"))
            took.append(now() - began)
            it.kill()
    return statistics.median(took[1:])


def container(times: int) -> float:
    """Seconds of `docker run` until the service answers, and of `docker rm -f`."""
    image = build.ensure("httpd")["httpd"]
    took = []
    for _ in range(times + 1):
        name = f"knlocal-bench-{uuid.uuid4().hex[:8]}"
        began = now()
        docker("run", "-d", "--name", name, image)
        try:
            address = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", name).strip()
            asyncio.run(until_answered(8080, "localhost", address=address))
        finally:
            docker("rm", "-f", name)
        took.append(now() - began)
    return statistics.median(took[1:])


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout


def a_day(host: Host, folder: Path, times: int) -> Row:
    """24 hours with ten sources, one event an hour each, delivered to a subscriber."""
    took = []
    for _ in range(max(3, times // 4)):
        with LocalProject(host, folder) as project:
            sink = project.sink()
            project.apply(*(ping(number, sink.url) for number in range(SOURCES)))
            began = now()
            project.clock.advance("24h")
            took.append(now() - began)
            for _ in range(24 * SOURCES):
                sink.expect(type="dev.knative.sources.ping")
    what = f"24 h with {SOURCES} cron sources, against 1 s"
    return Row(what, statistics.median(took), 1.0, "s", at_most=1.0)


def ping(number: int, url: str) -> dict[str, object]:
    return {
        "apiVersion": "sources.knative.dev/v1",
        "kind": "PingSource",
        "metadata": {"name": f"ping-{number}"},
        "spec": {"schedule": f"{number} * * * *", "sink": {"uri": url}},
    }


if __name__ == "__main__":
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    sys.exit(report(TITLE, run(times)))
