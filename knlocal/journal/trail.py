"""The trail of one event at one door: cheap to write, rendered when somebody asks."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

import orjson

from knlocal.events import Event, to_json

DATA_SHOWN = 256 * 1024
"""Bytes of data kept in a rendered trail; larger data is left out, and said to be."""

RESPONSE_SHOWN = 200
"""Bytes of an answer's body kept with an attempt."""


class Door(NamedTuple):
    """Where an event came in: a broker or a channel."""

    kind: str
    namespace: str
    name: str
    url: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class Considered(Protocol):
    """A subscriber as it was when the event came by."""

    @property
    def name(self) -> str:
        """Kind, namespace and name: "trigger default/created"."""

    def refusal(self, attributes: Mapping[str, Any]) -> Any:
        """What refused the event (an object with clause, wanted, found, detail), or None."""

    def waiting(self, trail: Trail) -> str:
        """Why the event has not been dealt with yet."""


StepKind = Literal["attempt", "delivered", "reply", "dead-letter", "dropped"]

ENDS: frozenset[StepKind] = frozenset({"delivered", "dead-letter", "dropped"})
"""After one of these a subscriber has dealt with the event."""


class Step(NamedTuple):
    """Something that happened on the way to a subscriber. A "delivered" with a status stands for
    the one successful attempt, too.

    For an attempt `target` is the URL, `status` the answer's (0 without one), `seconds` how long it
    took, `detail` the start of the answer or the error. A reply's `target` is where it went, and
    its `detail` the reply's id.
    """

    kind: StepKind
    subscriber: str
    at: datetime
    target: str = ""
    status: int = 0
    seconds: float = 0.0
    detail: str = ""


class Trail:
    """One event at one door. `steps` grows while the event is on its way."""

    __slots__ = (
        "at",
        "considered",
        "door",
        "event",
        "matched",
        "parent",
        "refused",
        "saved",
        "seq",
        "size",
        "steps",
        "via",
    )

    def __init__(
        self,
        seq: int,
        at: datetime,
        door: Door,
        event: Event,
        considered: Sequence[Considered],
        matched: Sequence[Considered],
        parent: Trail | None = None,
        via: str = "",
        refused: str = "",
    ) -> None:
        self.seq = seq
        self.at = at
        self.door = door
        self.event = event
        self.considered = considered
        self.matched = matched
        #: The trail whose subscriber answered with this event, and that subscriber.
        self.parent = parent.seq if parent else 0
        self.via = via
        #: Why the door did not take the event; "" when it did.
        self.refused = refused
        self.steps: tuple[Step, ...] = ()
        #: How many steps are on disk already; -1 for none of it.
        self.saved = -1
        #: Bytes it takes, roughly.
        self.size = 1500 + len(event.data or b"")

    def refuse(self, why: str) -> None:
        """The door did not take the event after all."""
        self.refused = why
        self.considered = self.matched = ()

    @property
    def pending(self) -> bool:
        """Whether a subscriber still has to deal with it."""
        ended = sum(step.kind in ENDS for step in self.steps)
        return ended < len(self.matched)

    def to_json(self) -> dict[str, Any]:
        """The trail as JSON data, complete."""
        shown = self._shown()
        return self._around(shown, orjson.loads(to_json(shown)))

    def to_bytes(self) -> bytes:
        """The same as a JSON document."""
        shown = self._shown()
        return orjson.dumps(self._around(shown, orjson.Fragment(to_json(shown))))

    def _shown(self) -> Event:
        event = self.event
        large = event.data is not None and len(event.data) > DATA_SHOWN
        return Event(event.attributes, None, event.mode) if large else event

    def _around(self, shown: Event, rendered: Any) -> dict[str, Any]:
        event = self.event
        data = event.data or b""
        return {
            "seq": self.seq,
            "time": rfc3339(self.at),
            "door": {**self.door._asdict(), "label": str(self.door)},
            "event": rendered,
            "mode": event.mode,
            "dataBytes": len(data),
            **({"dataOmitted": True} if shown is not event else {}),
            **({"refused": self.refused} if self.refused else {}),
            **({"parent": self.parent, "via": self.via} if self.parent else {}),
            "subscribers": [self._subscriber(one) for one in self.considered],
        }

    def _subscriber(self, one: Considered) -> dict[str, Any]:
        if one not in self.matched:
            refusal = one.refusal(self.event.attributes)
            return {
                "name": one.name,
                "outcome": "refused",
                "refused": {
                    "clause": getattr(refusal, "clause", ""),
                    "wanted": getattr(refusal, "wanted", ""),
                    "found": getattr(refusal, "found", None),
                    "text": str(refusal),
                },
            }
        steps = [step for step in self.steps if step.subscriber == one.name]
        rendered: dict[str, Any] = {"name": one.name, "outcome": "waiting"}
        for step in steps:
            self._render(step, rendered)
        if rendered["outcome"] == "waiting":
            rendered["waiting"] = one.waiting(self)
        return rendered

    @staticmethod
    def _render(step: Step, into: dict[str, Any]) -> None:
        if step.kind == "attempt":
            into.setdefault("attempts", []).append(
                {
                    "time": rfc3339(step.at),
                    "url": step.target,
                    "status": step.status,
                    "milliseconds": round(step.seconds * 1000, 3),
                    "response": step.detail,
                }
            )
        elif step.kind == "reply":
            into["reply"] = {"to": step.target, "id": step.detail, "status": step.status}
        elif step.kind == "delivered":
            if step.status:
                # The only attempt, and all there was to it.
                Trail._render(step._replace(kind="attempt"), into)
            into["outcome"] = "delivered"
        else:
            into["outcome"] = "dead-lettered" if step.kind == "dead-letter" else "dropped"
            into[step.kind.replace("-", "_")] = {
                **({"to": step.target} if step.target else {}),
                "reason": step.detail,
            }


def rfc3339(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def response_start(body: bytes) -> str:
    """The start of an answer's body, for people."""
    start = body[:RESPONSE_SHOWN]
    try:
        return start.decode()
    except UnicodeDecodeError:
        # A character cut in two is no reason to show bytes.
        text = start.decode(errors="replace")
        return text if text.count("\ufffd") < 4 else base64.b64encode(start).decode()
