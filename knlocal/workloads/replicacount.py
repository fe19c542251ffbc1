"""How many replicas a measured resource asks for. Pure.

Mirrors k8s.io/kubernetes pkg/controller/podautoscaler/replica_calculator.go: pods that are not
ready, or that nothing is known of, never make a scale-up larger nor a scale-down smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from knlocal.resources import quantity
from knlocal.resources.base import Obj, is_deleting, parse_timestamp, spec_of, status_of, uid_of
from knlocal.workloads.podstatus import is_pod_ready

#: By how much usage may miss its target before anything is done.
TOLERANCE = 0.1
#: For how many seconds after its start a pod's CPU counts only once it is ready (it may be busy
#: starting), and for how long it has to be ready by then.
_CPU_WARM_UP = 300.0
_WINDOW = 15.0

Usage = Mapping[str, Decimal]
"""By uid of the pod: cores, or bytes."""


_Ratio = Callable[[Usage], float]
"""How far what was measured is from its target: 2.0 when it is twice as much."""


class NotMeasured(Exception):
    """There is nothing to decide on; the message is Kubernetes' own."""


class Wish(NamedTuple):
    """Replicas, and what they follow from."""

    replicas: int
    average: Decimal
    """Cores or bytes per pod."""
    utilization: int | None = None
    """Percent of what the pods request."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The pods of a scale target and what was measured of them."""

    resource: str
    pods: Sequence[Obj]
    usage: Usage
    now: datetime

    def by_utilization(self, current: int, target: int) -> Wish:
        """`target` is a percentage of the pods' requests."""
        counted, unready, missing = self._groups()
        requests = {uid_of(pod): self._request(pod) for pod in self.pods}
        used, asked = sum(counted.values()), sum(requests[uid] for uid in counted)
        if not asked:
            raise NotMeasured("no metrics returned matched known pods")
        percent = int(used * 100 / asked)
        fallback = Decimal(max(100, target)) / 100

        def ratio(usage: Usage) -> float:
            total = sum(requests[uid] for uid in usage)
            return float(int(sum(usage.values()) * 100 / total)) / target

        full = {uid: requests[uid] * fallback for uid in missing}
        replicas = _replicas(current, counted, unready, missing, full, ratio)
        return Wish(replicas, Decimal(used) / len(counted), percent)

    def by_average(self, current: int, target: Decimal) -> Wish:
        """`target` is cores or bytes per pod."""
        counted, unready, missing = self._groups()

        def ratio(usage: Usage) -> float:
            return float(sum(usage.values(), Decimal(0)) / len(usage) / target)

        full = dict.fromkeys(missing, target)
        replicas = _replicas(current, counted, unready, missing, full, ratio)
        return Wish(replicas, Decimal(sum(counted.values())) / len(counted))

    # -- which pods count ---------------------------------------------------------------------

    def _groups(self) -> tuple[dict[str, Decimal], list[str], list[str]]:
        """(usage of pods that count, uids of unready pods, uids of pods without a measurement)."""
        counted: dict[str, Decimal] = {}
        unready, missing = [], []
        for pod in self.pods:
            uid = uid_of(pod)
            if is_deleting(pod) or status_of(pod).get("phase") == "Failed":
                continue
            if status_of(pod).get("phase") == "Pending":
                unready.append(uid)
            elif uid not in self.usage:
                missing.append(uid)
            elif self.resource == "cpu" and not self._is_warm(pod):
                unready.append(uid)
            else:
                counted[uid] = self.usage[uid]
        if not counted:
            raise NotMeasured(
                "did not receive metrics for targeted pods (pods might be unready)"
                if self.usage
                else "no metrics returned from resource metrics API"
            )
        return counted, unready, missing

    def _is_warm(self, pod: Obj) -> bool:
        ready = next(
            (c for c in status_of(pod).get("conditions") or () if c.get("type") == "Ready"), None
        )
        started = status_of(pod).get("startTime")
        if ready is None or not started:
            return False
        if (self.now - parse_timestamp(started)).total_seconds() >= _CPU_WARM_UP:
            return is_pod_ready(pod)
        since = (self.now - parse_timestamp(ready["lastTransitionTime"])).total_seconds()
        return is_pod_ready(pod) and since >= _WINDOW

    def _request(self, pod: Obj) -> Decimal:
        total = Decimal(0)
        for container in spec_of(pod).get("containers") or ():
            asked = ((container.get("resources") or {}).get("requests") or {}).get(self.resource)
            if asked is None:
                raise NotMeasured(
                    f"missing request for {self.resource} in container {container['name']} "
                    f"of Pod {pod['metadata']['name']}"
                )
            total += quantity.parse(asked)
        return total


def _replicas(
    current: int,
    counted: dict[str, Decimal],
    unready: Sequence[str],
    missing: Sequence[str],
    full: Usage,
    ratio: _Ratio,
) -> int:
    first = ratio(counted)
    growing = first > 1
    if not missing and not (growing and unready):
        return current if _is_near(first) else math.ceil(first * len(counted))
    usage = dict(counted)
    if first < 1:
        usage |= full
    elif growing:
        usage |= dict.fromkeys([*missing, *unready], Decimal(0))
    second = ratio(usage)
    if _is_near(second) or (growing and second < 1) or (first < 1 < second):
        return current
    wished = math.ceil(second * len(usage))
    if (second < 1 and wished > current) or (second > 1 and wished < current):
        return current
    return wished


def _is_near(ratio: float) -> bool:
    return abs(1 - ratio) <= TOLERANCE
