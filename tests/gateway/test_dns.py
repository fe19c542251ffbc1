from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from knlocal.clock import SystemClock, VirtualClock
from knlocal.gateway.dns import DnsServer, DnsUnavailable, parse_query
from tests.gateway.conftest import DEADLINE

NAMES = {
    "app.shop.svc.cluster.local": ["172.17.0.1"],
    "both.shop.svc.cluster.local": ["10.0.0.1", "fd00::1", "10.0.0.2"],
    "empty.shop.svc.cluster.local": [],
}


def lookup(name: str) -> Sequence[str] | None:
    return NAMES.get(name)


def query(name: str, kind: int = 1, query_id: int = 7, flags: int = 0x0100) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".") if part)
    return (
        struct.pack("!6H", query_id, flags, 1, 0, 0, 0)
        + labels
        + b"\0"
        + struct.pack("!2H", kind, 1)
    )


def code_of(reply: bytes) -> int:
    return reply[3] & 0x0F


def count_of(reply: bytes) -> int:
    return int(struct.unpack("!H", reply[6:8])[0])


class Asker(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.replies: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.replies.put_nowait(data)


async def ask(address: tuple[str, int], message: bytes) -> bytes:
    transport, asker = await asyncio.get_running_loop().create_datagram_endpoint(
        Asker, remote_addr=address
    )
    try:
        transport.sendto(message)
        return await asyncio.wait_for(asker.replies.get(), DEADLINE)
    finally:
        transport.close()


async def ask_tcp(address: tuple[str, int], *messages: bytes) -> list[bytes]:
    reader, writer = await asyncio.wait_for(asyncio.open_connection(*address), DEADLINE)
    replies = []
    for message in messages:
        writer.write(struct.pack("!H", len(message)) + message)
    for _ in messages:
        size = struct.unpack("!H", await asyncio.wait_for(reader.readexactly(2), DEADLINE))[0]
        replies.append(await asyncio.wait_for(reader.readexactly(size), DEADLINE))
    writer.close()
    return replies


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., object]]:
    opened: list[DnsServer] = []

    async def opener(*resolvers: str, clock: object = None) -> tuple[str, int]:
        server = DnsServer(lookup, clock or SystemClock(), list(resolvers))  # type: ignore[arg-type]
        opened.append(server)
        return await server.listen("127.0.0.1", 0)

    yield opener
    for server in opened:
        await server.close()


async def test_a_cluster_name_is_answered_in_any_case(start: Callable[..., object]) -> None:
    address = await start()  # type: ignore[misc]
    for name in ("app.shop.svc.cluster.local", "APP.Shop.svc.cluster.local."):
        message = query(name)
        reply = await ask(address, message)
        assert reply[:2] == message[:2]
        assert code_of(reply) == 0
        assert reply.endswith(bytes([0, 0, 0, 5, 0, 4, 172, 17, 0, 1]))
        # The question comes back as it was spelt.
        assert message[12:] in reply


async def test_addresses_are_given_by_kind(start: Callable[..., object]) -> None:
    address = await start()  # type: ignore[misc]
    name = "both.shop.svc.cluster.local"
    assert count_of(await ask(address, query(name, 1))) == 2
    assert count_of(await ask(address, query(name, 28))) == 1
    assert count_of(await ask(address, query(name, 255))) == 3
    reply = await ask(address, query(name, 15))
    assert (code_of(reply), count_of(reply)) == (0, 0)
    reply = await ask(address, query("empty.shop.svc.cluster.local"))
    assert (code_of(reply), count_of(reply)) == (0, 0)


async def test_unknown_cluster_names_never_leave_the_machine(start: Callable[..., object]) -> None:
    asked: list[bytes] = []

    class Resolver(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            asked.append(data)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        Resolver, local_addr=("127.0.0.1", 0)
    )
    host, port = transport.get_extra_info("sockname")
    address = await start(f"{host}:{port}")  # type: ignore[misc]
    assert code_of(await ask(address, query("nobody.shop.svc.cluster.local"))) == 3
    assert asked == []
    transport.close()


