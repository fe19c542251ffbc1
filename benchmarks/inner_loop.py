"""The inner loop: from a save to the new code's answer, from `up` to the first one, and what an
idle daemon costs. `python -m benchmarks.inner_loop [rounds]`"""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from benchmarks._measure import Row, now, report

IMAGE = "knlocal-test/python:3"
DEADLINE = 60.0

SERVER = """
import os, signal, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b"%s"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
HTTPServer(("", int(os.environ.get("PORT", "8080"))), Handler).serve_forever()
"""
DOCKERFILE = f'FROM {IMAGE}\nWORKDIR /app\nCOPY . .\nCMD ["python3", "main.py"]\n'


class Project:
    """A folder with one Python service, and a running daemon."""

    def __init__(self, folder: Path, runtime: str) -> None:
        self.folder, self.runtime = folder, runtime
        self.port = 0
        (folder / "app").mkdir()
        (folder / "app" / "Dockerfile").write_text(DOCKERFILE)
        self.save("start")
        (folder / "knlocal.toml").write_text(
            f'[project]\nname = "bench"\nruntime = "{runtime}"\n[gateway]\nport = 0\n'
            '[services.hello]\nsource = "app"\n'
        )

    def save(self, text: str) -> None:
        draft = self.folder / "app" / "main.py~"
        draft.write_text(SERVER % text)
        draft.replace(self.folder / "app" / "main.py")

    def knlocal(self, *words: str) -> None:
        command = [sys.executable, "-m", "knlocal", "-C", str(self.folder), *words]
        subprocess.run(command, check=True, capture_output=True, timeout=300)

    @property
    def card(self) -> dict[str, str | int]:
        import json

        found: dict[str, str | int] = json.loads(
            (self.folder / ".knlocal" / "daemon.json").read_text()
        )
        return found

    def up(self) -> None:
        self.knlocal("up", "-d")
        self.port = int(str(self.card["gateway"]).rpartition(":")[2])

    async def until(self, text: str) -> None:
        await asyncio.to_thread(_until, lambda: _get(self.port, "hello.default.localhost") == text)


def _get(port: int, host: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        connection.request("GET", "/", headers={"Host": host})
        return connection.getresponse().read().decode()
    except OSError:
        return ""
    finally:
        connection.close()


def _until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.002)


@asynccontextmanager
async def project(runtime: str) -> AsyncIterator[Project]:
    folder = Path(tempfile.mkdtemp(prefix="knlocal-bench-"))
    made = Project(folder, runtime)
    try:
        yield made
    finally:
        await asyncio.to_thread(made.knlocal, "down")
        shutil.rmtree(folder, ignore_errors=True)


async def reload_times(runtime: str, rounds: int) -> list[float]:
    """Seconds from a save to the first answer of the new code."""
    async with project(runtime) as made:
        await asyncio.to_thread(made.up)
        await made.until("start")
        times = []
        for at in range(rounds + 1):
            await asyncio.sleep(0.6)  # nobody saves twice a second
            begun = now()
            made.save(f"round{at}")
            await made.until(f"round{at}")
            times.append(now() - begun)
        return times[1:]


def by_hand(rounds: int) -> list[float]:
    """Seconds for `docker build` (warm cache), `docker rm -f`, `docker run`, first answer."""
    folder = Path(tempfile.mkdtemp(prefix="knlocal-bench-"))
    env = {**os.environ, "DOCKER_BUILDKIT": "0"}
    name = "knlocal-bench-by-hand"

    def docker(*words: str) -> str:
        done = subprocess.run(["docker", *words], capture_output=True, text=True, env=env)
        return done.stdout.strip()

    try:
        (folder / "Dockerfile").write_text(DOCKERFILE)
        times = []
        for at in range(rounds + 1):
            begun = now()
            (folder / "main.py").write_text(SERVER % f"round{at}")
            docker("build", "-q", "-t", f"{name}:1", str(folder))
            docker("rm", "-f", name)
            docker("run", "-d", "--name", name, "-p", "127.0.0.1:18999:8080", f"{name}:1")
            _until(lambda wanted=f"round{at}": _get(18999, "x") == wanted)  # type: ignore[misc]
            times.append(now() - begun)
        return times[1:]
    finally:
        docker("rm", "-f", name)
        docker("rmi", "-f", f"{name}:1")
        shutil.rmtree(folder, ignore_errors=True)


async def start_times(runtime: str, rounds: int) -> list[float]:
    """Seconds from `knlocal up` with nothing to build to the first answer."""
    times = []
    async with project(runtime) as made:
        await asyncio.to_thread(made.up)
        port = made.port
        text = (made.folder / "knlocal.toml").read_text()
        (made.folder / "knlocal.toml").write_text(text.replace("port = 0", f"port = {port}"))
        for _ in range(rounds):
            await asyncio.to_thread(made.knlocal, "down")
            begun = now()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "knlocal", "-C", str(made.folder), "up"),
                stdout=subprocess.DEVNULL,
            )
            await made.until("start")
            times.append(now() - begun)
            process.send_signal(signal.SIGINT)
            await process.wait()
    return times


async def idle_cost(seconds: float = 10.0) -> tuple[float, float]:
    """MiB and share of a core (percent) of a daemon with nothing to do."""
    async with project("docker") as made:
        await asyncio.to_thread(made.up)
        await made.until("start")
        process = psutil.Process(int(made.card["pid"]))
        await asyncio.sleep(2)
        before = process.cpu_times()
        await asyncio.sleep(seconds)
        after = process.cpu_times()
        busy = after.user + after.system - before.user - before.system
        return process.memory_info().rss / 2**20, 100 * busy / seconds


async def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    hand = statistics.median(by_hand(rounds)) * 1000
    docker = statistics.median(await reload_times("docker", rounds)) * 1000
    process = statistics.median(await reload_times("process", rounds)) * 1000
    start = statistics.median(await start_times("docker", min(rounds, 20))) * 1000
    memory, cpu = await idle_cost()
    return report(
        "The inner loop",
        [
            Row("save to new code, Docker, against the loop by hand", docker, hand, at_most=0.35),
            Row("save to new code, process, against the loop by hand", process, hand, at_most=0.2),
            Row("up to the first answer, nothing to build", start, 2000, at_most=1),
            Row("idle daemon, memory", memory, 120, "MiB", at_most=1),
            Row("idle daemon, share of a core", cpu, 1, "%", at_most=1),
        ],
    )


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
