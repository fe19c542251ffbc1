"""Finding out whether a program speaks HTTP/2 without TLS (feature `autodetect-http2`).

Source: knative.dev/serving/pkg/queue/readiness (HTTP2 upgrade probe); here with the connection
preface of RFC 9113, which is what gRPC clients send.
"""

from __future__ import annotations

import asyncio
from typing import Final

from knlocal.clock import Clock
from knlocal.gateway.upstream import Protocol

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_EMPTY_SETTINGS: Final = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS: Final = 4
_HEADER: Final = 9
_SECONDS: Final = 1.0


async def detect(host: str, port: int, clock: Clock) -> Protocol:
    """What is spoken at an address: "h2c" when it answers the preface with SETTINGS."""
    try:
        async with clock.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(_PREFACE + _EMPTY_SETTINGS)
                header = await reader.readexactly(_HEADER)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return "http1"
    return "h2c" if header[3] == _SETTINGS and header[5:9] == bytes(4) else "http1"
