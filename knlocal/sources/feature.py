"""All sources, built once by the daemon. A new kind of source is one more line in `controllers`."""

from __future__ import annotations

from knlocal.control.controller import Controller
from knlocal.control.destinations import Destinations
from knlocal.gateway import HttpClient
from knlocal.sources.apiserver import ApiServerSourceController
from knlocal.sources.container import ContainerSourceController
from knlocal.sources.emit import Emitter
from knlocal.sources.integration import IntegrationSourceController
from knlocal.sources.ping import PingSourceController
from knlocal.sources.sinkbinding import SinkBindingController
from knlocal.store.store import Store


class Sources:
    """Puts the SinkBinding admission hook into the store; run `controllers` in a Manager."""

    def __init__(self, store: Store, client: HttpClient, destinations: Destinations) -> None:
        emitter = Emitter(client, store.clock)
        bindings = SinkBindingController(store, destinations)
        store.admission.append(bindings.admit)
        self.controllers: list[Controller] = [
            PingSourceController(store, destinations, emitter),
            ApiServerSourceController(store, destinations, emitter),
            IntegrationSourceController(store, destinations, emitter),
            ContainerSourceController(store),
            bindings,
        ]
