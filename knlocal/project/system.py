"""What a cluster with Knative shows beside users' objects: namespaces, settings, its own parts.

knlocal does the work of Knative's control plane itself; scripts and test suites still look for its
Deployments (behaviour A88), its Services (A89) and the gateway's address (A83).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from knlocal.control.namespaces import SYSTEM_NAMESPACES
from knlocal.resources import settings
from knlocal.resources.annotations import SHOWN_ONLY
from knlocal.resources.base import Key, Obj, key_of, timestamp
from knlocal.store.store import Store

_DEPLOYMENTS = {
    "knative-serving": (
        "activator", "autoscaler", "autoscaler-hpa", "controller", "webhook",
        "net-kourier-controller",
    ),
    "knative-eventing": (
        "eventing-controller", "eventing-webhook", "imc-controller", "imc-dispatcher",
        "job-sink", "mt-broker-controller", "mt-broker-filter", "mt-broker-ingress",
        "pingsource-mt-adapter",
    ),
    "kourier-system": ("3scale-kourier-gateway",),
}  # fmt: skip
_SERVICES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "knative-serving": {
        "autoscaler": (8080, 9090),
        "controller": (9090,),
        "webhook": (443, 9090),
    },
    "knative-eventing": {"eventing-webhook": (443,)},
}
#: Where suites look for the gateway when nothing tells them otherwise, and where Kourier has it.
GATEWAYS = (("kourier-system", "kourier"), ("istio-system", "istio-ingressgateway"))


class Door(NamedTuple):
    """Where the gateway serves what people may call; `tls_port` 0 when TLS is off."""

    ip: str
    port: int
    tls_port: int = 0


def install(store: Store, door: Door, domain: str) -> None:
    """Make what is missing, and put the gateway's address and ports right."""
    for name in (*SYSTEM_NAMESPACES, *(namespace for namespace, _ in GATEWAYS)):
        _ensure(store, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for config_map in settings.default_configmaps():
        _ensure(store, config_map)
    _put_domain(store, domain)
    for namespace, names in _DEPLOYMENTS.items():
        for name in names:
            _ensure(store, _deployment(namespace, name), lambda: _deployment_status(store))
    for namespace, services in _SERVICES.items():
        for name, ports in services.items():
            _ensure(store, _service(namespace, name, ports))
    _ensure(store, _service("default", "kubernetes", (443,)))
    for namespace, name in GATEWAYS:
        _put_gateway(store, namespace, name, door)


def _put_domain(store: Store, domain: str) -> None:
    """`[gateway] domain` is what routes end in, unless config-domain has been given others."""
    key = Key("", "ConfigMap", "knative-serving", "config-domain")
    data = (store.find_key(key) or {}).get("data") or {}
    if domain != settings.DEFAULT_DOMAIN and domain not in data:
        kept = {name: value for name, value in data.items() if name != settings.DEFAULT_DOMAIN}
        store.modify(
            key.group_kind, key.namespace, key.name,
            lambda obj: obj.__setitem__("data", {**kept, domain: ""}),
        )  # fmt: skip


def _ensure(store: Store, obj: Obj, status: Callable[[], Obj] | None = None) -> Obj:
    key = key_of(obj)
    found = store.find_key(key) or store.create(obj)
    if status is not None:
        return store.set_status(key, status()) or found
    return found


def _metadata(namespace: str, name: str, **annotations: str) -> Obj:
    product = namespace.removesuffix("-system")
    return {
        "name": name,
        "namespace": namespace,
        "labels": {
            "app": name,
            "app.kubernetes.io/name": product,
            "app.kubernetes.io/component": name,
            "app.kubernetes.io/version": "devel",
        },
        **({"annotations": annotations} if annotations else {}),
    }


def _deployment(namespace: str, name: str) -> Obj:
    labels = {"app": name}
    container = {"name": name, "image": f"knlocal.internal/{name}"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(namespace, name, **{SHOWN_ONLY: "true"}),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def _deployment_status(store: Store) -> Obj:
    now = timestamp(store.clock.now())

    def condition(kind: str, reason: str, message: str) -> Obj:
        return {
            "type": kind, "status": "True", "reason": reason, "message": message,
            "lastUpdateTime": now, "lastTransitionTime": now,
        }  # fmt: skip

    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    return {
        "observedGeneration": 1,
        **dict.fromkeys(counts, 1),
        "conditions": [
            condition(
                "Available", "MinimumReplicasAvailable", "Deployment has minimum availability."
            ),
            condition("Progressing", "NewReplicaSetAvailable", "knlocal does this work itself."),
        ],
    }


def _service(namespace: str, name: str, ports: tuple[int, ...]) -> Obj:
    """A Service without selector: nothing stands behind it but knlocal."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(namespace, name),
        "spec": {
            "type": "ClusterIP",
            "ports": [{"name": f"port-{p}", "port": p, "targetPort": p} for p in ports],
        },
    }


def _put_gateway(store: Store, namespace: str, name: str, door: Door) -> None:
    """The gateway's Service: clients ask for port 80 and are told the one it really has."""
    ports = list(_gateway_ports(door.port, door.tls_port))
    service = _ensure(
        store,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _metadata(namespace, name),
            "spec": {"type": "LoadBalancer", "ports": ports},
        },
    )
    key = key_of(service)
    store.modify(key.group_kind, namespace, name, lambda obj: obj["spec"].update(ports=ports))
    ingress: list[dict[str, Any]] = [{"ip": door.ip}]
    store.set_status(key, {"loadBalancer": {"ingress": ingress}})


def _gateway_ports(port: int, tls_port: int) -> Iterator[Obj]:
    yield {"name": "http2", "port": 80, "targetPort": 8080, "nodePort": port, "protocol": "TCP"}
    if tls_port:
        yield {
            "name": "https", "port": 443, "targetPort": 8443, "nodePort": tls_port,
            "protocol": "TCP",
        }  # fmt: skip
