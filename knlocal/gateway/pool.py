"""Connections to upstreams, kept open between requests."""

from __future__ import annotations

from knlocal.clock import Clock


class Pool:
    """Keep-alive connections per upstream address. One per daemon, shared by all handlers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def close_endpoint(self, host: str, port: int | None = None) -> None:
        """Close every connection to an address whose pod is gone (all its ports when None)."""

    async def close(self) -> None:
        """Close everything."""
