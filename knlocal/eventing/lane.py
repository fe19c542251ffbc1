"""A lane: takes messages from a subscriber's queue and delivers them, one at a time.

Nearly every delivery is a POST on a kept connection that the subscriber accepts with an empty
answer. That case runs as callbacks, from the answer to the next message, without a task; everything
else (no connection yet, a subscriber in this process, refusals, replies) is a task's work.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from knlocal.eventing.attempts import Attempts, Posted
from knlocal.eventing.engines import Message
from knlocal.eventing.subscription import UNTRIED, Answer, is_event
from knlocal.journal import Step

if TYPE_CHECKING:
    from knlocal.eventing.subscriber import Subscriber

log = logging.getLogger(__name__)

QUICK = 0.01
"""Seconds that a delivery may take for its subscriber to count as quick."""


class Lane:
    __slots__ = (
        "_attempts", "_posted", "_retired", "_since", "_subscriber", "_task", "doing", "message",
    )  # fmt: skip

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self._attempts = Attempts(self, subscriber)
        self._posted: Posted | None = None
        self._task: asyncio.Task[None] | None = None
        self._retired = False
        self._since = 0.0
        #: What is being delivered, None when nothing is.
        self.message: Message | None = None
        #: What is being done about it, for people; "" for the first attempt.
        self.doing = ""

    def go_on(self) -> None:
        """Begin with the next message, or wait for one."""
        queue = self._subscriber.queue
        if self._retired:
            queue.filled()  # somebody else may have been meant
            return
        message = queue.take()
        if message is None:
            queue.when_filled(self.go_on)
            return
        if not self._begin(message):
            self._task = asyncio.create_task(
                self._work(message, UNTRIED),
                name=f"deliver to {self._subscriber.subscription.name}",
            )

    def retire(self) -> None:
        """Take no more messages."""
        self._retired = True

    def stop(self) -> asyncio.Task[None] | None:
        """Break off at once. What is returned is to be waited for."""
        self._retired = True
        if self._posted is not None:
            self._posted.cancel()
            self._posted = None
        if self._task is not None:
            self._task.cancel()
        return self._task

    # -- the usual case -----------------------------------------------------------------------

    def _begin(self, message: Message) -> bool:
        """Post it, if that needs no waiting."""
        subscriber = self._subscriber
        subscription = subscriber.subscription
        self.message = message
        self.doing = ""
        subscriber.active += 1
        if subscription.unresolved or not subscription.subscriber:
            return False
        transport = subscriber.transport
        self._since = transport.clock.monotonic()
        self._posted = transport.post(message, subscription, self._answered)
        return self._posted is not None

    def _answered(self, answer: Answer | None) -> None:
        """The subscriber has answered; None: nothing came of the attempt, make it anew."""
        self._posted = None
        message = self.message
        assert message is not None
        if answer is not None and self._simply_accepted(message, answer):
            self._ended(message)
            self.go_on()
            return
        self._task = asyncio.create_task(
            self._work(message, UNTRIED if answer is None else answer),
            name=f"deliver to {self._subscriber.subscription.name}",
        )

    def _simply_accepted(self, message: Message, answer: Answer) -> bool:
        """Tell the trail about an attempt; whether it was all there is to do."""
        subscriber = self._subscriber
        subscription, transport = subscriber.subscription, subscriber.transport
        took = transport.clock.monotonic() - self._since
        trail = message.trail
        url = subscription.subscriber
        if not answer.accepted or answer.body or is_event(answer):
            subscriber.quick = False
            if trail is not None:
                self._attempts.step_attempt(trail, url, answer, took)
            return False
        subscriber.quick = took < QUICK
        if trail is not None:
            now = transport.clock.now()
            transport.step(
                trail, Step("delivered", subscription.name, now, url, answer.status, took)
            )
        return True

    def _ended(self, message: Message) -> None:
        subscriber = self._subscriber
        self.message = None
        subscriber.active -= 1
        subscriber.queue.done(message)
        subscriber.delivered += 1
        subscriber.release()

    # -- everything else ----------------------------------------------------------------------

    async def _work(self, message: Message, first: Answer) -> None:
        """Deliver `message`, to which `first` was the answer so far; then those behind it, as long
        as they need a task, too."""
        subscriber = self._subscriber
        following: Message | None = message
        while following is not None:
            message = following
            try:
                await self._deliver(message, first)
            except asyncio.CancelledError:
                raise
            except Exception:
                # A defect here must not stop the queue; the event is told as lost.
                log.exception("delivery to %s failed", subscriber.subscription.name)
                self._attempts.step(message, "dropped", detail="internal error, see the log")
            self._ended(message)
            following, first = None if self._retired else subscriber.queue.take(), UNTRIED
            if following is not None and self._begin(following):
                self._task = None
                return
        self._task = None
        if not self._retired:
            subscriber.queue.when_filled(self.go_on)

    async def _deliver(self, message: Message, first: Answer) -> None:
        subscriber = self._subscriber
        subscription = subscriber.subscription
        url = subscription.subscriber
        if first is UNTRIED and url and not subscription.unresolved:
            transport = subscriber.transport
            self._since = transport.clock.monotonic()
            first = await transport.send(
                url, message.event, message, subscription, wants_reply=True
            )
            if self._simply_accepted(message, first):
                return
        subscriber.quick = False
        subscriber.release_all()
        await self._attempts.deliver(message, first)
