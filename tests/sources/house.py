"""Store, sources and a data plane on a virtual clock; the sinks are real HTTP servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from knlocal.clock import VirtualClock
from knlocal.control.conditions import find_condition
from knlocal.control.destinations import Destinations
from knlocal.control.garbage import GarbageCollector
from knlocal.control.manager import Manager
from knlocal.gateway import HttpClient, Response, RouteTable
from knlocal.journal import Journal
from knlocal.resources.base import GroupKind, Obj, annotations_of, status_of
from knlocal.resources.settings import default_configmaps
from knlocal.sources import Sources
from knlocal.store.store import Store
from knlocal.testing.sink import Sink
from knlocal.workloads.deployments import DeploymentController

VERSIONS = {
    "PingSource": "sources.knative.dev/v1",
    "ApiServerSource": "sources.knative.dev/v1",
    "ContainerSource": "sources.knative.dev/v1",
    "SinkBinding": "sources.knative.dev/v1",
    "IntegrationSource": "sources.knative.dev/v1alpha1",
    "JobSink": "sinks.knative.dev/v1alpha1",
    "IntegrationSink": "sinks.knative.dev/v1alpha1",
    "EventTransform": "eventing.knative.dev/v1alpha1",
    "EventType": "eventing.knative.dev/v1beta2",
    "Channel": "messaging.knative.dev/v1",
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
    "KService": "serving.knative.dev/v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
    "ClusterRole": "rbac.authorization.k8s.io/v1",
    "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
}


@dataclass(frozen=True, slots=True)
class TestAddresses:
    """The names that the daemon gives, with the gateway on ports 80 and 8080."""

    __test__ = False

    def inside(self, service: str, namespace: str, path: str = "") -> str:
        return f"http://{service}.{namespace}.svc.cluster.local{path}"

    def outside(self, service: str, namespace: str, path: str = "/") -> str:
        return f"http://{service}.{namespace}.localhost:8080{path}"

    def hosts(self, service: str, namespace: str) -> list[str]:
        return [f"{service}.{namespace}.svc.cluster.local", f"{service}.{namespace}.localhost"]


class ShownDeployments(DeploymentController):
    """Nothing runs here, so only those that stand for a part of the daemon can be ready."""

    def accepts(self, obj: Obj) -> bool:
        return annotations_of(obj).get("knlocal.dev/simulated") == "true"


class House:
    def __init__(self, store: Store) -> None:
        self.store = store
        assert isinstance(store.clock, VirtualClock)
        self.clock = store.clock
        self.routes = RouteTable()
        self.client = HttpClient(self.routes, self.clock)
        self.journal = Journal(self.clock)
        self.destinations = Destinations(store)
        self.sources = Sources(
            store, self.client, self.destinations, self.routes, TestAddresses(), self.journal,
            make_filter=_exact_filter,
        )  # fmt: skip
        self.garbage = GarbageCollector(store)
        self.manager = Manager(store)
        self.manager.add(*self.sources.controllers, ShownDeployments(store))

    async def start(self) -> None:
        for config_map in default_configmaps():
            self.store.create(config_map)
        self.clock.settle = self._settle
        self.garbage.start()
        await self.manager.start()
        await self.settled()

    async def stop(self) -> None:
        await self.manager.stop()
        self.garbage.stop()
        self.destinations.close()
        await self.client.close()

    async def _settle(self) -> None:
        """Between two timers: controllers finish, and real sinks answer."""
        for _ in range(self.clock.SETTLE_ROUNDS):
            await asyncio.sleep(0)
        try:
            async with asyncio.timeout(2):
                while self.sources.busy or self.manager.busy:  # noqa: ASYNC110
                    await asyncio.sleep(0.0005)
        except TimeoutError:
            return  # a sink that takes its time

    async def settled(self) -> None:
        for _ in range(5):
            await self.manager.settled()
            # Work that was put off to the loop's next turn is a timer of zero seconds.
            await self.clock.advance(0)

    # -- objects ------------------------------------------------------------------------------

    async def apply(self, kind: str, name: str, spec: Any = None, **more: Any) -> Obj:
        """Create an object, or give it another spec; and let the controllers settle."""
        namespace = more.pop("namespace", "default")
        version = more.pop("version", VERSIONS.get(kind, "v1"))
        extra = more.pop("extra", {})
        obj: Obj = {
            "apiVersion": version,
            "kind": kind.removeprefix("K"),
            "metadata": {"name": name, "namespace": namespace, **more},
            **extra,
        }
        if spec is not None:
            obj["spec"] = spec
        known = self.find(kind, name, namespace)
        if known is None:
            self.store.create(obj)
        else:
            self.store.update({**known, **obj, "metadata": {**known["metadata"], **more}})
        await self.settled()
        return self.get(kind, name, namespace)

    def get(self, kind: str, name: str, namespace: str = "default") -> Obj:
        return self.store.get(group_kind(kind), namespace, name)

    def find(self, kind: str, name: str, namespace: str = "default") -> Obj | None:
        return self.store.find(group_kind(kind), namespace, name)

    def list(self, kind: str, namespace: str = "default") -> list[Obj]:
        return self.store.list(group_kind(kind), namespace)

    async def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        self.store.delete(group_kind(kind), namespace, name)
        await self.settled()

    def status(self, kind: str, name: str) -> Obj:
        return status_of(self.get(kind, name))

    def condition(self, kind: str, name: str, type_: str = "Ready") -> tuple[str, str, str]:
        found = find_condition(self.get(kind, name), type_) or {}
        return (
            str(found.get("status")), str(found.get("reason", "")), str(found.get("message", "")),
        )  # fmt: skip

    def conditions(self, kind: str, name: str) -> dict[str, str]:
        return {c["type"]: c["status"] for c in self.status(kind, name).get("conditions") or []}

    # -- sinks and events ---------------------------------------------------------------------

    async def addressable(self, name: str, url: str) -> None:
        """Something with `status.address`, which is there already or is made now."""
        if self.find("Channel", name) is None:
            await self.apply("Channel", name, {})
        channel = self.get("Channel", name)
        self.store.update({**channel, "status": {"address": {"url": url}}}, subresource="status")
        await self.settled()

    async def post(
        self, url: str, body: bytes = b"data", method: str = "POST", **headers: str
    ) -> Response:
        """An event of type `t`, id 1, to `url`. `ce_id="2"` changes, `ce_id=""` removes."""
        sent = {
            "ce-specversion": "1.0", "ce-id": "1", "ce-type": "t", "ce-source": "/s",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }  # fmt: skip
        pairs = [(name, value) for name, value in sent.items() if value]
        response = await self.client.request(method, url, pairs, body)
        await self.settled()
        return response

    async def until(
        self, holds: Callable[[], Any], what: str = "", seconds: float = 20, step: float = 0.05
    ) -> Any:
        """Wait in real time, while virtual time moves on in small steps."""
        try:
            async with asyncio.timeout(seconds):
                while not (value := holds()):
                    await asyncio.sleep(0.005)
                    await self.clock.advance(step)
                return value
        except TimeoutError:
            pytest.fail(f"not so after {seconds} s: {what or holds}")

    async def received(self, sink: Sink, count: int) -> list[Any]:
        """The events of a sink, once there are `count`; time stands still meanwhile."""
        await self.until(lambda: len(sink.events) >= count, f"{count} events", step=0)
        return sink.events


def _exact_filter(filters: Any) -> Any:
    """As the daemon's, for the one dialect that these tests need."""

    class Exact:
        def matches(self, attributes: Any) -> bool:
            wanted = [pair for one in filters for pair in one["exact"].items()]
            return all(attributes.get(name) == value for name, value in wanted)

    return Exact()


def group_kind(kind: str) -> GroupKind:
    return GroupKind(VERSIONS.get(kind, "v1").rpartition("/")[0], kind.removeprefix("K"))


def to(name: str) -> Obj:
    """A destination: the Addressable of that name."""
    return {"ref": {"apiVersion": "messaging.knative.dev/v1", "kind": "Channel", "name": name}}


def pod_template(*containers: Obj, **more: Any) -> Obj:
    found = list(containers) or [{"name": "app", "image": "app"}]
    return {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": found, **more}}


def env_of(obj: Obj, container: int = 0, kind: str = "containers") -> dict[str, str]:
    spec = obj["spec"]
    spec = (spec.get("jobTemplate") or {}).get("spec") or spec
    entries = spec["template"]["spec"][kind][container].get("env") or []
    return {entry["name"]: entry.get("value", "") for entry in entries}
