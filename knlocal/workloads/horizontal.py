"""HorizontalPodAutoscalers: replicas that follow how much CPU and memory the pods really use.

Mirrors k8s.io/kubernetes pkg/controller/podautoscaler/horizontal.go. Only metrics of type
`Resource` can be had here, as on a cluster with nothing but metrics-server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any

from knlocal.control.controller import Controller, Requeue
from knlocal.control.events import EventRecorder
from knlocal.resources import labels, quantity
from knlocal.resources.base import (
    GroupKind,
    Key,
    Obj,
    copy,
    is_deleting,
    key_of,
    spec_of,
    split_api_version,
    status_of,
    timestamp,
    uid_of,
)
from knlocal.runtime.api import RuntimeFailure
from knlocal.store.store import Store
from knlocal.workloads.replicacount import Measured, NotMeasured, Wish
from knlocal.workloads.scalingrules import History, within_rules
from knlocal.workloads.terms import DEPLOYMENT, POD, REPLICA_SET, STATEFUL_SET

AUTOSCALER = GroupKind("autoscaling", "HorizontalPodAutoscaler")
SYNC_SECONDS = 15.0
_TARGETS = (DEPLOYMENT, REPLICA_SET, STATEFUL_SET)

UsageOf = Callable[[Obj], Awaitable[Mapping[str, tuple[float, int]]]]
"""Given a pod: cores and bytes in use, per container. Raises RuntimeFailure."""


class _Failed(Exception):
    """A look that came to nothing: which condition says so, and with what reason."""

    def __init__(self, condition: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.condition, self.reason = condition, reason


class HorizontalPodAutoscalerController(Controller):
    kind = AUTOSCALER

    def __init__(self, store: Store, usage_of: UsageOf) -> None:
        super().__init__(store, EventRecorder(store, "horizontal-pod-autoscaler"))
        self._usage_of = usage_of
        self._histories: dict[str, History] = {}

    async def reconcile(self, key: Key) -> Requeue | None:
        autoscaler = self.store.find_key(key)
        if autoscaler is None or is_deleting(autoscaler):
            self._forget_gone()
            return None
        left = self._not_yet(autoscaler)
        if left > 0:
            return Requeue(left)
        status = copy(status_of(autoscaler))
        status.setdefault("desiredReplicas", 0)
        status["observedGeneration"] = autoscaler["metadata"].get("generation", 1)
        try:
            await self._look(autoscaler, status)
        except _Failed as failed:
            self._say(status, failed.condition, "False", failed.reason, str(failed))
            self.recorder.warning(autoscaler, failed.reason, str(failed))
        self.update_status(autoscaler, status)
        return Requeue(SYNC_SECONDS)

    def _not_yet(self, autoscaler: Obj) -> float:
        """Seconds until the next look is due; 0 begins it. Usage is an average since the last
        look, so looking more often (at each change of the own status) would only make it rough."""
        history = self._histories.setdefault(uid_of(autoscaler), History())
        now, generation = self.clock.monotonic(), autoscaler["metadata"].get("generation", 1)
        if history.generation == generation and now < history.due:
            return history.due - now
        history.generation, history.due = generation, now + SYNC_SECONDS
        return 0.0

    # -- one look -----------------------------------------------------------------------------

    async def _look(self, autoscaler: Obj, status: Obj) -> None:
        """Measure, work out the replicas, and set them."""
        target = self._find_target(autoscaler)
        current = int(spec_of(target).get("replicas", 1))
        status["currentReplicas"] = int(status_of(target).get("replicas") or 0)
        self._say(
            status, "AbleToScale", "True", "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        )  # fmt: skip
        spec = spec_of(autoscaler)
        least, most = int(spec.get("minReplicas") or 1), int(spec["maxReplicas"])
        why = ""
        if current == 0 and least > 0:
            status["desiredReplicas"] = 0
            message = "scaling is disabled since the replica count of the target is zero"
            self._say(status, "ScalingActive", "False", "ScalingDisabled", message)
            return
        if current > most:
            wanted, why = most, "Current number of replicas above Spec.MaxReplicas"
        elif current < least:
            wanted, why = least, "Current number of replicas below Spec.MinReplicas"
        else:
            wished, why = await self._wish(autoscaler, target, current, status)
            wanted = self._limit(autoscaler, current, wished, status)
        status["desiredReplicas"] = wanted
        self._scale(autoscaler, target, current, wanted, why, status)

    def _find_target(self, autoscaler: Obj) -> Obj:
        key = _target(autoscaler)
        found = self.store.find_key(key) if key.group_kind in _TARGETS else None
        if found is None or is_deleting(found):
            raise _Failed(
                "AbleToScale", "FailedGetScale",
                "the HPA controller was unable to get the target's current scale: "
                f'{key.kind.lower()}s.{key.group} "{key.name}" not found',
            )  # fmt: skip
        return found

    async def _wish(
        self, autoscaler: Obj, target: Obj, current: int, status: Obj
    ) -> tuple[int, str]:
        """The most that any of the metrics asks for, and what it is."""
        found: list[tuple[int, str]] = []
        shown, problem = [], None
        for metric in spec_of(autoscaler).get("metrics") or ():
            try:
                wish, about = await self._ask(metric, target, current)
            except _Failed as failed:
                problem = problem or failed
                continue
            shown.append(_shown(metric, wish))
            found.append((wish.replicas, about))
        if problem is not None and (not found or max(found)[0] < current):
            status.setdefault("desiredReplicas", current)
            raise problem
        status["currentMetrics"] = shown
        wished, about = max(found, key=lambda one: one[0])
        self._say(
            status, "ScalingActive", "True", "ValidMetricFound",
            f"the HPA was able to successfully calculate a replica count from {about}",
        )  # fmt: skip
        why = f"{about} above target" if wished > current else "All metrics below target"
        return wished, why

    async def _ask(self, metric: Obj, target: Obj, current: int) -> tuple[Wish, str]:
        """What one metric asks for."""
        kind = str(metric.get("type"))
        reason = f"FailedGet{kind}Metric"
        failed = "the HPA was unable to compute the replica count: "
        if kind != "Resource":
            what = ((metric.get(kind.lower()) or {}).get("metric") or {}).get("name", kind)
            raise _Failed(
                "ScalingActive", reason,
                f"{failed}unable to get metric {what}: no API of custom metrics is here",
            )  # fmt: skip
        resource, wanted = metric["resource"]["name"], metric["resource"]["target"]
        try:
            measured = await self._measure(resource, target)
            if wanted.get("averageUtilization") is not None:
                percent = int(wanted["averageUtilization"])
                about = f"{resource} resource utilization (percentage of request)"
                return measured.by_utilization(current, percent), about
            average = quantity.parse(wanted.get("averageValue") or wanted.get("value") or 0)
            return measured.by_average(current, average), f"{resource} resource"
        except NotMeasured as nothing:
            about = (
                f"failed to get {resource} utilization: "
                f"unable to get metrics for resource {resource}: {nothing}"
            )
            raise _Failed("ScalingActive", "FailedGetResourceMetric", failed + about) from None

    async def _measure(self, resource: str, target: Obj) -> Measured:
        selector = labels.from_label_selector(spec_of(target).get("selector"))
        namespace = target["metadata"]["namespace"]
        pods = [
            pod
            for pod in self.store.list(POD, namespace)
            if selector.matches(pod["metadata"].get("labels"))
        ]
        usages = await asyncio.gather(*(self._usage(pod) for pod in pods))
        column = 0 if resource == "cpu" else 1
        usage = {
            uid_of(pod): sum((Decimal(str(one[column])) for one in used.values()), Decimal(0))
            for pod, used in zip(pods, usages, strict=True)
            if used
        }
        return Measured(resource, pods, usage, self.clock.now())

    async def _usage(self, pod: Obj) -> Mapping[str, tuple[float, int]]:
        if status_of(pod).get("phase") != "Running":
            return {}
        try:
            return await self._usage_of(pod)
        except RuntimeFailure:
            return {}

    # -- acting -------------------------------------------------------------------------------

    def _limit(self, autoscaler: Obj, current: int, wished: int, status: Obj) -> int:
        history = self._histories[uid_of(autoscaler)]
        rules = within_rules(autoscaler, current, wished, history, self.clock.monotonic())
        self._say(
            status, "ScalingLimited", "True" if rules.limited else "False",
            rules.reason, rules.message,
        )  # fmt: skip
        return rules.replicas

    def _scale(
        self, autoscaler: Obj, target: Obj, current: int, wanted: int, why: str, status: Obj
    ) -> None:
        if wanted == current:
            self._say(
                status, "AbleToScale", "True", "ReadyForNewScale",
                "recommended size matches current size",
            )  # fmt: skip
            return
        key = key_of(target)
        self.store.modify(
            key.group_kind, key.namespace, key.name,
            lambda obj: obj["spec"].__setitem__("replicas", wanted),
        )  # fmt: skip
        history = self._histories[uid_of(autoscaler)]
        history.moved(current, wanted, self.clock.monotonic())
        status["lastScaleTime"] = timestamp(self.clock.now())
        self._say(
            status, "AbleToScale", "True", "SucceededRescale",
            f"the HPA controller was able to update the target scale to {wanted}",
        )  # fmt: skip
        self.recorder.normal(autoscaler, "SuccessfulRescale", f"New size: {wanted}; reason: {why}")

    def _say(self, status: Obj, type_: str, truth: str, reason: str, message: str) -> None:
        known: list[dict[str, Any]] = list(status.get("conditions") or ())
        before = next((c for c in known if c["type"] == type_), None)
        now = timestamp(self.clock.now())
        moved = before["lastTransitionTime"] if before and before["status"] == truth else now
        condition = {"type": type_, "status": truth, "lastTransitionTime": moved}
        condition |= {"reason": reason, "message": message}
        status["conditions"] = [condition if c is before else c for c in known]
        if before is None:
            status["conditions"].append(condition)

    def _forget_gone(self) -> None:
        living = {uid_of(autoscaler) for autoscaler in self.store.list(AUTOSCALER)}
        self._histories = {uid: h for uid, h in self._histories.items() if uid in living}


def _target(autoscaler: Obj) -> Key:
    reference = spec_of(autoscaler).get("scaleTargetRef") or {}
    group = split_api_version(reference.get("apiVersion") or "")[0]
    namespace = autoscaler["metadata"]["namespace"]
    return Key(group, str(reference.get("kind")), namespace, str(reference.get("name")))


def _shown(metric: Obj, wish: Wish) -> Obj:
    """An entry of `status.currentMetrics`."""
    name = metric["resource"]["name"]
    average = f"{round(wish.average * 1000)}m" if name == "cpu" else str(round(wish.average))
    current: Obj = {"averageValue": quantity.canonical(average)}
    if wish.utilization is not None:
        current["averageUtilization"] = wish.utilization
    return {"type": "Resource", "resource": {"name": name, "current": current}}
