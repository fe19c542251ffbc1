"""An exchange: the data plane of one broker or channel. Events come in, each subscription that
wants one gets it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple

from knlocal.eventing.attempts import Transport
from knlocal.eventing.engines import Engine, Full, Message, Queue
from knlocal.eventing.headers import Forward
from knlocal.eventing.subscriber import Subscriber
from knlocal.eventing.subscription import Subscription
from knlocal.events import Event
from knlocal.journal import Door, Journal, Trail

MAX_TTL = 255
MAX_THROUGH = 1000
"""Brokers and channels that an event, and what is replied to it, may pass on end inside the daemon.
Knative lets an event go round for ever between two brokers or channels that deliver to each other;
here that would keep the daemon from its other work."""
TTL = "knativebrokerttl"
ARRIVAL = "knativearrivaltime"


class Verdict(NamedTuple):
    """What a door says: the status, and for a refusal the reason."""

    status: int
    reason: str = ""
    retry_after: int = 0


ACCEPTED = Verdict(202)

Then = Callable[[Verdict], object]
"""Called with what the door says, once, now or later."""


class Exchange:
    """Accepts events for one door.

    `subscriptions` is replaced as a whole by `subscribe`; an event is matched against one state of
    it. The answer 202 means that the event is in the queue of each subscription that wants it (and,
    with the durable engine, on disk).
    """

    def __init__(
        self,
        door: Door,
        engine: Engine,
        transport: Transport,
        journal: Journal | None,
        *,
        is_broker: bool,
    ) -> None:
        self.door = door
        self.engine = engine
        self.is_broker = is_broker
        #: Called with each accepted event, to register its type.
        self.observe: Callable[[Event], object] | None = None
        self._transport = transport
        self._journal = journal
        self._subscriptions: tuple[Subscription, ...] = ()
        self._queues: list[Queue] = []
        self._subscribers: dict[str, Subscriber] = {}

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        return self._subscriptions

    @property
    def subscribers(self) -> list[Subscriber]:
        return list(self._subscribers.values())

    async def accept(
        self,
        event: Event,
        forward: Forward = (),
        *,
        owned: bool = False,
        parent: Trail | None = None,
        via: str = "",
        through: int = 0,
    ) -> Verdict:
        """Take an event in, and return what the door says. As `offer`."""
        said: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

        def then(verdict: Verdict) -> None:
            if not said.done():
                said.set_result(verdict)

        self.offer(event, forward, then, owned=owned, parent=parent, via=via, through=through)
        return await said

    def offer(
        self,
        event: Event,
        forward: Forward,
        then: Then,
        *,
        owned: bool = False,
        parent: Trail | None = None,
        via: str = "",
        through: int = 0,
    ) -> None:
        """Take an event in; `then` hears what the door says. `owned`: nobody else holds the event,
        so that it may be changed in place. `parent` and `via` tell which delivery it is the reply
        to, `through` how many brokers and channels led here."""
        ttl: int | None = None
        now = self._transport.clock.now()
        if self.is_broker:
            ttl = _hops(event)
            if ttl <= 0:
                reason = "dropped: the event has passed through brokers too often (a loop?)"
                then(self._refuse(event, 400, reason, parent, via))
                return
            if not owned:
                event = event.with_attributes({})
            _stamp(event, now)
        if through >= MAX_THROUGH:
            reason = f"dropped: the event went through {through} brokers and channels (a cycle?)"
            then(self._refuse(event, 400, reason, parent, via))
            return
        attributes = event.attributes
        subscriptions = self._subscriptions
        matched: Sequence[Subscription]
        matched = [one for one in subscriptions if one.filter.matches(attributes)]
        if len(matched) == len(subscriptions):
            matched = subscriptions  # one list less that the journal keeps alive
            queues = self._queues
        else:
            queues = [one.worker[0].queue for one in matched]
        message = Message(event, forward, ttl, through=through)
        try:
            self.engine.check(message, queues)
        except Full as full:
            then(self._refuse(event, 429, str(full), parent, via, retry_after=1))
            return
        if self._journal is not None:
            message.trail = self._journal.open(
                self.door, event, subscriptions, matched, at=now, parent=parent, via=via
            )
        self.engine.accept(message, queues, partial(self._kept, message, matched, then, via))

    def _kept(
        self,
        message: Message,
        matched: Sequence[Subscription],
        then: Then,
        via: str,
        error: Exception | None,
    ) -> None:
        """The engine has the event, or could not keep it."""
        if error is not None:
            reason = f"the event could not be kept: {error}"
            if message.trail is not None:
                message.trail.refuse(f"500: {reason}")
            then(Verdict(500, reason))
            return
        if self.observe is not None:
            self.observe(message.event)
        if via:
            # A reply's sender is a subscriber's worker: held, it would wait for itself.
            then(ACCEPTED)
        else:
            self._pace(matched, then)

    def _pace(self, matched: Sequence[Subscription], then: Then) -> None:
        """Say 202 as soon as no subscriber asks for a moment to catch up."""
        for index, one in enumerate(matched):
            if one.worker[0].behind:
                one.worker[0].hold(partial(self._pace, matched[index + 1 :], then))
                return
        then(ACCEPTED)

    def refuse(self, event: Event, status: int, reason: str) -> None:
        """Tell the trail of an event that did not get past the door."""
        self._refuse(event, status, reason, None, "")

    def _refuse(
        self,
        event: Event,
        status: int,
        reason: str,
        parent: Trail | None,
        via: str,
        retry_after: int = 0,
    ) -> Verdict:
        if self._journal is not None:
            self._journal.open(
                self.door, event, (), (), parent=parent, via=via, refused=f"{status}: {reason}"
            )
        return Verdict(status, reason, retry_after)

    # -- subscriptions ------------------------------------------------------------------------

    async def subscribe(self, wanted: Sequence[Subscription]) -> None:
        """Serve exactly these from now on. Queues live as long as their subscription's uid."""
        gone = self._subscribers.keys() - {one.uid for one in wanted}
        bound = [self._bind(one) for one in wanted]
        self._subscriptions = tuple(bound)
        self._queues = [one.worker[0].queue for one in bound]
        for uid in gone:
            subscriber = self._subscribers.pop(uid)
            await subscriber.stop()
            self.engine.remove(uid)

    def _bind(self, wanted: Subscription) -> Subscription:
        subscriber = self._subscribers.get(wanted.uid)
        if subscriber is None:
            subscriber = Subscriber(wanted, self.engine.open(wanted.uid), self._transport)
            self._subscribers[wanted.uid] = subscriber
            wanted.worker[:] = [subscriber]
            subscriber.start()
        else:
            wanted.worker[:] = [subscriber]
            subscriber.update(wanted)
        return wanted

    async def close(self, *, forget: bool) -> None:
        """Stop delivering; `forget` drops what waits (the broker or channel was deleted)."""
        subscribers, self._subscribers = self._subscribers, {}
        self._subscriptions, self._queues = (), []
        for uid, subscriber in subscribers.items():
            await subscriber.stop()
            if forget:
                self.engine.remove(uid)

    @property
    def idle(self) -> bool:
        return all(subscriber.idle for subscriber in self._subscribers.values())

    @property
    def at_rest(self) -> bool:
        """Idle, or what is left cannot be delivered now."""
        return all(one.idle or one.stuck for one in self._subscribers.values())


def _hops(event: Event) -> int:
    """Hops left after this one (behaviour E21)."""
    value = event.attributes.get(TTL)
    if value is None or isinstance(value, bool):
        return MAX_TTL
    try:
        return max(0, int(value) - 1)
    except ValueError:
        return MAX_TTL


def _stamp(event: Event, now: datetime) -> None:
    attributes = event.attributes
    attributes.pop(TTL, None)
    attributes[ARRIVAL] = f"{now.isoformat()[:-6]}Z"  # UTC, as all of our clocks
    event.cache = None
