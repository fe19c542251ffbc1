"""Kubernetes Services on the gateway: a request for a Service's name goes to one of its pods.

Containers reach the gateway under every cluster-local name, as there are no cluster IPs here. Names
of Services that belong to Knative's own controllers are theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from knlocal.clock import Clock
from knlocal.gateway import (
    Endpoint,
    Exposure,
    Handler,
    NotSent,
    Pool,
    Request,
    Route,
    RouteTable,
    forward,
)
from knlocal.resources.base import Key

INTERNAL_NAMES = ("{0}.{1}", "{0}.{1}.svc", "{0}.{1}.svc.cluster.local")
_INTERNAL: frozenset[Exposure] = frozenset({"internal"})
_PLAIN = (("Content-Type", "text/plain; charset=utf-8"),)


@dataclass(slots=True)
class Backend:
    """Where the requests of one Service go: for each of its ports, addresses to choose from."""

    name: str
    ports: dict[int, list[Endpoint]] = field(default_factory=dict)
    named: dict[str, int] = field(default_factory=dict)
    """The ports that have a name."""
    external: str = ""
    """ExternalName: the name that is meant."""
    turn: int = 0


class ServiceRouter:
    """Has the gateway serve the names of Services."""

    def __init__(self, routes: RouteTable, pool: Pool, clock: Clock) -> None:
        self._routes = routes
        self._pool = pool
        self._clock = clock
        self._backends: dict[Key, Backend] = {}

    def put(self, service: Key, backend: Backend) -> None:
        """Serve the Service's names by `backend` from now on."""
        known = self._backends.get(service)
        if known is not None:
            backend.turn = known.turn
            self._close_lost(known, backend)
        self._backends[service] = backend
        if known is None:
            hosts = [name.format(service.name, service.namespace) for name in INTERNAL_NAMES]
            route = Route(self._handler(service), _INTERNAL)
            self._routes.put(_owner(service), dict.fromkeys(hosts, route))

    def remove(self, service: Key) -> None:
        """The names are no longer served (by this)."""
        if self._backends.pop(service, None) is not None:
            self._routes.remove(_owner(service))

    def _handler(self, service: Key) -> Handler:
        async def handle(request: Request) -> None:
            backend = self._backends.get(service)
            if backend is None:
                await request.respond(503, _PLAIN, f"service {service.name} is gone\n")
            elif backend.external:
                await self._pass_on(request, backend)
            else:
                await self._balance(request, backend)

        return handle

    async def _balance(self, request: Request, backend: Backend) -> None:
        """Round robin; the next pod when one did not take the request."""
        port, endpoints = _choose(backend, request)
        if port is None:
            known = ", ".join(map(str, backend.ports)) or "none"
            await request.respond(
                503, _PLAIN, f"service {backend.name} has no such port (it has: {known})\n"
            )
            return
        for _ in endpoints:
            endpoint = endpoints[backend.turn % len(endpoints)]
            backend.turn += 1
            if request.protocol == "HTTP/2" and endpoint.protocol == "http1" and _is_grpc(request):
                endpoint = endpoint._replace(protocol="h2c")
            try:
                await forward(request, endpoint, pool=self._pool, clock=self._clock)
                return
            except NotSent:
                continue
        await request.respond(
            503, _PLAIN, f"no ready pod of service {backend.name} takes requests on port {port}\n"
        )

    async def _pass_on(self, request: Request, backend: Backend) -> None:
        route = self._routes.find(backend.external, "internal")
        if route is not None:
            await route.handler(request)
            return
        port = _port_of(request.authority) or next(iter(backend.ports), 80)
        try:
            await forward(
                request, Endpoint(backend.external, port), pool=self._pool, clock=self._clock
            )
        except NotSent as error:
            await request.respond(502, _PLAIN, f"cannot reach {backend.external}: {error}\n")

    def _close_lost(self, before: Backend, after: Backend) -> None:
        kept = {endpoint for found in after.ports.values() for endpoint in found}
        for found in before.ports.values():
            for endpoint in found:
                if endpoint not in kept:
                    self._pool.close_endpoint(endpoint.host, endpoint.port)


def _owner(service: Key) -> str:
    return f"service/{service.namespace}/{service.name}"


def _choose(backend: Backend, request: Request) -> tuple[int | None, Sequence[Endpoint]]:
    """The asked-for port of the Service; port 80, or its first, when none was asked for (or the
    gateway's own)."""
    meant = request.to_port
    wanted = backend.named.get(meant) if isinstance(meant, str) else meant
    wanted = wanted or _port_of(request.authority)
    for port in (wanted, 80, *backend.ports):
        if port in backend.ports:
            return port, backend.ports[port]
    return None, ()


def _port_of(authority: str) -> int | None:
    _, colon, port = authority.rpartition(":")
    return int(port) if colon and port.isdigit() else None


def _is_grpc(request: Request) -> bool:
    return request.headers.get("Content-Type", "").startswith("application/grpc")
