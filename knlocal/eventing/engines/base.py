"""What an engine is, and what it keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from knlocal.events import Event
from knlocal.journal import Trail

OVERHEAD = 1000
"""Bytes that a waiting event takes beside its data, roughly (measured in benchmarks/)."""


Kept = Callable[[Exception | None], object]
"""Called with None when an event counts as accepted, or with what kept it from being."""


class Full(Exception):
    """A bounded queue has no room: the sender is to come again later."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What may wait: messages for one subscriber, and bytes in memory for all of them."""

    messages: int = 500_000
    memory: int = 1024 * 1024 * 1024


class Message:
    """An accepted event on its way to subscribers."""

    __slots__ = ("event", "forward", "key", "left", "size", "through", "trail", "ttl")

    def __init__(
        self,
        event: Event,
        forward: tuple[tuple[str, str], ...] = (),
        ttl: int | None = None,
        trail: Trail | None = None,
        through: int = 0,
    ) -> None:
        self.event = event
        #: Headers of the request that go on to the subscribers.
        self.forward = forward
        #: Hops that a reply to it may take; None outside of brokers.
        self.ttl = ttl
        #: Brokers and channels of this daemon that it came through before.
        self.through = through
        self.trail = trail
        #: Its place in an engine's storage, 0 without one.
        self.key = 0
        #: Subscribers that have not dealt with it.
        self.left = 0
        #: Bytes that it takes while it waits, roughly.
        self.size = OVERHEAD + len(event.data or b"")

    def with_forward(self, forward: tuple[tuple[str, str], ...]) -> Message:
        """The same, but for the headers that go along."""
        return Message(self.event, forward, self.ttl, self.trail, self.through)


class Queue(ABC):
    """What waits for one subscriber, in the order of acceptance.

    `take` by one worker at a time gives order; several may take in turns. What was taken counts as
    waiting until `done`.
    """

    def __init__(self, uid: str, depth: int = 0) -> None:
        self.uid = uid
        #: Messages not done, those taken among them.
        self.depth = depth
        self._idle: deque[Callable[[], object]] = deque()

    @abstractmethod
    def take(self) -> Message | None:
        """The next message; None when there is none."""

    def when_filled(self, callback: Callable[[], object]) -> None:
        """Call `callback()` once, when there is something to take."""
        self._idle.append(callback)

    def filled(self) -> None:
        if self._idle:
            self._idle.popleft()()

    @abstractmethod
    def done(self, message: Message) -> None:
        """The subscriber has dealt with `message`. What is sent through the gateway's connections
        after this leaves only when a crash would not deliver this one again."""

    @abstractmethod
    def position(self, message: Message) -> int:
        """How many messages are before `message`; -1 when it is not waiting (any more)."""


class Engine(ABC):
    """Queues by subscriber uid."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self.limits = limits

    async def start(self) -> None:  # noqa: B027
        """Before anything is accepted."""

    async def stop(self) -> None:  # noqa: B027
        """After the last delivery."""

    @abstractmethod
    def open(self, uid: str) -> Queue:
        """The queue of a subscriber, with what was left in it."""

    @abstractmethod
    def remove(self, uid: str) -> None:
        """The subscriber is gone, and what waits for it goes too."""

    @abstractmethod
    def known(self) -> list[str]:
        """Subscribers that something waits for, open or not."""

    def check(self, message: Message, queues: Sequence[Queue]) -> None:
        """Full when one of the queues has no room for the message."""
        limit = self.limits.messages
        for queue in queues:
            if queue.depth >= limit:
                raise Full(f"{limit} events are waiting")

    @abstractmethod
    def accept(self, message: Message, queues: Sequence[Queue], kept: Kept) -> None:
        """Put a message, for which there is room, into all queues or none. `kept` is called when
        it is as safe as this engine makes it, which may be at once."""
