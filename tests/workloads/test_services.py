"""Services: endpoints, the gateway's routes, and names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from knlocal.clock import SystemClock
from knlocal.control.controller import Controller
from knlocal.gateway import Gateway, Pool, RouteTable
from knlocal.resources.base import GroupKind, Obj
from knlocal.workloads.kubelet import Kubelet
from knlocal.workloads.servicerouter import ServiceRouter
from knlocal.workloads.services import ServiceController
from tests.workloads.conftest import Cluster

SERVICE = GroupKind("", "Service")
ENDPOINTS = GroupKind("", "Endpoints")
SLICE = GroupKind("discovery.k8s.io", "EndpointSlice")
GATEWAY = "192.0.2.1"


class Door:
    """The gateway's inner door, and the names it serves."""

    def __init__(self) -> None:
        self.routes = RouteTable()
        self.pool = Pool(SystemClock())
        self.gateway = Gateway(self.routes, SystemClock())
        self.port = 0
        self.services: ServiceController | None = None

    async def get(self, host: str, path: str = "/") -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.port}{path}"
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, headers={"Host": host}) as answer,
        ):
            return answer.status, await answer.text()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    found = Door()
    found.port = (await found.gateway.listen("127.0.0.1", 0, "internal")).port
    yield found
    await found.gateway.close()
    await found.pool.close()


@pytest.fixture
def make_controllers(door: Door) -> Callable[[Kubelet], list[Controller]]:
    def make(kubelet: Kubelet) -> list[Controller]:
        router = ServiceRouter(door.routes, door.pool, SystemClock())
        door.services = ServiceController(kubelet.store, kubelet.address_of, router, GATEWAY)
        return [door.services]

    return make


def service(name: str = "shop", **spec: Any) -> Obj:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": "shop"}, "ports": ports} | spec,
    }


def labelled(cluster: Cluster, name: str, **container: Any) -> Obj:
    pod = cluster.pod(name, containers=[cluster.container("app", **container)])
    pod["metadata"]["labels"] = {"app": "shop"}
    return pod


async def test_requests_for_a_service_go_to_its_ready_pods_in_turn(
    cluster: Cluster, door: Door
) -> None:
    cluster.create(service())
    cluster.create(labelled(cluster, "one"))
    cluster.create(labelled(cluster, "two"))
    await cluster.running("one")
    await cluster.running("two")
    await cluster.manager.settled()
    for host in ("shop.default.svc.cluster.local", "shop.default.svc", "shop.default:80"):
        answers = {(await door.get(host))[1] for _ in range(4)}
        assert answers == {"hello one", "hello two"}
    cluster.store.delete(GroupKind("", "Pod"), "default", "one")
    await cluster.gone("one")
    await cluster.manager.settled()
    assert {(await door.get("shop.default.svc"))[1] for _ in range(3)} == {"hello two"}
    cluster.store.delete(SERVICE, "default", "shop")
    await cluster.manager.settled()
    assert (await door.get("shop.default.svc"))[0] == 404


async def test_endpoints_and_slices_follow_readiness(cluster: Cluster) -> None:
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1,
             "failureThreshold": 1}  # fmt: skip
    cluster.create(service())
    cluster.create(labelled(cluster, "one", readinessProbe=probe))
    pod = await cluster.running("one")
    address = pod["status"]["podIP"]

    def addresses(field: str) -> list[str]:
        endpoints = cluster.find("shop", ENDPOINTS) or {}
        subsets = endpoints.get("subsets") or [{}]
        return [a["ip"] for a in subsets[0].get(field) or ()]

    await cluster.until(lambda: addresses("addresses") == [address])
    [found] = cluster.store.list(SLICE, "default", {"kubernetes.io/service-name": "shop"})
    assert found["endpoints"][0]["conditions"]["ready"]
    assert found["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    await cluster.get("one", "/break")
    await cluster.until(lambda: addresses("notReadyAddresses") == [address])
    assert addresses("addresses") == []
    cluster.store.delete(SERVICE, "default", "shop")
    await cluster.until(lambda: not cluster.store.list(SLICE) and not cluster.store.list(ENDPOINTS))


async def test_a_service_without_pods_says_so(cluster: Cluster, door: Door) -> None:
    cluster.create(service())
    await cluster.manager.settled()
    status, body = await door.get("shop.default")
    assert status == 503
    assert body == "no ready pod of service shop.default takes requests on port 80\n"


async def test_hand_written_endpoints_are_served_and_mirrored(
    cluster: Cluster, door: Door, engine: str
) -> None:
    if engine != "process":
        pytest.skip("once is enough")
    cluster.create(cluster.pod("one"))
    await cluster.running("one")
    host, port = cluster.kubelet.address_of(cluster.find("one") or {}, 8080)
    given = service("outside", ports=[{"port": 80}])
    del given["spec"]["selector"]
    cluster.create(given)
    cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": "outside", "namespace": "default"},
            "subsets": [{"addresses": [{"ip": host}], "ports": [{"port": port}]}],
        }
    )
    await cluster.manager.settled()
    assert await door.get("outside.default.svc") == (200, "hello one")
    [found] = cluster.store.list(SLICE, "default", {"kubernetes.io/service-name": "outside"})
    assert found["endpoints"][0]["addresses"] == [host]
    alias = service("alias", type="ExternalName", externalName="outside.default.svc.cluster.local")
    del alias["spec"]["selector"]
    cluster.create(alias)
    await cluster.manager.settled()
    assert await door.get("alias.default.svc") == (200, "hello one")


async def test_names_of_knative_services_are_left_to_knative(cluster: Cluster, door: Door) -> None:
    ours = service()
    ours["metadata"]["annotations"] = {"knlocal.dev/routed-by": "serving"}
    cluster.create(ours)
    await cluster.manager.settled()
    assert door.routes.hosts("internal") == []
    assert cluster.store.list(ENDPOINTS) == []


async def test_a_name_resolves_to_pods_where_the_ports_agree_else_to_the_gateway(
    cluster: Cluster, door: Door, engine: str
) -> None:
    services = door.services
    assert services is not None
    cluster.create(service("mapped"))
    cluster.create(service("same", ports=[{"port": 8080}]))
    cluster.create(service("headless", clusterIP="None"))
    cluster.create(service("nobody", selector={"app": "nobody"}))
    cluster.create(labelled(cluster, "one"))
    pod = await cluster.running("one")
    own = pod["status"]["podIP"] if engine == "docker" else GATEWAY
    assert services.lookup("mapped.default.svc.cluster.local.") == [GATEWAY]
    assert services.lookup("same.default.svc") == [own]
    assert services.lookup("headless.default") == [own]
    assert services.lookup("nobody.default.svc.cluster.local") == [GATEWAY]
    assert services.lookup("unknown.default.svc.cluster.local") == []
    assert services.lookup("example.com") == []
