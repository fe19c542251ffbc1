"""Knative Eventing: brokers, triggers, channels, subscriptions, flows, event types.

    eventing = Eventing(store, client, routes, destinations, journal, addresses=Addresses(8080, 80),
                        durable=state / "events.db")
    manager.add(*eventing.controllers)
    await eventing.start(); await manager.start(); …; await manager.stop(); await eventing.stop()

`plane` turns objects into exchanges, `dispatcher` holds them, `subscriber` delivers, `engines` keep
what waits, `ingress` is the door, `cesql` and `filters` decide.
"""

from knlocal.eventing.addresses import Addresses
from knlocal.eventing.feature import Eventing
from knlocal.eventing.plane import DURABLE_CLASS
from knlocal.resources.annotations import DURABLE, HOST_URL

__all__ = ["DURABLE", "DURABLE_CLASS", "HOST_URL", "Addresses", "Eventing"]
