"""What both ends of HTTP/2 share: a connection's frames and windows, and its streams' bodies.

The `h2` library keeps the protocol's state; this drives it. Windows are handled so that no stream
waits for another: what arrives for the connection is acknowledged at once, what arrives for a
stream when its reader takes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, TypeVar

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from h2.frame_buffer import FrameBuffer
from hyperframe.frame import Frame, GoAwayFrame
from multidict import CIMultiDict

from knlocal.gateway.http1 import HOP_BY_HOP, MAX_HEAD
from knlocal.gateway.http2_headers import PlainEncoder, RememberingDecoder
from knlocal.gateway.incoming import Incoming
from knlocal.gateway.outbox import Writer

STREAM_WINDOW: Final = 1024 * 1024
CONNECTION_WINDOW: Final = 16 * 1024 * 1024
MAX_STREAMS: Final = 1000
_HIGH_WATER: Final = 64 * 1024
"""Unsent bytes of a stream above which its writer waits."""

RawHeaders = list[tuple[bytes, bytes]]
_PSEUDO: Final = 58  # ":"


class BadHeaders(Exception):
    """A header that HTTP/1 could not carry."""


def to_wire(pairs: Iterable[tuple[str, str]]) -> RawHeaders:
    """End-to-end headers as HTTP/2 spells them."""
    raw = []
    for name, value in pairs:
        lower = name.lower()
        if lower in HOP_BY_HOP and not (lower == "te" and value == "trailers"):
            continue
        encoded = value.encode("utf-8", "surrogateescape")
        if "\n" in value or "\r" in value or "\0" in value:
            raise ValueError("a header contains a line break")
        raw.append((lower.encode(), encoded))
    return raw


def from_wire(raw: RawHeaders) -> tuple[dict[bytes, str], list[tuple[str, str]]]:
    """Pseudo-headers, and the others as pairs. BadHeaders when a value breaks its line."""
    pseudo: dict[bytes, str] = {}
    pairs = []
    cookies = []
    for name, value in raw:
        if b"\n" in value or b"\r" in value or b"\0" in value:
            raise BadHeaders
        text = value.decode("utf-8", "surrogateescape")
        if name[0] == _PSEUDO:
            pseudo[name] = text
        elif name == b"cookie":
            cookies.append(text)
        else:
            pairs.append((name.decode("utf-8", "surrogateescape"), text))
    if cookies:
        # Split for compression (RFC 9113 8.2.3); HTTP/1 has one line of them.
        pairs.append(("cookie", "; ".join(cookies)))
    return pseudo, pairs


class Connection2(h2.connection.H2Connection):
    """The library's state, where it needs to give way.

    GOAWAY lets the streams in progress go on (RFC 9113 6.8), whereas the library closes them; and a
    frame that is too long is refused when its length is known, not when all of it has arrived.
    """

    def __init__(self, client_side: bool) -> None:
        super().__init__(
            h2.config.H2Configuration(
                client_side=client_side,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                # Names and values of an upstream's answer are looked at in `from_wire`.
                validate_inbound_headers=not client_side,
            )
        )
        self.incoming_buffer = _Frames(server=not client_side)
        self.encoder = PlainEncoder()
        self.decoder = RememberingDecoder()
        self.decoder.max_header_list_size = MAX_HEAD

    def _receive_goaway_frame(
        self, frame: GoAwayFrame
    ) -> tuple[list[Frame], list[h2.events.Event]]:
        event = h2.events.ConnectionTerminated()
        event.last_stream_id = frame.last_stream_id
        return [], [event]


class _Frames(FrameBuffer):
    def __next__(self) -> Frame:
        if len(self._data) >= 3:
            self._validate_frame_length(int.from_bytes(self._data[:3], "big"))
        return super().__next__()


class Stream2:
    """A stream's two bodies. What the peer may not get yet is kept until its windows open."""

    def __init__(self, connection: Http2Peer[Any], stream_id: int) -> None:
        self.id = stream_id
        self.connection = connection
        self.incoming = _Incoming(self)
        self.closed_out = False
        """END_STREAM went out, or the stream is gone."""
        self.gone = False
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        self._end: RawHeaders | None = None
        self._room: asyncio.Future[None] | None = None
        self._taken = 0

    def push(self, data: bytes) -> None:
        """Send, or keep."""
        self._unsent.append(data)
        self._unsent_size += len(data)
        self.pump()

    def end(self, trailers: RawHeaders) -> None:
        """END_STREAM after all that was pushed."""
        self._end = trailers
        self.pump()

    async def room(self, wanted: int = _HIGH_WATER) -> None:
        """Wait until no more than `wanted` bytes are kept back, or the peer is gone."""
        while self._unsent_size > wanted and not self.gone:
            self._room = self.connection.loop.create_future()
            await self._room

    def pump(self) -> None:
        """Send what the windows allow."""
        if self.gone or self.closed_out:
            return
        connection = self.connection
        state = connection.state
        try:
            while self._unsent and not connection.full:
                window = min(
                    state.local_flow_control_window(self.id), state.max_outbound_frame_size
                )
                data = self._unsent[0]
                if len(data) <= window:
                    self._unsent.pop(0)
                    last = not self._unsent and self._end is not None and not self._end
                    state.send_data(self.id, data, end_stream=last)
                    self.closed_out = last
                elif window > 0:
                    state.send_data(self.id, data[:window])
                    self._unsent[0] = data[window:]
                    data = data[:window]
                else:
                    break
                self._unsent_size -= len(data)
            if not self._unsent and self._end is not None and not self.closed_out:
                self.closed_out = True
                if self._end:
                    state.send_headers(self.id, self._end, end_stream=True)
                else:
                    state.end_stream(self.id)
        except h2.exceptions.ProtocolError:
            # Reset by the peer in the same pass: its event tells the owner.
            self.lose()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        connection.touch()

    @property
    def stuck(self) -> bool:
        """Something is kept back by the windows."""
        return bool(self._unsent)

    def reset(self, code: h2.errors.ErrorCodes) -> None:
        """Break the stream off, towards the peer."""
        if not self.gone:
            self.lose()
            try:
                self.connection.state.reset_stream(self.id, code)
            except h2.exceptions.ProtocolError:
                pass
            self.connection.touch()

    def lose(self) -> None:
        """The peer will neither send nor take any more."""
        self.gone = self.closed_out = True
        self._unsent.clear()
        self._unsent_size = 0
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    def taken(self, size: int) -> None:
        """The reader took `size` bytes: let the peer send as many again, now and then."""
        self._taken += size
        if self._taken >= STREAM_WINDOW // 4 and not self.gone and not self.incoming.ended:
            try:
                self.connection.state.increment_flow_control_window(self._taken, self.id)
            except h2.exceptions.ProtocolError:
                return
            self._taken = 0
            self.connection.touch()


