"""All sources and sinks, built once by the daemon. A new kind is one more line in `controllers`."""

from __future__ import annotations

import logging
from importlib.metadata import entry_points

from knlocal.control.controller import Controller
from knlocal.control.destinations import Destinations
from knlocal.gateway import HttpClient, RouteTable
from knlocal.journal import Journal
from knlocal.sources.addresses import Addresses
from knlocal.sources.apiserver import ApiServerSourceController, MakeFilter
from knlocal.sources.base import SourceController
from knlocal.sources.container import ContainerSourceController
from knlocal.sources.emit import Emitter
from knlocal.sources.eventtransform import EventTransformController
from knlocal.sources.integration import IntegrationSourceController
from knlocal.sources.integrationsink import IntegrationSinkController
from knlocal.sources.jobsink import JobSinkController
from knlocal.sources.ping import PingSourceController
from knlocal.sources.sinkbinding import SinkBindingController
from knlocal.store.store import Store

log = logging.getLogger(__name__)

#: Where installed packages name their source controllers.
ENTRY_POINTS = "knlocal.sources"


class Sources:
    """Puts its admission hooks into the store; run `controllers` in a Manager.

    `addresses` names the services of knlocal's own sinks; `make_filter` compiles the filters of
    ApiServerSources (None: they are not looked at).
    """

    def __init__(
        self,
        store: Store,
        client: HttpClient,
        destinations: Destinations,
        routes: RouteTable,
        addresses: Addresses,
        journal: Journal | None = None,
        make_filter: MakeFilter | None = None,
    ) -> None:
        self._emitter = emitter = Emitter(client, store.clock, journal)
        bindings = SinkBindingController(store, destinations)
        job_sinks = JobSinkController(store, routes, addresses, journal)
        # Before defaulting: what is bound anew at each update must not count as a change.
        store.mutation.append(bindings.admit)
        store.admission.append(job_sinks.admit)
        self.controllers: list[Controller] = [
            PingSourceController(store, destinations, emitter),
            ApiServerSourceController(store, destinations, emitter, make_filter),
            IntegrationSourceController(store, destinations, emitter),
            ContainerSourceController(store),
            bindings,
            job_sinks,
            IntegrationSinkController(store, routes, addresses, journal),
            EventTransformController(store, destinations, client, routes, addresses),
            *_of_others(store, destinations, emitter),
        ]

    @property
    def busy(self) -> bool:
        """Whether events are on their way to a sink right now (waiting to try again is no work)."""
        return self._emitter.in_flight > 0


def _of_others(
    store: Store, destinations: Destinations, emitter: Emitter
) -> list[SourceController]:
    """Sources that other packages bring. One that does not load leaves the others alone."""
    found = []
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            found.append(entry.load()(store, destinations, emitter))
        except Exception as error:
            log.error("the source %s (%s) does not load: %s", entry.name, entry.value, error)
    return found
