"""ApiServerSource: an event for each change of watched objects (eventing pkg/adapter/apiserver)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from knlocal.control import rbac
from knlocal.control.conditions import Conditions
from knlocal.control.controller import Requeue, Watching
from knlocal.control.destinations import Destinations
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
    owner_reference,
    spec_of,
    split_api_version,
    status_of,
)
from knlocal.resources.kinds import Kind
from knlocal.resources.names import child_name
from knlocal.sources.base import SourceController
from knlocal.sources.emit import Emitter, overrides
from knlocal.store.store import NAMESPACE, Store
from knlocal.store.watch import WatchEvent

DEPLOYMENT = GroupKind("apps", "Deployment")
SKIP_PERMISSIONS = "features.knative.dev/apiserversource-skip-permissions-check"
#: The API server as programs in the cluster know it.
API_SERVER = "https://kubernetes.default.svc"
_VERBS = ("get", "list", "watch")
_CHANGES = {"ADDED": "add", "MODIFIED": "update", "DELETED": "delete"}


@dataclass(slots=True)
class _Running:
    """One source at work: what it wants, and the changes it has yet to send, in order."""

    spec: Mapping[str, Any]
    namespaces: Sequence[str]
    sink: str
    selects: Callable[[Obj], bool]
    changes: asyncio.Queue[tuple[str, Obj]] = field(default_factory=asyncio.Queue)
    task: asyncio.Task[None] | None = None


class ApiServerSourceController(SourceController):
    """Listens to the store, so nothing that exists when a source starts is sent (E62)."""

    kind = GroupKind("sources.knative.dev", "ApiServerSource")
    conditions = ("SinkProvided", "Deployed", "SufficientPermissions", "OIDCIdentityCreated")

    def __init__(self, store: Store, destinations: Destinations, emitter: Emitter) -> None:
        super().__init__(store, destinations, emitter)
        self._running: dict[Key, _Running] = {}
        self._unsubscribe: Callable[[], object] = lambda: None

    def watches(self) -> Sequence[Watching]:
        roles = (rbac.ROLE, rbac.CLUSTER_ROLE, rbac.ROLE_BINDING, rbac.CLUSTER_ROLE_BINDING)
        return [Watching(kind, self.all_keys) for kind in (*roles, NAMESPACE)]

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
        missing = "" if _skips_check(obj) else self._missing_permissions(obj, namespaces)
        if missing:
            conditions.false("SufficientPermissions", "InsufficientPermissions", missing)
            await self.halt(key)
            return None
        conditions.true("SufficientPermissions")
        spec = spec_of(obj)
        known = self._running.get(key)
        if known is None or (known.spec, known.namespaces, known.sink) != (spec, namespaces, sink):
            await self.halt(key)
            running = _Running(spec, namespaces, sink, _selection(spec, namespaces))
            running.task = asyncio.create_task(
                self._send_all(key, running), name=f"apiserversource {key.namespace}/{key.name}"
            )
            self._running[key] = running
        self._show_deployment(obj)
        conditions.true("Deployed")
        return None

    async def halt(self, key: Key) -> None:
        running = self._running.pop(key, None)
        if running is not None and running.task is not None:
            running.task.cancel()
            await asyncio.wait([running.task], timeout=5)

    # -- events -------------------------------------------------------------------------------

    def _changed(self, event: WatchEvent) -> None:
        for running in self._running.values():
            before = event.old is not None and running.selects(event.old)
            after = running.selects(event.obj)
            if event.type == "DELETED":
                change = "delete" if before or after else ""
            elif before and after:
                change = "update"
            elif after:
                change = "add"
            else:
                change = "delete" if before else ""
            if change:
                running.changes.put_nowait((change, event.obj))

    async def _send_all(self, key: Key, running: _Running) -> None:
        while True:
            change, obj = await running.changes.get()
            event = self._event(running, change, obj)
            await self.emitter.send(event, running.sink, key.namespace)

    def _event(self, running: _Running, change: str, obj: Obj) -> Any:
        metadata = obj["metadata"]
        api_version, kind = obj["apiVersion"], obj["kind"]
        namespace, name = metadata.get("namespace") or "", metadata["name"]
        reference = {
            "kind": kind, "namespace": namespace, "name": name, "apiVersion": api_version,
        }  # fmt: skip
        whole = running.spec.get("mode") == "Resource"
        known = self.store.registry.stored(group_kind_of(obj))
        plural = known.plural if known else f"{kind.lower()}s"
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
                "namespace": namespace or None,
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
            for resource in spec_of(obj).get("resources") or ():
                kind = self._kind(resource)
                plural = kind.plural if kind else f"{resource['kind'].lower()}s"
                group = split_api_version(resource["apiVersion"])[0]
                missing = [
                    verb
                    for verb in _VERBS
                    if not rbac.allowed(
                        self.store, user, (), rbac.Action(verb, group, plural, "", namespace)
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

    def _show_deployment(self, obj: Obj) -> None:
        """The adapter as a Deployment, which in knlocal lives inside the daemon (E69)."""
        metadata = obj["metadata"]
        name = child_name(f"apiserversource-{metadata['name']}-", metadata["uid"])
        if self.store.find(DEPLOYMENT, metadata["namespace"], name) is not None:
            return
        marks = {
            "eventing.knative.dev/source": "apiserver-source-controller",
            "eventing.knative.dev/sourceName": metadata["name"],
        }
        config = {
            "namespaces": status_of(obj).get("namespaces") or self._namespaces(obj),
            "resources": spec_of(obj).get("resources"),
            "mode": spec_of(obj).get("mode", "Reference"),
        }
        self.store.create(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {
                    "name": name,
                    "namespace": metadata["namespace"],
                    "labels": marks,
                    "annotations": {"knlocal.dev/simulated": "true"},
                    "ownerReferences": [owner_reference(obj)],
                },
                "spec": {
                    "replicas": 1,
                    "selector": {"matchLabels": marks},
                    "template": {
                        "metadata": {"labels": marks},
                        "spec": {
                            "serviceAccountName": spec_of(obj).get("serviceAccountName")
                            or "default",
                            "containers": [
                                {
                                    "name": "receive-adapter",
                                    "image": "knlocal.internal/apiserver-receive-adapter",
                                    "env": [
                                        {
                                            "name": "K_SOURCE_CONFIG",
                                            "value": orjson.dumps(config).decode(),
                                        }
                                    ],
                                }
                            ],
                        },
                    },
                },
            }
        )


def _mode(obj: Obj) -> str:
    return "resource" if spec_of(obj).get("mode") == "Resource" else "ref"


def _skips_check(obj: Obj) -> bool:
    return annotations_of(obj).get(SKIP_PERMISSIONS) == "true"


def _selection(spec: Mapping[str, Any], namespaces: Sequence[str]) -> Callable[[Obj], bool]:
    """Which objects a source watches: by kind, label selector, namespace and owner."""
    watched = [
        (
            GroupKind(split_api_version(resource["apiVersion"])[0], resource["kind"]),
            labels.from_label_selector(resource.get("selector") or {}),
        )
        for resource in spec.get("resources") or ()
    ]
    everywhere = "" in namespaces
    owner = spec.get("owner")

    def selects(obj: Obj) -> bool:
        namespace = obj["metadata"].get("namespace") or ""
        if not everywhere and namespace and namespace not in namespaces:
            return False
        found = group_kind_of(obj)
        if not any(kind == found and wanted.matches(labels_of(obj)) for kind, wanted in watched):
            return False
        if not owner:
            return True
        controller = controller_of(obj) or {}
        return all(controller.get(k) == owner[k] for k in ("apiVersion", "kind") if owner.get(k))

    return selects
