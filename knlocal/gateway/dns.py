"""A small DNS server for containers: cluster-local names from here, all others from the host's.

Messages are RFC 1035 in its simplest form: one question, A and AAAA answers; everything else is
passed on untouched, so nothing more needs to be understood.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, cast

from knlocal.clock import Clock
from knlocal.gateway.names import CLUSTER_DOMAIN

log = logging.getLogger(__name__)

Lookup = Callable[[str], Sequence[str] | None]
"""The addresses of a name (lower case, no trailing dot): [] for none, None for not ours."""

TTL: Final = 5
"""Seconds an answer may be kept: pods and services come and go."""
FORWARD_SECONDS: Final = 4.0
_MAX_FORWARDS: Final = 256
_TCP_IDLE: Final = 10.0

_HEADER: Final = struct.Struct("!6H")
_A, _AAAA, _ANY, _IN = 1, 28, 255, 1
_FORMERR, _SERVFAIL, _NXDOMAIN, _NOTIMP = 1, 2, 3, 4
_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080


class DnsUnavailable(OSError):
    """The address cannot be bound. The message says what this means and what to try."""


class Question(NamedTuple):
    """What a query asks."""

    id: int
    flags: int
    name: str
    type: int
    cls: int
    raw: bytes
    """The question section as received, to be repeated in the answer."""


class DnsServer:
    """UDP and TCP on one address."""

    def __init__(
        self, lookup: Lookup, clock: Clock, resolvers: Sequence[str] | None = None
    ) -> None:
        """`resolvers`: "address" or "address:port"; None for those of /etc/resolv.conf."""
        self._lookup = lookup
        self._clock = clock
        self._resolvers = resolvers
        self._upstreams: list[tuple[str, int]] = []
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int = 53) -> tuple[str, int]:
        """Open both sockets. DnsUnavailable when that cannot be; nothing is left open then."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await asyncio.start_server(self._serve_tcp, host, port)
            bound = self._server.sockets[0].getsockname()[:2]
            self._transport, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self), local_addr=bound
            )
        except OSError as error:
            await self.close()
            raise DnsUnavailable(
                error.errno,
                f"no DNS for containers: cannot bind {host} port {port} "
                f"({error.strerror or error}); containers know the names that existed when they "
                "started",
            ) from error
        resolvers = _system_resolvers() if self._resolvers is None else self._resolvers
        self._upstreams = [
            address for address in map(_address, resolvers) if address[0] != bound[0]
        ]
        return bound[0], bound[1]

    async def close(self) -> None:
        """Close the sockets and drop what is being asked."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def answer(self, query: bytes, over_tcp: bool = False) -> bytes | None:
        """The answer to a query; None for what is not one."""
        try:
            question = parse_query(query)
        except ValueError:
            if len(query) < 12 or query[2] & 0x80:
                return None
            return _HEADER.pack(*struct.unpack("!H", query[:2]), _QR | _FORMERR, 0, 0, 0, 0)
        if question.flags & 0x7800:
            return _reply(question, _NOTIMP)
        addresses = self._lookup(question.name)
        if addresses is not None:
            return _reply(question, 0, addresses)
        if question.name == CLUSTER_DOMAIN or question.name.endswith("." + CLUSTER_DOMAIN):
            # Nobody outside knows these names, and nobody outside needs to hear of them.
            return _reply(question, _NXDOMAIN)
        forwarded = await self._forward(query, question, over_tcp)
        return forwarded or _reply(question, _SERVFAIL)

    # Sockets

    def datagram(self, query: bytes, client: tuple[str, int]) -> None:
        if len(self._tasks) < _MAX_FORWARDS:
            self._keep(asyncio.ensure_future(self._answer_datagram(query, client)))

    async def _answer_datagram(self, query: bytes, client: tuple[str, int]) -> None:
        reply = await self._guarded(query, over_tcp=False)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, client)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._keep(cast("asyncio.Task[None]", asyncio.current_task()))
        try:
            while True:
                async with self._clock.timeout(_TCP_IDLE):
                    size = struct.unpack("!H", await reader.readexactly(2))[0]
                    query = await reader.readexactly(size)
                reply = await self._guarded(query, over_tcp=True)
                if reply is None:
                    return
                writer.write(struct.pack("!H", len(reply)) + reply)
                async with self._clock.timeout(_TCP_IDLE):
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            writer.close()

    async def _guarded(self, query: bytes, over_tcp: bool) -> bytes | None:
        try:
            return await self.answer(query, over_tcp)
        except Exception:
            log.exception("a DNS query failed")
            return None

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # The host's resolvers

    async def _forward(self, query: bytes, question: Question, over_tcp: bool) -> bytes | None:
        ask = _ask_tcp if over_tcp else _ask_udp
        for upstream in self._upstreams:
            try:
                async with self._clock.timeout(FORWARD_SECONDS / len(self._upstreams)):
                    reply = await ask(query, upstream)
            except (OSError, EOFError, TimeoutError):
                continue
            if len(reply) >= 12 and reply[:2] == query[:2]:
                return reply
        return None


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.datagram(data, addr)


class _Reply(asyncio.DatagramProtocol):
    """The first datagram that comes back."""

    def __init__(self, query_id: bytes) -> None:
        self._id = query_id
        self.received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if data[:2] == self._id and not self.received.done():
            self.received.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.received.done():
            self.received.set_exception(exc)


async def _ask_udp(query: bytes, upstream: tuple[str, int]) -> bytes:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Reply(query[:2]), remote_addr=upstream
    )
    try:
        transport.sendto(query)
        return await protocol.received
    finally:
        transport.close()


async def _ask_tcp(query: bytes, upstream: tuple[str, int]) -> bytes:
    reader, writer = await asyncio.open_connection(*upstream)
    try:
        writer.write(struct.pack("!H", len(query)) + query)
        size = struct.unpack("!H", await reader.readexactly(2))[0]
        return await reader.readexactly(size)
    finally:
        writer.close()


def parse_query(message: bytes) -> Question:
    """The one question of a query. ValueError for anything else."""
    if len(message) < 12:
        raise ValueError("shorter than a header")
    query_id, flags, questions, answers, _, _ = _HEADER.unpack_from(message)
    if flags & _QR or questions != 1 or answers:
        raise ValueError("not a query with one question")
    labels = []
    position = 12
    while True:
        if position >= len(message):
            raise ValueError("the name does not end")
        size = message[position]
        position += 1
        if size == 0:
            break
        label = message[position : position + size]
        if size > 63 or len(label) < size:
            raise ValueError("malformed name")
        labels.append(label.decode("ascii", "replace").lower())
        position += size
    if position + 4 > len(message) or position > 12 + 255:
        raise ValueError("cut short")
    kind, cls = struct.unpack_from("!2H", message, position)
    return Question(query_id, flags, ".".join(labels), kind, cls, message[12 : position + 4])


def _reply(question: Question, code: int, addresses: Sequence[str] = ()) -> bytes:
    records = []
    if question.cls in (_IN, _ANY):
        for address in addresses:
            packed = ipaddress.ip_address(address).packed
            kind = _A if len(packed) == 4 else _AAAA
            if question.type in (kind, _ANY):
                # 0xC00C: the name of the question.
                records.append(struct.pack("!3HIH", 0xC00C, kind, _IN, TTL, len(packed)) + packed)
    del records[16:]
    flags = _QR | _AA | _RA | (question.flags & _RD) | code
    return (
        _HEADER.pack(question.id, flags, 1, len(records), 0, 0) + question.raw + b"".join(records)
    )


def _system_resolvers() -> list[str]:
    try:
        text = Path("/etc/resolv.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = (line.split() for line in text.splitlines())
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def _address(text: str) -> tuple[str, int]:
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, int(port)
    return text, 53
