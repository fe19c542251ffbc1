"""ApiServerSource: an event for each change of watched objects (eventing pkg/adapter/apiserver)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from knlocal.control import rbac
from knlocal.control.conditions import Conditions
from knlocal.control.controller import Requeue, Watching
from knlocal.control.destinations import Destinations
from knlocal.events import Event
from knlocal.resources import labels
from knlocal.resources.base import (
    GroupKind,
    Key,
    Obj,
    annotations_of,
    controller_of,
    group_kind_of,
    key_of,
    labels_of,
    spec_of,
    split_api_version,
)
from knlocal.resources.core.cells import selector_text
from knlocal.resources.kinds import Kind
from knlocal.resources.names import child_name
from knlocal.sources.base import SourceController
from knlocal.sources.emit import Emitter, overrides
from knlocal.sources.shown import DEPLOYMENT, hide, show_deployment
from knlocal.store.store import NAMESPACE, Store
from knlocal.store.watch import WatchEvent

log = logging.getLogger(__name__)

CONFIG_MAP = GroupKind("", "ConfigMap")
SKIP_PERMISSIONS = "features.knative.dev/apiserversource-skip-permissions-check"
#: The API server as programs in the cluster know it.
API_SERVER = "https://kubernetes.default.svc"
#: Changes that may wait for a sink; beyond it new ones are lost, with a word in the log.
MOST_WAITING = 10_000
_VERBS = ("get", "list", "watch")
_CHANGES = {"ADDED": "add", "MODIFIED": "update", "DELETED": "delete"}


class EventFilter(Protocol):
    """A compiled list of subscription filters."""

    def matches(self, attributes: Mapping[str, Any]) -> bool: ...


MakeFilter = Callable[[Sequence[Mapping[str, Any]]], EventFilter]
"""Compiles `spec.filters` (the dialects are eventing's: the daemon brings the two together)."""


@dataclass(slots=True)
class _Running:
    """One source at work: what it wants, and the events it has yet to send, in order."""

    spec: Mapping[str, Any]
    namespaces: Sequence[str]
    sink: str
    watched: Sequence[_Watched]
    filter: EventFilter | None = None
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    task: asyncio.Task[None] | None = None

    def watches(self, obj: Obj) -> _Watched | None:
        """The entry of `spec.resources` that an object falls under."""
        namespace = obj["metadata"].get("namespace") or ""
        if namespace and "" not in self.namespaces and namespace not in self.namespaces:
            return None
        owner = self.spec.get("owner")
        if owner:
            controller = controller_of(obj) or {}
            if any(controller.get(name) != owner.get(name) for name in ("apiVersion", "kind")):
                return None
        return next((one for one in self.watched if one.selects(obj)), None)


@dataclass(frozen=True, slots=True)
class _Watched:
    """An entry of `spec.resources`. `kind` is None for a kind that is not known (yet)."""

    group_kind: GroupKind
    kind: Kind | None
    selector: labels.Selector

    def selects(self, obj: Obj) -> bool:
        return group_kind_of(obj) == self.group_kind and self.selector.matches(labels_of(obj))

    def shown(self, obj: Obj) -> Obj:
        """The object in the version that the source asked for."""
        convert = self.kind.from_storage if self.kind else None
        return convert(obj) if convert else obj


class ApiServerSourceController(SourceController):
    """Listens to the store, so nothing that exists when a source starts is sent (E62)."""

    kind = GroupKind("sources.knative.dev", "ApiServerSource")
    conditions = ("SinkProvided", "Deployed", "SufficientPermissions", "OIDCIdentityCreated")

    def __init__(
        self,
        store: Store,
        destinations: Destinations,
        emitter: Emitter,
        make_filter: MakeFilter | None = None,
    ) -> None:
        super().__init__(store, destinations, emitter)
        self._make_filter = make_filter
        self._running: dict[Key, _Running] = {}
        self._unsubscribe: Callable[[], object] = lambda: None

    def watches(self) -> Sequence[Watching]:
        roles = (rbac.ROLE, rbac.CLUSTER_ROLE, rbac.ROLE_BINDING, rbac.CLUSTER_ROLE_BINDING)
        everybodys = [Watching(kind, self.all_keys) for kind in (*roles, NAMESPACE)]
        return [*everybodys, Watching(CONFIG_MAP, self._flags_changed)]

    def _flags_changed(self, obj: Obj) -> list[Key]:
        return self.all_keys() if obj["metadata"]["name"] == "config-features" else []

    async def start(self) -> None:
        self._unsubscribe = self.store.subscribe(self._changed)

    async def stop(self) -> None:
        self._unsubscribe()
        for key in list(self._running):
            await self.halt(key)

    def event_types(self, obj: Obj) -> list[dict[str, str]]:
        mode = _mode(obj)
        types = [f"dev.knative.apiserver.{mode}.{change}" for change in _CHANGES.values()]
        return [{"type": type_, "source": API_SERVER} for type_ in sorted(types)]

    def extra_status(self, obj: Obj) -> Mapping[str, Any]:
        return {"namespaces": self._namespaces(obj)}

    async def run(self, obj: Obj, sink: str, conditions: Conditions) -> Requeue | None:
        key = key_of(obj)
        namespaces = self._namespaces(obj)
        missing = self._missing_permissions(obj, namespaces)
        if missing and not _skips_check(obj):
            conditions.false("SufficientPermissions", "InsufficientPermissions", missing)
            conditions.unknown("Deployed")
            await self.halt(key)
            hide(self.store, obj, _adapter_name(obj), DEPLOYMENT)
            return None
        conditions.true("SufficientPermissions")
        self._show_deployment(obj, namespaces, sink, missing)
        if missing:
            # Nobody asked beforehand, so the adapter is there and fails at its first look.
            conditions.false("Deployed", "MinimumReplicasUnavailable", missing)
            await self.halt(key)
            return None
        self._take_up(obj, namespaces, sink)
        conditions.true("Deployed")
        return None

    def _take_up(self, obj: Obj, namespaces: Sequence[str], sink: str) -> None:
        """Start, or go on in another way: what waits to be sent is kept."""
        key, spec = key_of(obj), spec_of(obj)
        watched = [self._watched(resource) for resource in spec.get("resources") or ()]
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = _Running(spec, namespaces, sink, watched)
            running.task = asyncio.create_task(
                self._send_all(key, running), name=f"apiserversource {key.namespace}/{key.name}"
            )
        running.spec, running.namespaces, running.sink = spec, namespaces, sink
        running.watched, running.filter = watched, self._filter(spec)

    async def halt(self, key: Key) -> None:
        running = self._running.pop(key, None)
        if running is not None and running.task is not None:
            running.task.cancel()
            await asyncio.wait([running.task], timeout=5)

    def _watched(self, resource: Mapping[str, Any]) -> _Watched:
        group = split_api_version(resource["apiVersion"])[0]
        selector = labels.from_label_selector(resource.get("selector") or {})
        return _Watched(GroupKind(group, resource["kind"]), self._kind(resource), selector)

    def _filter(self, spec: Mapping[str, Any]) -> EventFilter | None:
        """`spec.filters`, when the feature is on."""
        flags = self.store.configs.get("knative-eventing/config-features", {})
        on = flags.get("new-apiserversource-filters", "").lower() == "enabled"
        if not on or not spec.get("filters") or self._make_filter is None:
            return None
        return self._make_filter(spec["filters"])

    # -- events -------------------------------------------------------------------------------

    def _changed(self, change: WatchEvent) -> None:
        for key, running in self._running.items():
            before = running.watches(change.old) if change.old is not None else None
            after = running.watches(change.obj)
            watched = after or before
            if watched is None:
                continue
            if change.type == "DELETED" or after is None:
                what = "delete"
            else:
                what = "update" if before is not None else "add"
            event = self._event(running, what, watched.shown(change.obj), watched)
            if running.filter is not None and not running.filter.matches(event.attributes):
                continue
            if running.events.qsize() >= MOST_WAITING:
                log.warning("%s: the sink is too slow, event %s is lost", key, event.id)
                continue
            running.events.put_nowait(event)

    async def _send_all(self, key: Key, running: _Running) -> None:
        while True:
            event = await running.events.get()
            await self.emitter.send(event, running.sink, key)

    def _event(self, running: _Running, change: str, obj: Obj, watched: _Watched) -> Event:
        metadata = obj["metadata"]
        api_version, kind = obj["apiVersion"], obj["kind"]
        namespace, name = metadata.get("namespace") or "", metadata["name"]
        reference = {"kind": kind, "name": name, "apiVersion": api_version}
        if namespace:
            reference["namespace"] = namespace
        whole = running.spec.get("mode") == "Resource"
        plural = watched.kind.plural if watched.kind else f"{kind.lower()}s"
        return self.emitter.event(
            f"dev.knative.apiserver.{'resource' if whole else 'ref'}.{change}",
            API_SERVER,
            orjson.dumps(obj if whole else reference),
            "application/json",
            subject=f"/apis/{api_version}/namespaces/{namespace}/{plural}/{name}",
            extensions={
                "kind": kind,
                "apiversion": api_version,
                "name": name,
                "namespace": namespace,
            }
            | overrides(running.spec),
        )

    # -- what the source may see --------------------------------------------------------------

    def _namespaces(self, obj: Obj) -> list[str]:
        selector = spec_of(obj).get("namespaceSelector")
        own = obj["metadata"]["namespace"]
        if selector is None:
            return [own]
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            return [""]
        wanted = labels.from_label_selector(selector)
        return [
            space["metadata"]["name"]
            for space in self.store.list(NAMESPACE)
            if wanted.matches(labels_of(space))
        ]

    def _missing_permissions(self, obj: Obj, namespaces: Sequence[str]) -> str:
        account = spec_of(obj).get("serviceAccountName") or "default"
        user = rbac.service_account(obj["metadata"]["namespace"], account)
        complaints = []
        for namespace in namespaces:
            rules = [*rbac.rules_for(self.store, user, rbac.groups_of(user), namespace)]
            for resource in spec_of(obj).get("resources") or ():
                kind = self._kind(resource)
                plural = kind.plural if kind else f"{resource['kind'].lower()}s"
                group = split_api_version(resource["apiVersion"])[0]
                missing = [
                    verb
                    for verb in _VERBS
                    if not rbac.grants(
                        rules, rbac.Attributes(verb, group, plural, namespace=namespace)
                    )
                ]
                if missing:
                    complaints.append(
                        f'{", ".join(missing)} resource "{plural}" in API group "{group}" '
                        f'in Namespace "{namespace}"'
                    )
        return f"User {user} cannot {'; '.join(complaints)}" if complaints else ""

    def _kind(self, resource: Mapping[str, Any]) -> Kind | None:
        return self.store.registry.by_version(resource["apiVersion"], resource["kind"])

    # -- what clients see ---------------------------------------------------------------------

    def _show_deployment(
        self, obj: Obj, namespaces: Sequence[str], sink: str, missing: str
    ) -> None:
        """The adapter as a Deployment, which in knlocal lives inside the daemon (E69)."""
        metadata, spec = obj["metadata"], spec_of(obj)
        config = {
            "namespaces": namespaces,
            "allNamespaces": namespaces == [""],
            "resources": [self._config(resource) for resource in spec.get("resources") or ()],
            "mode": spec.get("mode", "Reference"),
            **({"failFast": True} if _skips_check(obj) else {}),
            **{name: spec[name] for name in ("owner", "filters") if spec.get(name)},
        }
        marks = {
            "eventing.knative.dev/source": "apiserver-source-controller",
            "eventing.knative.dev/sourceName": metadata["name"],
        }
        env = {
            "K_SINK": sink,
            "K_SOURCE_CONFIG": orjson.dumps(config).decode(),
            "NAMESPACE": metadata["namespace"],
            "NAME": metadata["name"],
        }
        show_deployment(
            self.store, obj, _adapter_name(obj), marks, "receive-adapter", env,
            spec.get("serviceAccountName") or "default", missing,
        )  # fmt: skip

    def _config(self, resource: Mapping[str, Any]) -> dict[str, Any]:
        """An entry of `spec.resources` as Knative's adapter gets it (pkg/adapter/apiserver)."""
        group, version = split_api_version(resource["apiVersion"])
        kind = self._kind(resource)
        plural = kind.plural if kind else f"{resource['kind'].lower()}s"
        watched: dict[str, Any] = {"gvr": {"Group": group, "Version": version, "Resource": plural}}
        if resource.get("selector"):
            watched["selector"] = selector_text(resource["selector"])
        return watched


def _adapter_name(obj: Obj) -> str:
    metadata = obj["metadata"]
    return child_name(f"apiserversource-{metadata['name']}-", metadata["uid"])


def _mode(obj: Obj) -> str:
    return "resource" if spec_of(obj).get("mode") == "Resource" else "ref"


def _skips_check(obj: Obj) -> bool:
    return annotations_of(obj).get(SKIP_PERMISSIONS) == "true"
