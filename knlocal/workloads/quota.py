"""ResourceQuotas: refused when exceeded, and how much is used
(k8s.io/apiserver pkg/admission/plugin/resourcequota, k8s.io/kubernetes pkg/quota)."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from knlocal.control.controller import Controller, Requeue, Watching
from knlocal.resources import quantity
from knlocal.resources.base import (
    GroupKind,
    Key,
    Obj,
    group_kind_of,
    is_deleting,
    key_of,
    spec_of,
)
from knlocal.resources.kinds import Kind
from knlocal.resources.status import Forbidden
from knlocal.store.store import AdmissionHook, AdmissionRequest, Store
from knlocal.workloads.admission import pod_requests
from knlocal.workloads.podstatus import is_terminal
from knlocal.workloads.terms import CLAIM, CONFIG_MAP, POD, QUOTA, SECRET, SERVICE

_COUNTED = {
    "pods": POD, "services": SERVICE, "configmaps": CONFIG_MAP, "secrets": SECRET,
    "persistentvolumeclaims": CLAIM, "resourcequotas": QUOTA,
    "replicationcontrollers": GroupKind("", "ReplicationController"),
}  # fmt: skip
_COMPUTE = {
    "cpu": ("requests", "cpu"), "memory": ("requests", "memory"),
    "requests.cpu": ("requests", "cpu"), "requests.memory": ("requests", "memory"),
    "requests.ephemeral-storage": ("requests", "ephemeral-storage"),
    "ephemeral-storage": ("requests", "ephemeral-storage"),
    "limits.cpu": ("limits", "cpu"), "limits.memory": ("limits", "memory"),
    "limits.ephemeral-storage": ("limits", "ephemeral-storage"),
}  # fmt: skip


def quota_admission(store: Store) -> AdmissionHook:
    """The admission hook that enforces quotas on what is created."""

    def admit(request: AdmissionRequest) -> None:
        if request.operation != "CREATE" or not request.kind.namespaced:
            return
        namespace = request.obj["metadata"].get("namespace") or ""
        for quota in store.list(QUOTA, namespace):
            if not _is_in_scope(quota, request.obj):
                continue
            _check(store, quota, request.kind, request.obj)

    return admit


def _check(store: Store, quota: Obj, kind: Kind, obj: Obj) -> None:
    hard = spec_of(quota).get("hard") or {}
    asked = {name: _amount(name, kind, obj) for name in hard}
    wanted = {name: amount for name, amount in asked.items() if amount is not None}
    if not wanted:
        return
    missing = [name for name in wanted if name in _COMPUTE and _lacking(name, obj)]
    name = obj["metadata"].get("name") or obj["metadata"].get("generateName") or ""
    if missing:
        said = "; ".join(f"{one} for: {','.join(_lacking(one, obj))}" for one in sorted(missing))
        raise _forbidden(
            kind, name, f"failed quota: {quota['metadata']['name']}: must specify {said}"
        )
    used = quota_usage(store, quota)
    over = sorted(
        one for one, amount in wanted.items() if used[one] + amount > quantity.parse(hard[one])
    )
    if not over:
        return

    def listed(values: dict[str, Decimal]) -> str:
        return ",".join(f"{one}={_shown(values[one], hard[one])}" for one in over)

    limited = ",".join(f"{one}={quantity.canonical(hard[one])}" for one in over)
    raise _forbidden(
        kind,
        name,
        f"exceeded quota: {quota['metadata']['name']}, requested: {listed(wanted)}, "
        f"used: {listed(used)}, limited: {limited}",
    )


def _forbidden(kind: Kind, name: str, why: str) -> Forbidden:
    return Forbidden(
        f'{kind.resource} "{name}" is forbidden: {why}',
        group=kind.group,
        kind=kind.plural,
        name=name,
    )


def _amount(resource: str, kind: Kind, obj: Obj) -> Decimal | None:
    """How much of a quota's resource one object takes; None when it has nothing to do with it."""
    if resource in _COMPUTE:
        if kind.group_kind != POD:
            return None
        section, name = _COMPUTE[resource]
        return pod_requests(obj, name, section)
    if resource.startswith("count/"):
        return Decimal(1) if resource.removeprefix("count/") == kind.resource else None
    if resource == "requests.storage":
        if kind.group_kind != CLAIM:
            return None
        requests = (spec_of(obj).get("resources") or {}).get("requests") or {}
        return quantity.parse(requests.get("storage") or 0)
    return Decimal(1) if _COUNTED.get(resource) == kind.group_kind else None


