"""The trail of an event that meets no broker or channel: at a source, or at a sink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from knlocal.events import Event
from knlocal.journal import Door, Journal, Step, Trail
from knlocal.resources.base import Key

Outcome = Literal["delivered", "dropped"]


def trace(
    journal: Journal | None,
    key: Key,
    url: str,
    event: Event,
    receiver: str,
    outcome: Outcome,
    detail: str = "",
    attempts: Sequence[Step] = (),
) -> None:
    """Note what became of an event at the object `key`, whose door is `url`: `receiver` got it, or
    did not, and why."""
    if journal is None:
        return
    one = _Receiver(receiver)
    door = Door(key.kind, key.namespace, key.name, url)
    trail = journal.open(door, event, [one], [one])
    for step in attempts:
        journal.step(trail, step)
    journal.step(trail, Step(outcome, receiver, journal.clock.now(), detail=detail))


def refuse(journal: Journal | None, key: Key, url: str, event: Event, why: str) -> None:
    """Note that the door did not take an event."""
    if journal is not None:
        door = Door(key.kind, key.namespace, key.name, url)
        journal.open(door, event, [], [], refused=why)


@dataclass(frozen=True, slots=True)
class _Receiver:
    """The one subscriber that the journal is told about."""

    name: str

    def refusal(self, attributes: Mapping[str, Any]) -> None:
        return None

    def waiting(self, trail: Trail) -> str:
        return ""