async def test_other_names_are_asked_of_the_hosts_resolvers(start: Callable[..., object]) -> None:
    NAMES["example.org"] = ["192.0.2.7"]
    try:
        outer = await start()  # type: ignore[misc]
        inner_server = DnsServer(lambda name: None, SystemClock(), [f"{outer[0]}:{outer[1]}"])
        # The first resolver does not answer; the address is this server's own, and is skipped.
        inner = await inner_server.listen("127.0.0.2", 0)
        reply = await ask(inner, query("example.org", query_id=99))
        assert reply[:2] == b"\0\x63"
        assert reply.endswith(bytes([192, 0, 2, 7]))
        (tcp,) = await ask_tcp(inner, query("example.org"))
        assert tcp.endswith(bytes([192, 0, 2, 7]))
        await inner_server.close()
    finally:
        del NAMES["example.org"]


async def test_a_silent_resolver_means_servfail_not_silence() -> None:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    host, port = transport.get_extra_info("sockname")
    clock = VirtualClock()
    server = DnsServer(lookup, clock, [f"{host}:{port}"])
    address = await server.listen("127.0.0.2", 0)
    task = asyncio.ensure_future(ask(address, query("example.org")))
    async with asyncio.timeout(DEADLINE):
        while clock.next_due() is None:  # noqa: ASYNC110 - the server's own timer
            await asyncio.sleep(0.001)
    await clock.advance(5)
    assert code_of(await task) == 2
    await server.close()
    transport.close()


async def test_no_resolver_at_all_means_servfail(start: Callable[..., object]) -> None:
    address = await start()  # type: ignore[misc]
    assert code_of(await ask(address, query("example.org"))) == 2


async def test_several_queries_share_a_tcp_connection(start: Callable[..., object]) -> None:
    address = await start()  # type: ignore[misc]
    replies = await ask_tcp(
        address, *[query("app.shop.svc.cluster.local", query_id=i) for i in (1, 2)]
    )
    assert [reply[1] for reply in replies] == [1, 2]


@pytest.mark.parametrize(
    "message",
    [
        b"\0\1\1\0\0\1\0\0\0\0\0\0",
        b"\0\1\1\0\0\2\0\0\0\0\0\0\0\0\1\0\1",
        b"\0\1\1\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1",
        b"\0\1\1\0\0\1\0\0\0\0\0\0\x3fabc",
        query("a" * 60 + "." + ".".join(["b" * 60] * 6)),
    ],
)
async def test_malformed_queries_get_an_error(start: Callable[..., object], message: bytes) -> None:
    address = await start()  # type: ignore[misc]
    assert code_of(await ask(address, message)) == 1


async def test_noise_gets_nothing_and_harms_nobody(start: Callable[..., object]) -> None:
    address = await start()  # type: ignore[misc]
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        Asker, remote_addr=address
    )
    for noise in (b"", b"x", b"\xff" * 12, b"\0\1\x81\0" + b"\0" * 8):
        transport.sendto(noise)
    transport.close()
    assert code_of(await ask(address, query("app.shop.svc.cluster.local"))) == 0
    assert code_of(await ask(address, query("app.shop.svc.cluster.local", flags=0x2800))) == 4


async def test_an_address_that_cannot_be_bound_is_said_plainly(
    start: Callable[..., object],
) -> None:
    host, port = await start()  # type: ignore[misc]
    with pytest.raises(DnsUnavailable, match=f"cannot bind {host} port {port}"):
        await DnsServer(lookup, SystemClock(), []).listen(host, port)


def test_a_query_is_understood() -> None:
    question = parse_query(query("App.Shop.svc", 28, 5))
    assert (question.id, question.name, question.type) == (5, "app.shop.svc", 28)
