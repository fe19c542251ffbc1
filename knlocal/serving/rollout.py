"""Gradual rollout of a latest revision (behaviour B107).

Source: knative.dev/serving/pkg/reconciler/route/traffic/rollout.go.

Pure: `Rollout.step(previous, now)` gives the split to serve now. The state is kept, as in Knative,
as JSON in an annotation of the Ingress. Times are nanoseconds since the epoch.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace

SECOND = 1_000_000_000


@dataclass(slots=True)
class RevisionShare:
    revision: str
    percent: int
    """Of the whole route's traffic."""


@dataclass(slots=True)
class ConfigurationRollout:
    """One configuration on one tag ("" for the route itself): revisions from old to new."""

    configuration: str
    tag: str
    percent: int
    revisions: list[RevisionShare] = field(default_factory=list)
    start_time: int = 0
    next_step_time: int = 0
    step_duration: int = 0
    step_size: int = 0

    @classmethod
    def steady(
        cls, configuration: str, tag: str, percent: int, revision: str
    ) -> ConfigurationRollout:
        return cls(configuration, tag, percent, [RevisionShare(revision, percent)])

    @property
    def done(self) -> bool:
        return len(self.revisions) < 2


@dataclass(slots=True)
class Rollout:
    """All configurations of a route, sorted by tag and name."""

    configurations: list[ConfigurationRollout] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return all(configuration.done for configuration in self.configurations)

    def find(self, tag: str, configuration: str) -> ConfigurationRollout | None:
        for found in self.configurations:
            if (found.tag, found.configuration) == (tag, configuration):
                return found
        return None

    def next_step(self) -> int | None:
        """When the split changes next, or None."""
        times = [c.next_step_time for c in self.configurations if not c.done and c.next_step_time]
        return min(times, default=None)

    def observe_ready(self, now: int, duration_seconds: float) -> None:
        """The first percent is served: plan the steps for the rest of the duration."""
        for configuration in self.configurations:
            if configuration.step_duration == 0 and configuration.start_time > 0:
                took = math.ceil((now - configuration.start_time) / SECOND)
                _plan(configuration, now, max(1, took), duration_seconds)

    def step(self, previous: Rollout | None, now: int) -> Rollout:
        """This state (the aim) reached from the previous one, as far as time allows."""
        if previous is None or not previous.configurations:
            return self
        stepped = []
        for goal in self.configurations:
            before = previous.find(goal.tag, goal.configuration)
            if before is None:
                # New to this tag: there is nothing to roll out from.
                stepped.append(goal)
            elif goal.percent > 1:
                stepped.append(_step(goal, before, now))
            elif goal.percent == 1:
                stepped.append(goal)
        return Rollout(sorted(stepped, key=lambda c: (c.tag, c.configuration)))

    # -- the annotation -----------------------------------------------------------------------

    def to_json(self) -> str:
        found = []
        for c in self.configurations:
            params = {
                "startTime": c.start_time,
                "nextStepTime": c.next_step_time,
                "stepDuration": c.step_duration,
                "stepSize": c.step_size,
            }
            found.append(
                {
                    "configurationName": c.configuration,
                    **({"tag": c.tag} if c.tag else {}),
                    "percent": c.percent,
                    "revisions": [
                        {"revisionName": r.revision, "percent": r.percent} for r in c.revisions
                    ],
                    "stepParams": {name: value for name, value in params.items() if value},
                }
            )
        return json.dumps({"configurations": found}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | None) -> Rollout | None:
        """None for what is no valid state: a rollout then simply starts anew."""
        try:
            found = json.loads(text or "")["configurations"]
            rollout = cls([_parse(entry) for entry in found])
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        valid = all(
            c.percent <= 100
            and 0 <= c.step_size <= c.percent
            and sum(r.percent for r in c.revisions) == c.percent
            for c in rollout.configurations
        )
        return rollout if valid else None


def _parse(entry: dict[str, object]) -> ConfigurationRollout:
    params: dict[str, int] = entry.get("stepParams") or {}  # type: ignore[assignment]
    revisions: list[dict[str, str]] = entry.get("revisions") or []  # type: ignore[assignment]
    return ConfigurationRollout(
        configuration=str(entry["configurationName"]),
        tag=str(entry.get("tag") or ""),
        percent=int(entry["percent"]),  # type: ignore[call-overload]
        revisions=[RevisionShare(r["revisionName"], int(r["percent"])) for r in revisions],
        start_time=int(params.get("startTime", 0)),
        next_step_time=int(params.get("nextStepTime", 0)),
        step_duration=int(params.get("stepDuration", 0)),
        step_size=int(params.get("stepSize", 0)),
    )


def _step(
    goal: ConfigurationRollout, before: ConfigurationRollout, now: int
) -> ConfigurationRollout:
    shares = _adjusted(before, goal.percent)
    wanted = goal.revisions[0].revision
    if not shares or before.revisions[-1].revision == wanted:
        if len(shares) < 2:
            return goal
        result = replace(before, percent=goal.percent, revisions=shares)
        if result.step_size > 0:
            _move(result, now)
        return result
    # A new revision: it starts with one percent, taken from the newest that has any.
    for share in reversed(shares):
        if share.percent > 0:
            share.percent -= 1
            break
    shares = [share for share in shares if share.percent > 0]
    return ConfigurationRollout(
        goal.configuration,
        goal.tag,
        goal.percent,
        [*shares, RevisionShare(wanted, 1)],
        start_time=now,
    )


def _adjusted(before: ConfigurationRollout, percent: int) -> list[RevisionShare]:
    """The previous shares for another total: the newest gets more, the oldest gives."""
    shares = [replace(share) for share in before.revisions]
    if not shares:
        return []
    more = percent - before.percent
    if more > 0:
        shares[-1].percent += more
    less = -more
    while less > 0 and shares:
        taken = min(less, shares[0].percent)
        shares[0].percent -= taken
        less -= taken
        if shares[0].percent > 0:
            break
        shares.pop(0)
    return shares


def _move(rollout: ConfigurationRollout, now: int) -> None:
    """Give the newest revision another step, from its predecessors backwards."""
    if now < rollout.next_step_time or rollout.done:
        return
    *older, newest = rollout.revisions
    remaining = rollout.step_size
    while remaining > 0 and older:
        if older[-1].percent > remaining:
            older[-1].percent -= remaining
            break
        remaining -= older.pop().percent
    newest.percent = min(newest.percent + rollout.step_size, rollout.percent)
    rollout.revisions = [*older, newest]
    if rollout.done:
        rollout.start_time = rollout.next_step_time = 0
        rollout.step_duration = rollout.step_size = 0
    else:
        rollout.next_step_time = now + rollout.step_duration


def _plan(rollout: ConfigurationRollout, now: int, first_step: int, duration: float) -> None:
    """Equal steps of at least one percent and at least the time that the first one took."""
    duration = max(1.0, duration - first_step)
    steps = min(max(1.0, duration / first_step), float(max(1, rollout.percent - 1)))
    rollout.step_size = max(1, math.floor((rollout.percent - 1) / steps + 0.5))
    rollout.step_duration = int(duration / steps * SECOND)
    rollout.next_step_time = now + rollout.step_duration
