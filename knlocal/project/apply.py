"""Brings a store of objects in line with what a project declares: plan, then act, then prune.

The target is anything that can get, create, replace and delete objects: the daemon's own store, or
the Kubernetes API as the command line sees it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from knlocal.project.errors import Problem, ProjectError
from knlocal.project.manifests import Manifest
from knlocal.project.merge import three_way, with_last_applied
from knlocal.resources.base import Key, Obj, copy, key_of
from knlocal.resources.kinds import KindRegistry
from knlocal.resources.status import NotFound, StatusError
from knlocal.store.store import Store, WriteOptions

#: Where a project's daemon remembers which objects the project declared last time.
INVENTORY_NAMESPACE = "knlocal-system"
INVENTORY = Key("", "ConfigMap", INVENTORY_NAMESPACE, "project-inventory")

What = Literal["created", "configured", "unchanged", "deleted"]

_SYSTEM = {"knative-serving", "knative-eventing"}
#: Kinds that others live in or refer to by name go first (and are deleted last).
_FIRST = ("Namespace", "CustomResourceDefinition", "ServiceAccount", "Secret", "ConfigMap")


class Target(Protocol):
    """Where objects are applied to. Refusals are StatusErrors."""

    def namespaced(self, obj: Obj) -> bool: ...
    async def get(self, obj: Obj) -> Obj | None: ...
    async def create(self, obj: Obj) -> Obj: ...
    async def replace(self, obj: Obj) -> Obj: ...
    async def delete(self, obj: Obj) -> None: ...


@dataclass(frozen=True, slots=True)
class Change:
    """One object and what was done about it."""

    what: What
    obj: Obj


@dataclass(slots=True)
class Outcome:
    """What an apply did. `problems` are refusals: the other objects were applied all the same."""

    changes: list[Change] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def changed(self) -> list[Change]:
        return [change for change in self.changes if change.what != "unchanged"]


async def apply(
    manifests: Sequence[Manifest], target: Target, *, namespace: str = "default"
) -> Outcome:
    """Create or update each object. `namespace` is for namespaced objects that name none."""
    outcome = Outcome()
    for manifest in sorted(manifests, key=_order):
        obj = copy(manifest.obj)
        try:
            if target.namespaced(obj):
                obj["metadata"]["namespace"] = obj["metadata"].get("namespace") or namespace
            else:
                obj["metadata"].pop("namespace", None)
            outcome.changes.append(await apply_one(obj, target))
        except StatusError as error:
            outcome.problems.append(manifest.problem(error.message))
    return outcome


async def apply_one(obj: Obj, target: Target) -> Change:
    """Create or update one object, as `kubectl apply` would."""
    if not obj["metadata"].get("name"):
        return Change("created", await target.create(with_last_applied(obj)))
    live = await target.get(obj)
    if live is None:
        return Change("created", await target.create(with_last_applied(obj)))
    merged = three_way(live, obj)
    # What is applied comes as written; the stored form may have another version.
    merged["apiVersion"] = live["apiVersion"]
    if merged == live:
        return Change("unchanged", live)
    stored = await target.replace(merged)
    same = stored["metadata"].get("resourceVersion") == live["metadata"].get("resourceVersion")
    return Change("unchanged" if same else "configured", stored)


def _order(manifest: Manifest) -> int:
    kind = manifest.obj["kind"]
    return _FIRST.index(kind) if kind in _FIRST else len(_FIRST)


# -- the project's own store ----------------------------------------------------------------------


class StoreTarget:
    """The daemon's store, written to in the name of the person at the keyboard."""

    def __init__(self, store: Store, user: str = "kubernetes-admin") -> None:
        self._store = store
        self._user = user
        self.warnings: list[str] = []

    def namespaced(self, obj: Obj) -> bool:
        kind = self._store.registry.by_version(obj["apiVersion"], obj["kind"])
        return kind is None or kind.namespaced

    async def get(self, obj: Obj) -> Obj | None:
        return self._store.find_key(key_of(obj))

    async def create(self, obj: Obj) -> Obj:
        return self._store.create(obj, self._options())

    async def replace(self, obj: Obj) -> Obj:
        return self._store.update(obj, self._options())

    async def delete(self, obj: Obj) -> None:
        key = key_of(obj)
        self._store.delete(key.group_kind, key.namespace, key.name, propagation="Background")

    def _options(self) -> WriteOptions:
        # Unknown fields are refused: in a file they are misspelt ones.
        return WriteOptions(user=self._user, field_validation="Strict", warnings=self.warnings)


