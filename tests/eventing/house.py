"""Store, controllers and data plane together, on a virtual clock."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from knlocal.clock import VirtualClock
from knlocal.control.conditions import find_condition
from knlocal.control.destinations import Destinations
from knlocal.control.garbage import GarbageCollector
from knlocal.control.manager import Manager
from knlocal.eventing import Addresses, Eventing
from knlocal.gateway import HttpClient, Response, Route, RouteTable
from knlocal.journal import Journal
from knlocal.resources.base import GroupKind, Obj
from knlocal.resources.settings import default_configmaps
from knlocal.resources.status import AlreadyExists
from knlocal.store.store import Store
from tests.eventing.plane import Recorder

GROUPS = {
    "Broker": "eventing.knative.dev", "Trigger": "eventing.knative.dev",
    "EventType": "eventing.knative.dev", "EventTransform": "eventing.knative.dev",
    "RequestReply": "eventing.knative.dev", "EventPolicy": "eventing.knative.dev",
    "Channel": "messaging.knative.dev", "InMemoryChannel": "messaging.knative.dev",
    "Subscription": "messaging.knative.dev", "Sequence": "flows.knative.dev",
    "Parallel": "flows.knative.dev", "Service": "", "ConfigMap": "", "Namespace": "",
}  # fmt: skip
VERSIONS = {"EventType": "v1beta3", "EventTransform": "v1alpha1", "RequestReply": "v1alpha1",
            "EventPolicy": "v1alpha1"}  # fmt: skip


class House:
    def __init__(self, store: Store, durable: Path | None = None) -> None:
        self.store = store
        self._stopped = False
        assert isinstance(store.clock, VirtualClock)
        self.clock = store.clock
        self.routes = RouteTable()
        self.client = HttpClient(self.routes, self.clock)
        self.journal = Journal(self.clock)
        self.destinations = Destinations(store)
        self.eventing = Eventing(
            store, self.client, self.routes, self.destinations, self.journal,
            addresses=Addresses(external_port=8080), durable=durable,
        )  # fmt: skip
        self.garbage = GarbageCollector(store)
        self.manager = Manager(store)
        self.manager.add(*self.eventing.controllers)

    async def start(self) -> None:
        for config_map in default_configmaps():
            try:
                self.store.create(config_map)
            except AlreadyExists:
                pass
        self.garbage.start()
        await self.eventing.start()
        await self.manager.start()
        await self.settled()

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        await self.manager.stop()
        await self.eventing.stop(grace=0)
        self.garbage.stop()
        self.destinations.close()
        await self.client.close()

    async def settled(self) -> None:
        for _ in range(5):
            await self.manager.settled()
            # Work that was put off to the loop's next turn is a timer of zero seconds.
            await self.clock.advance(0)

    # -- objects ------------------------------------------------------------------------------

    async def apply(self, kind: str, name: str, spec: Any = None, **metadata: Any) -> Obj:
        """Create an object, or give it another spec; and let the controllers settle."""
        group = GROUPS[kind]
        namespace = metadata.pop("namespace", "default")
        version = VERSIONS.get(kind, "v1")
        known = self.store.find(GroupKind(group, kind), namespace, name)
        if known is not None:
            self.store.update({**known, "spec": spec})
        else:
            obj: Obj = {
                "apiVersion": f"{group}/{version}" if group else version,
                "kind": kind,
                "metadata": {"name": name, "namespace": namespace, **metadata},
            }
            if spec is not None:
                obj["spec"] = spec
            self.store.create(obj)
        await self.settled()
        return self.get(kind, name, namespace)

    def get(self, kind: str, name: str, namespace: str = "default") -> Obj:
        return self.store.get(GroupKind(GROUPS[kind], kind), namespace, name)

    def find(self, kind: str, name: str, namespace: str = "default") -> Obj | None:
        return self.store.find(GroupKind(GROUPS[kind], kind), namespace, name)

    async def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        self.store.delete(GroupKind(GROUPS[kind], kind), namespace, name)
        await self.settled()

    def condition(self, kind: str, name: str, type_: str = "Ready") -> tuple[str, str, str]:
        found = find_condition(self.get(kind, name), type_) or {}
        return (
            str(found.get("status")), str(found.get("reason", "")), str(found.get("message", "")),
        )  # fmt: skip

    def conditions(self, kind: str, name: str) -> dict[str, str]:
        status = self.get(kind, name).get("status") or {}
        return {c["type"]: c["status"] for c in status.get("conditions") or []}

    # -- events -------------------------------------------------------------------------------

    async def service(self, name: str) -> Recorder:
        """A Kubernetes Service with something behind it."""
        host = f"{name}.default.svc.cluster.local"
        recorder = Recorder(host)
        self.routes.put(f"test/{name}", {host: Route(recorder)})
        if self.find("Service", name) is None:
            await self.apply("Service", name, {"ports": [{"port": 80}], "selector": {"app": name}})
        return recorder

    async def post(self, url: str, event_id: str = "1", **more: str) -> Response:
        headers = {
            "ce-specversion": "1.0", "ce-id": event_id, "ce-type": "t", "ce-source": "/s",
            **{name.replace("_", "-"): value for name, value in more.items()},
        }  # fmt: skip
        return await self.client.request("POST", url, headers.items(), b"data")

    async def post_to(self, kind: str, name: str, event_id: str = "1", **more: str) -> Response:
        """Post to an object's address, and let everything happen that needs no time."""
        url = self.get(kind, name)["status"]["address"]["url"]
        response = await self.post(url, event_id, **more)
        await self.delivered()
        return response

    async def delivered(self) -> None:
        for _ in range(3000):
            await asyncio.sleep(0)
            if self.eventing.idle:
                break


def to(name: str, kind: str = "Service") -> dict[str, Any]:
    """A destination by reference."""
    group = GROUPS[kind]
    version = VERSIONS.get(kind, "v1")
    api_version = f"{group}/{version}" if group else version
    return {"ref": {"apiVersion": api_version, "kind": kind, "name": name}}
