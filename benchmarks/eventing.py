"""Events from a broker's door to its subscribers, against the same sender posting straight to them.

Sender and subscriber are one small C program (`events.c`), compiled here with `cc`. Run it with
`python -m benchmarks.eventing [seconds]`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
from multidict import CIMultiDict

from benchmarks._measure import Row, now, report
from knlocal.clock import SystemClock
from knlocal.eventing.delivery import DeliveryPolicy
from knlocal.eventing.dispatcher import Dispatcher
from knlocal.eventing.engines import DurableEngine, Engine, MemoryEngine
from knlocal.eventing.exchange import Exchange
from knlocal.eventing.filters import Filter, trigger_filter
from knlocal.eventing.ingress import BrokerIngress
from knlocal.eventing.subscription import Subscription
from knlocal.events import Event, decode
from knlocal.gateway import Gateway, HttpClient, RouteTable
from knlocal.journal import Door, Journal

TITLE = "Events through a broker"
NEEDS = ("cc",)
SENDERS = 16
QUEUED = 100_000
TYPED = trigger_filter({"filter": {"attributes": {"type": "order.created"}}})
CESQL = "type = 'order.{n}' AND INT(priority) > {n} AND (source LIKE '/shop/%' OR EXISTS urgent)"


class Sent(NamedTuple):
    """What the sender says: events, seconds, microseconds."""

    accepted: int
    refused: int
    seconds: float
    p50: int
    p99: int

    @property
    def rate(self) -> float:
        return self.accepted / self.seconds


class Counted(NamedTuple):
    """What the subscriber says."""

    count: int
    p50: int
    disorder: int


def run(times: int = 20) -> list[Row]:
    """Rates over a quarter of as many seconds."""
    import uvloop

    return uvloop.run(measure(max(1.0, times / 4)))


async def measure(seconds: float) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = folder / "events"
        source = Path(__file__).with_name("events.c")
        compiler = await asyncio.create_subprocess_exec("cc", "-O2", "-o", program, source)
        if await compiler.wait():
            raise SystemExit("cc is needed to compile the two ends")
        bench = Bench(program, folder, seconds)
        return await bench.figures()


class Bench:
    def __init__(self, program: Path, folder: Path, seconds: float) -> None:
        self._program = str(program)
        self._folder = folder
        self._seconds = seconds
        self._client = HttpClient(None, SystemClock())

    async def figures(self) -> list[Row]:
        async with self._sink() as port:
            direct = await self._send(port, "/", SENDERS)
            single = await self._send(port, "/", 1)
            direct_latency = (await self._count(port)).p50 / 1000
            one, _ = await self._through(port, MemoryEngine(), 1, SENDERS)
            ten, _ = await self._through(port, MemoryEngine(), 10, SENDERS)
            engine = DurableEngine(self._folder / "durable.db")
            durable, _ = await self._through(port, engine, 1, SENDERS)
            _, latency = await self._through(port, MemoryEngine(), 1, 1)
        filtering = self._filtering()
        memory = await self._queued()
        print(f"direct: {direct.rate:.0f}/s with {SENDERS} senders, {single.rate:.0f}/s with one")
        return [
            Row("one trigger, 16 senders", one, direct.rate, "events/s", at_least=0.06),
            Row("the goal of it", one, direct.rate, "events/s", at_least=0.16),
            Row("ten triggers against one", ten, one, "deliveries/s", at_least=1.0),
            Row("durable against in memory", durable, one, "events/s", at_least=0.5),
            Row(
                "door to subscriber, median, against direct + 2 ms",
                latency, direct_latency + 2.0, "ms", at_most=1.0,
            ),
            Row("100 CESQL filters per event, against 1 ms", filtering, 1.0, "ms", at_most=1.0),
            Row("memory per queued event, against 2 KiB", memory, 2048, "bytes", at_most=1.0),
        ]  # fmt: skip

    # -- the two ends ---------------------------------------------------------------------------

    @asynccontextmanager
    async def _sink(self, port: int = 0) -> AsyncIterator[int]:
        port = port or free_port()
        process = await asyncio.create_subprocess_exec(self._program, "sink", str(port))
        try:
            await self._until_listening(port)
            yield port
        finally:
            process.kill()
            await process.wait()

    async def _until_listening(self, port: int) -> None:
        async with asyncio.timeout(10):
            while True:
                try:
                    await self._count(port)
                except Exception:
                    await asyncio.sleep(0.02)
                else:
                    return

    async def _count(self, port: int) -> Counted:
        answer = await self._client.request("GET", f"http://127.0.0.1:{port}/")
        return Counted(*map(int, answer.body.split()))

    async def _send(self, port: int, target: str, connections: int, host: str = "x") -> Sent:
        process = await asyncio.create_subprocess_exec(
            self._program, "send", str(port), target, host, str(connections), str(self._seconds),
            stdout=subprocess.PIPE,
        )  # fmt: skip
        said = (await process.communicate())[0].split()
        return Sent(int(said[0]), int(said[1]), float(said[2]), int(said[3]), int(said[4]))

    # -- through a broker -----------------------------------------------------------------------

    async def _through(
        self, sink: int, engine: Engine, triggers: int, senders: int
    ) -> tuple[float, float]:
        """Deliveries per second, from the first event sent to the last delivered; and the median
        of milliseconds from sending to arrival."""
        async with plane(engine) as (gateway_port, dispatcher):
            await serve(dispatcher, sink, [TYPED] * triggers)
            before = (await self._count(sink)).count
            began = now()
            sent = await self._send(gateway_port, "/default/b", senders, "b.localhost")
            await idle(dispatcher)
            took = now() - began
            counted = await self._count(sink)
            delivered = counted.count - before
        if delivered != sent.accepted * triggers:
            raise SystemExit(f"{sent.accepted} accepted, {delivered} of {triggers} x delivered")
        return delivered / took, counted.p50 / 1000

    @staticmethod
    def _filtering() -> float:
        """Milliseconds that a hundred CESQL filters take for one event."""
        filters = [trigger_filter({"filters": [{"cesql": CESQL.format(n=n)}]}) for n in range(100)]
        event = {"specversion": "1.0", "id": "1", "type": "order.50", "source": "/shop/1",
                 "priority": "51"}  # fmt: skip
        rounds = 500
        began = now()
        for _ in range(rounds):
            for one in filters:
                one.matches(event)
        return (now() - began) / rounds * 1000

    async def _queued(self) -> float:
        """Bytes per event of a long queue; all of it must arrive, in order, in the end."""
        port = free_port()
        policy = DeliveryPolicy(100_000, "linear", 0.02)
        async with plane(MemoryEngine(), journal=False) as (_, dispatcher):
            exchange = await serve(dispatcher, port, [TYPED], policy)
            before = psutil.Process().memory_info().rss
            for number in range(QUEUED):
                verdict = await exchange.accept(order(number), owned=True)
                assert verdict.status == 202
            used = psutil.Process().memory_info().rss - before
            async with self._sink(port), asyncio.timeout(300):
                await idle(dispatcher)
                counted = await self._count(port)
        if counted.count != QUEUED or counted.disorder:
            raise SystemExit(f"of {QUEUED} queued events {counted} arrived")
        return used / QUEUED


@asynccontextmanager
async def plane(engine: Engine, *, journal: bool = True) -> AsyncIterator[tuple[int, Dispatcher]]:
    """A gateway in front of a dispatcher, as the daemon has it."""
    clock, routes = SystemClock(), RouteTable()
    client = HttpClient(None, clock)
    trails = Journal(clock) if journal else None
    dispatcher = Dispatcher(client, clock, trails, {"memory": engine})
    await dispatcher.start()
    ingress = BrokerIngress(lambda ns, name: dispatcher.exchange("Broker", ns, name))
    routes.put("brokers", {"b.localhost": ingress.route})
    gateway = Gateway(routes, clock)
    address = await gateway.listen("127.0.0.1", 0, "external")
    try:
        yield address.port, dispatcher
    finally:
        await gateway.close()
        await dispatcher.stop(0)
        await client.close()


async def serve(
    dispatcher: Dispatcher,
    sink: int,
    filters: Sequence[Filter],
    policy: DeliveryPolicy = DeliveryPolicy(),
) -> Exchange:
    door = Door("Broker", "default", "b", "http://broker/default/b")
    subscriptions = [
        Subscription(
            uid=f"t{n}", name=f"trigger default/t{n}", namespace="default",
            subscriber=f"http://127.0.0.1:{sink}/", reply=door.url, filter=wanted,
            strict_reply=True, policy=policy,
        )
        for n, wanted in enumerate(filters)
    ]  # fmt: skip
    return await dispatcher.serve(door, subscriptions, is_broker=True)


async def idle(dispatcher: Dispatcher) -> None:
    while not dispatcher.idle:  # noqa: ASYNC110 (as often as the figure needs it)
        await asyncio.sleep(0.005)


def order(number: int) -> Event:
    """An event as it comes out of a request: every header a string of its own."""
    lines = (
        f"ce-specversion: 1.0\nce-type: order.created\nce-source: /shop/1\nce-id: {number}\n"
        f"ce-time: 2026-01-01T00:00:00.{number:06}Z\ncontent-type: application/json"
    )
    headers = CIMultiDict(tuple(line.split(": ", 1)) for line in lines.splitlines())
    return decode(headers, b'{"order": %d, "customer": "c-17", "total": 12.50}' % number)


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    sys.exit(report(TITLE, run(int(seconds * 4)), ours="broker", theirs="compared with"))
