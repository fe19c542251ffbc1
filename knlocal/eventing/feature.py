"""Eventing as a whole, built once by the daemon."""

from __future__ import annotations

import gc
from pathlib import Path

from knlocal.clock import Clock
from knlocal.control.controller import Controller
from knlocal.control.destinations import Destinations
from knlocal.eventing.addresses import Addresses
from knlocal.eventing.admission import check_expressions
from knlocal.eventing.controllers.alpha import (
    EventPolicyController,
    RequestReplyController,
)
from knlocal.eventing.controllers.broker import BrokerController
from knlocal.eventing.controllers.channel import ChannelController, InMemoryChannelController
from knlocal.eventing.controllers.eventtype import EventTypeController
from knlocal.eventing.controllers.flows import ParallelController, SequenceController
from knlocal.eventing.controllers.subscription import SubscriptionController
from knlocal.eventing.controllers.sugar import NamespaceSugar, TriggerSugar
from knlocal.eventing.controllers.trigger import TriggerController
from knlocal.eventing.dispatcher import Dispatcher
from knlocal.eventing.engines import DurableEngine, Engine, MemoryEngine
from knlocal.eventing.ingress import MAX_EVENT
from knlocal.eventing.plane import SUBSCRIPTION, TRIGGER, Plane
from knlocal.gateway import HttpClient, RouteTable
from knlocal.journal import Journal
from knlocal.resources.base import uid_of
from knlocal.store.store import Store


class Eventing:
    """`controllers` are for a Manager; `start` before it starts, `stop` after it has stopped.

    `durable` is the file of the durable engine (None: durable brokers are kept in memory, too).
    """

    def __init__(
        self,
        store: Store,
        client: HttpClient,
        routes: RouteTable,
        destinations: Destinations,
        journal: Journal | None = None,
        *,
        addresses: Addresses = Addresses(),
        durable: Path | None = None,
        max_event: int = MAX_EVENT,
    ) -> None:
        self.store = store
        self.clock: Clock = store.clock
        engines: dict[str, Engine] = {"memory": MemoryEngine()}
        if durable is not None:
            engines["durable"] = DurableEngine(durable)
        self.dispatcher = Dispatcher(client, store.clock, journal, engines)
        self.plane = Plane(store, self.dispatcher, routes, addresses, max_event=max_event)
        parts = (store, destinations, self.plane)
        self.controllers: list[Controller] = [
            BrokerController(*parts),
            TriggerController(*parts),
            ChannelController(*parts),
            InMemoryChannelController(*parts),
            SubscriptionController(*parts),
            SequenceController(*parts),
            ParallelController(*parts),
            EventTypeController(*parts),
            RequestReplyController(*parts, routes),
            EventPolicyController(*parts),
            NamespaceSugar(store),
            TriggerSugar(store),
        ]
        store.admission.append(check_expressions)

    async def start(self) -> None:
        _calm_garbage_collector()
        await self.dispatcher.start()
        self._forget_orphans()
        self.plane.open_doors()

    async def stop(self, grace: float = 5.0) -> None:
        """Deliver what can be delivered within `grace` seconds, then stop."""
        await self.dispatcher.stop(grace)

    @property
    def idle(self) -> bool:
        """Whether nothing is waiting to be delivered."""
        return self.dispatcher.idle

    def _forget_orphans(self) -> None:
        """Events that were left for triggers and subscriptions which are gone."""
        living = {uid_of(obj) for kind in (TRIGGER, SUBSCRIPTION) for obj in self.store.list(kind)}
        for engine in self.dispatcher.engines.values():
            for uid in engine.known():
                if uid not in living:
                    engine.remove(uid)


def _calm_garbage_collector() -> None:
    """Look for cycles less often.

    Waiting events and trails live long and are in no cycle; at Python's default pace the collector
    walks through all of them again and again, a quarter of the cost of accepting an event.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 25, 50)
