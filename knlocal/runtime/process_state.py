"""What the process runtime remembers of its pods, and the file that a later daemon reads it from.

One folder per pod: `pods/<uid>/pod.json`, and `pods/<uid>/<container>/<attempt>/` for each run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from knlocal.runtime.api import ContainerState, PodId
from knlocal.runtime.process_launch import Bell


@dataclass
class HeldProcess:
    """The current attempt of one container."""

    name: str
    folder: Path
    attempt: int = 0
    plan_hash: str = ""
    ran: bool = False
    paused: bool = False
    pid: int = 0
    born: float = 0.0
    """The process's creation time: pids are reused, a pid and its birth are not."""
    bell: Bell | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    logged: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def run_folder(self) -> Path:
        return self.folder / str(self.attempt)

    @property
    def previous_folder(self) -> Path:
        return self.folder / str(self.attempt - 1)

    @property
    def running(self) -> bool:
        return self.bell is not None and not self.ended.is_set()

    def read_pid(self) -> None:
        """Note which process the shim started. Only while the shim lives is this safe to trust."""
        pid = int(_lines(self.run_folder / "pid")[0] or 0)
        with contextlib.suppress(psutil.Error):
            self.pid, self.born = pid, psutil.Process(pid).create_time()

    def process(self) -> psutil.Process | None:
        """The process itself, never another one under its old pid."""
        try:
            found = psutil.Process(self.pid) if self.pid > 1 else None
            return found if found is not None and found.create_time() == self.born else None
        except psutil.Error:
            return None

    def signal(self, number: signal.Signals) -> None:
        """To the whole process group."""
        if self.process() is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def ring(self) -> None:
        """Wake those who follow the log."""
        self.logged.set()
        self.logged = asyncio.Event()

    def state(self) -> ContainerState:
        if not self.ran:
            return ContainerState(self.name, "created", self._id)
        started = _moment(_lines(self.run_folder / "pid")[1])
        if self.running:
            return ContainerState(
                self.name,
                "paused" if self.paused else "running",
                self._id,
                started_at=started,
            )
        code, finished, message = _lines(self.run_folder / "exit")
        return ContainerState(
            self.name,
            "exited",
            self._id,
            started_at=started,
            finished_at=_moment(finished),
            # Without the file the shim itself was killed, and the process with it.
            exit_code=int(code) if code else 137,
            error=message.strip(),
        )

    @property
    def _id(self) -> str:
        return f"{self.folder.parent.name}/{self.name}/{self.attempt}"


@dataclass
class HeldPod:
    id: PodId
    folder: Path
    containers: dict[str, HeldProcess] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def container(self, name: str) -> HeldProcess:
        if name not in self.containers:
            self.containers[name] = HeldProcess(name, self.folder / name)
        return self.containers[name]

    def save(self, ports: Mapping[int, int]) -> None:
        """Raises OSError when the disk does not take it."""
        content: dict[str, Any] = {
            "id": list(self.id),
            "hostname": self.hostname,
            "labels": dict(self.labels),
            "ports": {str(port): given for port, given in ports.items()},
            "containers": {
                one.name: {
                    "attempt": one.attempt,
                    "plan_hash": one.plan_hash,
                    "ran": one.ran,
                    "paused": one.paused,
                    "pid": one.pid,
                    "born": one.born,
                    "cwd": str(one.cwd or ""),
                }
                for one in self.containers.values()
            },
        }
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self.folder / ".pod.json"
        fresh.write_text(json.dumps(content))
        fresh.replace(self.folder / "pod.json")

    def delete(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def load(root: Path) -> Iterator[tuple[HeldPod, dict[int, int]]]:
    """Pods that an earlier daemon left, and their ports. What cannot be read is cleared away:
    without its file nobody knows whose it was (its processes end with the shim's folder)."""
    for folder in sorted(root.glob("*")):
        try:
            content = json.loads((folder / "pod.json").read_text())
            pod = HeldPod(PodId(*content["id"]), folder)
            pod.labels, pod.hostname = content["labels"], content["hostname"]
            for name, kept in content["containers"].items():
                one = pod.container(name)
                one.attempt, one.plan_hash = kept["attempt"], kept["plan_hash"]
                one.ran, one.paused = kept["ran"], kept["paused"]
                one.pid, one.born = kept["pid"], kept["born"]
                one.cwd = Path(kept["cwd"]) if kept["cwd"] else None
            ports = {int(port): int(given) for port, given in content["ports"].items()}
        except (OSError, ValueError, KeyError, TypeError):
            _clear(folder)
            continue
        yield pod, ports


def _clear(folder: Path) -> None:
    for path in folder.glob("*/*/pid"):
        bell = Bell(path.parent, lambda: None, lambda: None)
        if bell.listen():  # the shim lives, so the pid it noted is still its child's
            bell.close()
            with contextlib.suppress(OSError, ValueError):
                os.killpg(int(_lines(path)[0]), signal.SIGKILL)
    # Under another name first: a shim that just notes the end would put a file where none must be.
    going = folder.with_name(f".{folder.name}")
    with contextlib.suppress(OSError):
        folder = folder.rename(going)
    shutil.rmtree(folder, ignore_errors=True)


def _lines(path: Path) -> tuple[str, str, str]:
    """The first three lines, "" for what is not there."""
    try:
        found = path.read_text(errors="replace").split("\n", 2)
    except OSError:
        found = []
    first, second, third, *_ = [*found, "", "", ""]
    return first, second, third


def _moment(nanoseconds: str) -> datetime | None:
    return datetime.fromtimestamp(int(nanoseconds) / 1e9, UTC) if nanoseconds.strip() else None
