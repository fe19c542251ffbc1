"""A lane: takes messages from a subscriber's queue and delivers them, one at a time.

Nearly every delivery is a POST on a kept connection that the subscriber accepts with an empty
answer. That case runs as callbacks, from the answer to the next message, without a task; everything
else (no connection yet, a subscriber in this process, refusals, replies) is a task's work.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from multidict import CIMultiDict

from knlocal.eventing.attempts import Attempts
from knlocal.eventing.engines import Message
from knlocal.eventing.subscription import UNTRIED, Answer, Subscription, is_event
from knlocal.events import has_event
from knlocal.events.http import lines
from knlocal.gateway.awake import Awake, awake
from knlocal.gateway.http1 import ResponseHead
from knlocal.gateway.post import Line
from knlocal.journal import Step

if TYPE_CHECKING:
    from knlocal.eventing.subscriber import Subscriber

log = logging.getLogger(__name__)

QUICK = 0.01
"""Seconds that a delivery may take for its subscriber to count as quick."""

RENEWED_AFTER = 64
"""Posts on a line, until it is looked again whether there is a better way to the subscriber."""


class Lane:
    __slots__ = (
        "_attempts", "_awake", "_bound", "_extra", "_line", "_plain", "_retired", "_since",
        "_subscriber", "_task", "doing", "message",
    )  # fmt: skip

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self._attempts = Attempts(self, subscriber)
        self._line: Line | None = None
        self._awake: Awake | None = None
        #: What the line was made for, and the header lines of every post on it.
        self._bound: Subscription | None = None
        self._extra = ""
        #: The last head that said nothing but "accepted": parsed heads are shared.
        self._plain: ResponseHead | None = None
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
            self._drop_line()
            queue.filled()  # somebody else may have been meant
            return
        message = queue.take()
        if message is None:
            self._drop_line()
            queue.when_filled(self.go_on)
        elif not self._begin(message):
            self._start_work(message, UNTRIED)

    def retire(self) -> None:
        """Take no more messages."""
        self._retired = True

    def stop(self) -> asyncio.Task[None] | None:
        """Break off at once. What is returned is to be waited for."""
        self._retired = True
        self._drop_line()
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
        line = self._line
        if line is None or self._bound is not subscription or line.posts >= RENEWED_AFTER:
            line = self._new_line(subscription)
            if line is None:
                return False
        policy = subscription.policy
        head, body = lines(message.event, policy.mode)
        head += self._extra
        for name, value in message.forward:
            head += f"{name}: {value}\r\n"
        self._since = subscriber.transport.clock.monotonic()
        if line.post(head, body, policy.timeout):
            if subscriber.quick and self._awake is not None:
                self._awake.keep()
            return True
        self._drop_line()
        return False

    def _new_line(self, subscription: Subscription) -> Line | None:
        self._drop_line()
        if subscription.unresolved or not subscription.subscriber:
            return None
        self._line = self._subscriber.transport.line(subscription, self)
        self._awake = awake()
        self._bound = subscription
        self._extra = f"Kn-Namespace: {subscription.namespace}\r\nPrefer: reply\r\n"
        return self._line

    def _drop_line(self) -> None:
        line = self._line
        if line is not None:
            self._line = None
            line.close()

    def arrived(self, head: ResponseHead, body: bytes) -> None:
        """The subscriber has answered (`gateway.post.Sender`)."""
        message = self.message
        assert message is not None
        if not body and (head is self._plain or self._says_only_accepted(head)):
            self._accepted(message, head.status)
            self._ended(message)
            self.go_on()
            return
        self._drop_line()
        if head.status in (307, 308):
            self._start_work(message, UNTRIED)  # which follows redirects
            return
        answer = Answer(head.status, CIMultiDict(head.headers), body)
        self._tell(message, answer)
        self._start_work(message, answer)

    def _says_only_accepted(self, head: ResponseHead) -> bool:
        if 200 <= head.status < 300 and not has_event(CIMultiDict(head.headers)):
            self._plain = head
            return True
        return False

    def failed(self, why: str) -> None:
        message = self.message
        assert message is not None
        self._line = None
        answer = Answer(0, error=why)
        self._tell(message, answer)
        self._start_work(message, answer)

    def unanswered(self) -> None:
        assert self.message is not None
        self._line = None
        self._start_work(self.message, UNTRIED)

    def _accepted(self, message: Message, status: int) -> None:
        """All went well: one step tells of the attempt and the delivery."""
        subscriber = self._subscriber
        subscription, transport = subscriber.subscription, subscriber.transport
        clock = transport.clock
        took = clock.monotonic() - self._since
        subscriber.quick = took < QUICK
        if message.trail is not None:
            transport.step(
                message.trail,
                Step(
                    "delivered",
                    subscription.name,
                    clock.now(),
                    subscription.subscriber,
                    status,
                    took,
                ),
            )

    def _tell(self, message: Message, answer: Answer) -> None:
        """The trail of an attempt that is not all there is to do."""
        if message.trail is not None:
            subscriber = self._subscriber
            took = subscriber.transport.clock.monotonic() - self._since
            url = subscriber.subscription.subscriber
            self._attempts.step_attempt(message.trail, url, answer, took)

    def _ended(self, message: Message) -> None:
        subscriber = self._subscriber
        self.message = None
        subscriber.active -= 1
        subscriber.queue.done(message)
        subscriber.delivered += 1
        subscriber.release()

    # -- everything else ----------------------------------------------------------------------

    def _start_work(self, message: Message, first: Answer) -> None:
        name = f"deliver to {self._subscriber.subscription.name}"
        self._task = asyncio.create_task(self._work(message, first), name=name)

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
            if first.accepted and not first.body and not is_event(first):
                self._accepted(message, first.status)
                return
            self._tell(message, first)
        subscriber.quick = False
        subscriber.release_all()
        await self._attempts.deliver(message, first)
