"""Events from a broker's door to its subscribers, against the same sender posting straight to them.

Sender and subscriber are one small C program (`events.c`), compiled here with `cc`. Run it with
`python -m benchmarks.eventing [rounds]`.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
from multidict import CIMultiDict

from benchmarks._measure import Row, now, report
from benchmarks._product import product
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
INGRESS = "broker-ingress.knative-eventing.localhost"
PROJECT = """# runtime: process
[brokers.default]
[triggers.one]
broker = "default"
filter = {{ type = "order.created" }}
sink = "http://127.0.0.1:{sink}/"
"""
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
    """The medians of so many rounds, of a second each."""
    import uvloop

    return uvloop.run(measure(max(1, times)))


async def measure(rounds: int, seconds: float = 1.0) -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = folder / "events"
        source = Path(__file__).with_name("events.c")
        compiler = await asyncio.create_subprocess_exec("cc", "-O2", "-o", program, source)
        if await compiler.wait():
            raise SystemExit("cc is needed to compile the two ends")
        bench = Bench(program, folder, seconds)
        return await bench.figures(rounds)


class Bench:
    def __init__(self, program: Path, folder: Path, seconds: float) -> None:
        self._program = str(program)
        self._folder = folder
        self._seconds = seconds
        self._client = HttpClient(None, SystemClock())

    async def figures(self, rounds: int) -> list[Row]:
        """Every round measures everything once, so that a busy moment falls on each."""
        found: dict[str, list[float]] = defaultdict(list)
        async with self._sink() as port:
            with product(PROJECT.format(sink=port)) as whole:
                for number in range(rounds):
                    for name, value in (await self._round(port, whole.port, number)).items():
                        found[name].append(value)
        medians = {name: statistics.median(values) for name, values in found.items()}
        for name, values in found.items():
            print(f"{name}: median {medians[name]:.4g}, {min(values):.4g} to {max(values):.4g}")
        direct, one, kept = medians["direct"], medians["one"], medians["kept"]
        limit = medians["direct latency"] + 2.0
        return [
            Row("one trigger, 16 senders", one, direct, "events/s", at_least=0.06),
            Row("the goal of it", one, direct, "events/s", at_least=0.16),
            Row("the same through `knlocal up`", medians["product"], direct, "events/s",
                at_least=0.06),
            Row("ten triggers against one", medians["ten"], one, "deliveries/s", at_least=1.0),
            Row("durable against in memory", kept, one, "events/s", at_least=0.5),
            Row("door to subscriber, median, against direct + 2 ms",
                medians["latency"], limit, "ms", at_most=1.0),
            Row("100 CESQL filters per event, against 1 ms", self._filtering(), 1.0, "ms",
                at_most=1.0),
            Row("memory per queued event, against 2 KiB", await self._queued(), 2048, "bytes",
                at_most=1.0),
        ]  # fmt: skip

    async def _round(self, sink: int, gateway: int, number: int) -> dict[str, float]:
        found = {"direct": (await self._send(sink, "/", SENDERS)).rate}
        found["one"], _ = await self._through(sink, MemoryEngine(), 1, SENDERS)
        found["product"], _ = await self._measured(
            sink, gateway, "/default/default", INGRESS, 1, SENDERS
        )
        found["ten"], _ = await self._through(sink, MemoryEngine(), 10, SENDERS)
        engine = DurableEngine(self._folder / f"durable-{number}.db")
        found["kept"], _ = await self._through(sink, engine, 1, SENDERS)
        await self._count(sink)
        await self._send(sink, "/", 1)
        found["direct latency"] = (await self._count(sink)).p50 / 1000
        _, found["latency"] = await self._through(sink, MemoryEngine(), 1, 1)
        return found

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
        """As `_measured`, through a data plane in this process."""
        async with plane(engine) as (gateway_port, dispatcher):
            await serve(dispatcher, sink, [TYPED] * triggers)
            return await self._measured(
                sink, gateway_port, "/default/b", "b.localhost", triggers, senders
            )

    async def _measured(
        self, sink: int, gateway: int, path: str, host: str, triggers: int, senders: int
    ) -> tuple[float, float]:
        """Deliveries per second, from the first event sent to the last delivered; and the median
        of milliseconds from sending to arrival."""
        before = await self._count(sink)
        began = now()
        sent = await self._send(gateway, path, senders, host)
        wanted = before.count + sent.accepted * triggers
        # Asking ends the sample, so it must not be asked before it is likely to be complete.
        await asyncio.sleep(0.02)
        counted = await self._count(sink)
        async with asyncio.timeout(60):
            while counted.count < wanted:
                await asyncio.sleep(0.005)
                counted = counted._replace(count=(await self._count(sink)).count)
        took = now() - began
        if counted.count != wanted:
            raise SystemExit(f"{wanted} deliveries were wanted, there were {counted.count}")
        return (wanted - before.count) / took, counted.p50 / 1000

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
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    sys.exit(report(TITLE, run(rounds), ours="broker", theirs="compared with"))
