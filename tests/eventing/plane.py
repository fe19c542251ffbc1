"""The data plane under test: dispatcher, doors and recording subscribers, in one process.

Subscribers are hosts of the gateway's own route table, so that no socket's timing matters; what
must hold over sockets is tested in `test_door.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from multidict import CIMultiDict

from knlocal.clock import Clock
from knlocal.eventing.delivery import DeliveryPolicy
from knlocal.eventing.dispatcher import Dispatcher
from knlocal.eventing.engines import Engine
from knlocal.eventing.exchange import Exchange
from knlocal.eventing.filters import trigger_filter
from knlocal.eventing.ingress import BrokerIngress, ChannelIngress
from knlocal.eventing.subscription import Subscription
from knlocal.events import Event, decode
from knlocal.gateway import HttpClient, Request, Response, Route, RouteTable
from knlocal.journal import Door, Journal

BROKERS = "broker-ingress.knative-eventing.svc.cluster.local"


class Reply(NamedTuple):
    status: int = 202
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""


class Recorder:
    """A subscriber: keeps what it got, answers what it is told (the last answer stays)."""

    def __init__(self, host: str) -> None:
        self.url = f"http://{host}/"
        self.events: list[Event] = []
        self.headers: list[CIMultiDict[str]] = []
        self.targets: list[str] = []
        self.answers: list[Reply] = [Reply()]
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = 0
        self.most = 0

    async def __call__(self, request: Request) -> None:
        body = await request.read(1 << 26)
        self.headers.append(request.headers.copy())
        self.targets.append(request.target)
        self.events.append(decode(request.headers, body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.running += 1
        self.most = max(self.most, self.running)
        await self.gate.wait()
        self.running -= 1
        await request.respond(*answer)

    def answer(self, *answers: int | Reply) -> None:
        self.answers = [a if isinstance(a, Reply) else Reply(a) for a in answers]

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]


class Plane:
    def __init__(self, clock: Clock, engine: Engine, journal: Journal | None = None) -> None:
        self.clock = clock
        self.routes = RouteTable()
        self.client = HttpClient(self.routes, clock)
        self.journal = journal or Journal(clock)
        self.dispatcher = Dispatcher(self.client, clock, self.journal, {"memory": engine})
        self.ingress = BrokerIngress(lambda ns, n: self.dispatcher.exchange("Broker", ns, n))
        self.routes.put("brokers", {BROKERS: Route(self.ingress)})

    async def start(self) -> None:
        await self.dispatcher.start()

    async def stop(self) -> None:
        await self.dispatcher.stop(grace=0)
        await self.client.close()

    def recorder(self, name: str) -> Recorder:
        host = f"{name}.default.svc.cluster.local"
        recorder = Recorder(host)
        self.routes.put(f"test/{name}", {host: Route(recorder)})
        return recorder

    async def broker(self, name: str, *subscriptions: Subscription) -> Exchange:
        door = Door("Broker", "default", name, f"http://{BROKERS}/default/{name}")
        return await self.dispatcher.serve(door, subscriptions, is_broker=True)

    async def channel(self, name: str, *subscriptions: Subscription) -> Exchange:
        host = f"{name}-kn-channel.default.svc.cluster.local"
        door = Door("InMemoryChannel", "default", name, f"http://{host}")
        exchange = await self.dispatcher.serve(door, subscriptions, is_broker=False)
        self.routes.put(f"channel/{name}", {host: Route(ChannelIngress(exchange))})
        return exchange

    async def post(self, url: str, event_id: str = "1", body: bytes = b"", **more: str) -> Response:
        headers = {
            "ce-specversion": "1.0", "ce-id": event_id, "ce-type": "t", "ce-source": "/s",
            **{name.replace("_", "-"): value for name, value in more.items()},
        }  # fmt: skip
        return await self.client.request("POST", url, headers.items(), body)

    async def settled(self, rounds: int = 2000) -> None:
        """Let everything that needs no time happen."""
        for _ in range(rounds):
            await asyncio.sleep(0)
            if self.dispatcher.idle:
                break


def trigger(name: str, subscriber: Recorder | str = "", **more: Any) -> Subscription:
    """A Trigger's subscription; `filter` is a trigger spec's, `retry` and the like its policy."""
    return _subscription("trigger", name, subscriber, strict_reply=True, **more)


def subscription(name: str, subscriber: Recorder | str = "", **more: Any) -> Subscription:
    return _subscription("subscription", name, subscriber, **more)


_POLICY = ("retry", "backoff_policy", "backoff_delay", "timeout", "retry_after_max", "mode")


def _subscription(kind: str, name: str, subscriber: Recorder | str, **more: Any) -> Subscription:
    policy = DeliveryPolicy(**{key: more.pop(key) for key in _POLICY if key in more})
    spec = more.pop("filter", {})
    for key in ("reply", "dead_letter"):
        if isinstance(more.get(key), Recorder):
            more[key] = more[key].url
    return Subscription(
        uid=name,
        name=f"{kind} default/{name}",
        namespace="default",
        subscriber=subscriber.url if isinstance(subscriber, Recorder) else subscriber,
        policy=policy,
        filter=trigger_filter(spec),
        **more,
    )


def broker_url(name: str) -> str:
    return f"http://{BROKERS}/default/{name}"


def channel_url(name: str) -> str:
    return f"http://{name}-kn-channel.default.svc.cluster.local"
