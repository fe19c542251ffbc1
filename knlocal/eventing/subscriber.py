"""One subscriber at work: its queue, its lanes, and the pace it sets for the door."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from knlocal.clock import Timer
from knlocal.eventing.attempts import Transport
from knlocal.eventing.engines import Queue
from knlocal.eventing.lane import Lane
from knlocal.eventing.subscription import Subscription
from knlocal.journal import Trail

SOFT_DEPTH = 8
"""Waiting messages above which a quick subscriber is given time to catch up. More would not make it
quicker, but each event later."""

HOLD_SECONDS = 0.05
"""How long an answer at the door may be held while nothing is delivered."""


class Subscriber:
    """The lanes of one subscription, as many as deliveries may be made at a time. `update` may
    change everything but the queue."""

    def __init__(self, subscription: Subscription, queue: Queue, transport: Transport) -> None:
        self.subscription = subscription
        self.queue = queue
        self.transport = transport
        #: Set when the subscription has changed: pauses end.
        self.changed = asyncio.Event()
        #: Deliveries being made now.
        self.active = 0
        #: Those among them that wait: for an address, or before a retry.
        self.pausing = 0
        #: Whether the last delivery succeeded at once and soon.
        self.quick = False
        self.delivered = 0
        self._lanes: list[Lane] = []
        self._held: deque[Callable[[], object]] = deque()
        self._hold_timer: Timer | None = None
        self._delivered_then = 0

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Have a lane for each delivery that may be made at a time."""
        while len(self._lanes) < self.subscription.parallel:
            self._lanes.append(lane := Lane(self))
            lane.go_on()
        while len(self._lanes) > self.subscription.parallel:
            self._lanes.pop().retire()

    def update(self, subscription: Subscription) -> None:
        """Take a new form into account; a pause before a retry ends when the way changed."""
        before, self.subscription = self.subscription, subscription
        if _route(before) != _route(subscription):
            self.changed.set()
        self.start()

    async def stop(self) -> None:
        """Break off at once; what was not done stays in the queue."""
        self.release_all()
        if self._hold_timer is not None:
            self._hold_timer.cancel()
        tasks = [task for lane in self._lanes if (task := lane.stop()) is not None]
        self._lanes.clear()
        if tasks:
            await asyncio.wait(tasks, timeout=10)

    @property
    def idle(self) -> bool:
        return self.queue.depth == 0

    @property
    def stuck(self) -> bool:
        """Whether nothing moves until time has passed or something has changed."""
        return self.queue.depth > 0 and self.active > 0 and self.active == self.pausing

    def waiting(self, trail: Trail) -> str:
        """Why the event of `trail` has not been dealt with, for people."""
        doing = f"being delivered to {self.subscription.subscriber}"
        busy = {
            lane.message.trail.seq: lane.doing or doing
            for lane in self._lanes
            if lane.message is not None and lane.message.trail is not None
        }
        if self.subscription.unresolved:
            return f"the subscriber has no address yet: {self.subscription.unresolved}"
        if trail.seq in busy:
            return busy[trail.seq]
        for seq, what in busy.items():
            if seq < trail.seq:
                return f"in the queue ({self.queue.depth} events), behind one that is: {what}"
        return f"in the queue ({self.queue.depth} events)"

    # -- pace ---------------------------------------------------------------------------------

    @property
    def behind(self) -> bool:
        """Whether the door does well to slow down a little: events come faster than even a quick
        subscriber can be sent them. A slow, failing or absent one never holds up anybody."""
        return self.quick and self.queue.depth > SOFT_DEPTH

    def hold(self, then: Callable[[], object]) -> None:
        """Call `then()` when some of what waits is delivered, or soon anyway."""
        self._held.append(then)
        if self._hold_timer is None:
            self._delivered_then = self.delivered
            self._hold_timer = self.transport.clock.call_later(HOLD_SECONDS, self._hold_over)

    def release(self) -> None:
        """One delivery made, one sender may go on."""
        if self._held:
            if self.queue.depth <= SOFT_DEPTH:
                self.release_all()
            else:
                self._held.popleft()()

    def _hold_over(self) -> None:
        """No sender is held by a lane that has not got on since."""
        self._hold_timer = None
        if self.delivered == self._delivered_then:
            self.release_all()
        elif self._held:
            self._delivered_then = self.delivered
            self._hold_timer = self.transport.clock.call_later(HOLD_SECONDS, self._hold_over)

    def release_all(self) -> None:
        held, self._held = self._held, deque()
        for then in held:
            then()


def _route(one: Subscription) -> tuple[object, ...]:
    """What a delivery in progress depends on."""
    return one.subscriber, one.unresolved, one.dead_letter, one.reply, one.policy
