"""Endpoints and EndpointSlices of a Service, worked out from its pods: pure
(k8s.io/kubernetes pkg/controller/endpoint, pkg/controller/endpointslice)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from knlocal.resources.base import Obj, is_deleting, owner_reference, spec_of, status_of
from knlocal.resources.names import child_name
from knlocal.workloads.podplan import DEFAULT_PORT
from knlocal.workloads.podstatus import is_pod_ready, is_terminal
from knlocal.workloads.terms import NODE_NAME

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
_CONTROLLER = "endpointslice-controller.k8s.io"
_MIRROR = "endpointslicemirroring-controller.k8s.io"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service, as one of its pods serves it."""

    name: str
    port: int
    target: int
    protocol: str = "TCP"
    http2: bool = False


def service_ports(service: Obj, pod: Obj | None) -> list[ServicePort]:
    """The ports with their targets; a named target is looked up in the pod (left out when the pod
    has no such port)."""
    found = []
    for port in spec_of(service).get("ports") or ():
        target = _target(port, pod)
        if target is not None:
            found.append(
                ServicePort(
                    str(port.get("name") or ""),
                    int(port["port"]),
                    target,
                    str(port.get("protocol") or "TCP"),
                    _is_http2(port),
                )
            )
    return found


def _target(port: Obj, pod: Obj | None) -> int | None:
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int) or str(target).isdigit():
        return int(target)
    for container in spec_of(pod or {}).get("containers") or ():
        for one in container.get("ports") or ():
            if one.get("name") == target:
                return int(one.get("containerPort") or DEFAULT_PORT)
    return None


def _is_http2(port: Obj) -> bool:
    protocol = str(port.get("appProtocol") or "")
    name = str(port.get("name") or "")
    return protocol in ("kubernetes.io/h2c", "grpc") or name.partition("-")[0] in ("h2c", "grpc")


def is_serving(service: Obj, pod: Obj) -> bool:
    """Whether requests may go to the pod."""
    wanted = spec_of(service).get("publishNotReadyAddresses")
    return (is_pod_ready(pod) or bool(wanted)) and not is_deleting(pod)


def counts(pod: Obj) -> bool:
    """Whether the pod belongs into endpoints at all."""
    return bool(status_of(pod).get("podIP")) and not is_terminal(pod)


def endpoints_of(service: Obj, pods: Sequence[Obj]) -> Obj:
    """The Endpoints object."""
    groups: dict[tuple[tuple[str, int, str], ...], tuple[list[Any], list[Any]]] = {}
    for pod in pods:
        if is_deleting(pod):
            continue
        ports = tuple((p.name, p.target, p.protocol) for p in service_ports(service, pod))
        ready, unready = groups.setdefault(ports, ([], []))
        (ready if is_serving(service, pod) else unready).append(
            {"ip": status_of(pod)["podIP"], "nodeName": NODE_NAME, "targetRef": _reference(pod)}
        )
    subsets = []
    for ports, (ready, unready) in sorted(groups.items()):
        subset: dict[str, Any] = {}
        if ready:
            subset["addresses"] = ready
        if unready:
            subset["notReadyAddresses"] = unready
        subset["ports"] = [_port(*port) for port in ports]
        subsets.append(subset)
    labels = dict(service["metadata"].get("labels") or {})
    if spec_of(service).get("clusterIP") == "None":
        labels["service.kubernetes.io/headless"] = ""
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": _metadata(service, service["metadata"]["name"], labels),
        "subsets": subsets,
    }


def slice_of(service: Obj, pods: Sequence[Obj]) -> Obj:
    """The EndpointSlice object (one: a machine has few pods)."""
    first = next((pod for pod in pods), None)
    ports = service_ports(service, first)
    return _slice(
        service,
        _CONTROLLER,
        [
            {
                "addresses": [status_of(pod)["podIP"]],
                "conditions": {
                    "ready": is_serving(service, pod),
                    "serving": is_pod_ready(pod),
                    "terminating": is_deleting(pod),
                },
                "nodeName": NODE_NAME,
                "targetRef": _reference(pod),
            }
            for pod in pods
        ],
        [_port(p.name, p.target, p.protocol) for p in ports],
    )


def mirrored_slice(service: Obj, endpoints: Obj) -> Obj:
    """The EndpointSlice of a Service without selector whose Endpoints someone else writes."""
    found: list[Any] = []
    ports: list[Any] = []
    for subset in endpoints.get("subsets") or ():
        ports = subset.get("ports") or ports
        for field, ready in (("addresses", True), ("notReadyAddresses", False)):
            found += [
                {"addresses": [address["ip"]], "conditions": {"ready": ready}}
                for address in subset.get(field) or ()
            ]
    return _slice(service, _MIRROR, found, ports)


def _slice(service: Obj, manager: str, endpoints: list[Any], ports: list[Any]) -> Obj:
    name = service["metadata"]["name"]
    labels = dict(service["metadata"].get("labels") or {})
    metadata = _metadata(
        service, child_name(name, "-endpoints"), labels | {SERVICE_NAME: name, MANAGED_BY: manager}
    )
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": ports,
    }


def _metadata(service: Obj, name: str, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": service["metadata"]["namespace"],
        "labels": labels,
        "ownerReferences": [owner_reference(service)],
    }


def _port(name: str, port: int, protocol: str) -> dict[str, Any]:
    return {**({"name": name} if name else {}), "port": port, "protocol": protocol}


def _reference(pod: Obj) -> dict[str, str]:
    metadata = pod["metadata"]
    return {
        "kind": "Pod",
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "uid": metadata["uid"],
    }
