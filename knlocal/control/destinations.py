"""Destinations: where events go, by reference, by URI, or by URI relative to a reference.

Rules: knative.dev/pkg/resolver (AddressableResolver) and behaviours E5–E7. A reference resolves to
`status.address.url` of the object, a core Service to its cluster-local name. Whoever resolves is
told when the referenced object changes, so that addresses made or moved later are picked up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from knlocal.resources.base import GroupKind, Key, Obj, key_of, split_api_version
from knlocal.store.store import Store
from knlocal.store.watch import WatchEvent

CORE_SERVICE = GroupKind("", "Service")

Notify = Callable[[Key], None]
"""Called with the dependent's key when something it refers to has changed."""


class Unresolved(Exception):
    """A destination leads nowhere (yet). `missing` tells that the object itself is not there."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Address:
    """What a destination resolves to."""

    url: str
    ca_certs: str = ""
    audience: str = ""


def cluster_local(name: str, namespace: str, scheme: str = "http", port: int = 80) -> str:
    """The URL of a Service inside the cluster; `port` is where the gateway listens for it."""
    where = "" if port == 80 else f":{port}"
    return f"{scheme}://{name}.{namespace}.svc.cluster.local{where}"


class Destinations:
    """Resolves destinations and remembers who depends on which object.

    `port` is where containers reach core Services' names (the gateway's, not always 80).
    `forget(dependent)` ends that; resolving anew replaces what the dependent referred to before
    only by `begin(dependent)`.
    """

    def __init__(self, store: Store, port: int = 80) -> None:
        self._store = store
        self._port = port
        self._dependents: dict[Key, dict[Key, Notify]] = defaultdict(dict)
        self._referred: dict[Key, set[Key]] = defaultdict(set)
        self._unsubscribe = store.subscribe(self._changed)

    def close(self) -> None:
        self._unsubscribe()

    def begin(self, dependent: Key) -> None:
        """Forget what `dependent` referred to: called at the start of its reconcile."""
        self.forget(dependent)

    def forget(self, dependent: Key) -> None:
        for referred in self._referred.pop(dependent, ()):
            self._dependents[referred].pop(dependent, None)
            if not self._dependents[referred]:
                del self._dependents[referred]

    def track(self, referred: Key, dependent: Key, notify: Notify) -> None:
        """Have `notify(dependent)` called whenever `referred` changes."""
        self._dependents[referred][dependent] = notify
        self._referred[dependent].add(referred)

    def resolve(
        self,
        destination: Mapping[str, Any],
        namespace: str,
        *,
        dependent: Key | None = None,
        notify: Notify | None = None,
    ) -> Address:
        """The address of a destination seen from `namespace`.

        Raises Unresolved with Knative's words when the object is missing, has no address, or the
        URI is not absolute. With `dependent` and `notify`, later changes are announced.
        """
        uri = str(destination.get("uri") or "")
        ref = destination.get("ref")
        if ref:
            address = self._resolve_ref(ref, namespace, dependent, notify)
            if uri:
                if urlsplit(uri).scheme:
                    raise Unresolved(f"absolute URI is not allowed when Ref is present: {uri}")
                address = Address(
                    urljoin(_as_base(address.url), uri), address.ca_certs, address.audience
                )
        elif uri:
            parts = urlsplit(uri)
            if not parts.scheme or not parts.netloc:
                raise Unresolved(f"URI is not absolute (both scheme and host should be set): {uri}")
            address = Address(uri)
        else:
            raise Unresolved("destination missing Ref and URI, expected at least one")
        return Address(
            address.url,
            str(destination.get("CACerts") or address.ca_certs),
            str(destination.get("audience") or address.audience),
        )

    def _resolve_ref(
        self,
        ref: Mapping[str, Any],
        namespace: str,
        dependent: Key | None,
        notify: Notify | None,
    ) -> Address:
        group = ref.get("group") or split_api_version(str(ref.get("apiVersion") or ""))[0]
        kind, name = str(ref.get("kind") or ""), str(ref.get("name") or "")
        place = str(ref.get("namespace") or namespace)
        key = Key(group, kind, place, name)
        if dependent is not None and notify is not None:
            self.track(key, dependent, notify)
        known = self._store.registry.stored(key.group_kind)
        if known is None:
            raise Unresolved(
                f"failed to get lister for {ref.get('apiVersion') or group}, Kind={kind}: "
                f'no matches for kind "{kind}"'
            )
        obj = self._store.find_key(key)
        if obj is None:
            raise Unresolved(
                f'failed to get object {place}/{name}: {known.resource} "{name}" not found',
                missing=True,
            )
        if key.group_kind == CORE_SERVICE:
            return Address(cluster_local(name, place, port=self._port))
        return _address_of(obj, str(ref.get("address") or ""))

    def _changed(self, event: WatchEvent) -> None:
        before, after = (event.old or {}).get("status"), event.obj.get("status")
        if event.type == "MODIFIED" and before == after:
            return
        for dependent, notify in list(self._dependents.get(key_of(event.obj), {}).items()):
            notify(dependent)


def _address_of(obj: Obj, named: str) -> Address:
    status = obj.get("status") or {}
    address = status.get("address") or {}
    if named:
        addresses = [a for a in status.get("addresses") or [] if a.get("name") == named]
        if not addresses:
            raise Unresolved(f"no address named {named!r} in {_describe(obj)}")
        address = addresses[0]
    if not address:
        raise Unresolved(f"address not set for {_describe(obj)}")
    if not address.get("url"):
        raise Unresolved(f"URL missing in address of {_describe(obj)}")
    return Address(
        address["url"], address.get("CACerts") or "", address.get("audience") or ""
    )  # fmt: skip


def _describe(obj: Obj) -> str:
    metadata = obj["metadata"]
    return (
        f"Kind = {obj.get('kind')} Namespace = {metadata.get('namespace', '')} "
        f"Name = {metadata['name']} APIVersion = {obj.get('apiVersion')}"
    )


def _as_base(url: str) -> str:
    """A base for relative URIs: a bare host means its root."""
    return url if urlsplit(url).path else url + "/"
