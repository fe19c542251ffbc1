"""Namespaces: what a new one holds, and how one goes with all that is in it."""

from __future__ import annotations

from collections.abc import Callable

from knlocal.control.controller import Controller, Requeue, Retry
from knlocal.resources.base import GroupKind, Key, is_deleting, key_of, meta
from knlocal.resources.status import NotFound
from knlocal.store.store import NAMESPACE, AdmissionRequest, WriteOptions
from knlocal.store.watch import WatchEvent

SERVICE_ACCOUNT = GroupKind("", "ServiceAccount")
CONFIG_MAP = GroupKind("", "ConfigMap")

#: Made before anything else (behaviour A82).
SYSTEM_NAMESPACES = (
    "default", "kube-system", "kube-public", "knative-serving", "knative-eventing",
    "kourier-system",
)  # fmt: skip


def admit_namespace(request: AdmissionRequest) -> None:
    """Admission hook: what the API server itself puts on a new Namespace."""
    if request.kind.group_kind != NAMESPACE:
        return
    obj = request.obj
    meta(obj).setdefault("labels", {})["kubernetes.io/metadata.name"] = meta(obj).get("name", "")
    if request.operation == "CREATE":
        obj["spec"] = {"finalizers": ["kubernetes"]}
        obj["status"] = {"phase": "Active"}


class NamespaceController(Controller):
    """Fills new namespaces (ServiceAccount `default`, ConfigMap `kube-root-ca.crt`) and empties
    terminating ones before it lets them go."""

    kind = NAMESPACE
    ca_certificate = ""
    _unsubscribe: Callable[[], object] = staticmethod(lambda: None)

    async def start(self) -> None:
        self._unsubscribe = self.store.subscribe(self._changed)

    async def stop(self) -> None:
        self._unsubscribe()

    def _changed(self, event: WatchEvent) -> None:
        """What goes may be the last thing that a terminating namespace waited for."""
        if event.type == "DELETED" and event.namespace:
            namespace = self.store.find(NAMESPACE, "", event.namespace)
            if namespace is not None and is_deleting(namespace):
                self.enqueue(key_of(namespace))

    async def reconcile(self, key: Key) -> Requeue | None:
        namespace = self.store.find_key(key)
        if namespace is None:
            return None
        if is_deleting(namespace):
            self._empty(key)
        else:
            self._fill(key.name)
        return None

    def _fill(self, namespace: str) -> None:
        def meta_of(name: str) -> dict[str, str]:
            return {"name": name, "namespace": namespace}

        if self.store.find(SERVICE_ACCOUNT, namespace, "default") is None:
            self.store.create(
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta_of("default")}
            )
        if self.store.find(CONFIG_MAP, namespace, "kube-root-ca.crt") is None:
            self.store.create(
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": meta_of("kube-root-ca.crt"),
                    "data": {"ca.crt": self.ca_certificate},
                }
            )

    def _empty(self, key: Key) -> None:
        left = [
            obj
            for group_kind in list(self.store.kinds_in_use())
            for obj in self.store.list(group_kind, key.name)
        ]
        for obj in left:
            if not is_deleting(obj):
                child = key_of(obj)
                try:
                    self.store.delete(
                        child.group_kind, child.namespace, child.name, propagation="Background"
                    )
                except NotFound:
                    continue  # went with its owner
        if any(self.store.find_key(key_of(obj)) is not None for obj in left):
            raise Retry(f"namespace {key.name} still holds objects", after=1)
        self.store.modify(
            NAMESPACE, "", key.name, lambda o: o.__setitem__("spec", {}), WriteOptions()
        )
