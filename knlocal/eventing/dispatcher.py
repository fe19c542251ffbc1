"""All exchanges of a daemon, and the one way in which their subscribers reach the world."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from urllib.parse import urljoin, urlsplit

from knlocal.clock import Clock
from knlocal.eventing.attempts import Transport
from knlocal.eventing.engines import Engine, MemoryEngine, Message
from knlocal.eventing.exchange import Exchange
from knlocal.eventing.subscription import Answer, Subscription
from knlocal.events import Event, encode
from knlocal.gateway.client import HttpClient, HttpClientError
from knlocal.gateway.post import Line, Sender
from knlocal.journal import Door, Journal

log = logging.getLogger(__name__)

MAX_REDIRECTS = 10
Deliver = Callable[[], Awaitable[Answer]]
PREFER_REPLY = ("Prefer", "reply")


class Dispatcher:
    """Exchanges by door, and found by URL: an event for one of them goes there in process."""

    def __init__(
        self,
        client: HttpClient,
        clock: Clock,
        journal: Journal | None = None,
        engines: dict[str, Engine] | None = None,
    ) -> None:
        self.clock = clock
        self.journal = journal
        self.engines: dict[str, Engine] = engines or {"memory": MemoryEngine()}
        self._client = client
        #: Called with each delivery instead of making it: where faults go in.
        self.around: Callable[[Deliver, Subscription, Event], Awaitable[Answer]] | None = None
        self._exchanges: dict[tuple[str, str, str], Exchange] = {}
        self._by_url: dict[str, Exchange] = {}
        step = journal.step if journal else lambda trail, step: None
        self._transport = Transport(clock, self._send, self._line, step)

    async def start(self) -> None:
        for engine in self.engines.values():
            await engine.start()

    async def stop(self, grace: float = 5.0) -> None:
        """Deliver what can be delivered within `grace` seconds, then stop."""
        until = self.clock.monotonic() + grace
        while not self.at_rest and self.clock.monotonic() < until:
            await self.clock.sleep(0.02)
        for exchange in list(self._exchanges.values()):
            await exchange.close(forget=False)
        for engine in self.engines.values():
            await engine.stop()

    @property
    def idle(self) -> bool:
        return all(exchange.idle for exchange in self._exchanges.values())

    @property
    def at_rest(self) -> bool:
        """Idle, or what is left cannot be delivered now."""
        return all(exchange.at_rest for exchange in self._exchanges.values())

    # -- exchanges ----------------------------------------------------------------------------

    def exchange(self, kind: str, namespace: str, name: str) -> Exchange | None:
        return self._exchanges.get((kind, namespace, name))

    @property
    def exchanges(self) -> list[Exchange]:
        return list(self._exchanges.values())

    async def serve(
        self,
        door: Door,
        subscriptions: Sequence[Subscription],
        *,
        is_broker: bool,
        engine: str = "memory",
    ) -> Exchange:
        """Have an exchange behind `door` with exactly these subscriptions."""
        key = (door.kind, door.namespace, door.name)
        exchange = self._exchanges.get(key)
        wanted = self.engines.get(engine) or self.engines["memory"]
        if exchange is not None and exchange.engine is not wanted:
            # Another class of engine: what waits in the old one is delivered from there first.
            await self._drain(exchange)
            await exchange.close(forget=True)
            exchange = None
        if exchange is None:
            exchange = Exchange(door, wanted, self._transport, self.journal, is_broker=is_broker)
            self._exchanges[key] = exchange
        self._by_url[_canonical(door.url)] = exchange
        await exchange.subscribe(subscriptions)
        return exchange

    async def remove(self, kind: str, namespace: str, name: str) -> None:
        """The broker or channel is gone, and what waits behind it goes too."""
        exchange = self._exchanges.pop((kind, namespace, name), None)
        if exchange is not None:
            self._by_url.pop(_canonical(exchange.door.url), None)
            await exchange.close(forget=True)

    async def _drain(self, exchange: Exchange, seconds: float = 10.0) -> None:
        until = self.clock.monotonic() + seconds
        while not exchange.at_rest and self.clock.monotonic() < until:
            await self.clock.sleep(0.02)

    # -- sending ------------------------------------------------------------------------------

    async def _send(
        self,
        url: str,
        event: Event,
        message: Message,
        subscription: Subscription,
        *,
        wants_reply: bool,
    ) -> Answer:
        if self.around is None:
            return await self._deliver(url, event, message, subscription, wants_reply)

        async def deliver() -> Answer:
            return await self._deliver(url, event, message, subscription, wants_reply)

        return await self.around(deliver, subscription, event)

    async def _deliver(
        self,
        url: str,
        event: Event,
        message: Message,
        subscription: Subscription,
        wants_reply: bool,
    ) -> Answer:
        local = self._by_url.get(_canonical(url))
        if local is not None:
            verdict = await local.accept(
                event, message.forward, parent=message.trail, via=subscription.name,
                through=message.through + 1,
            )  # fmt: skip
            retry_after = {"retry-after": str(verdict.retry_after)} if verdict.retry_after else {}
            return Answer(verdict.status, retry_after, verdict.reason.encode())
        policy = subscription.policy
        encoded = encode(event, policy.mode)
        headers = [*encoded.headers, ("Kn-Namespace", subscription.namespace), *message.forward]
        if wants_reply:
            headers.append(PREFER_REPLY)
        return await self._post(url, headers, encoded.body, policy.timeout)

    def _line(self, subscription: Subscription, sender: Sender) -> Line | None:
        """A kept connection to a subscription's subscriber, when there is one."""
        url = subscription.subscriber
        if self.around is not None or _canonical(url) in self._by_url:
            return None
        try:
            return self._client.line(url, sender)
        except HttpClientError:
            return None  # `_send` says why

    async def _post(
        self, url: str, headers: Sequence[tuple[str, str]], body: bytes, timeout: float
    ) -> Answer:
        """One POST. Redirects that keep the method (307, 308) are followed, as Go's client does."""
        for _ in range(MAX_REDIRECTS):
            try:
                response = await self._client.request("POST", url, headers, body, timeout)
            except HttpClientError as error:
                return Answer(0, error=str(error))
            except asyncio.CancelledError:
                raise
            except Exception as error:
                log.exception("cannot post to %s", url)
                return Answer(0, error=f"{type(error).__name__}: {error}")
            status = response.status
            if (status != 307 and status != 308) or "location" not in response.headers:
                return Answer(status, response.headers, response.body)
            url = urljoin(url, response.headers["location"])
        return Answer(0, error=f"more than {MAX_REDIRECTS} redirects")


@lru_cache(maxsize=4096)
def _canonical(url: str) -> str:
    """A URL as exchanges are found by it: lower-case host without default port, no last slash."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower().removesuffix(".")
    if host.endswith(".svc"):
        host += ".cluster.local"
    try:
        port = parts.port
    except ValueError:
        return url
    place = host if port in (None, 80) else f"{host}:{port}"
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{place}{parts.path.rstrip('/')}{query}"
