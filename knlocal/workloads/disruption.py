"""PodDisruptionBudgets: how many of the pods they choose may be evicted right now
(k8s.io/kubernetes pkg/controller/disruption)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from knlocal.control.controller import Controller, Requeue, Watching
from knlocal.resources.base import (
    GroupKind,
    Key,
    Obj,
    controller_of,
    is_deleting,
    key_of,
    labels_of,
    spec_of,
    status_of,
    timestamp,
)
from knlocal.resources.labels import from_label_selector
from knlocal.workloads.podstatus import is_pod_ready, is_terminal
from knlocal.workloads.terms import POD

BUDGET = GroupKind("policy", "PodDisruptionBudget")
_ALLOWED = "DisruptionAllowed"


class DisruptionController(Controller):
    """Keeps the status of PodDisruptionBudgets, which evictions go by."""

    kind = BUDGET

    def watches(self) -> Sequence[Watching]:
        return [Watching(POD, self._budgets_of)]

    def _budgets_of(self, pod: Obj) -> list[Key]:
        budgets = self.store.list(BUDGET, pod["metadata"].get("namespace") or "")
        return [key_of(budget) for budget in budgets if _chooses(budget, pod)]

    async def reconcile(self, key: Key) -> Requeue | None:
        budget = self.store.find_key(key)
        if budget is None or is_deleting(budget):
            return None
        pods = [pod for pod in self.store.list(POD, key.namespace) if _chooses(budget, pod)]
        pods = [pod for pod in pods if not is_terminal(pod)]
        healthy = sum(is_pod_ready(pod) and not is_deleting(pod) for pod in pods)
        expected, desired = self._wanted(spec_of(budget), pods)
        allowed = max(0, healthy - desired) if expected else 0
        status = {
            "observedGeneration": budget["metadata"].get("generation", 1),
            "currentHealthy": healthy, "desiredHealthy": desired, "expectedPods": expected,
            "disruptionsAllowed": allowed,
            "conditions": [self._condition(budget, is_allowed=allowed > 0)],
        }  # fmt: skip
        self.update_status(budget, status)
        return None

    def _wanted(self, spec: Obj, pods: list[Obj]) -> tuple[int, int]:
        """How many pods there should be, and how many of them must stay healthy."""
        if spec.get("maxUnavailable") is not None:
            expected = self._scale(pods)
            return expected, max(0, expected - _share(spec["maxUnavailable"], expected))
        least = spec.get("minAvailable", 1)
        expected = self._scale(pods) if isinstance(least, str) else len(pods)
        return expected, _share(least, expected)

    def _scale(self, pods: list[Obj]) -> int:
        """What those who keep the pods want; a pod that nobody keeps counts for itself."""
        total, seen = 0, set()
        for pod in pods:
            keeper = self._keeper(pod)
            if keeper is not None:  # a ReplicaSet does what its Deployment wants
                keeper = self._keeper(keeper) or keeper
            if keeper is None:
                total += 1
            elif keeper["metadata"]["uid"] not in seen:
                seen.add(keeper["metadata"]["uid"])
                total += int(spec_of(keeper).get("replicas", 1))
        return total

    def _keeper(self, obj: Obj) -> Obj | None:
        owner = controller_of(obj)
        if owner is None:
            return None
        kind = GroupKind(owner["apiVersion"].rpartition("/")[0], owner["kind"])
        if self.store.registry.stored(kind) is None:
            return None
        return self.store.find(kind, obj["metadata"].get("namespace") or "", owner["name"])

    def _condition(self, budget: Obj, *, is_allowed: bool) -> Obj:
        status = "True" if is_allowed else "False"
        moved = timestamp(self.clock.now())
        for known in status_of(budget).get("conditions") or ():
            if known.get("type") == _ALLOWED and known.get("status") == status:
                moved = known["lastTransitionTime"]
        return {
            "type": _ALLOWED, "status": status, "lastTransitionTime": moved, "message": "",
            "reason": "SufficientPods" if is_allowed else "InsufficientPods",
            "observedGeneration": budget["metadata"].get("generation", 1),
        }  # fmt: skip


def _chooses(budget: Obj, pod: Obj) -> bool:
    return from_label_selector(spec_of(budget).get("selector")).matches(labels_of(pod))


def _share(value: int | str, whole: int) -> int:
    """A number, or a percentage of the whole, rounded up."""
    if isinstance(value, str) and value.endswith("%"):
        return math.ceil(int(value.rstrip("%")) * whole / 100)
    return int(value)
