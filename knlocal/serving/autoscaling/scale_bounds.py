"""How few and how many pods a revision may have (behaviours D17 to D19)."""

from __future__ import annotations

from knlocal.resources.base import Obj, annotations_of, spec_of
from knlocal.resources.serving import keys
from knlocal.resources.settings import Autoscaler
from knlocal.serving.autoscaling.kpa import whole_number


def initial_scale(obj: Obj, settings: Autoscaler) -> int:
    """Pods of a new revision, from the annotations of the revision or its PodAutoscaler."""
    own = whole_number(annotations_of(obj), keys.INITIAL_SCALE)
    if own is None or (own == 0 and not settings.allow_zero_initial_scale):
        return settings.initial_scale
    return own


def first_replicas(revision: Obj, settings: Autoscaler) -> int:
    """Replicas of a new revision's Deployment."""
    least, most = scale_bounds(revision, settings)
    wanted = max(least, initial_scale(revision, settings))
    return min(wanted, most) if most else wanted


def ready_threshold(autoscaler: Obj, settings: Autoscaler, *, initialized: bool) -> int:
    """How many ready pods make a revision active; the first time, its initial scale counts."""
    least, most = scale_bounds(autoscaler, settings)
    wanted = max(least, 1 if initialized else initial_scale(autoscaler, settings))
    return min(wanted, most) if most else wanted


def scale_bounds(autoscaler: Obj, settings: Autoscaler) -> tuple[int, int]:
    """(least, most) of a PodAutoscaler; most 0 means any number. What cannot be reached needs no
    least number."""
    annotations = annotations_of(autoscaler)
    least = 0
    if spec_of(autoscaler).get("reachability") != "Unreachable":
        own = whole_number(annotations, keys.MIN_SCALE)
        least = settings.min_scale if own is None else own
    most = whole_number(annotations, keys.MAX_SCALE)
    return least, settings.max_scale if most is None else most
