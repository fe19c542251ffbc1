"""Metric: what is measured of a revision for the KPA, and whether there is anything to measure.

Mirrors knative.dev/serving/pkg/reconciler/autoscaling/resources/metric.go and
pkg/reconciler/metric. On a cluster it has a collector scrape the revision's queue-proxies; here
the gateway counts, and the object shows how.
"""

from __future__ import annotations

from collections.abc import Sequence

from knlocal.control.conditions import Conditions
from knlocal.control.controller import Controller, Requeue, Watching
from knlocal.control.events import EventRecorder
from knlocal.resources.base import Key, Obj, copy, is_deleting, key_of, status_of
from knlocal.resources.names import child_name
from knlocal.serving.autoscaling.kpa import DeciderSpec
from knlocal.serving.children import child_metadata, ensure
from knlocal.serving.kinds import METRIC, POD_AUTOSCALER
from knlocal.store.store import Store

_NANOSECONDS = 1_000_000_000


def ensure_metric(
    store: Store, recorder: EventRecorder, autoscaler: Obj, measured: DeciderSpec
) -> Obj:
    """Create or correct the Metric of a PodAutoscaler. Raises NotOwned."""
    name = autoscaler["metadata"]["name"]
    return ensure(
        store,
        recorder,
        autoscaler,
        {
            "apiVersion": "autoscaling.internal.knative.dev/v1alpha1",
            "kind": "Metric",
            "metadata": child_metadata(autoscaler),
            "spec": {
                "stableWindow": int(measured.stable_window * _NANOSECONDS),
                "panicWindow": int(measured.panic_window * _NANOSECONDS),
                "scrapeTarget": child_name(name, "-private"),
            },
        },
    )


class MetricController(Controller):
    """Says in `status` whether there are pods to measure."""

    kind = METRIC

    def watches(self) -> Sequence[Watching]:
        return (Watching(POD_AUTOSCALER, _of_autoscaler),)

    async def reconcile(self, key: Key) -> Requeue | None:
        metric = self.store.find_key(key)
        if metric is None or is_deleting(metric):
            return None
        autoscaler = self.store.find(POD_AUTOSCALER, key.namespace, key.name)
        status = copy(status_of(metric))
        conditions = Conditions((), status, self.clock.now())
        if status_of(autoscaler or {}).get("actualScale"):
            conditions.true("Ready")
        else:
            conditions.unknown("Ready", "NoEndpoints", "no endpoints to scrape")
        status["observedGeneration"] = metric["metadata"]["generation"]
        status["conditions"] = conditions.result()
        self.update_status(metric, status)
        return None


def _of_autoscaler(autoscaler: Obj) -> Sequence[Key]:
    key = key_of(autoscaler)
    return (Key(*METRIC, key.namespace, key.name),)
