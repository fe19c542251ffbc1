"""What a PodAutoscaler's status tells: the scale, and whether its target is active.

Mirrors computeStatus and computeActiveCondition in knative.dev/serving
pkg/reconciler/autoscaling/kpa/kpa.go.
"""

from __future__ import annotations

from typing import NamedTuple

from knlocal.control.conditions import Conditions, find_condition
from knlocal.resources.base import Obj, status_of
from knlocal.resources.settings import Autoscaler
from knlocal.serving.autoscaling.scale_bounds import ready_threshold

#: A scale that nothing is known of yet.
UNKNOWN = -1


class Scale(NamedTuple):
    """Pods that are wanted (UNKNOWN when nothing says how many), and pods that are ready."""

    want: int
    ready: int


def show_service(serverless: Obj, status: Obj, conditions: Conditions) -> None:
    """Under which names the revision can be reached, and whether anything is behind them."""
    about = status_of(serverless)
    status["metricsServiceName"] = about.get("privateServiceName", "")
    status["serviceName"] = about.get("serviceName", "")
    ready = find_condition(serverless)
    if ready is not None and ready["status"] == "True":
        conditions.true("SKSReady")
    else:
        conditions.unknown("SKSReady", "NotReady", (ready or {}).get("message", ""))


def show_scale(
    autoscaler: Obj,
    status: Obj,
    conditions: Conditions,
    scale: Scale,
    defaults: Autoscaler,
) -> None:
    """How many pods are wanted and ready, and whether that makes the revision active."""
    want, ready = scale
    if want != UNKNOWN or "desiredScale" not in status:
        # Knative shows -1 until something was measured; clients do better with the last wish.
        status["desiredScale"] = want
    status["actualScale"] = ready
    least = ready_threshold(
        autoscaler,
        defaults,
        initialized=conditions.is_true("ScaleTargetInitialized"),
    )
    if ready >= least and status.get("serviceName"):
        conditions.true("ScaleTargetInitialized")
    if want == 0 or least == 0:
        if active_is(conditions, "Unknown") and least > 0:
            conditions.false("Active", "TimedOut", "The target could not be activated.")
        elif not (active_is(conditions, "False") and want == 0 and _timed_out(conditions)):
            conditions.false("Active", "NoTraffic", "The target is not receiving traffic.")
    elif ready < least:
        if want > 0 or not active_is(conditions, "False"):
            conditions.unknown(
                "Active",
                "Queued",
                "Requests to the target are being buffered as resources are provisioned.",
            )
    elif want > 0 or not active_is(conditions, "False"):
        conditions.true("Active")


def active_is(conditions: Conditions, truth: str) -> bool:
    """Whether the condition Active is True (active), False (inactive), Unknown (activating)."""
    return (conditions.get("Active") or {}).get("status") == truth


def _timed_out(conditions: Conditions) -> bool:
    return (conditions.get("Active") or {}).get("reason") == "TimedOut"
