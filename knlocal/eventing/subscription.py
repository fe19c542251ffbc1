"""Who gets what: a subscription as the data plane has it, and what an attempt comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from knlocal.eventing.delivery import DeliveryPolicy
from knlocal.eventing.filters import EVERYTHING, Filter, Refusal
from knlocal.events import Event, has_event
from knlocal.journal import Trail

if TYPE_CHECKING:
    from knlocal.eventing.subscriber import Subscriber


class Answer(NamedTuple):
    """What came of one attempt. `status` 0: there was no answer, and `error` says why."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""
    error: str = ""

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300


UNTRIED = Answer(-1)
"""Stands for the answer where no attempt was made yet."""


def is_event(answer: Answer) -> bool:
    """Whether the answer means to carry an event."""
    return has_event(answer.headers)


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """Who gets what, and how hard it is tried: a Trigger, or a Subscription of a channel.

    `subscriber` "" with `unresolved` set means: not known yet, keep the events. "" without it means
    that events go to `reply` as they are. Immutable: a trail remembers the one that judged it.
    """

    uid: str
    name: str
    """For people: "trigger default/created"."""
    namespace: str
    subscriber: str = ""
    unresolved: str = ""
    """Why the subscriber's address is not known."""
    reply: str = ""
    dead_letter: str = ""
    policy: DeliveryPolicy = field(default_factory=DeliveryPolicy)
    filter: Filter = EVERYTHING
    strict_reply: bool = False
    """A broker's rule: an answer that is neither empty nor an event is a failure."""
    parallel: int = 1
    """Deliveries at a time; above 1 means that order does not matter."""
    observe: Callable[[Event], object] | None = None
    """Called with each event that the subscriber replies with, to register its type."""
    worker: list[Subscriber] = field(default_factory=list)
    """The one at work (set once by the exchange)."""

    def refusal(self, attributes: Mapping[str, Any]) -> Refusal | None:
        return self.filter.explain(attributes)

    def waiting(self, trail: Trail) -> str:
        return self.worker[0].waiting(trail) if self.worker else "not being delivered"
