"""Knative's living condition set (knative.dev/pkg/apis/condition_set.go).

The happy condition (`Ready`, or `Succeeded`) is True when all dependents are; a False dependent
makes it False with that dependent's reason and message; otherwise an Unknown one makes it Unknown.
Conditions outside the set are informational (`severity: Info`) and never count.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from knlocal.resources.base import Obj, timestamp


class Conditions:
    """The conditions of one status, being worked out. `result()` is the sorted list to store."""

    def __init__(
        self,
        dependents: tuple[str, ...],
        status: Obj | None,
        now: datetime,
        *,
        happy: str = "Ready",
    ) -> None:
        self.happy = happy
        self._dependents = dependents
        self._now = timestamp(now)
        self._before: dict[str, dict[str, Any]] = {
            c["type"]: c for c in (status or {}).get("conditions") or []
        }
        self._conditions: dict[str, dict[str, Any]] = {}
        self._order: list[str] = []
        for type_ in dependents:
            known = self._before.get(type_)
            if known:
                self._conditions[type_] = dict(known)
            else:
                self._conditions[type_] = {"type": type_, "status": "Unknown"}
        for type_, known in self._before.items():
            if type_ not in dependents and type_ != happy:
                self._conditions[type_] = dict(known)

    def true(self, type_: str, reason: str = "", message: str = "") -> None:
        self._set(type_, "True", reason, message)

    def false(self, type_: str, reason: str, message: str = "") -> None:
        self._set(type_, "False", reason, message)

    def unknown(self, type_: str, reason: str = "", message: str = "") -> None:
        self._set(type_, "Unknown", reason, message)

    def follow(self, type_: str, source: dict[str, Any] | None) -> None:
        """Take over another object's condition, with its reason and message."""
        if source is None:
            self.unknown(type_)
        else:
            self._set(
                type_, source.get("status", "Unknown"),
                source.get("reason", ""), source.get("message", ""),
            )  # fmt: skip

    def clear(self, type_: str) -> None:
        self._conditions.pop(type_, None)

    def get(self, type_: str) -> dict[str, Any] | None:
        if type_ == self.happy:
            return self._happy()
        return self._conditions.get(type_)

    def is_true(self, type_: str | None = None) -> bool:
        condition = self.get(type_ or self.happy)
        return condition is not None and condition["status"] == "True"

    def result(self) -> list[dict[str, Any]]:
        """All conditions, sorted by type; `lastTransitionTime` moves only when something else in
        the condition did."""
        conditions = {**self._conditions, self.happy: self._happy()}
        return [self._dated(conditions[type_]) for type_ in sorted(conditions)]

    def _set(self, type_: str, status: str, reason: str, message: str) -> None:
        condition = {"type": type_, "status": status}
        if reason:
            condition["reason"] = reason
        if message:
            condition["message"] = message
        if type_ not in self._dependents and type_ != self.happy:
            condition["severity"] = "Info"
        if type_ in self._order:
            self._order.remove(type_)
        self._order.append(type_)
        self._conditions[type_] = condition

    def _happy(self) -> dict[str, Any]:
        own = self._conditions.get(self.happy)
        if own is not None:
            return own
        for status in ("False", "Unknown"):
            # The most recently set one speaks, as in Knative.
            newest_first = [*reversed(self._order), *self._dependents]
            for type_ in newest_first:
                condition = self._conditions.get(type_)
                if type_ in self._dependents and condition and condition["status"] == status:
                    return {
                        **{k: v for k, v in condition.items() if k in ("reason", "message")},
                        "type": self.happy,
                        "status": status,
                    }
        return {"type": self.happy, "status": "True"}

    def _dated(self, condition: dict[str, Any]) -> dict[str, Any]:
        bare = {k: v for k, v in condition.items() if k != "lastTransitionTime"}
        before = self._before.get(condition["type"])
        if before and {k: v for k, v in before.items() if k != "lastTransitionTime"} == bare:
            return before
        return {**bare, "lastTransitionTime": self._now}


def find_condition(obj: Obj | None, type_: str = "Ready") -> dict[str, Any] | None:
    """A condition from an object's status, or None."""
    for condition in ((obj or {}).get("status") or {}).get("conditions") or []:
        if condition.get("type") == type_:
            return dict(condition)
    return None


def is_ready(obj: Obj | None, type_: str = "Ready") -> bool:
    """True and for the current generation: what Knative's clients mean by ready."""
    condition = find_condition(obj, type_)
    if obj is None or condition is None or condition.get("status") != "True":
        return False
    observed = (obj.get("status") or {}).get("observedGeneration")
    return observed is None or observed == obj["metadata"].get("generation", observed)
