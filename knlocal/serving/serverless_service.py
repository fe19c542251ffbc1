"""ServerlessService: the k8s Services of a revision, and whether pods or the activator back them.

On a cluster this decides who gets the packets. Here every request goes through the gateway, which
is activator and queue-proxy at once, so what is left is what clients look at (behaviours D24 to
D27). Mirrors knative.dev/serving/pkg/reconciler/serverlessservice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from knlocal.control.conditions import Conditions
from knlocal.control.controller import Controller, Requeue, Watching, owned_by
from knlocal.control.events import EventRecorder
from knlocal.control.pace import Urgency
from knlocal.gateway import Route as GatewayRoute
from knlocal.gateway import RouteTable
from knlocal.resources.annotations import ROUTED_BY
from knlocal.resources.base import (
    Key,
    Obj,
    annotations_of,
    copy,
    is_deleting,
    labels_of,
    spec_of,
    status_of,
)
from knlocal.resources.names import child_name
from knlocal.resources.settings.network import CLUSTER_LOCAL_DOMAIN
from knlocal.serving.activator.registry import Activator
from knlocal.serving.children import NotOwned, ensure
from knlocal.serving.kinds import (
    DEPLOYMENT,
    ENDPOINT_SLICE,
    ENDPOINTS,
    K8S_SERVICE,
    POD,
    REVISION_LABEL,
    SERVERLESS_SERVICE,
    SERVERLESS_SERVICE_LABEL,
    SERVICE_TYPE_LABEL,
)
from knlocal.store.store import Store

HTTP_PORT = 8012
H2C_PORT = 8013


class ServerlessServiceController(Controller):
    kind = SERVERLESS_SERVICE
    urgency = Urgency.TRAFFIC

    def __init__(
        self,
        store: Store,
        activator: Activator,
        routes: RouteTable,
        activator_address: str,
        recorder: EventRecorder | None = None,
    ) -> None:
        super().__init__(store, recorder)
        self._activator = activator
        self._routes = routes
        self._activator_address = activator_address

    def watches(self) -> Sequence[Watching]:
        return (
            Watching(K8S_SERVICE, owned_by(SERVERLESS_SERVICE)),
            Watching(POD, _of_pod),
        )

    async def reconcile(self, key: Key) -> Requeue | None:
        serverless = self.store.find_key(key)
        owner = f"serving/revision/{key.namespace}/{key.name}"
        if serverless is None or is_deleting(serverless):
            self._routes.remove(owner)
            return None
        if self._routes.owner_of(internal_names(key)[-1], "internal") is None:
            backend = self._activator.revision(key.namespace, key.name)
            route = GatewayRoute(backend.serve, frozenset({"internal"}))
            self._routes.put(owner, dict.fromkeys(internal_names(key), route))
        status = copy(status_of(serverless))
        conditions = Conditions(("EndpointsPopulated",), status, self.clock.now())
        try:
            public = self._services(serverless, status)
        except NotOwned as foreign:
            conditions.false("EndpointsPopulated", "NotOwned", str(foreign))
        else:
            self._endpoints(serverless, public, conditions)
        status["observedGeneration"] = serverless["metadata"]["generation"]
        status["conditions"] = conditions.result()
        self.update_status(serverless, status)
        return None

    def _services(self, serverless: Obj, status: Obj) -> Obj:
        name = serverless["metadata"]["name"]
        private_name = child_name(name, "-private")
        public = ensure(
            self.store, self.recorder, serverless,
            _service(serverless, name, "Public", _public_ports(serverless)), merge=True,
        )  # fmt: skip
        deployment = self.store.find(
            DEPLOYMENT,
            serverless["metadata"]["namespace"],
            spec_of(serverless)["objectRef"]["name"],
        )
        private = _service(serverless, private_name, "Private", _private_ports(serverless))
        if deployment is not None:
            private["spec"]["selector"] = spec_of(deployment)["selector"]["matchLabels"]
        ensure(self.store, self.recorder, serverless, private, merge=True)
        status["serviceName"], status["privateServiceName"] = name, private_name
        return public

    def _endpoints(self, serverless: Obj, public: Obj, conditions: Conditions) -> None:
        metadata = serverless["metadata"]
        backend = self._activator.revision(metadata["namespace"], metadata["name"])
        pods = backend.throttler.pods
        proxying = spec_of(serverless).get("mode") == "Proxy" or not pods
        if proxying:
            addresses = [self._activator_address]
            conditions.true("ActivatorEndpointsPopulated")
        else:
            addresses = [pod.ip or pod.endpoint.host for pod in pods]
            conditions.false(
                "ActivatorEndpointsPopulated", "NotInPath", "The activator is not in the path."
            )
        if pods:
            conditions.true("EndpointsPopulated")
        else:
            conditions.unknown(
                "EndpointsPopulated", "NoHealthyBackends", "K8s Service is not ready"
            )
        port = _queue_port(serverless)
        publish_endpoints(self.store, self.recorder, public, sorted(addresses), port)


def internal_names(revision: Key) -> tuple[str, ...]:
    """What containers may call a revision, whatever its routes."""
    short = f"{revision.name}.{revision.namespace}"
    return (short, f"{short}.svc", f"{short}.{CLUSTER_LOCAL_DOMAIN}")


def publish_endpoints(
    store: Store, recorder: EventRecorder, service: Obj, addresses: Sequence[str], port: int
) -> None:
    """Endpoints and an EndpointSlice of a Service without selector, as far as these kinds exist."""
    metadata = service["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    labels = dict(labels_of(service))
    if store.registry.stored(ENDPOINTS) is not None:
        ensure(
            store,
            recorder,
            service,
            {
                "apiVersion": "v1",
                "kind": "Endpoints",
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                "subsets": [
                    {
                        "addresses": [{"ip": address} for address in addresses],
                        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
                    }
                ],
            },
            merge=True,
        )
    if store.registry.stored(ENDPOINT_SLICE) is not None:
        ensure(
            store,
            recorder,
            service,
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": child_name(name, "-knlocal"),
                    "namespace": namespace,
                    "labels": labels
                    | {
                        "kubernetes.io/service-name": name,
                        "endpointslice.kubernetes.io/managed-by": "serverlessservice.knlocal.dev",
                    },
                },
                "addressType": "IPv4",
                "endpoints": [
                    {
                        "addresses": [address],
                        "conditions": {"ready": True, "serving": True, "terminating": False},
                    }
                    for address in addresses
                ],
                "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
            },
            merge=True,
        )


def _service(serverless: Obj, name: str, what: str, ports: list[Obj]) -> Obj:
    metadata = serverless["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": labels_of(serverless)
            | {SERVERLESS_SERVICE_LABEL: metadata["name"], SERVICE_TYPE_LABEL: what},
            "annotations": annotations_of(serverless)
            | ({ROUTED_BY: "serving"} if what == "Public" else {}),
        },
        "spec": {"type": "ClusterIP", "ports": ports},
    }


def _queue_port(serverless: Obj) -> int:
    return H2C_PORT if spec_of(serverless).get("protocolType") == "h2c" else HTTP_PORT


def _port_name(serverless: Obj) -> str:
    return "http2" if spec_of(serverless).get("protocolType") == "h2c" else "http"


def _port(name: str, port: int, target: int | str) -> Obj:
    return {"name": name, "port": port, "protocol": "TCP", "targetPort": target}


def _public_ports(serverless: Obj) -> list[Obj]:
    name = _port_name(serverless)
    return [_port(name, 80, _queue_port(serverless)), _port("https", 443, 8112)]


def _private_ports(serverless: Obj) -> list[Obj]:
    queue_port = _queue_port(serverless)
    return [
        *_public_ports(serverless),
        _port("http-autometric", 9090, "http-autometric"),
        _port("http-usermetric", 9091, "http-usermetric"),
        _port("http-queueadm", 8022, 8022),
        _port("http-istio", queue_port, queue_port),
    ]


def _of_pod(pod: Obj) -> Iterable[Key]:
    name = labels_of(pod).get(REVISION_LABEL)
    return (Key(*SERVERLESS_SERVICE, pod["metadata"]["namespace"], name),) if name else ()
