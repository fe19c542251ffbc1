"""All revisions on the request path, kept in line with Revision and Pod objects as they change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator

from knlocal.clock import Clock, Timer
from knlocal.control.conditions import find_condition
from knlocal.gateway import Endpoint, Pool, Timeouts
from knlocal.gateway.upstream import Protocol
from knlocal.resources.base import Key, Obj, is_deleting, key_of, labels_of, spec_of, uid_of
from knlocal.serving.activator.balancing import Pod
from knlocal.serving.activator.protocol import detect
from knlocal.serving.activator.revision import RevisionBackend, RevisionSettings, Served
from knlocal.serving.activator.throttler import drain
from knlocal.serving.kinds import (
    CONFIGURATION_LABEL,
    POD,
    REVISION,
    REVISION_LABEL,
    SERVICE_LABEL,
)
from knlocal.serving.template import serving_container, user_port, user_protocol
from knlocal.store.store import Store
from knlocal.store.watch import WatchEvent

log = logging.getLogger(__name__)

#: Seconds between two questions for a ready pod's address.
_ADDRESS_AGAIN = 0.1

AddressOf = Callable[[Obj, int], tuple[str, int]]
"""Where the daemon reaches a port of a Pod object; raises LookupError while that is not known."""


class Activator:
    """Revision backends by name. Follows the store at once, without a queue in between: what it
    knows about pods is never older than the objects."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        pool: Pool,
        address_of: AddressOf,
        poke: Callable[[Key], object] = lambda _key: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._pool = pool
        self._address_of = address_of
        self.poke = poke
        """Called when a request finds a revision without pods."""
        self.found: Callable[[Key], object] = lambda _key: None
        """Called with a Revision's key when a pod of it got its address late."""
        self.told: Callable[[Served], object] | None = None
        self._backends: dict[tuple[str, str], RevisionBackend] = {}
        self._orphans: dict[str, Pod] = {}
        """Pods by uid whose Revision is deleted: they live on until their requests have ended."""
        self._unsubscribe: Callable[[], object] = lambda: None
        self._unaddressed: set[Key] = set()
        self._retry: Timer | None = None
        self.autodetect: Callable[[], bool] = lambda: False
        """Whether pods without a named port are asked if they speak HTTP/2."""
        self._protocols: dict[str, Protocol] = {}
        self._detecting: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        self._unsubscribe = self._store.subscribe(self._changed)
        for revision in self._store.list(REVISION):
            self._revision_changed(revision)
        for pod in self._store.list(POD):
            self._pod_changed(pod)

    def stop(self) -> None:
        self._unsubscribe()
        if self._retry is not None:
            self._retry.cancel()
        for task in self._detecting.values():
            task.cancel()

    def revision(self, namespace: str, name: str) -> RevisionBackend:
        """The backend of a revision; made when it was not known, so that routes may come first."""
        backend = self._backends.get((namespace, name))
        if backend is None:
            backend = self._backends[namespace, name] = RevisionBackend(
                RevisionSettings(namespace, name), self._clock, self._pool, self._poked, self._tell
            )
        return backend

    def find(self, namespace: str, name: str) -> RevisionBackend | None:
        return self._backends.get((namespace, name))

    def __iter__(self) -> Iterator[RevisionBackend]:
        return iter(list(self._backends.values()))

    async def drain(self, pod: Obj) -> None:
        """Return when no request is in flight to a pod that is going away; it gets no new ones.

        Takes as long as its requests take: the caller holds the grace period.
        """
        known = self._known(pod)
        if known is not None:
            self._withdraw(pod)
            await drain(known)

    def in_flight(self, pod: Obj) -> int:
        """Requests that a pod is working on."""
        known = self._known(pod)
        return known.in_flight if known else 0

    # -- following the store ------------------------------------------------------------------

    def _changed(self, event: WatchEvent) -> None:
        obj = event.obj
        kind = obj["kind"]
        if kind == "Pod":
            if event.type == "DELETED":
                self._pod_deleted(obj)
            else:
                self._pod_changed(obj)
        elif kind == "Revision" and key_of(obj).group_kind == REVISION:
            if event.type == "DELETED":
                self._revision_deleted(obj)
            else:
                self._revision_changed(obj)

    def _revision_changed(self, revision: Obj) -> None:
        settings = settings_of(revision)
        backend = self.revision(settings.namespace, settings.name)
        backend.gone = False
        if backend.settings != settings:
            backend.settings = settings
            for pod in backend.known.values():
                pod.capacity = settings.container_concurrency

    def _revision_deleted(self, revision: Obj) -> None:
        key = key_of(revision)
        backend = self._backends.pop((key.namespace, key.name), None)
        if backend is not None:
            backend.gone = True
            backend.throttler.fail(f'revision "{key.name}" is deleted')
            self._orphans.update(backend.known)  # their requests may end all the same

    def _pod_changed(self, obj: Obj) -> None:
        name = labels_of(obj).get(REVISION_LABEL)
        if not name or uid_of(obj) in self._orphans:
            return
        if not pod_is_ready(obj):
            self._withdraw(obj)
            return
        backend = self.revision(obj["metadata"]["namespace"], name)
        settings = backend.settings
        try:
            host, port = self._address_of(obj, settings.user_port)
        except LookupError as unknown:
            log.debug("pod %s has no address yet: %s", obj["metadata"]["name"], unknown)
            self._ask_again(key_of(obj))
            return
        known = self._protocols.get(uid_of(obj))
        if settings.may_be_h2c and known is None and self.autodetect():
            self._detect(obj, host, port)
        else:
            self._use(backend, obj, Endpoint(host, port, known or settings.protocol))

    def _use(self, backend: RevisionBackend, obj: Obj, endpoint: Endpoint) -> None:
        """Send requests to a ready pod."""
        settings = backend.settings
        uid = uid_of(obj)
        pod = backend.known.get(uid)
        if pod is None:
            pod = backend.known[uid] = Pod(
                obj["metadata"]["name"], uid, endpoint, settings.container_concurrency
            )
        elif pod in backend.throttler.pods and pod.endpoint == endpoint:
            return
        pod.endpoint = endpoint
        pod.ip = (obj.get("status") or {}).get("podIP") or ""
        pod.draining = False
        self._update(backend)

    def _detect(self, obj: Obj, host: str, port: int) -> None:
        """Find out what a new pod speaks before it gets its first request."""
        uid, key = uid_of(obj), key_of(obj)
        if uid in self._detecting:
            return

        async def work() -> None:
            try:
                self._protocols[uid] = await detect(host, port, self._clock)
            finally:
                del self._detecting[uid]
            self._unaddressed.add(key)
            self._ask_for_addresses()

        self._detecting[uid] = asyncio.create_task(work(), name=f"detect protocol of {key}")

    def _ask_again(self, pod: Key) -> None:
        """After a restart pods are ready before the kubelet has found them again, and nothing
        about the object tells when it has."""
        self._unaddressed.add(pod)
        if self._retry is None:
            self._retry = self._clock.call_later(_ADDRESS_AGAIN, self._ask_for_addresses)

    def _ask_for_addresses(self) -> None:
        self._retry = None
        waiting, self._unaddressed = self._unaddressed, set()
        for key in waiting:
            pod = self._store.find_key(key)
            if pod is not None:
                self._pod_changed(pod)
                if key not in self._unaddressed:
                    self.found(Key(*REVISION, key.namespace, labels_of(pod)[REVISION_LABEL]))

    def _withdraw(self, obj: Obj) -> None:
        """The pod gets no new requests; those it has may end."""
        backend = self._backend_of(obj)
        pod = backend.known.get(uid_of(obj)) if backend else None
        if backend is not None and pod is not None and not pod.draining:
            pod.draining = True
            self._update(backend)

    def _pod_deleted(self, obj: Obj) -> None:
        self._protocols.pop(uid_of(obj), None)
        orphan = self._orphans.pop(uid_of(obj), None)
        if orphan is not None:
            self._pool.close_endpoint(orphan.endpoint.host, orphan.endpoint.port)
        backend = self._backend_of(obj)
        pod = backend.known.pop(uid_of(obj), None) if backend else None
        if backend is not None and pod is not None:
            pod.draining = True
            self._update(backend)
            self._pool.close_endpoint(pod.endpoint.host, pod.endpoint.port)

    def _update(self, backend: RevisionBackend) -> None:
        ready = [pod for pod in backend.known.values() if not pod.draining]
        backend.throttler.update(sorted(ready, key=lambda pod: pod.name))

    def _backend_of(self, pod: Obj) -> RevisionBackend | None:
        name = labels_of(pod).get(REVISION_LABEL)
        return self.find(pod["metadata"].get("namespace") or "", name) if name else None

    def _known(self, pod: Obj) -> Pod | None:
        backend = self._backend_of(pod)
        known = backend.known.get(uid_of(pod)) if backend else None
        return known or self._orphans.get(uid_of(pod))

    def _poked(self, backend: RevisionBackend) -> None:
        settings = backend.settings
        self.poke(Key(*REVISION, settings.namespace, settings.name))

    def _tell(self, served: Served) -> None:
        if self.told is not None:
            self.told(served)


def settings_of(revision: Obj) -> RevisionSettings:
    """What the request path needs of a Revision."""
    metadata, spec, labels = revision["metadata"], spec_of(revision), labels_of(revision)
    container = serving_container(spec)
    return RevisionSettings(
        namespace=metadata["namespace"],
        name=metadata["name"],
        service=labels.get(SERVICE_LABEL, ""),
        configuration=labels.get(CONFIGURATION_LABEL, ""),
        container_concurrency=int(spec.get("containerConcurrency") or 0),
        timeouts=Timeouts(
            total=spec.get("timeoutSeconds") or None,
            response_start=spec.get("responseStartTimeoutSeconds") or None,
            idle=spec.get("idleTimeoutSeconds") or None,
        ),
        protocol=user_protocol(container),
        may_be_h2c=not (container.get("ports") or [{}])[0].get("name"),
        user_port=user_port(container),
    )


def pod_is_ready(pod: Obj) -> bool:
    """Ready, and not on its way out."""
    condition = find_condition(pod)
    return condition is not None and condition["status"] == "True" and not is_deleting(pod)
