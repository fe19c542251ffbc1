"""What is true of the engine and of this project, found out once when the runtime starts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass

from knlocal.runtime import sandbox
from knlocal.runtime.docker_http import Engine, EngineRefused


@dataclass(frozen=True, slots=True)
class Ground:
    """For every container that is made."""

    project: str
    sandbox_image: str
    gateway: str
    """This machine as containers see it: the default network's gateway ("" when unknown)."""
    neighbour: bool
    """The gateway is this machine's own address: container addresses are reachable from here."""
    publish: bool
    """Container addresses are not reachable: ports are published on loopback."""
    relabel: bool
    """SELinux is on: bind mounts must be labelled."""
    log_max_bytes: int


async def survey(
    engine: Engine, project: str, *, publish: bool | None, log_max_bytes: int
) -> Ground:
    info, gateway, image = await asyncio.gather(
        engine.get("/info"), _gateway(engine), sandbox.ensure_image(engine)
    )
    neighbour = engine.endpoint.local and _is_own_address(gateway)
    return Ground(
        project=project,
        sandbox_image=image,
        gateway=gateway,
        neighbour=neighbour,
        publish=not neighbour if publish is None else publish,
        relabel=any("selinux" in str(word) for word in info.get("SecurityOptions") or ()),
        log_max_bytes=log_max_bytes,
    )


async def _gateway(engine: Engine) -> str:
    for network in ("bridge", "podman"):
        try:
            shown = await engine.get(f"/networks/{network}")
        except EngineRefused:
            continue
        for config in (shown.get("IPAM") or {}).get("Config") or ():
            if gateway := config.get("Gateway"):
                return str(gateway)
        options = shown.get("Options") or {}
        return _interface_address(str(options.get("com.docker.network.bridge.name") or "docker0"))
    return ""


def _interface_address(name: str) -> str:
    import psutil

    for address in psutil.net_if_addrs().get(name, ()):
        if address.family == socket.AF_INET:
            return str(address.address)
    return ""


def _is_own_address(ip: str) -> bool:
    if not ip:
        return False
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        try:
            probe.bind((ip, 0))
        except OSError:
            return False
    return True
