"""A real `knlocal` on a project folder of its own, and the certainty that nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

SERVER = """
import os, signal, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"{os.environ.get('GREETING', 'hello')} {os.environ['K_REVISION']}\\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        print("got", self.path, flush=True)

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""
DEADLINE = 60.0


class Knlocal:
    """Runs command lines in a project; `down` and the fixture see to it that all ends."""

    def __init__(self, folder: Path, runtime: str) -> None:
        self.folder = folder
        self.runtime = runtime
        self.name = f"e2e-{uuid.uuid4().hex[:8]}"
        self.source("main.py", SERVER)
        self.write()

    def write(self, services: str = '[services.hello]\nsource = "app"\n', port: str = "0") -> None:
        gateway = f"[gateway]\nport = {port}\n" if port else ""
        (self.folder / "knlocal.toml").write_text(
            f'[project]\nname = "{self.name}"\nruntime = "{self.runtime}"\n{gateway}{services}'
        )

    def source(self, name: str, text: str) -> None:
        (self.folder / "app").mkdir(exist_ok=True)
        (self.folder / "app" / name).write_text(text)

    def __call__(
        self, *arguments: str, code: int | None = 0, feed: str = ""
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments),
            input=feed, capture_output=True, text=True, timeout=DEADLINE, env=self.env(),
        )  # fmt: skip
        if code is not None:
            assert done.returncode == code, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "knlocal", "-C", str(self.folder), *arguments]

    def env(self) -> dict[str, str]:
        return {**os.environ, "KNLOCAL_BASE_IMAGE": "knlocal-test/python:3"}

    def out(self, *arguments: str, feed: str = "") -> str:
        return self(*arguments, feed=feed).stdout

    def objects(self, *arguments: str) -> list[dict[str, Any]]:
        found = json.loads(self.out("get", *arguments, "-o", "json"))
        return found["items"] if found["kind"] == "List" else [found]

    @property
    def card(self) -> dict[str, Any]:
        card: dict[str, Any] = json.loads((self.folder / ".knlocal" / "daemon.json").read_text())
        return card

    def kill(self) -> None:
        """`kill -9` of the daemon, and the certainty that it is gone."""
        pid = self.card["pid"]
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: not _runs(pid))

    def until(self, condition: Callable[[], object]) -> None:
        until = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < until, "not within the deadline"
            time.sleep(0.05)

    def left(self) -> list[str]:
        """What still runs for the project, outside of any daemon."""
        if self.runtime == "process":
            return [f"process {pid}" for pid in _processes_in(self.folder / ".knlocal")]
        import docker

        client = docker.from_env()
        try:
            found = client.containers.list(
                all=True, filters={"label": "dev.knlocal.project"}, ignore_removed=True
            )
            names = [c.name for c in found if self.name in c.labels["dev.knlocal.project"]]
        finally:
            client.close()
        return names


def _runs(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def _processes_in(folder: Path) -> list[int]:
    """Programs that run in a folder (a snapshot), but for daemons."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def knlocal(request: pytest.FixtureRequest, project: Path) -> Iterator[Knlocal]:
    """On each runtime."""
    yield from running(project, request.param)


@pytest.fixture
def local(project: Path) -> Iterator[Knlocal]:
    """As processes: for what has nothing to do with the runtime."""
    yield from running(project, "process")


def running(folder: Path, runtime: str) -> Iterator[Knlocal]:
    if runtime == "docker":
        from tests.images.build import ensure

        ensure("python")
    made = Knlocal(folder, runtime)
    yield made
    made.write()
    made("down", code=None)
    left = made.left()
    if runtime == "docker":
        _remove_images(made.name)
    assert left == []


def _remove_images(project: str) -> None:
    import docker

    client = docker.from_env()
    try:
        for image in client.images.list():
            for tag in image.tags:
                if tag.startswith(f"dev.local/{project}/"):
                    client.images.remove(tag, force=True)
    finally:
        client.close()