async def apply_project(
    manifests: Sequence[Manifest],
    store: Store,
    *,
    namespace: str,
    user: str = "kubernetes-admin",
    keep: Collection[Key] = (),
    inventory: Key = INVENTORY,
) -> Outcome:
    """Apply what a project declares and delete what it declared last time and no longer does.

    `keep` are objects that it still declares but that cannot be applied now (a build failed).

    `inventory` is the ConfigMap that remembers: one per project that shares a daemon.

    Objects that others made are never touched; one that was deleted and made anew by someone else
    (another uid) is theirs.
    """
    _check_twice(manifests, store.registry, namespace)
    for place in _namespaces(manifests, namespace):
        ensure_namespace(store, place)
    target = StoreTarget(store, user)
    before = _inventory(store, inventory)
    outcome = await apply(manifests, target, namespace=namespace)
    # Knative's reminder about each unset securityContext would drown everything else.
    outcome.warnings = [w for w in target.warnings if "default value is insecure" not in w]
    wanted = {_wanted_key(manifest, store.registry, namespace) for manifest in manifests}
    now = {key_of(change.obj): _uid(change.obj) for change in outcome.changes}
    for key, uid in sorted(before.items(), key=lambda item: _prune_order(item[0])):
        if key not in wanted and key not in keep:
            await _prune(key, uid, target, store, outcome)
        elif key not in now:
            now[key] = uid  # refused this time: still the project's
    _remember(store, inventory, now)
    return outcome


async def _prune(key: Key, uid: str, target: StoreTarget, store: Store, outcome: Outcome) -> None:
    live = store.find_key(key)
    if live is None or _uid(live) != uid:
        return
    if key.kind == "ConfigMap" and key.namespace in _SYSTEM:
        # Knative's own ConfigMaps stay: only what the project had set goes.
        await target.replace(three_way(live, {**_identity(live), "data": {}}))
        outcome.changes.append(Change("configured", live))
        return
    try:
        await target.delete(live)
    except NotFound:
        return
    outcome.changes.append(Change("deleted", live))


def _identity(obj: Obj) -> Obj:
    metadata = obj["metadata"]
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
    }


def _prune_order(key: Key) -> tuple[int, Key]:
    return (-_FIRST.index(key.kind) if key.kind in _FIRST else -len(_FIRST), key)


def _wanted_key(manifest: Manifest, registry: KindRegistry, namespace: str) -> Key:
    key = key_of(manifest.obj)
    kind = registry.by_version(manifest.obj["apiVersion"], manifest.obj["kind"])
    if kind is not None and not kind.namespaced:
        return key._replace(namespace="")
    return key if key.namespace else key._replace(namespace=namespace)


def _check_twice(manifests: Sequence[Manifest], registry: KindRegistry, namespace: str) -> None:
    """The same object declared twice is a mistake: which one is meant?"""
    seen: dict[Key, Manifest] = {}
    problems = []
    for manifest in manifests:
        if not manifest.obj["metadata"].get("name"):
            continue
        key = _wanted_key(manifest, registry, namespace)
        if key in seen:
            problems.append(
                manifest.problem("declared twice", f"the other one is in {seen[key].place}")
            )
        seen.setdefault(key, manifest)
    if problems:
        raise ProjectError(*problems)


def _namespaces(manifests: Iterable[Manifest], namespace: str) -> list[str]:
    """Namespaces that objects live in: a project need not declare them."""
    declared = {m.obj["metadata"].get("name") for m in manifests if m.obj["kind"] == "Namespace"}
    used = {m.obj["metadata"].get("namespace") for m in manifests}
    return sorted({namespace, *(name for name in used if name)} - declared)


def ensure_namespace(store: Store, name: str) -> None:
    if store.find(Key("", "Namespace", "", name).group_kind, "", name) is None:
        store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def _uid(obj: Obj) -> str:
    return str(obj["metadata"].get("uid") or "")


# -- the inventory --------------------------------------------------------------------------------


def _inventory(store: Store, inventory: Key) -> dict[Key, str]:
    found = store.find_key(inventory)
    entries = json.loads(((found or {}).get("data") or {}).get("objects") or "[]")
    return {Key(*entry[:4]): entry[4] for entry in entries}


def _remember(store: Store, inventory: Key, objects: dict[Key, str]) -> None:
    data = {"objects": json.dumps([[*key, uid] for key, uid in sorted(objects.items())])}
    if store.find_key(inventory) is None:
        ensure_namespace(store, inventory.namespace)
        store.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": inventory.name, "namespace": inventory.namespace},
                "data": data,
            }
        )
        return
    store.modify(
        inventory.group_kind, inventory.namespace, inventory.name,
        lambda obj: obj.__setitem__("data", data),
    )  # fmt: skip
