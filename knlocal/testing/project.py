"""A project up for a test: its objects in a namespace of their own, on the session's daemon."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from knlocal.control.conditions import find_condition, is_ready
from knlocal.project import apply, config, manifests
from knlocal.project.apply import INVENTORY_NAMESPACE, StoreTarget
from knlocal.project.door import Told
from knlocal.project.errors import did_you_mean
from knlocal.project.manifests import Manifest
from knlocal.project.settings import Settings
from knlocal.resources.base import (
    GroupKind,
    Key,
    Obj,
    copy,
    is_deleting,
    key_of,
    labels_of,
    spec_of,
    split_api_version,
)
from knlocal.runtime.api import LogOptions, PodId
from knlocal.testing.events import Events
from knlocal.testing.faults import Faults
from knlocal.testing.golden import Golden
from knlocal.testing.host import Host, Leak
from knlocal.testing.matching import hidden, seconds
from knlocal.testing.services import ServiceClient
from knlocal.testing.sink import Sink

__tracebackhide__ = hidden

T = TypeVar("T")
NAMESPACE = GroupKind("", "Namespace")
POD = GroupKind("", "Pod")
SERVICE = GroupKind("serving.knative.dev", "Service")
ROUTE = GroupKind("serving.knative.dev", "Route")


class TestClock:
    """The project's time. It flows; `advance` moves it on at once, and everything that falls due
    in knlocal (cron lines, back-offs, autoscaler windows, timeouts) happens in order.

    Users' programs keep real time: a container that sleeps a second sleeps a second.
    """

    __test__ = False  # no test class, whatever its name

    def __init__(self, host: Host) -> None:
        self._host = host

    def now(self) -> datetime:
        """The moment it is for knlocal, aware, in UTC."""
        return self._host.clock.now()

    def advance(self, duration: float | str, within: float | str = "60s") -> None:
        """Move on by seconds, or by "5m", "24h"; `within` bounds the real time this may take."""
        limit = seconds(within)
        self._host.run(self._host.clock.advance(seconds(duration)), limit)

    async def aadvance(self, duration: float | str) -> None:
        await self._host.aio(self._host.clock.advance(seconds(duration)))


class LocalProject:
    """What the fixture `knlocal` is. Blocking calls have asynchronous twins with an `a` in front.

    `folder` may hold a knlocal.toml, which is applied on `start`.
    """

    POD = POD

    def __init__(
        self,
        host: Host,
        folder: Path,
        namespace: str = "",
        *,
        seed: int | None = None,
        record: bool = False,
    ) -> None:
        self.host = host
        self.folder = folder
        self.problems: list[str] = []
        self.clock = TestClock(host)
        self.settings = _settings(folder, host, namespace or f"test-{uuid.uuid4().hex[:8]}")
        self.daemon = host.daemon
        self.events = Events(self)
        self.faults = Faults(self, random.randrange(2**32) if seed is None else seed)
        self._record = record
        self._sinks: list[Sink] = []
        self._inventory = Key("", "ConfigMap", INVENTORY_NAMESPACE, f"project-{self.namespace}")

    # -- coming and going ---------------------------------------------------------------------

    def start(self, within: float | str = "120s") -> LocalProject:
        """Apply the folder's project and wait until all of it is ready."""
        limit = seconds(within)
        self.host.faults.add(self.namespace, self.faults)
        keys = self.run(self._start(), limit)
        if self.problems:
            raise AssertionError("\n".join(self.problems))
        self.wait_ready(*keys, within=limit)
        return self

    async def _start(self) -> list[Key]:
        told = Told(problem=lambda name, text: self.problems.append(f"{name}: {text}"))
        outcome = await self.daemon.door(self.settings, told, self._inventory).apply()
        return [key_of(change.obj) for change in outcome.changes]

    def stop(self, within: float | str = "60s") -> None:
        """Remove the project; raises Leak when pods of it stay."""
        self.host.faults.remove(self.namespace)
        for sink in self._sinks:
            sink.close()
        self._sinks.clear()
        limit = seconds(within)
        self.run(self._stop(limit), limit + 10)

    async def _stop(self, limit: float) -> None:
        store = self.daemon.store
        for key in (Key("", "Namespace", "", self.namespace), self._inventory):
            if store.find_key(key) is not None:
                store.delete(key.group_kind, key.namespace, key.name)
        await self._until(lambda: all(map(is_deleting, store.list(POD, self.namespace))), limit)
        for pod in store.list(POD, self.namespace):
            # Programs under test are not waited for: whatever grace they have, they end now.
            store.delete(POD, self.namespace, pod["metadata"]["name"], grace_seconds=0)
        if not await self._until(lambda: store.find(NAMESPACE, "", self.namespace) is None, limit):
            raise Leak(f"namespace {self.namespace} did not go within {limit:g} s")
        await self.daemon.settled()
        left = [p.id.name for p in await self.daemon.runtime.pods() if self._owns(p.id.namespace)]
        if left:
            raise Leak(f"pods that outlived their project: {', '.join(left)}")

    def _owns(self, namespace: str) -> bool:
        return namespace == self.namespace

    def __enter__(self) -> LocalProject:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, work: Coroutine[Any, Any, T], within: float | None = 60) -> T:
        """Run a coroutine on the daemon's loop and wait for it."""
        return self.host.run(work, within)

    async def aio(self, work: Coroutine[Any, Any, T]) -> T:
        return await self.host.aio(work)

    # -- places -------------------------------------------------------------------------------

    @property
    def namespace(self) -> str:
        return self.settings.project.namespace

    @property
    def port(self) -> int:
        """The gateway's port on loopback."""
        return self.daemon.external_port

    @property
    def kubeconfig(self) -> Path:
        """For kubectl, kn and client libraries."""
        return self.daemon.home.kubeconfig

    @property
    def runtime(self) -> str:
        return self.daemon.runtime.name

    def service(self, name: str, *, tag: str = "", namespace: str = "") -> ServiceClient:
        """A service to call; with `tag`, its tagged target."""
        place = namespace or self.namespace
        first = f"{tag}-{name}" if tag else name
        return ServiceClient(self, f"{first}.{place}.{self.daemon.domain}", (place, name))

    def check_service(self, place: str, name: str) -> None:
        """A misspelt name must not pass for a service that answers 404."""
        self.check(name, place, SERVICE, ROUTE)

    def check(self, name: str, place: str, *kinds: GroupKind) -> None:
        """Fail, and name what there is, when no object of these kinds is called `name`."""
        store = self.daemon.store
        if all(store.find(kind, place, name) is None for kind in kinds):
            names = [obj["metadata"]["name"] for obj in store.list(kinds[0], place)]
            hint = did_you_mean(name, names, "there are") or "there is none"
            raise AssertionError(f"no {kinds[0].kind.lower()} {name!r} in this project; {hint}")

    def sink(self) -> Sink:
        """A new HTTP subscriber, closed with the project."""
        sink = Sink(self.host.loop, trails=self.events.trails)
        self._sinks.append(sink)
        return sink

    def golden(self, path: str | Path) -> Golden:
        """A recording of events to compare this run with; relative to the project's folder."""
        return Golden(self, self.folder / path, record=self._record)

    def logs(self, name: str, tail: int | None = None) -> str:
        """What the containers of a service wrote, all pods together."""
        return self.run(self._logs(name, tail))

    def recent_logs(self, lines: int) -> str:
        """The last lines of every pod of the project, for a failing test's report."""
        return self.run(self._logs("", lines))

    async def _logs(self, service: str, tail: int | None) -> str:
        parts = []
        for pod in self.daemon.store.list(POD, self.namespace):
            labels = labels_of(pod)
            if service and labels.get("serving.knative.dev/service") != service:
                continue
            metadata = pod["metadata"]
            id_ = PodId(self.namespace, metadata["name"], metadata["uid"])
            for container in spec_of(pod).get("containers") or ():
                if container["name"] == "queue-proxy":
                    continue
                chunks = self.daemon.runtime.logs(id_, container["name"], LogOptions(tail=tail))
                text = b"".join([chunk async for chunk in chunks]).decode(errors="replace")
                if text:
                    parts.append(f"--- {metadata['name']} {container['name']}\n{text}")
        return "\n".join(parts)

    # -- objects ------------------------------------------------------------------------------

    def apply(self, *what: Obj | str | Path, ready: bool = True, within: str = "60s") -> list[Obj]:
        """Apply objects: dicts, YAML text, or paths of YAML files. Waits until those that have a
        Ready condition are ready, unless `ready` is False."""
        found = [manifest for item in what for manifest in self._manifests(item)]
        self.run(self._apply(found), 60)
        keys = [self._key(manifest.obj) for manifest in found]
        if ready:
            self.wait_ready(*keys, within=within)
        return [copy(self.daemon.store.get(k.group_kind, k.namespace, k.name)) for k in keys]

    def _manifests(self, item: Obj | str | Path) -> Sequence[Manifest]:
        if isinstance(item, Path):
            return manifests.load([str(item)], self.folder)
        if isinstance(item, str):
            return manifests.parse(item, "<test>")
        return [Manifest(_as_written(item), "<test>", 1)]

    async def _apply(self, found: Sequence[Manifest]) -> None:
        target = StoreTarget(self.daemon.store)
        outcome = await apply.apply(found, target, namespace=self.namespace)
        if outcome.problems:
            raise AssertionError("\n".join(str(problem) for problem in outcome.problems))

    def _key(self, obj: Obj) -> Key:
        group = split_api_version(obj["apiVersion"])[0]
        kind = self.daemon.store.registry.stored(GroupKind(group, obj["kind"]))
        namespace = obj["metadata"].get("namespace") or self.namespace
        return Key(
            group, obj["kind"], namespace if kind is None or kind.namespaced else "",
            obj["metadata"]["name"],
        )  # fmt: skip

    def get(self, kind: str, name: str, namespace: str = "") -> Obj:
        """An object by a word that kubectl would take for its kind ("ksvc", "trigger"). It may be
        changed, and applied again."""
        found = self.daemon.store.registry.by_name(kind)
        if not found:
            kinds = self.daemon.store.registry
            words = [word for one in kinds for word in (one.singular_name, *one.short_names)]
            raise AssertionError(f"no kind is called {kind!r}; {did_you_mean(kind, words)}")
        place = (namespace or self.namespace) if found[0].namespaced else ""
        return copy(self.daemon.store.get(found[0].group_kind, place, name))

    def delete(self, kind: str, name: str, namespace: str = "") -> None:
        """Delete an object; what it owns goes with it."""
        key = key_of(self.get(kind, name, namespace))

        async def delete() -> None:
            self.daemon.store.delete(key.group_kind, key.namespace, key.name)

        self.run(delete())

    def wait_ready(self, *keys: Key, within: float | str = "60s") -> None:
        """Wait, in real time, until objects are Ready; fails with the reason when they do not."""
        limit = seconds(within)
        self.run(self._wait_ready(keys, limit), limit + 5)

    async def _wait_ready(self, keys: Sequence[Key], limit: float) -> None:
        if not await self._until(lambda: all(self._is_fine(key) for key in keys), limit):
            waiting = [self._why(key) for key in keys if not self._is_fine(key)]
            raise AssertionError(f"not ready within {limit:g} s: {'; '.join(waiting)}")

    async def _until(self, holds: Callable[[], bool], limit: float) -> bool:
        """Whether something comes to hold in the store within `limit` seconds of real time."""
        changed = asyncio.Event()
        stop = self.daemon.store.subscribe(lambda _event: changed.set())
        try:
            async with asyncio.timeout(limit):
                while not holds():
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            return holds()
        finally:
            stop()
        return True

    def _is_fine(self, key: Key) -> bool:
        obj = self.daemon.store.find_key(key)
        if obj is None:
            return False
        kind = self.daemon.store.registry.stored(key.group_kind)
        return is_ready(obj) or not (kind and kind.is_custom)

    def _why(self, key: Key) -> str:
        condition = find_condition(self.daemon.store.find_key(key)) or {}
        words = (condition.get("reason"), condition.get("message"))
        return f"{key}: " + (": ".join(word for word in words if word) or "no Ready condition yet")


#: What the store writes into metadata. Said by a test that applies an object which it got, it would
#: make a conflict of any status that was written meanwhile.
_STORED = ("resourceVersion", "uid", "generation", "creationTimestamp", "managedFields")


def _as_written(obj: Obj) -> Obj:
    """An object as its author would write it, though it may come from the store."""
    written = copy(obj)
    written.pop("status", None)
    for name in _STORED:
        written.get("metadata", {}).pop(name, None)
    return written


def _settings(folder: Path, host: Host, namespace: str) -> Settings:
    """The folder's own settings, in this namespace, on the host's daemon."""
    path = folder / config.FILE_NAME
    settings = config.load(path) if path.exists() else config.parse("", root=folder)
    project = settings.project.model_copy(
        update={"namespace": namespace, "state_dir": host.settings.project.state_dir}
    )
    return settings.model_copy(update={"project": project})