class _Incoming(Incoming):
    """Bytes that were read open the stream's window again."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream2) -> None:
        super().__init__(_nothing, _nothing)
        self._stream = stream

    def take(self) -> bytes:
        data = super().take()
        self._stream.taken(len(data))
        return data


def _nothing() -> None:
    return


OwnerT = TypeVar("OwnerT")


class Http2Peer(Writer, Generic[OwnerT]):
    """A connection. Subclasses say what a stream's owner does with its events."""

    def __init__(self, client_side: bool) -> None:
        super().__init__()
        self.state = Connection2(client_side)
        self.state.local_settings = h2.settings.Settings(
            client=client_side,
            initial_values={
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
            },
        )
        self.streams: dict[int, OwnerT] = {}
        self._received = 0
        self._handlers: dict[type[h2.events.Event], Callable[[Any], object]] = {
            h2.events.DataReceived: self._data,
            h2.events.WindowUpdated: self._window,
            h2.events.RemoteSettingsChanged: self._settings,
            h2.events.ConnectionTerminated: self.terminated,
        }

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.begin()
        self.state.increment_flow_control_window(CONNECTION_WINDOW)
        self.touch()

    def begin(self) -> None:
        self.state.initiate_connection()

    def stream_of(self, owner: OwnerT) -> Stream2:
        raise NotImplementedError

    def broken(self, error: str) -> None:
        """The peer broke the protocol; the connection is about to close."""
        raise NotImplementedError

    def terminated(self, event: h2.events.ConnectionTerminated) -> None:
        """The peer sent GOAWAY."""
        raise NotImplementedError

    # Bytes

    def data_received(self, data: bytes) -> None:
        try:
            events = self.state.receive_data(data)
        except Exception as error:
            # Mostly ProtocolError, but the libraries meet some broken frames with others.
            self.broken(str(error) or type(error).__name__)
            self.hang_up()
            return
        handlers = self._handlers
        for event in events:
            handler = handlers.get(type(event))
            if handler is not None:
                handler(event)
        self.touch()

    def touch(self) -> None:
        """Send what the library has to send at the end of this pass of the event loop."""
        if not self._pieces:
            self._pieces.append(b"")
            self._outbox.add(self)

    def flush(self) -> None:
        self._pieces.clear()
        data = self.state.data_to_send()
        if data and not self.lost:
            self.transport.write(data)

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.lost:
            self._pump_all()

    def say_goaway(self) -> None:
        """No new streams, please; the library's own way would end the present ones too."""
        last = self.state.highest_inbound_stream_id
        self.flush()
        if not self.lost:
            self.transport.write(GoAwayFrame(0, last_stream_id=last).serialize())

    # Events

    def _data(self, event: h2.events.DataReceived) -> None:
        self._received += event.flow_controlled_length or 0
        if self._received >= CONNECTION_WINDOW // 4:
            self.state.increment_flow_control_window(self._received)
            self._received = 0
        owner = self.streams.get(event.stream_id or 0)
        if owner is not None and event.data:
            self.stream_of(owner).incoming.feed(event.data)

    def _window(self, event: h2.events.WindowUpdated) -> None:
        if event.stream_id:
            owner = self.streams.get(event.stream_id)
            if owner is not None:
                self.stream_of(owner).pump()
        else:
            self._pump_all()

    def _settings(self, event: h2.events.RemoteSettingsChanged) -> None:
        self._pump_all()

    def _pump_all(self) -> None:
        for owner in list(self.streams.values()):
            stream = self.stream_of(owner)
            if stream.stuck:
                stream.pump()


def trailers_of(raw: RawHeaders) -> CIMultiDict[str]:
    """Trailers from the wire; none when they are malformed."""
    try:
        return CIMultiDict(from_wire(raw)[1])
    except BadHeaders:
        return CIMultiDict()
