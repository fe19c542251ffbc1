"""The front door: listeners, and one request handed to the handler of its host."""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from knlocal.clock import Clock
from knlocal.gateway.http import Exposure
from knlocal.gateway.routes import RouteTable


class Address(NamedTuple):
    host: str
    port: int


@dataclass(slots=True)
class RequestRecord:
    """One answered request, for the journal hook."""

    method: str
    host: str
    target: str
    protocol: str
    exposure: Exposure
    peer: str
    status: int
    """0 when the client left before an answer."""
    seconds: float
    bytes_in: int
    bytes_out: int
    error: str


class Gateway:
    """Listeners in front of a route table."""

    def __init__(
        self,
        routes: RouteTable,
        clock: Clock,
        journal_hook: Callable[[RequestRecord], None] | None = None,
    ) -> None:
        self.routes = routes
        self.clock = clock
        self.journal_hook = journal_hook

    async def listen(
        self,
        host: str,
        port: int,
        exposure: Exposure,
        ssl: ssl_module.SSLContext | None = None,
    ) -> Address:
        """Open a listener (port 0 picks one). OSError when the address cannot be bound."""
        raise NotImplementedError

    async def close(self, grace: float = 0.0) -> None:
        """Stop accepting, let requests finish for `grace` seconds, then cut the rest."""
