"""Where the gateway listens: people come in on loopback; containers, at the bridge's address."""

from __future__ import annotations

import logging
import socket
import ssl
from dataclasses import dataclass

from knlocal.gateway import Gateway
from knlocal.project import settings
from knlocal.project.errors import Problem, ProjectError
from knlocal.project.ports import take
from knlocal.project.system import Door

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listening:
    """Ports and addresses that were taken."""

    external_port: int
    internal_host: str
    """This machine as containers reach it, where we can listen."""
    internal_port: int
    tls_port: int
    """0 when TLS is off, or no port can be had."""
    public: Door
    """What the gateway's Service tells."""
    note: str
    """For people: why it is another port than they might expect."""


async def listen(
    gateway: Gateway, wanted: settings.Gateway, host_address: str, tls: ssl.SSLContext
) -> Listening:
    """Take all ports. `host_address` is how containers reach this machine. Raises ProjectError."""

    async def external(port: int) -> int:
        return (await gateway.listen(wanted.host, port, "external")).port

    taken = await take(
        external, wanted.host, wanted.port,
        where="knlocal.toml: [gateway] port", asked_for="port" in wanted.model_fields_set,
    )  # fmt: skip
    inside = _bindable(host_address)
    internal_port = await _listen_inside(gateway, wanted, inside, taken.port)
    tls_port = await _listen_tls(gateway, wanted, tls)
    shared = taken.port != internal_port and await _listen_for_all(
        gateway, inside, taken.port, tls_port, tls
    )
    public = Door(inside if shared else "127.0.0.1", taken.port, tls_port)
    return Listening(taken.port, inside, internal_port, tls_port, public, taken.note)


async def _listen_inside(
    gateway: Gateway, wanted: settings.Gateway, host: str, external_port: int
) -> int:
    """Port 80 if it can be had (URLs then need no port), else the next that can."""

    async def internal(port: int) -> int:
        return (await gateway.listen(host, port, "internal")).port

    first = wanted.internal_port
    if first and "internal_port" in wanted.model_fields_set:
        where = "knlocal.toml: [gateway] internal_port"
        return (await take(internal, host, first, where=where, asked_for=True)).port
    for port in (first, external_port, *range(external_port + 1, 65536)):
        try:
            return await internal(port)
        except OSError as error:
            log.info("containers cannot use %s:%s: %s", host, port, error)
    raise ProjectError(Problem("knlocal.toml", f"no free port on {host}", "[gateway]"))


async def _listen_tls(gateway: Gateway, wanted: settings.Gateway, tls: ssl.SSLContext) -> int:
    """A door for domains that bring a certificate; 0 when it is off or no port can be had."""
    if wanted.tls_port is None:
        return 0
    for port in (wanted.tls_port, 0):
        try:
            address = await gateway.listen(wanted.host, port, "external", ssl=tls)
        except OSError as error:
            log.info("no TLS on %s:%s: %s", wanted.host, port, error)
        else:
            return address.port
    return 0


async def _listen_for_all(
    gateway: Gateway, host: str, port: int, tls_port: int, tls: ssl.SSLContext
) -> bool:
    """The door of people at the bridge's address too, where that can be had: what the gateway's
    Service tells then leads pods and people to the same place."""
    if host.startswith("127."):
        return False
    try:
        await gateway.listen(host, port, "external")
        if tls_port:
            await gateway.listen(host, tls_port, "external", ssl=tls)
    except OSError as error:
        log.info("the gateway is on loopback only: %s", error)
        return False
    return True


def _bindable(address: str) -> str:
    """The containers' address of this machine, when it is one of ours: on Docker Desktop it is
    not, and containers reach our loopback instead."""
    try:
        with socket.socket() as probe:
            probe.bind((address, 0))
    except OSError:
        return "127.0.0.1"
    return address
