"""A small Knative for tests: the real store, controllers, gateway and time that tests move.

Only what runs pods is pretended: `FakeWorkloads` turns Deployments into Pod objects, and each pod
that is ready is answered for by a real HTTP server of this process.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from knlocal.clock import VirtualClock
from knlocal.control.conditions import find_condition
from knlocal.control.controller import Controller, Requeue, Watching, owned_by
from knlocal.control.garbage import GarbageCollector
from knlocal.control.manager import Manager
from knlocal.control.namespaces import SYSTEM_NAMESPACES, NamespaceController, admit_namespace
from knlocal.gateway import Gateway, HttpClient, Pool, Response, RouteTable
from knlocal.gateway.tls import Certificates
from knlocal.resources import catalog, settings
from knlocal.resources.base import Key, Obj, copy, is_deleting, key_of, owner_reference, timestamp
from knlocal.serving import ImageUnresolved, Serving
from knlocal.serving.kinds import (
    CONFIG_MAP,
    CONFIGURATION,
    DEPLOYMENT,
    POD,
    POD_AUTOSCALER,
    REVISION,
    ROUTE,
    SERVICE,
)
from knlocal.store.store import Store

Answer = Callable[[str, dict[str, str]], Awaitable[tuple[int, str]]]
"""What a pod's program does with a request: (path, headers) → (status, body)."""


class PodServer:
    """The program in one pod: an HTTP/1.1 server that knows its pod's name."""

    def __init__(self, name: str, answer: Answer) -> None:
        self.name = name
        self._answer = answer
        self.active = 0
        self.most_active = 0
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                path = line.split()[1].decode()
                headers: dict[str, str] = {}
                while (header := (await reader.readline()).decode().strip()) != "":
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                await reader.readexactly(int(headers.get("content-length", 0)))
                self.requests.append((path, headers))
                self.active += 1
                self.most_active = max(self.most_active, self.active)
                try:
                    status, body = await self._answer(path, headers)
                finally:
                    self.active -= 1
                text = body.encode()
                writer.write(
                    f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n"
                    f"X-Pod: {self.name}\r\n\r\n".encode()
                    + text
                )
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


class FakeWorkloads(Controller):
    """Deployments become Pods that are ready at once, unless told otherwise."""

    kind = DEPLOYMENT

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.holding = False
        """New pods do not become ready until `release`."""
        self.crashing: str | None = None
        """What new pods die of."""
        self.runs_again = False
        """… and run again, for now."""
        self.waiting: tuple[str, str] | None = None
        """What keeps the containers of new pods from starting: reason and message."""
        self.unreachable = False
        """Nobody knows where pods are (as right after a restart)."""
        self.stuck = False
        """Deployments say that their progress deadline is exceeded."""
        self.answer: Answer = _hello
        self.servers: dict[str, PodServer] = {}
        self.ending: dict[str, asyncio.Task[None]] = {}
        self.drain: Callable[[Obj], Awaitable[None]]
        self.made = 0
        self._numbers = itertools.count()

    def watches(self) -> Sequence[Watching]:
        return (Watching(POD, owned_by(DEPLOYMENT)),)

    async def reconcile(self, key: Key) -> Requeue | None:
        deployment = self.store.find_key(key)
        if deployment is None:
            return None
        pods = self.pods(deployment)
        wanted = deployment["spec"].get("replicas", 1)
        for _ in range(wanted - len(pods)):
            await self._make(deployment)
        for pod in pods[wanted:]:
            uid = pod["metadata"]["uid"]
            self.ending[uid] = asyncio.create_task(self.end(pod))
        self._show(deployment)
        return None

    async def end(self, pod: Obj) -> None:
        """As the kubelet does it: requests in flight end, then the program, then the object."""
        await self.drain(pod)
        uid = pod["metadata"]["uid"]
        await self.servers[uid].stop()
        if self.store.find_key(key_of(pod)) is not None:
            self.store.delete(POD, "default", pod["metadata"]["name"], grace_seconds=0)
        self.ending.pop(uid, None)

    def pods(self, deployment: Obj) -> list[Obj]:
        uid = deployment["metadata"]["uid"]
        return [
            p
            for p in self.store.children(uid)
            if p["kind"] == "Pod" and not is_deleting(p) and p["metadata"]["uid"] not in self.ending
        ]

    async def _make(self, deployment: Obj) -> None:
        self.made += 1
        template = copy(deployment["spec"]["template"])
        name = f"{deployment['metadata']['name']}-{next(self._numbers):05d}"
        pod = self.store.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    **template["metadata"],
                    "name": name,
                    "namespace": deployment["metadata"]["namespace"],
                    "ownerReferences": [owner_reference(deployment)],
                },
                "spec": template["spec"],
            }
        )
        uid = pod["metadata"]["uid"]
        server = self.servers[uid] = PodServer(name, lambda p, h: self.answer(p, h))
        await server.start()
        if self.crashing is not None:
            found = _crashed(self.crashing)
            if self.runs_again:
                found["state"] = {"running": {}}
            self._set(pod, {"phase": "Running", "containerStatuses": [found]})
        elif self.waiting is not None:
            reason, message = self.waiting
            state = {"waiting": {"reason": reason, "message": message}}
            self._set(pod, {"phase": "Pending", "containerStatuses": [_container(state)]})
        elif not self.holding:
            self.make_ready(pod)

    def make_ready(self, pod: Obj, ready: bool = True) -> None:
        now = timestamp(self.clock.now())
        self._set(
            pod,
            {
                "phase": "Running",
                "podIP": f"10.1.0.{next(self._numbers) % 250 + 1}",
                "conditions": [
                    {
                        "type": "Ready",
                        "status": "True" if ready else "False",
                        "lastTransitionTime": now,
                    }
                ],
            },
        )

    def release(self) -> None:
        """Everything that was held back becomes ready."""
        self.holding = False
        for pod in self.store.list(POD):
            if find_condition(pod) is None:
                self.make_ready(pod)

    def _set(self, pod: Obj, status: dict[str, Any]) -> None:
        self.store.set_status(key_of(pod), status)

    def _show(self, deployment: Obj) -> None:
        key = key_of(deployment)
        deployment = self.store.get(DEPLOYMENT, key.namespace, key.name)
        pods = self.pods(deployment)
        ready = sum((find_condition(pod) or {}).get("status") == "True" for pod in pods)
        self.store.set_status(
            key,
            {
                "observedGeneration": deployment["metadata"]["generation"],
                "replicas": len(pods),
                "readyReplicas": ready,
                "availableReplicas": ready,
                "conditions": [_progress(ready, stuck=self.stuck)],
            },
        )

    def address_of(self, pod: Obj, _port: int) -> tuple[str, int]:
        server = self.servers.get(pod["metadata"]["uid"])
        if server is None or self.unreachable:
            raise LookupError(pod["metadata"]["name"])
        return "127.0.0.1", server.port


