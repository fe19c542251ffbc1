"""SPDY/3.1 as far as kubectl speaks it: streams with headers, data, half-close; no flow control
(github.com/moby/spdystream, which every Go client uses, has none either).
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Awaitable, Callable, Mapping

_VERSION = 3
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY, _HEADERS = 1, 2, 3, 6, 7, 8
_FIN = 0x01
_CANCEL = 5
#: Data that nobody has read yet, per session, before the peer is made to wait.
BUFFER_BYTES = 1024 * 1024
#: A frame longer than this is not one of ours.
_LONGEST_FRAME = 16 * 1024 * 1024 - 1

_NAMES = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language "
    "accept-ranges age allow authorization cache-control connection content-base content-encoding "
    "content-language content-length content-location content-md5 content-range content-type date "
    "etag expect expires from host if-match if-modified-since if-none-match if-range "
    "if-unmodified-since last-modified location max-forwards pragma proxy-authenticate "
    "proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
)
_MORE_NAMES = (
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
)
#: The compression dictionary of SPDY/3 (draft-mbelshe-httpbis-spdy-00, section 2.6.10.1).
DICTIONARY = (
    b"".join(
        struct.pack(">I", len(name)) + name.encode() for name in (*_NAMES.split(), *_MORE_NAMES)
    )
    + b"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    b"203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 "
    b"Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 "
    b"Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, "
    b"Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    b"application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch"
    b"charset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


class SpdyError(Exception):
    """The peer does not speak SPDY/3.1."""


Send = Callable[[bytes], Awaitable[None]]


class SpdyStream:
    """One stream that the client opened."""

    def __init__(self, session: SpdySession, number: int, headers: Mapping[str, str]) -> None:
        self.number = number
        self.headers = headers
        self._session = session
        self._chunks: list[bytes] = []
        self._ended = False
        self._arrived = asyncio.Event()
        self._closed = False

    async def read(self) -> bytes:
        """The next data; b"" once the client has closed its side."""
        while not self._chunks:
            if self._ended:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._session.consumed(len(data))
        return data

    async def write(self, data: bytes) -> None:
        # SPDY's length has 24 bits; smaller pieces also let streams take turns.
        for at in range(0, len(data), 65536):
            await self._session.send_data(self.number, data[at : at + 65536])

    async def close(self) -> None:
        """Close our side; the client may still send."""
        if not self._closed:
            self._closed = True
            await self._session.send_data(self.number, b"", fin=True)

    async def reset(self) -> None:
        self._closed = True
        await self._session.send_reset(self.number)

    def offer(self, data: bytes, *, fin: bool) -> None:
        if data:
            self._chunks.append(data)
        self._ended = self._ended or fin
        self._arrived.set()


class SpdySession:
    """The server's side of one connection. Feed it bytes; it calls `on_stream` for new streams."""

    def __init__(self, send: Send, on_stream: Callable[[SpdyStream], None]) -> None:
        self._send = send
        self._on_stream = on_stream
        self._buffer = bytearray()
        self._streams: dict[int, SpdyStream] = {}
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._unread = 0
        self._drained = asyncio.Event()
        self._drained.set()
        self._sending = asyncio.Lock()

    async def feed(self, data: bytes) -> None:
        """Take bytes from the client. Raises SpdyError for what is no SPDY/3.1."""
        self._buffer += data
        while len(self._buffer) >= 8:
            length = int.from_bytes(self._buffer[5:8], "big")
            if length > _LONGEST_FRAME:
                raise SpdyError(f"a frame of {length} bytes is too long")
            if len(self._buffer) < 8 + length:
                break
            head, payload = bytes(self._buffer[:8]), bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            await self._frame(head, payload)
        await self._drained.wait()

    def end(self) -> None:
        """The connection is gone: every stream ends."""
        for stream in self._streams.values():
            stream.offer(b"", fin=True)
        self._drained.set()

    def consumed(self, size: int) -> None:
        self._unread -= size
        if self._unread < BUFFER_BYTES:
            self._drained.set()

    async def _frame(self, head: bytes, payload: bytes) -> None:
        first, flags = struct.unpack_from(">I", head)[0], head[4]
        if not first >> 31:
            stream = self._streams.get(first)
            if stream is not None:
                self._unread += len(payload)
                if self._unread >= BUFFER_BYTES:
                    self._drained.clear()
                stream.offer(payload, fin=bool(flags & _FIN))
            return
        version, kind = (first >> 16) & 0x7FFF, first & 0xFFFF
        if version != _VERSION:
            raise SpdyError(f"SPDY version {version} is not spoken here")
        await self._control(kind, flags, payload)

    async def _control(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == _SYN_STREAM and len(payload) >= 10:
            number = struct.unpack_from(">I", payload)[0] & 0x7FFFFFFF
            stream = SpdyStream(self, number, self._read_headers(payload[10:]))
            self._streams[number] = stream
            if flags & _FIN:
                stream.offer(b"", fin=True)
            await self._send_control(_SYN_REPLY, struct.pack(">I", number), headers={})
            self._on_stream(stream)
        elif kind == _HEADERS and len(payload) >= 4:
            self._read_headers(payload[4:])  # keeps the shared compression state in step
        elif kind == _RST_STREAM and len(payload) >= 8:
            number = struct.unpack_from(">I", payload)[0] & 0x7FFFFFFF
            stream_or_none = self._streams.pop(number, None)
            if stream_or_none is not None:
                stream_or_none.offer(b"", fin=True)
        elif kind == _PING and len(payload) >= 4:
            await self._send_control(_PING, payload[:4])
        elif kind == _GOAWAY:
            self.end()

    def _read_headers(self, block: bytes) -> dict[str, str]:
        try:
            data = self._inflate.decompress(block)
            count, at = struct.unpack_from(">I", data)[0], 4
            headers = {}
            for _ in range(count):
                name, at = _read_text(data, at)
                value, at = _read_text(data, at)
                headers[name.lower()] = value
        except (zlib.error, struct.error, UnicodeDecodeError) as error:
            raise SpdyError(f"broken header block: {error}") from error
        return headers

    def _write_headers(self, headers: Mapping[str, str]) -> bytes:
        block = struct.pack(">I", len(headers))
        for name, value in headers.items():
            for text in (name.encode(), value.encode()):
                block += struct.pack(">I", len(text)) + text
        return self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    async def send_data(self, number: int, data: bytes, *, fin: bool = False) -> None:
        flags = _FIN if fin else 0
        frame = struct.pack(">II", number, (flags << 24) | len(data)) + data
        async with self._sending:
            await self._send(frame)

    async def send_reset(self, number: int) -> None:
        self._streams.pop(number, None)
        await self._send_control(_RST_STREAM, struct.pack(">II", number, _CANCEL))

    async def _send_control(
        self, kind: int, payload: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        async with self._sending:
            # Compression has state: what is compressed first must be sent first.
            if headers is not None:
                payload += self._write_headers(headers)
            first = (1 << 31) | (_VERSION << 16) | kind
            await self._send(struct.pack(">II", first, len(payload)) + payload)


def _read_text(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">I", data, at)
    end = at + 4 + length
    if end > len(data):
        raise struct.error("the header block ends early")
    return data[at + 4 : end].decode(), end
