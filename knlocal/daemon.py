"""The composition root: the only place where everything is built, wired, started and stopped.

    daemon = Daemon(settings)
    await daemon.start()        # everything runs; the project is applied
    await daemon.stop()         # let go: containers stay, the next daemon adopts them
    await daemon.shutdown()     # …or leave nothing behind

Tests give a `VirtualClock`, and may take single parts from the attributes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

import yaml

from knlocal import __version__
from knlocal.apiserver.eventdoor import PREFIX as EVENTS_PREFIX
from knlocal.apiserver.eventdoor import EventDoor
from knlocal.apiserver.kubeconfig import write_kubeconfig
from knlocal.apiserver.metricsdoor import METRICS_PATH, metrics_door
from knlocal.apiserver.server import ApiServer
from knlocal.build.builders import Builders
from knlocal.clock import Clock, SystemClock
from knlocal.control.destinations import Destinations
from knlocal.control.garbage import GarbageCollector
from knlocal.control.manager import Manager
from knlocal.control.namespaces import NamespaceController, admit_namespace
from knlocal.eventing import Addresses, Eventing
from knlocal.eventing.plane import compiled_filter
from knlocal.gateway import Gateway, HttpClient, Pool, Route, RouteTable
from knlocal.gateway.by_path import ByPath, by_path
from knlocal.gateway.dns import DnsServer, DnsUnavailable
from knlocal.gateway.names import CLUSTER_DOMAIN, full_names, is_cluster_local
from knlocal.gateway.routes import INSIDE
from knlocal.gateway.tls import Certificates
from knlocal.journal import Journal
from knlocal.project import listening, system
from knlocal.project.apply import INVENTORY
from knlocal.project.config import FILE_NAME
from knlocal.project.debugging import DebugDoors, port_of
from knlocal.project.door import Outcome, ProjectDoor, Told
from knlocal.project.home import Card, Home
from knlocal.project.image_digests import EngineDigests
from knlocal.project.parity import ParityNotes
from knlocal.project.podaccess import PodLooks
from knlocal.project.ports import take
from knlocal.project.reload import Reloader
from knlocal.project.settings import Settings
from knlocal.project.sources import RuntimeName
from knlocal.project.sources import Sources as ProjectSources
from knlocal.resources import catalog
from knlocal.resources.base import GroupKind, Key
from knlocal.resources.settings import admit_configmap
from knlocal.runtime.api import Runtime
from knlocal.runtime.choose import choose
from knlocal.serving.feature import Serving
from knlocal.serving.hosts import Ports
from knlocal.sources import Sources
from knlocal.store.store import Store
from knlocal.store.watch import WatchEvent
from knlocal.workloads.feature import Workloads
from knlocal.workloads.podplan import InCluster, PodNetwork
from knlocal.workloads.tokens import TokenRequest
from knlocal.workloads.volumes import remove_all_volumes

log = logging.getLogger(__name__)

SERVICE_ACCOUNT = GroupKind("", "ServiceAccount")

#: Seconds for which a start waits, at most, for what has been there before to be served again.
FIRST_PASS = 5.0
#: Seconds that requests in flight get when the daemon stops, and containers when they must go.
DRAIN, GRACE = 2.0, 2.0


class Daemon:
    """Everything that runs for one project.

    Raises ProjectError, StateError or RuntimeFailure from `start`, with words for people; what was
    started by then is stopped again.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        runtime: Runtime | None = None,
        told: Told | None = None,
        watch: bool = True,
    ) -> None:
        self.settings = settings
        self.home = Home(settings.state_dir)
        self.clock = clock or SystemClock()
        self.told = told or Told()
        self.watch = watch
        self.notes: list[str] = []
        self._given_runtime = runtime
        self._down: contextlib.AsyncExitStack = contextlib.AsyncExitStack()
        self._leave_nothing = False

    # -- the life of a daemon -----------------------------------------------------------------

    async def start(self) -> None:
        """Bring everything up, and apply the project."""
        try:
            self._hold_project()
            self._open_state()
            await self._open_runtime()
            self._build_gateway()
            await self._listen()
            self._build_features()
            await self._open_api()
            self._publish()
            await self._start_features()
            await self.apply()
            await self._first_pass()
            self._watch_project()
        except BaseException:
            await self.stop()
            raise

    async def apply(self) -> Outcome:
        """Bring the store in line with the project's files."""
        return await self.project.apply()

    async def stop(self) -> None:
        """Let go of everything, last things first. Containers stay as they are."""
        down, self._down = self._down, contextlib.AsyncExitStack()
        await down.aclose()

    async def shutdown(self) -> None:
        """Stop, and remove every container that ran for the project. The objects stay."""
        self.leave_nothing()
        await self.stop()

    def leave_nothing(self) -> None:
        """From now on, stopping removes containers: also when the start is cut short."""
        self._leave_nothing = True

    async def settled(self) -> None:
        """Return when nobody has work in hand (what waits for a later moment does not count)."""
        calm = 0
        while calm < 3:
            calm = 0 if self.busy else calm + 1
            await asyncio.sleep(0.001 if calm == 0 else 0)

    def store_as_events(self) -> list[WatchEvent]:
        """What there is, as if it had just been made: for those who begin to follow."""
        return [
            WatchEvent("ADDED", obj, None, self.store.version)
            for group_kind in list(self.store.kinds_in_use())
            for obj in self.store.list(group_kind)
        ]

    @property
    def busy(self) -> bool:
        at_rest = self.eventing.dispatcher.at_rest
        return self.manager.busy or self.workloads.busy or self.sources.busy or not at_rest

    # -- stages of the start, in their order --------------------------------------------------

    def _hold_project(self) -> None:
        self._down.enter_context(self.home.hold())

    def _open_state(self) -> None:
        self.store = Store(catalog.registry(), self.clock, self.home.state)
        self._down.callback(self.store.close)
        self.store.admission += [admit_namespace, admit_configmap]

    async def _open_runtime(self) -> None:
        if self._given_runtime is not None:
            self.runtime = self._given_runtime
            await self.runtime.start()
        else:
            self.runtime, why = await choose(
                self.settings.project.runtime,
                project=project_id(self.settings),
                # What runs, runs in real time, whatever a test does to the clock.
                clock=SystemClock(),
                state_dir=self.home.folder,
            )
            self.notes.append(why)
        self._down.push_async_callback(self.runtime.close)
        self.host_address = await self.runtime.host_address()

    def _build_gateway(self) -> None:
        self.routes = RouteTable()
        self.pool = Pool(self.clock)
        self.client = HttpClient(self.routes, self.clock, self.pool)
        self.journal = Journal(self.clock, self.home.journal)
        self.gateway = Gateway(self.routes, self.clock)
        self._down.push_async_callback(self.journal.stop)
        self._down.push_async_callback(self.client.close)
        self._down.push_async_callback(self.gateway.close)

    async def _listen(self) -> None:
        self.certificates = Certificates(self.clock)
        found = await listening.listen(
            self.gateway, self.settings.gateway, self.host_address, self.certificates.context
        )
        if found.note:
            self.notes.append(found.note)
        self.external_port, self.internal_port = found.external_port, found.internal_port
        self.internal_host, self.tls_port = found.internal_host, found.tls_port
        self.public_door = found.public
        self.ports = Ports(self.external_port, self.internal_port, self.tls_port or 443)
        self.network = await self._pod_network()

    def _build_features(self) -> None:
        """Everything that watches the store and brings the machine in line with it."""
        system.install(self.store, self.public_door, self.domain)
        self._down.callback(ParityNotes(self.store, processes=not self.on_docker).stop)
        self.destinations = Destinations(self.store, self.internal_port)
        self.workloads = Workloads(
            self.store, self.runtime, self.home.volumes,
            routes=self.routes,
            pool=self.pool,
            gateway_address=self.host_address,
            network=self.network,
            issue_token=self._issue_token,
        )  # fmt: skip
        self.routes.namespace_of = self._namespace_of
        self.kubelet = self.workloads.kubelet
        self.serving = Serving(
            self.store, self.routes, self.clock,
            pool=self.pool,
            address_of=self.kubelet.address_of,
            image_resolver=EngineDigests(self.runtime, self.kubelet.node),
            ports=self.ports,
            certificates=self.certificates,
            activator_address=self.internal_host,
        )  # fmt: skip
        self.kubelet.drain_hooks.append(self.serving.drain)
        self.kubelet.node.probed = self.serving.probed
        addresses = Addresses(self.external_port, self.internal_port, self.domain)
        self.eventing = Eventing(
            self.store, self.client, self.routes, self.destinations, self.journal,
            addresses=addresses,
            durable=self.home.events,
        )  # fmt: skip
        self.sources = Sources(
            self.store, self.client, self.destinations, self.routes, addresses, self.journal,
            make_filter=lambda filters: compiled_filter({"spec": {"filters": filters}}),
        )  # fmt: skip
        self.garbage = GarbageCollector(self.store)
        self.namespaces = NamespaceController(self.store)
        self.manager = Manager(self.store)
        self.manager.add(
            self.namespaces,
            *self.workloads.controllers(),
            *self.serving.controllers(),
            *self.eventing.controllers,
            *self.sources.controllers,
        )

    async def _open_api(self) -> None:
        """The Kubernetes API, and the kubeconfig that leads to it."""
        wanted = self.settings.api
        self.pod_looks = PodLooks(self.runtime, self.kubelet, self.serving.request_log)
        self.api = ApiServer(
            self.store, self.home.secrets, pods=self.pod_looks,
            extra_names=[self.host_address],
        )  # fmt: skip
        self._down.push_async_callback(self.api.close)
        self.api.mount(EVENTS_PREFIX, EventDoor(self.journal, self.client, self.clock).handle)
        self.api.mount(METRICS_PATH, metrics_door(self.serving.render_metrics))

        async def listen(port: int) -> int:
            await self.api.start("127.0.0.1", port)
            return self.api.address[1]

        await take(
            listen, "127.0.0.1", wanted.port or self._last_api_port(),
            where="knlocal.toml: [api] port", asked_for=bool(wanted.port),
        )  # fmt: skip
        if wanted.in_cluster:
            await self.api.start(self.internal_host, self.api.address[1])
            self.network.in_cluster = InCluster(self.host_address, self.api.address[1])
        self.namespaces.ca_certificate = self.api.authority.pem.decode()
        write_kubeconfig(self.home.kubeconfig, self.api.kubeconfig(self.settings.project.namespace))

    def _publish(self) -> None:
        """What the command line and others may know of this daemon."""
        self.card = Card(
            pid=os.getpid(),
            project=self.settings.project.name,
            runtime=self.runtime.name,
            gateway=f"{self.settings.gateway.host}:{self.external_port}",
            internal=f"{self.internal_host}:{self.internal_port}",
            api=self.api.url,
            domain=self.domain,
            notes=self.notes,
            version=__version__,
        )
        self.home.write_card(self.card)

    async def _start_features(self) -> None:
        await self.journal.start()
        self.garbage.start()
        self._down.callback(self.garbage.stop)
        self.serving.start()
        await self.eventing.start()
        self._down.push_async_callback(self._stop_features)
        await self.manager.start()
        build = self.settings.build
        self._builders = Builders(build.builder or "docker", build.parallel)
        self._down.push_async_callback(self._builders.close)
        self.project = self.door(self.settings, self.told)
        self.debug_doors = DebugDoors(self.store, self.kubelet.address_of)
        self._down.push_async_callback(self.debug_doors.close)
        self.project.applied = self._open_debug_doors

    def door(self, settings: Settings, told: Told, inventory: Key = INVENTORY) -> ProjectDoor:
        """A door for a project's files; tests let several share this daemon, each with an
        inventory and a namespace of its own."""
        runtime: RuntimeName = "docker" if self.on_docker else "process"
        sources = ProjectSources(settings, self.home, runtime, self._builders)
        return ProjectDoor(settings, self.store, sources, told, inventory)

    async def _open_debug_doors(self) -> None:
        """Say how to reach the debuggers that services wait for."""
        for name, language in self.project.sources.debugged.items():
            settings = self.project.settings
            door = port_of(settings, name, language)
            why = ""
            if self.on_docker:
                place = settings.services[name].namespace or settings.project.namespace
                why = await self.debug_doors.open(place, door)
            if why:
                self.told.problem(name, why)
            else:
                self.told.note(name, door.sentence)

    async def _first_pass(self) -> None:
        """Controllers look at everything once after a start: what the objects of a daemon before
        say to be ready is served from then on."""
        clock = SystemClock()
        with contextlib.suppress(TimeoutError):
            async with clock.timeout(FIRST_PASS):
                while self.manager.busy:
                    await clock.sleep(0.002)

    def _watch_project(self) -> None:
        """Every save from now on is applied, too."""
        self.reloader = Reloader(self.project, self.store, SystemClock(), self.told)
        is_project = (self.settings.root / FILE_NAME).is_file()
        if self.watch and self.settings.project.watch and is_project:
            self.reloader.start()
            self._down.push_async_callback(self.reloader.stop)

    async def _stop_features(self) -> None:
        """Requests in flight end first, then controllers, then (if told so) containers."""
        await self.gateway.close(DRAIN)
        await self.manager.stop()
        await self.eventing.stop(DRAIN)
        await self.workloads.standbys.close()
        self.serving.stop()
        if self._leave_nothing:
            await self.workloads.shutdown(grace_seconds=GRACE)

    # -- what the parts are told --------------------------------------------------------------

    @property
    def domain(self) -> str:
        return self.settings.gateway.domain

    @property
    def on_docker(self) -> bool:
        return self.runtime.name == "docker"

    async def _pod_network(self) -> PodNetwork:
        """How pods find cluster-local names: by asking us, or, where nobody may answer on port
        53, by what stands in their /etc/hosts when they start."""
        if not self.on_docker:
            # Processes have the machine's own names: cluster-local ones go into a URL's path.
            here = self.internal_host
            self.routes.put("daemon/by-path", {here: Route(ByPath(self.routes), INSIDE)})
            return PodNetwork(local_url=lambda url: by_path(url, here, self.internal_port))
        if self.internal_host != self.host_address:
            return PodNetwork(hosts=self._cluster_names)
        dns = DnsServer(self._lookup, SystemClock())
        try:
            await dns.listen(self.internal_host)
        except DnsUnavailable as error:
            log.info("containers get cluster-local names as they start: %s", error)
            return PodNetwork(hosts=self._cluster_names)
        self._down.push_async_callback(dns.close)
        return PodNetwork(dns_servers=[self.internal_host])

    def _lookup(self, name: str) -> list[str] | None:
        """What a container gets for a name; None for names that are not the cluster's."""
        if any(self.routes.find(full, "internal") for full in full_names(name)):
            return [self.host_address]
        return [] if is_cluster_local(name) else None

    def _cluster_names(self, namespace: str) -> Mapping[str, str]:
        """What a pod finds in /etc/hosts: every cluster-local name leads to the gateway, and so do
        the bare names of its own namespace's Services."""
        known = self.routes.hosts("internal")
        own = f".{namespace}.svc.{CLUSTER_DOMAIN}"
        bare = [host.removesuffix(own) for host in known if host.endswith(own)]
        return dict.fromkeys([*known, *bare], self.host_address)

    def _namespace_of(self, address: str) -> str:
        """The namespace of the pod at an address; processes share one, so it says nothing."""
        return self.workloads.services.namespace_at(address) if self.on_docker else ""

    def _issue_token(self, request: TokenRequest) -> str:
        """Pods' service account tokens are the API's own, so that it knows them."""
        account = self.store.get(SERVICE_ACCOUNT, request.namespace, request.service_account)
        audiences = [request.audience] if request.audience else []
        return self.api.tokens.issue(account, audiences, request.seconds)[0]

    def _last_api_port(self) -> int:
        """The port of last time, so that open shells keep their kubeconfig; else any."""
        try:
            config = yaml.safe_load(self.home.kubeconfig.read_text())
            return urlsplit(config["clusters"][0]["cluster"]["server"]).port or 0
        except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
            return 0


def project_id(settings: Settings) -> str:
    """Tells projects apart that share an engine and a name: containers are labelled with it."""
    place = hashlib.sha256(str(settings.root.resolve()).encode()).hexdigest()
    return f"{settings.project.name}-{place[:8]}"


async def remove_left_over(settings: Settings) -> int:
    """Remove what a daemon that was killed has left running. Returns how many pods that were.
    Raises RuntimeFailure when the engine on which they run does not answer."""
    home = Home(settings.state_dir)
    wanted = settings.project.runtime
    if killed := home.last_card():
        wanted = "docker" if killed.runtime == "docker" else "process"
    with home.hold():
        runtime, _ = await choose(
            wanted,
            project=project_id(settings),
            clock=SystemClock(),
            state_dir=home.folder,
        )
        try:
            found = await runtime.pods()
            await asyncio.gather(*(runtime.remove(pod.id, GRACE) for pod in found))
            await asyncio.to_thread(remove_all_volumes, home.volumes)
        finally:
            await runtime.close()
    return len(found)
