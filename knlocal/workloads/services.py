"""Services: endpoints from selectors and ready pods, names on the gateway, answers for DNS."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from knlocal.control.controller import Controller, Requeue, Watching
from knlocal.control.events import EventRecorder
from knlocal.control.pace import Urgency
from knlocal.gateway import Endpoint
from knlocal.resources.annotations import ROUTED_BY
from knlocal.resources.base import (
    Key,
    Obj,
    annotations_of,
    copy,
    is_deleting,
    key_of,
    labels_of,
    spec_of,
    status_of,
)
from knlocal.store.store import Store
from knlocal.workloads.endpoints import (
    MANAGED_BY,
    SERVICE_NAME,
    counts,
    endpoints_of,
    is_serving,
    mirrored_slice,
    service_ports,
    slice_of,
)
from knlocal.workloads.servicerouter import Backend, ServiceRouter
from knlocal.workloads.terms import ENDPOINT_SLICE, ENDPOINTS, POD, SERVICE, SERVING_ROUTE

AddressOf = Callable[[Obj, int], tuple[str, int]]
_DOMAIN = "cluster.local"


class ServiceController(Controller):
    """`address_of(pod, port)` says where the daemon reaches a pod; `router` (None: no gateway)
    serves the names; `gateway_address` is where containers reach the gateway."""

    kind = SERVICE
    urgency = Urgency.TRAFFIC

    def __init__(
        self,
        store: Store,
        address_of: AddressOf,
        router: ServiceRouter | None = None,
        gateway_address: str = "",
    ) -> None:
        super().__init__(store, EventRecorder(store, "endpoint-controller"))
        self._address_of = address_of
        self._router = router
        self._gateway_address = gateway_address
        self._selectors: dict[str, dict[str, frozenset[tuple[str, str]]]] = defaultdict(dict)

    def watches(self) -> Sequence[Watching]:
        return [Watching(POD, self._services_of), Watching(ENDPOINTS, self._same_name)]

    def accepts(self, obj: Obj) -> bool:
        """Every Service; its selector is remembered on the way, to find it from its pods."""
        key = key_of(obj)
        self._selectors[key.namespace][key.name] = frozenset(
            (spec_of(obj).get("selector") or {}).items()
        )
        return True

    def _services_of(self, pod: Obj) -> Iterable[Key]:
        namespace, labels = pod["metadata"].get("namespace") or "", labels_of(pod).items()
        return [
            Key(*SERVICE, namespace, name)
            for name, selector in self._selectors[namespace].items()
            if selector and selector <= labels
        ]

    def _same_name(self, endpoints: Obj) -> Iterable[Key]:
        metadata = endpoints["metadata"]
        return [Key(*SERVICE, metadata["namespace"], metadata["name"])]

    async def reconcile(self, key: Key) -> Requeue | None:
        service = self.store.find_key(key)
        if service is None or is_deleting(service):
            if service is None:
                self._selectors[key.namespace].pop(key.name, None)
            if self._router:
                self._router.remove(key)
            return None
        if not is_others(service):
            self._publish(service)
        if self._router:
            self._route(key, service)
        return None

    # -- endpoints ----------------------------------------------------------------------------

    def pods_of(self, service: Obj) -> list[Obj]:
        """The pods that a Service selects and that have an address, by name."""
        selector = spec_of(service).get("selector")
        if not selector:
            return []
        found = self.store.list(POD, service["metadata"]["namespace"], selector)
        return [pod for pod in found if counts(pod)]

    def _publish(self, service: Obj) -> None:
        if spec_of(service).get("type") == "ExternalName":
            return
        if spec_of(service).get("selector"):
            pods = self.pods_of(service)
            self._put(endpoints_of(service, pods))
            self._put(slice_of(service, pods))
            return
        metadata = service["metadata"]
        endpoints = self.store.find(ENDPOINTS, metadata["namespace"], metadata["name"])
        if endpoints is not None and not self._has_own_slice(service):
            self._put(mirrored_slice(service, endpoints))

    def _has_own_slice(self, service: Obj) -> bool:
        """Someone writes EndpointSlices for the Service."""
        metadata = service["metadata"]
        found = self.store.list(
            ENDPOINT_SLICE, metadata["namespace"], {SERVICE_NAME: metadata["name"]}
        )
        return any(
            not labels_of(one).get(MANAGED_BY, "").endswith("controller.k8s.io") for one in found
        )

    def _put(self, wanted: Obj) -> None:
        key = key_of(wanted)
        current = self.store.find_key(key)
        if current is None:
            self.store.create(wanted)
            return
        has = {**current["metadata"], **wanted["metadata"]}
        if {**current, **wanted, "metadata": has} == current:
            return
        new = copy(current)
        new["metadata"] |= wanted["metadata"]
        new |= {k: v for k, v in wanted.items() if k != "metadata"}
        self.store.update(new)

    # -- the gateway --------------------------------------------------------------------------

    def _route(self, key: Key, service: Obj) -> None:
        assert self._router is not None
        if is_others(service):
            self._router.remove(key)
            return
        self._router.put(key, self._backend(service))

    def _backend(self, service: Obj) -> Backend:
        spec, metadata = spec_of(service), service["metadata"]
        backend = Backend(f"{metadata['name']}.{metadata['namespace']}")
        backend.ports = {int(p["port"]): [] for p in spec.get("ports") or ()}
        backend.named = {p["name"]: int(p["port"]) for p in spec.get("ports") or () if "name" in p}
        if spec.get("type") == "ExternalName":
            backend.external = str(spec.get("externalName") or "")
            return backend
        for pod in self.pods_of(service):
            if not is_serving(service, pod):
                continue
            for port in service_ports(service, pod):
                try:
                    host, number = self._address_of(pod, port.target)
                except LookupError:
                    continue
                endpoint = Endpoint(host, number, "h2c" if port.http2 else "http1")
                backend.ports[port.port].append(endpoint)
        if not spec.get("selector"):
            self._add_given(service, backend)
        return backend

    def _add_given(self, service: Obj, backend: Backend) -> None:
        """Addresses that someone wrote into Endpoints by hand."""
        metadata = service["metadata"]
        endpoints = self.store.find(ENDPOINTS, metadata["namespace"], metadata["name"]) or {}
        for subset in endpoints.get("subsets") or ():
            numbers = {str(p.get("name") or ""): int(p["port"]) for p in subset.get("ports") or ()}
            for port in spec_of(service).get("ports") or ():
                number = numbers.get(str(port.get("name") or ""))
                if number is None and len(numbers) == 1:
                    number = next(iter(numbers.values()))
                if number is not None:
                    backend.ports[int(port["port"])] += [
                        Endpoint(str(a["ip"]), number) for a in subset.get("addresses") or ()
                    ]

    # -- DNS ----------------------------------------------------------------------------------

    def lookup(self, name: str) -> list[str]:
        """Addresses for a cluster-local name as containers shall resolve it; empty when there is
        no such name. Pods' own where a client may use the Service's ports on them, else the
        gateway's, which knows them all."""
        labels = _cluster_labels(name)
        if len(labels) < 2:
            return []
        if len(labels) > 2:
            return self._lookup_pod(labels)
        service = self.store.find(SERVICE, labels[1], labels[0])
        if service is None:
            return []
        spec = spec_of(service)
        if is_others(service) or spec.get("type") == "ExternalName":
            return [self._gateway_address]
        serving = [pod for pod in self.pods_of(service) if is_serving(service, pod)]
        addresses = [str(status_of(pod)["podIP"]) for pod in serving]
        if any(address.startswith("127.") for address in addresses):
            return [self._gateway_address]  # processes share one address
        if spec.get("clusterIP") == "None":
            return addresses
        same = all(p.port == p.target for pod in serving for p in service_ports(service, pod))
        return addresses if addresses and same else [self._gateway_address]

    def namespace_at(self, address: str) -> str:
        """The namespace of the pod that has this address; "" when none has."""
        for pod in self.store.list(POD):
            if status_of(pod).get("podIP") == address and counts(pod):
                return str(pod["metadata"]["namespace"])
        return ""

    def _lookup_pod(self, labels: list[str]) -> list[str]:
        """`<hostname>.<subdomain>.<namespace>`: a pod of a headless Service."""
        hostname, subdomain, namespace = labels[-3:]
        return [
            str(status_of(pod)["podIP"])
            for pod in self.store.list(POD, namespace)
            if spec_of(pod).get("subdomain") == subdomain
            and (spec_of(pod).get("hostname") or pod["metadata"]["name"]) == hostname
            and counts(pod)
        ]


def is_others(service: Obj) -> bool:
    """A Knative controller owns the Service's names and endpoints."""
    return bool(labels_of(service).get(SERVING_ROUTE) or annotations_of(service).get(ROUTED_BY))


def _cluster_labels(name: str) -> list[str]:
    """The labels before `svc.cluster.local` (`.svc` and bare `<name>.<namespace>` too)."""
    bare = name.lower().rstrip(".").removesuffix(f".{_DOMAIN}")
    labels = bare.removesuffix(".svc").split(".")
    return [label for label in labels if label]