def _lacking(resource: str, pod: Obj) -> list[str]:
    """Containers that do not say how much they ask for, which a quota on it requires."""
    section, name = _COMPUTE[resource]

    def says(container: Obj) -> bool:
        resources = container.get("resources") or {}
        given = resources.get(section) or {}
        return name in given or (section == "requests" and name in (resources.get("limits") or {}))

    return [c["name"] for c in spec_of(pod).get("containers") or () if not says(c)]


def _shown(value: Decimal, like: str | int | float) -> str:
    family = "binary" if str(like).endswith("i") else "decimal"
    return quantity.format_quantity(value, family)


def _is_in_scope(quota: Obj, obj: Obj) -> bool:
    """Scopes of pods: (Not)Terminating, (Not)BestEffort."""
    scopes = spec_of(quota).get("scopes") or ()
    if not scopes:
        return True
    if group_kind_of(obj) != POD:
        return False
    ends = spec_of(obj).get("activeDeadlineSeconds") is not None
    asks = any(
        (c.get("resources") or {}).get(section)
        for c in spec_of(obj).get("containers") or ()
        for section in ("limits", "requests")
    )
    holds = {
        "Terminating": ends, "NotTerminating": not ends, "BestEffort": not asks,
        "NotBestEffort": asks,
    }  # fmt: skip
    return all(holds.get(scope, True) for scope in scopes)


def quota_usage(store: Store, quota: Obj) -> dict[str, Decimal]:
    """How much of each of a quota's resources its namespace uses now."""
    namespace = quota["metadata"]["namespace"]
    used = {}
    for resource in spec_of(quota).get("hard") or {}:
        used[resource] = sum(
            (
                amount
                for kind in _kinds_of(store, resource)
                for obj in store.list(kind.group_kind, namespace)
                if _is_in_scope(quota, obj)
                and not (kind.group_kind == POD and is_terminal(obj))
                and (amount := _amount(resource, kind, obj)) is not None
            ),
            Decimal(0),
        )
    return used


def _kinds_of(store: Store, resource: str) -> list[Kind]:
    if resource in _COMPUTE:
        found = store.registry.stored(POD)
    elif resource == "requests.storage":
        found = store.registry.stored(CLAIM)
    elif resource in _COUNTED:
        found = store.registry.stored(_COUNTED[resource])
    else:
        wanted = resource.removeprefix("count/")
        return [
            kind
            for kind in store.registry
            if kind.storage and kind.namespaced and kind.resource == wanted
        ]
    return [found] if found else []


class QuotaController(Controller):
    """Keeps `status.used` of ResourceQuotas."""

    kind = QUOTA

    def watches(self) -> Sequence[Watching]:
        kinds = [kind for kind in _COUNTED.values() if kind != QUOTA]
        return [Watching(kind, self._quotas_of) for kind in kinds]

    def _quotas_of(self, obj: Obj) -> list[Key]:
        namespace = obj["metadata"].get("namespace") or ""
        return [key_of(quota) for quota in self.store.list(QUOTA, namespace)]

    async def reconcile(self, key: Key) -> Requeue | None:
        quota = self.store.find_key(key)
        if quota is None or is_deleting(quota):
            return None
        hard = spec_of(quota).get("hard") or {}
        used = {name: _shown(v, hard[name]) for name, v in quota_usage(self.store, quota).items()}
        self.update_status(quota, {"hard": hard, "used": used})
        return None
