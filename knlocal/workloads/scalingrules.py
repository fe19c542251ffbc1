"""How far and how fast a HorizontalPodAutoscaler may move: stabilization windows and rates. Pure.

Mirrors k8s.io/kubernetes pkg/controller/podautoscaler/horizontal.go
(normalizeDesiredReplicasWithBehaviors) with the defaults of pkg/apis/autoscaling/v2/defaults.go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from knlocal.resources.base import Obj, spec_of

_DOWN_WINDOW = 300.0
#: The longest `periodSeconds` of a policy.
_LONGEST_PERIOD = 1800.0
_UP_POLICIES: tuple[Obj, ...] = (
    {"type": "Pods", "value": 4, "periodSeconds": 15},
    {"type": "Percent", "value": 100, "periodSeconds": 15},
)
_DOWN_POLICIES: tuple[Obj, ...] = ({"type": "Percent", "value": 100, "periodSeconds": 15},)


class Moment(NamedTuple):
    """A recommendation, or a change of replicas, and when it was (seconds, monotonic)."""

    at: float
    replicas: int


@dataclass(slots=True)
class History:
    """What one autoscaler recommended and did before, and when it looks again (seconds,
    monotonic)."""

    generation: int = 0
    due: float = 0.0
    recommended: list[Moment] = field(default_factory=list)
    added: list[Moment] = field(default_factory=list)
    removed: list[Moment] = field(default_factory=list)

    def moved(self, before: int, after: int, now: float) -> None:
        """Replicas were changed."""
        self.added = [m for m in self.added if m.at > now - _LONGEST_PERIOD]
        self.removed = [m for m in self.removed if m.at > now - _LONGEST_PERIOD]
        if after > before:
            self.added.append(Moment(now, after - before))
        elif after < before:
            self.removed.append(Moment(now, before - after))


class Limited(NamedTuple):
    """What the rules leave of a wish, and the condition ScalingLimited."""

    replicas: int
    limited: bool
    reason: str
    message: str


def within_rules(
    autoscaler: Obj, current: int, wished: int, history: History, now: float
) -> Limited:
    """The number of replicas to have now, when metrics alone would have `wished`."""
    spec = spec_of(autoscaler)
    least, most = int(spec.get("minReplicas") or 1), int(spec["maxReplicas"])
    behavior = spec.get("behavior") or {}
    up, down = behavior.get("scaleUp") or {}, behavior.get("scaleDown") or {}
    calm = _stabilized(current, wished, history, now, _window(up, 0.0), _window(down, _DOWN_WINDOW))
    if calm > current:
        rate = max(current, _highest(current, up, history, now))
        if calm > min(most, rate):
            return (
                _too_many(most) if most <= rate else _too_fast(rate, "ScaleUpLimit", "increasing")
            )
    elif calm < current:
        rate = min(current, _lowest(current, down, history, now))
        if calm < max(least, rate):
            return (
                _too_few(least)
                if least >= rate
                else _too_fast(rate, "ScaleDownLimit", "decreasing")
            )
    return Limited(
        calm, False, "DesiredWithinRange", "the desired count is within the acceptable range"
    )


def _too_many(most: int) -> Limited:
    message = "the desired replica count is more than the maximum replica count"
    return Limited(most, True, "TooManyReplicas", message)


def _too_few(least: int) -> Limited:
    message = "the desired replica count is less than the minimum replica count"
    return Limited(least, True, "TooFewReplicas", message)


def _too_fast(rate: int, reason: str, way: str) -> Limited:
    message = f"the desired replica count is {way} faster than the maximum scale rate"
    return Limited(rate, True, reason, message)


# -- stabilization --------------------------------------------------------------------------------


def _window(rules: Obj, default: float) -> float:
    seconds = rules.get("stabilizationWindowSeconds")
    return default if seconds is None else float(seconds)


def _stabilized(
    current: int, wished: int, history: History, now: float, up: float, down: float
) -> int:
    """The lowest wish of the last `up` seconds to grow to, the highest of the last `down` seconds
    to shrink to."""
    if not history.recommended:
        history.recommended.append(Moment(now, current))
    history.recommended = [m for m in history.recommended if m.at > now - max(up, down)]
    grow = min([wished, *_since(history.recommended, now - up)])
    shrink = max([wished, *_since(history.recommended, now - down)])
    history.recommended.append(Moment(now, wished))
    return min(max(current, grow), shrink)


def _since(moments: Iterable[Moment], start: float) -> list[int]:
    return [m.replicas for m in moments if m.at > start]


# -- rates ----------------------------------------------------------------------------------------


def _highest(current: int, rules: Obj, history: History, now: float) -> int:
    def allow(start: int, policy: Obj) -> int:
        if policy["type"] == "Pods":
            return start + int(policy["value"])
        return math.ceil(start * (1 + int(policy["value"]) / 100))

    return _allowed(current, rules, _UP_POLICIES, history, now, allow, generous=max)


def _lowest(current: int, rules: Obj, history: History, now: float) -> int:
    def allow(start: int, policy: Obj) -> int:
        if policy["type"] == "Pods":
            return start - int(policy["value"])
        return int(start * (1 - int(policy["value"]) / 100))

    return _allowed(current, rules, _DOWN_POLICIES, history, now, allow, generous=min)


def _allowed(
    current: int,
    rules: Obj,
    defaults: tuple[Obj, ...],
    history: History,
    now: float,
    allow: Callable[[int, Obj], int],
    *,
    generous: Callable[[list[int]], int],
) -> int:
    """The furthest number of replicas that the policies allow: the most generous counts, unless
    `selectPolicy` wants the strictest."""
    select = rules.get("selectPolicy") or "Max"
    if select == "Disabled":
        return current
    found = []
    for policy in rules.get("policies") or defaults:
        start = now - float(policy["periodSeconds"])
        added = sum(_since(history.added, start))
        removed = sum(_since(history.removed, start))
        found.append(allow(current - added + removed, policy))
    strict: Any = min if generous is max else max
    return int(generous(found) if select == "Max" else strict(found))
