"""`debug = true`: a Python or Node service that waits for a debugger, and the way to it.

In a container the debugger's port is reached through a door on loopback, opened here; a local
process listens on loopback by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from knlocal.build.recipes import Recipe
from knlocal.project.errors import Problem, ProjectError
from knlocal.project.objects import AUTOSCALING, Origin
from knlocal.project.settings import Settings
from knlocal.resources.base import GroupKind, Obj
from knlocal.store.store import Store

POD = GroupKind("", "Pod")
AddressOf = Callable[[Obj, int], tuple[str, int]]

#: Where debuggers expect to be asked, by language.
PORTS: Mapping[str, int] = {"python": 5678, "node": 9229}
CONNECT_WITHIN = 10.0


@dataclass(frozen=True, slots=True)
class DebugPort:
    """How to get at one service."""

    service: str
    language: str
    port: int

    @property
    def sentence(self) -> str:
        with_what = {"python": "debugpy", "node": "the Node inspector"}[self.language]
        return f"attach a debugger to 127.0.0.1:{self.port} ({with_what})"


def port_of(settings: Settings, service: str, language: str) -> DebugPort:
    """The port of a service: the usual one for the first, the next for the next."""
    names = [name for name, table in settings.services.items() if table.debug]
    return DebugPort(service, language, PORTS[language] + names.index(service))


def debugged(
    settings: Settings, service: str, recipe: Recipe, origin: Origin, *, in_container: bool
) -> Origin:
    """The origin of a service, changed so that a debugger can be attached.

    One pod, always there: a debugger that is attached must not lose its process.
    """
    if recipe.language not in PORTS:
        raise ProjectError(
            Problem(
                "knlocal.toml",
                "only Python and Node services can be debugged",
                f"[services.{service}] debug",
            )
        )
    host = "0.0.0.0" if in_container else "127.0.0.1"
    port = port_of(settings, service, recipe.language).port
    annotations = {
        **origin.annotations,
        f"{AUTOSCALING}/min-scale": "1",
        f"{AUTOSCALING}/max-scale": "1",
    }
    if recipe.language == "node":
        env = {**origin.env, "NODE_OPTIONS": f"--inspect={host}:{port}"}
        return replace(origin, annotations=annotations, env=env)
    program = [*recipe.program] if in_container else [*(recipe.run or ())]
    if not program or not Path(program[0]).name.startswith("python"):
        raise ProjectError(
            Problem(
                "knlocal.toml",
                "the program to be debugged is not known",
                f"[services.{service}] debug",
                'say how it is run: run = "python3 main.py"',
            )
        )
    command = [program[0], "-m", "debugpy", "--listen", f"{host}:{port}", *program[1:]]
    if in_container:
        return replace(origin, annotations=annotations, command=tuple(command))
    run = {**(origin.run or {}), "command": command}
    return replace(origin, annotations=annotations, run=run)


class DebugDoors:
    """Listeners on loopback that lead to the debuggers in containers."""

    def __init__(self, store: Store, address_of: AddressOf) -> None:
        self._store = store
        self._address_of = address_of
        self._servers: dict[str, asyncio.Server] = {}

    async def open(self, namespace: str, door: DebugPort) -> str:
        """Open a service's door; says why not when it cannot be."""
        if door.service in self._servers:
            return ""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, TimeoutError, LookupError):
                address = self._address_of(self._pod(namespace, door.service), door.port)
                async with asyncio.timeout(CONNECT_WITHIN):
                    far_reader, far_writer = await asyncio.open_connection(*address)
                await asyncio.gather(_pipe(reader, far_writer), _pipe(far_reader, writer))
            writer.close()

        try:
            server = await asyncio.start_server(connected, "127.0.0.1", door.port)
        except OSError as error:
            return f"cannot listen on 127.0.0.1:{door.port}: {error.strerror}"
        self._servers[door.service] = server
        return ""

    async def close(self) -> None:
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    def _pod(self, namespace: str, service: str) -> Obj:
        label = {"serving.knative.dev/service": service}
        pods = [
            pod
            for pod in self._store.list(POD, namespace, label)
            if (pod.get("status") or {}).get("phase") == "Running"
            and not pod["metadata"].get("deletionTimestamp")
        ]
        if not pods:
            raise LookupError(f"no pod of {service} runs")
        return max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    finally:
        with contextlib.suppress(OSError, RuntimeError):
            writer.write_eof()
