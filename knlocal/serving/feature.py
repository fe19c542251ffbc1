"""Serving as the daemon sees it: what to wire, what to run, and what others may ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from knlocal.clock import Clock
from knlocal.control.controller import Controller
from knlocal.gateway import Pool, RouteTable
from knlocal.gateway.tls import Certificates
from knlocal.resources.base import Obj, spec_of, uid_of
from knlocal.serving.activator.metrics import Gauges, Labels, render
from knlocal.serving.activator.registry import Activator, AddressOf
from knlocal.serving.activator.revision import Served
from knlocal.serving.autoscaling.metric import MetricController
from knlocal.serving.autoscaling.pod_autoscaler import PodAutoscalerController
from knlocal.serving.config import Config, is_config
from knlocal.serving.configuration import ConfigurationController
from knlocal.serving.domainmapping import DomainMappingController
from knlocal.serving.hosts import Ports
from knlocal.serving.image_resolver import ImageResolver, KeepTags
from knlocal.serving.kinds import K8S_SERVICE, SYSTEM_NAMESPACE
from knlocal.serving.labeler import LabelerController
from knlocal.serving.request_log import RequestLog
from knlocal.serving.revision import RevisionController
from knlocal.serving.revision_gc import RevisionCollector
from knlocal.serving.route import RouteController
from knlocal.serving.serverless_service import ServerlessServiceController, publish_endpoints
from knlocal.serving.service import ServiceController
from knlocal.serving.template import serving_container
from knlocal.serving.user_ingress import UserIngressController
from knlocal.store.store import NAMESPACE, Store
from knlocal.store.watch import WatchEvent


class Serving:
    """Knative Serving over a store and a gateway.

    Wire it before the manager starts: `manager.add(*serving.controllers())`, `serving.start()`,
    and `kubelet.drain_hooks.append(serving.drain)`. `address_of(pod, port)` gives where the daemon
    reaches a pod's port, or raises LookupError. `ports` is filled in once the gateway listens;
    URLs in statuses carry the ports. `certificates` are those of the TLS door, if there is one:
    DomainMappings bring theirs. `activator_address` is what stands for the activator in
    EndpointSlices: the address under which containers reach the gateway.
    """

    def __init__(
        self,
        store: Store,
        routes: RouteTable,
        clock: Clock,
        *,
        pool: Pool,
        address_of: AddressOf,
        image_resolver: ImageResolver | None = None,
        ports: Ports | None = None,
        certificates: Certificates | None = None,
        activator_address: str = "10.0.0.1",
    ) -> None:
        self.store = store
        self.ports = ports or Ports()
        self.config = Config(store)
        self.activator = Activator(store, clock, pool, address_of)
        self.request_log = RequestLog(clock)
        self.served: list[Callable[[Served], object]] = []
        """Told after each request (journal, dashboard). Use `observe` to add one."""
        self._gauges = Gauges()
        self._activator_address = activator_address
        self._unsubscribe: Callable[[], object] = lambda: None
        config, activator = self.config, self.activator
        self.autoscaler = PodAutoscalerController(store, config, activator)
        self._controllers: tuple[Controller, ...] = (
            ServiceController(store),
            ConfigurationController(store),
            RevisionController(store, config, image_resolver or KeepTags(), self._failing),
            RouteController(store, config, activator, routes, self.ports),
            LabelerController(store),
            self.autoscaler,
            MetricController(store),
            ServerlessServiceController(store, activator, routes, activator_address),
            DomainMappingController(store, config, routes, self.ports, certificates),
            UserIngressController(store, config, routes, certificates),
            RevisionCollector(store, config),
        )
        activator.poke = self.autoscaler.poke
        activator.autodetect = lambda: config.features.auto_detect_http2 == "Enabled"
        activator.found = self.autoscaler.pods_found
        self._gauges.add(self._autoscaler_gauges)

    def controllers(self) -> tuple[Controller, ...]:
        return self._controllers

    def start(self) -> None:
        """Follow pods and revisions. Before the manager starts."""
        self.activator.start()
        self._unsubscribe = self.store.subscribe(self._changed)
        self._configure_log()
        self._publish_activator()

    def stop(self) -> None:
        """After the manager has stopped."""
        self._unsubscribe()
        self.activator.stop()

    # -- for others ---------------------------------------------------------------------------

    async def drain(self, pod: Obj) -> None:
        """Return when no request is in flight to a pod that is going away (a drain hook of
        workloads; the grace period is theirs)."""
        await self.activator.drain(pod)

    def probed(self, pod: Obj, container: str, which: str, ok: bool, seconds: float) -> None:
        """Log a readiness probe of a revision's serving container, when that is asked for
        (`logging.enable-probe-request-log`): on a cluster the kubelet asks queue-proxy."""
        settings = self.config.observability
        if not (settings.enable_request_log and settings.enable_probe_request_log):
            return
        if which == "Readiness" and serving_container(spec_of(pod)).get("name") == container:
            self.request_log.write_probe(pod, ok=ok, seconds=seconds)

    def observe(self, told: Callable[[Served], object]) -> None:
        """Call `told` after each request: costs every request a little."""
        self.served.append(told)
        self._configure_log()

    def render_metrics(self) -> str:
        """Everything measured, as Prometheus text under Knative's metric names."""
        return render((backend.metrics for backend in self.activator), self._gauges)

    # -- inside -------------------------------------------------------------------------------

    def _failing(self, namespace: str, name: str, why: str) -> None:
        backend = self.activator.find(namespace, name)
        if backend is not None and backend.throttler.failure != why:
            backend.throttler.fail(why)

    def _changed(self, event: WatchEvent) -> None:
        kind = event.obj["kind"]
        if kind == "ConfigMap" and is_config(event.obj, "config-observability"):
            self._configure_log()
        elif kind == "Pod" and event.type == "DELETED":
            self.request_log.forget(uid_of(event.obj))

    def _configure_log(self) -> None:
        """Requests are told about only when somebody listens."""
        settings = self.config.observability
        listeners = list(self.served)
        if settings.enable_request_log:
            self.request_log.configure(settings)
            listeners.append(self.request_log.write)
        self.activator.told = _tell_all(listeners)

    def _publish_activator(self) -> None:
        """The Service `activator-service`, whose endpoints stand for the activator (B-D25)."""
        if self.store.find(NAMESPACE, "", SYSTEM_NAMESPACE) is None:
            return
        service = self.store.find(K8S_SERVICE, SYSTEM_NAMESPACE, "activator-service")
        if service is None:
            service = self.store.create(
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {
                        "name": "activator-service",
                        "namespace": SYSTEM_NAMESPACE,
                        "labels": {"app": "activator"},
                    },
                    "spec": {
                        "type": "ClusterIP",
                        "ports": [
                            {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8012},
                            {"name": "http2", "port": 81, "protocol": "TCP", "targetPort": 8013},
                        ],
                    },
                }
            )
        publish_endpoints(
            self.store, self.autoscaler.recorder, service, [self._activator_address], 8012
        )

    def _autoscaler_gauges(self) -> Iterable[tuple[str, str, Labels, float]]:
        for scaling in list(self.autoscaler.scalings.values()):
            labels = scaling.backend.settings.metric_labels
            spec, throttler = scaling.decider.spec, scaling.backend.throttler
            stable, panic = scaling.backend.statistics.averages(spec.metric)
            rps = spec.metric == "rps"
            what = "requests_per_second" if rps else "request_concurrency"
            target = "target_requests_per_second" if rps else "target_concurrency_per_pod"
            values = {
                f"autoscaler_stable_{what}": (stable, "Average over the stable window"),
                f"autoscaler_panic_{what}": (panic, "Average over the panic window"),
                f"autoscaler_{target}": (spec.target, "What each pod shall have"),
                "autoscaler_actual_pods": (len(throttler.pods), "Number of ready pods"),
                "autoscaler_panic_mode": (
                    float(scaling.decider.panicking),
                    "1 if autoscaler is in panic mode, 0 otherwise",
                ),
                "activator_request_concurrency": (
                    scaling.backend.statistics.concurrency,
                    "Concurrent requests that are routed to the activator",
                ),
                "revision_queue_depth": (throttler.waiting, "Requests that wait for a pod"),
            }
            if scaling.decision is not None:
                values["autoscaler_desired_pods"] = (
                    scaling.decision.desired,
                    "Number of pods the autoscaler wants",
                )
                values["autoscaler_excess_burst_capacity"] = (
                    scaling.decision.excess_burst_capacity,
                    "Excess burst capacity observed over the stable window",
                )
            for name, (value, help_text) in values.items():
                yield name, help_text, labels, float(value)


def _tell_all(listeners: list[Callable[[Served], object]]) -> Callable[[Served], object] | None:
    if len(listeners) <= 1:
        return listeners[0] if listeners else None

    def tell(served: Served) -> None:
        for listener in listeners:
            listener(served)

    return tell
