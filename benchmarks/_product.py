"""The whole product for a benchmark: a project folder, `knlocal up -d`, requests at its door."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks._measure import now

DEADLINE = 120.0


class Failed(Exception):
    """What was measured did not work; the message says what."""


class Product:
    """One project and its daemon."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.card: dict[str, Any] = {}

    def run(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True, text=True, timeout=DEADLINE, env=self.env(),
        )  # fmt: skip
        if check and done.returncode:
            raise Failed(f"knlocal {' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr}")
        return done.stdout

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "knlocal", "-C", str(self.folder), *arguments]

    @staticmethod
    def env() -> dict[str, str]:
        env = {**os.environ, "KNLOCAL_BASE_IMAGE": "knlocal-test/python:3"}
        # As where it was installed: its modules are compiled once, not at each start.
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        return env

    def up(self) -> None:
        self.run("up", "-d")
        self.card = json.loads((self.folder / ".knlocal" / "daemon.json").read_text())

    def down(self) -> None:
        self.run("down", check=False)

    @property
    def port(self) -> int:
        return int(self.card["gateway"].rpartition(":")[2])

    @property
    def pid(self) -> int:
        return int(self.card["pid"])

    @property
    def kubeconfig(self) -> Path:
        return self.folder / ".knlocal" / "kubeconfig"

    def host(self, service: str) -> str:
        return f"{service}.default.localhost"

    def containers(self, service: str = "", *, all: bool = True) -> list[dict[str, str]]:
        """The project's containers in Docker (without sandboxes): name and state, pod, and which
        Deployment it was started ahead for ("" for most)."""
        names = ("dev.knlocal.project", "knlocal.dev/spare-for", "dev.knlocal.pod")
        labels = [f'{{{{.Label "{name}"}}}}' for name in names]
        form = "\t".join(("{{.Names}}", "{{.State}}", *labels))
        command = ["docker", "ps", "--no-trunc", "--filter", "label=dev.knlocal.role=container"]
        shown = _out(*command, "--format", form, *(["-a"] if all else []))
        keys = ("name", "state", "project", "held", "pod")
        found = [dict(zip(keys, line.split("\t"), strict=True)) for line in shown.splitlines()]
        return [
            one for one in found
            if one["project"].startswith(self.name) and one["pod"].startswith(service)
        ]  # fmt: skip

    def address(self, service: str) -> str:
        """Where a service's running container is reached without knlocal."""
        running = [c for c in self.containers(service) if c["state"] == "running"]
        # Its network is the sandbox's.
        inspect = ["docker", "inspect", "-f", "{{.HostConfig.NetworkMode}}", running[0]["name"]]
        mode = _out(*inspect).removeprefix("container:")
        return _out("docker", "inspect", "-f", "{{.NetworkSettings.IPAddress}}", mode)


def _out(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def product(text: str, *, up: bool = True) -> Iterator[Product]:
    """A project with these tables beside `[project]` and `[gateway]`; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="knlocal-bench-") as folder:
        made = Product(Path(folder), f"bench-{uuid.uuid4().hex[:8]}")
        head = f'[project]\nname = "{made.name}"\nruntime = "{runtime_of(text)}"\n'
        head += "[gateway]\nport = 0\ninternal_port = 0\n"
        (made.folder / "knlocal.toml").write_text(head + text)
        try:
            if up:
                made.up()
            yield made
        finally:
            made.down()
            _remove_images(made.name)


def runtime_of(text: str) -> str:
    """A line `# runtime: process` in the tables chooses; Docker otherwise."""
    return "process" if "# runtime: process" in text else "docker"


def _remove_images(project: str) -> None:
    if shutil.which("docker") is None:
        return
    listed = subprocess.run(
        ["docker", "images", "-q", f"dev.local/{project}/*"], capture_output=True, text=True
    )
    for image in set(listed.stdout.split()):
        subprocess.run(["docker", "rmi", "-f", image], capture_output=True)


async def ask(
    port: int, host: str, path: str = "/", *, address: str = "127.0.0.1", deadline: float = 30.0
) -> bytes:
    """One request on a connection of its own; the answer's body. Failed when it is no 200."""
    return (await timed(port, host, path, address=address, deadline=deadline))[1]


async def timed(
    port: int, host: str, path: str = "/", *, address: str = "127.0.0.1", deadline: float = 30.0
) -> tuple[float, bytes]:
    """The same with the seconds to the first byte of the answer."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    async with asyncio.timeout(deadline):
        began = now()
        reader, writer = await asyncio.open_connection(address, port)
        try:
            writer.write(request)
            first = await reader.read(1)
            took = now() - began
            answer = first + await reader.read()
        finally:
            writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise Failed(f"{host}{path}: {head[:80]!r} {body[:200]!r}")
    return took, body


async def until_answered(port: int, host: str, *, address: str = "127.0.0.1") -> None:
    """Ask, again and again, until the first 200."""
    until = time.monotonic() + DEADLINE
    while True:
        try:
            await ask(port, host, address=address)
            return
        except (OSError, Failed):
            if time.monotonic() > until:
                raise
        await asyncio.sleep(0.001)


def until(condition: Any, what: str, deadline: float = DEADLINE) -> None:
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"not within {deadline:g} s: {what}")
        time.sleep(0.1)
