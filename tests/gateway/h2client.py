"""A plain HTTP/2 client for tests: it says what it is told, and collects what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import h2.config
import h2.events
import hpack

from knlocal.gateway.http2 import Connection2
from tests.gateway.conftest import DEADLINE, Wire


@dataclass
class Answer:
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    interim: list[str] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None


class H2Client:
    """One connection with prior knowledge."""

    def __init__(self, wire: Wire, *, careless: bool = False, window: bool = True) -> None:
        self.wire = wire
        # The library on its own takes GOAWAY for the end of all streams.
        self.state = Connection2(client_side=True)
        self.state.encoder = hpack.Encoder()
        self.state.config = h2.config.H2Configuration(
            header_encoding="utf-8",
            validate_outbound_headers=not careless,
            normalize_outbound_headers=not careless,
        )
        self.answers: dict[int, Answer] = {}
        self.terminated: h2.events.ConnectionTerminated | None = None
        self.closed = False
        self.window = window
        """Let the server go on sending."""

    async def begin(self) -> H2Client:
        self.state.initiate_connection()
        await self.flush()
        return self

    async def flush(self) -> None:
        if data := self.state.data_to_send():
            await self.wire.send(data)

    async def start(
        self,
        headers: Iterable[tuple[str, str]] = (),
        *,
        method: str = "GET",
        path: str = "/",
        end: bool = True,
    ) -> int:
        stream = self.state.get_next_available_stream_id()
        pseudo = [
            (":method", method),
            (":scheme", "http"),
            (":authority", "app.test"),
            (":path", path),
        ]
        self.state.send_headers(stream, [*pseudo, *headers], end_stream=end)
        self.answers[stream] = Answer()
        await self.flush()
        return stream

    async def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        while data:
            room = min(
                self.state.local_flow_control_window(stream), self.state.max_outbound_frame_size
            )
            if room == 0:
                await self.pump()
                continue
            piece, data = data[:room], data[room:]
            self.state.send_data(stream, piece, end_stream=end and not data)
            await self.flush()

    async def pump(self) -> None:
        """Take one piece of what the server sends."""
        data = await asyncio.wait_for(self.wire.reader.read(1 << 16), DEADLINE)
        if not data:
            self.closed = True
            return
        for event in self.state.receive_data(data):
            self._take(event)
        await self.flush()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.terminated = event
            return
        answer = self.answers.get(getattr(event, "stream_id", None) or 0)
        if answer is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            answer.headers = dict(event.headers)
        elif isinstance(event, h2.events.InformationalResponseReceived):
            answer.interim.append(dict(event.headers)[":status"])
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            if self.window:
                self.state.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id or 0
                )
        elif isinstance(event, h2.events.TrailersReceived):
            answer.trailers = dict(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            answer.ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = int(event.error_code or 0)
            answer.ended = True

    async def answer(self, stream: int) -> Answer:
        """The whole answer."""
        answer = self.answers[stream]
        while not answer.ended and not self.closed:
            await self.pump()
        return answer

    async def get(self, path: str = "/", headers: Iterable[tuple[str, str]] = ()) -> Answer:
        return await self.answer(await self.start(headers, path=path))

    async def until_closed(self) -> None:
        while not self.closed:
            await self.pump()
