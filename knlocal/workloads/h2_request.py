"""One HTTP/2 request over cleartext with prior knowledge: what gRPC and h2c probes need."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

_MOST_BODY = 64 * 1024


class Http2Failure(Exception):
    """The peer does not speak HTTP/2, or broke off."""


@dataclass(slots=True)
class Http2Response:
    """Headers hold the trailers too."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


async def http2_request(
    address: tuple[str, int],
    method: str,
    authority: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes = b"",
) -> Http2Response:
    """The whole response (its body cut at 64 KiB). Raises OSError or Http2Failure."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        stream = connection.get_next_available_stream_id()
        first = [
            (":method", method),
            (":scheme", "http"),
            (":authority", authority),
            (":path", path),
        ]
        connection.send_headers(stream, [*first, *headers.items()], end_stream=not body)
        if body:
            connection.send_data(stream, body, end_stream=True)
        writer.write(connection.data_to_send())
        return await _response(reader, writer, connection)
    except h2.exceptions.ProtocolError as error:
        raise Http2Failure(f"http2: {error or type(error).__name__}") from error
    finally:
        writer.close()


async def _response(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    connection: h2.connection.H2Connection,
) -> Http2Response:
    found = Http2Response()
    while True:
        data = await reader.read(_MOST_BODY)
        if not data:
            raise Http2Failure("http2: connection closed before the response ended")
        for event in connection.receive_data(data):
            if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                found.headers |= {str(k): str(v) for k, v in event.headers or ()}
                found.status = int(found.headers.get(":status", found.status))
            elif isinstance(event, h2.events.DataReceived):
                found.body = (found.body + (event.data or b""))[:_MOST_BODY]
                connection.acknowledge_received_data(
                    event.flow_controlled_length or 0, event.stream_id or 0
                )
            elif isinstance(event, h2.events.StreamEnded):
                return found
            elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                raise Http2Failure(f"http2: stream ended with code {event.error_code}")
        if outgoing := connection.data_to_send():
            writer.write(outgoing)