def _progress(ready: int, *, stuck: bool) -> Obj:
    if stuck and not ready:
        return {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    reason = "NewReplicaSetAvailable" if ready else "ReplicaSetUpdated"
    return {"type": "Progressing", "status": "True", "reason": reason}


async def _hello(_path: str, _headers: dict[str, str]) -> tuple[int, str]:
    return 200, "hello"


def _crashed(message: str) -> Obj:
    ended = {"exitCode": 5, "message": message, "reason": "Error"}
    crashed = _container({"waiting": {"reason": "CrashLoopBackOff"}}, restarts=1)
    return crashed | {"lastState": {"terminated": ended}}


def _container(state: Obj, restarts: int = 0) -> Obj:
    return {
        "name": "user-container",
        "ready": False,
        "restartCount": restarts,
        "image": "x",
        "imageID": "x",
        "state": state,
    }


class Digests:
    """An image resolver that knows everything but what it is told to miss."""

    def __init__(self) -> None:
        self.missing: set[str] = set()

    async def resolve(self, image: str, pull_secrets: Sequence[str], namespace: str) -> str:
        if image in self.missing:
            raise ImageUnresolved(f"{image}: not found in registry")
        return f"index.docker.io/{image.partition(':')[0]}@sha256:{'a' * 64}"


class World:
    """Everything wired together; `async with` starts and stops it."""

    keep_pods = False
    """Pods outlive this world (for a restart)."""

    def __init__(self, before: World | None = None) -> None:
        """`before`: a stopped world whose objects this one goes on with, as after a restart."""
        self.clock = before.clock if before else VirtualClock()
        self.store = before.store if before else _new_store(self.clock)
        self.routes = RouteTable()
        self.pool = Pool(self.clock)
        self.workloads = FakeWorkloads(self.store)
        if before:
            self.workloads.servers = before.workloads.servers
        self.digests = Digests()
        self.certificates = Certificates(self.clock)
        self.serving = Serving(
            self.store,
            self.routes,
            self.clock,
            pool=self.pool,
            address_of=self.workloads.address_of,
            image_resolver=self.digests,
            certificates=self.certificates,
        )
        self.workloads.drain = self.serving.drain
        self.manager = Manager(self.store)
        self.manager.add(NamespaceController(self.store), self.workloads)
        self.manager.add(*self.serving.controllers())
        self.garbage = GarbageCollector(self.store)
        self.gateway = Gateway(self.routes, self.clock)
        self.client = HttpClient(self.routes, self.clock)
        self.clock.settle = self.settled

    async def __aenter__(self) -> World:
        self.garbage.start()
        self.serving.start()
        await self.manager.start()
        await self.settled()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.manager.stop()
        self.serving.stop()
        self.garbage.stop()
        await self.client.close()
        await self.pool.close()
        if not self.keep_pods:
            for server in self.workloads.servers.values():
                await server.stop()

    async def settled(self) -> None:
        """Nobody has anything to do before time moves on."""
        quiet = 0
        while quiet < 3:
            due = self.clock.next_due()
            if due is not None and due <= 0:
                await self._fire_due()
            await asyncio.sleep(0)
            quiet = 0 if self.manager.busy else quiet + 1

    async def _fire_due(self) -> None:
        settle, self.clock.settle = self.clock.settle, self.clock._yield_to_loop
        try:
            await self.clock.advance(0)
        finally:
            self.clock.settle = settle

    # -- what tests do ------------------------------------------------------------------------

    def configure(self, name: str, **data: str) -> None:
        """Change keys of a ConfigMap (underscores stand for dashes)."""

        def change(config: Obj) -> None:
            config.setdefault("data", {}).update(
                {key.replace("_", "-"): value for key, value in data.items()}
            )

        self.store.modify(CONFIG_MAP, "knative-serving", name, change)

    async def apply(self, obj: Obj) -> Obj:
        existing = self.store.find_key(key_of(obj))
        if existing is None:
            stored = self.store.create(obj)
        else:
            stored = self.store.update(_merged(existing, obj))
        await self.settled()
        return stored

    async def change(self, kind: Any, name: str, change: Callable[[Obj], object]) -> Obj:
        stored = self.store.modify(kind, "default", name, change)
        await self.settled()
        return stored

    def service(self, name: str = "hello") -> Obj:
        return self.store.get(SERVICE, "default", name)

    def route(self, name: str = "hello") -> Obj:
        return self.store.get(ROUTE, "default", name)

    def configuration(self, name: str = "hello") -> Obj:
        return self.store.get(CONFIGURATION, "default", name)

    def revision(self, name: str = "hello-00001") -> Obj:
        return self.store.get(REVISION, "default", name)

    def autoscaler(self, name: str = "hello-00001") -> Obj:
        return self.store.get(POD_AUTOSCALER, "default", name)

    def deployment(self, revision: str = "hello-00001") -> Obj:
        return self.store.get(DEPLOYMENT, "default", f"{revision}-deployment")

    def replicas(self, revision: str = "hello-00001") -> int:
        return int(self.deployment(revision)["spec"]["replicas"])

    async def get(
        self, url: str = "http://hello.default.svc.cluster.local", **headers: str
    ) -> Response:
        pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
        return await self.client.request("GET", url, pairs, timeout=None)


def _new_store(clock: VirtualClock) -> Store:
    store = Store(catalog.registry(), clock)
    store.admission.append(admit_namespace)
    for name in SYSTEM_NAMESPACES:
        store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for config in settings.default_configmaps():
        store.create(config)
    return store


def _merged(has: Any, wanted: Any) -> Any:
    """As `kubectl apply` would: what is not mentioned stays, lists are replaced."""
    if isinstance(has, dict) and isinstance(wanted, dict):
        return has | {key: _merged(has.get(key), value) for key, value in wanted.items()}
    return wanted


def service(name: str = "hello", image: str = "demo:1", **more: Any) -> Obj:
    """A Service. `more`: annotations of the template, `spec` fields, `traffic`, `labels`…"""
    template: Obj = {
        "spec": {"containers": [{"image": image}], **more.get("spec", {})},
    }
    metadata = more.get("template", {})
    if more.get("annotations"):
        metadata = {**metadata, "annotations": more["annotations"]}
    if metadata:
        template["metadata"] = metadata
    spec: Obj = {"template": template}
    if "traffic" in more:
        spec["traffic"] = more["traffic"]
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "default",
            **({"labels": more["labels"]} if "labels" in more else {}),
        },
        "spec": spec,
    }


def conditions(obj: Obj) -> dict[str, str]:
    """Type → status, or `status reason` where there is one."""
    return {
        c["type"]: " ".join(filter(None, (c["status"], c.get("reason"))))
        for c in obj["status"]["conditions"]
    }
