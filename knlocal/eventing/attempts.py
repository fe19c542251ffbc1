"""What a delivery may need beyond one accepted attempt: waiting for an address, retries with
back-off, the reply's way, the dead letter sink."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from knlocal.clock import Clock
from knlocal.eventing.deadletter import error_attributes
from knlocal.eventing.delivery import should_retry
from knlocal.eventing.engines import Message
from knlocal.eventing.headers import forwarded_with_reply
from knlocal.eventing.subscription import UNTRIED, Answer, Subscription, is_event
from knlocal.events import Event, InvalidEvent, decode
from knlocal.gateway.post import Line, Sender
from knlocal.journal import Step, Trail
from knlocal.journal.trail import StepKind, response_start

if TYPE_CHECKING:
    from knlocal.eventing.lane import Lane
    from knlocal.eventing.subscriber import Subscriber

log = logging.getLogger(__name__)


class Transport(NamedTuple):
    """How deliveries reach the world."""

    clock: Clock
    send: Callable[..., Awaitable[Answer]]
    """send(url, event, message, subscription, *, wants_reply) makes one attempt."""
    line: Callable[[Subscription, Sender], Line | None]
    """A kept connection to a subscription's subscriber; None when that needs waiting, or is not how
    the subscriber is reached."""
    step: Callable[[Trail, Step], None]


class Attempts:
    """What a lane does with a message that is not simply accepted."""

    def __init__(self, lane: Lane, subscriber: Subscriber) -> None:
        self._lane = lane
        self._subscriber = subscriber
        self._transport = subscriber.transport

    @property
    def subscription(self) -> Subscription:
        """As it is now: it may change between two attempts."""
        return self._subscriber.subscription

    async def deliver(self, message: Message, first: Answer) -> None:
        """Everything that may be needed: waiting for an address, retries, reply, dead letter."""
        answer, retry = first, 0
        while True:
            while self.subscription.unresolved:
                await self._pause(None)
            if not self.subscription.subscriber:
                await self._forward_as_is(message)
                return
            destination, answer = await self._once(message, answer)
            if answer.accepted:
                self.step(message, "delivered")
                return
            if not await self._again(destination, answer, retry):
                await self._give_up(message, destination, answer)
                return
            answer, retry = UNTRIED, retry + 1

    async def _once(self, message: Message, answer: Answer) -> tuple[str, Answer]:
        """The event to the subscriber (unless that was done, and `answer` came of it), and what it
        replies to where replies go: a reply that is not taken makes all of it fail (control plane
        spec, "Event Delivery"). Returns the last answer, and whose it is."""
        subscription = self.subscription
        if answer is UNTRIED:
            url = subscription.subscriber
            answer = await self._attempt(url, message.event, message, wants_reply=True)
        if answer.accepted:
            answer = self._checked(answer)
        reply = self._reply_in(answer) if answer.accepted else None
        if not isinstance(reply, Event):
            return subscription.subscriber, answer
        if subscription.observe is not None:
            subscription.observe(reply)
        if not subscription.reply:
            return subscription.subscriber, answer
        if message.ttl is not None:
            reply = reply.with_attributes({"knativebrokerttl": message.ttl})
        forward = forwarded_with_reply(message.forward, answer.headers)
        sent = await self._attempt(
            subscription.reply, reply, message.with_forward(forward), wants_reply=False
        )
        self.step(message, "reply", target=subscription.reply, status=sent.status, detail=reply.id)
        return subscription.reply, sent

    async def _forward_as_is(self, message: Message) -> None:
        """Without a subscriber the event itself is the reply."""
        if not self.subscription.reply:
            self.step(message, "dropped", detail="neither subscriber nor reply")
            return
        retry = 0
        while True:
            url = self.subscription.reply
            answer = await self._attempt(url, message.event, message, wants_reply=False)
            if answer.accepted:
                self.step(message, "delivered", target=url)
                return
            if not await self._again(url, answer, retry):
                await self._give_up(message, url, answer)
                return
            retry += 1

    async def _again(self, url: str, answer: Answer, retry: int) -> bool:
        """Whether `answer` is worth retry number `retry` (the first is 0); True when it is time
        for it."""
        policy = self.subscription.policy
        if retry >= policy.retry or not should_retry(answer.status):
            return False
        retry_after = answer.headers.get("retry-after", "")
        pause = policy.pause(retry, answer.status, retry_after, self._transport.clock.now())
        said = answer.error or f"{answer.status} from {url}"
        self._lane.doing = (
            f"retry {retry + 1} of {policy.retry}, {pause:g} s after {said} at "
            f"{self._transport.clock.now():%H:%M:%S}"
        )
        await self._pause(pause)
        return True

    async def _attempt(
        self, url: str, event: Event, message: Message, *, wants_reply: bool
    ) -> Answer:
        clock = self._transport.clock
        trail = message.trail
        if trail is None:
            return await self._transport.send(
                url, event, message, self.subscription, wants_reply=wants_reply
            )
        self._lane.doing = f"being delivered to {url}"
        began = clock.monotonic()
        answer = await self._transport.send(
            url, event, message, self.subscription, wants_reply=wants_reply
        )
        self.step_attempt(trail, url, answer, clock.monotonic() - began)
        return answer

    async def _pause(self, seconds: float | None) -> None:
        """Wait (None: for good), but not beyond a change of the subscription."""
        if seconds is not None and seconds <= 0:
            await asyncio.sleep(0)
            return
        subscriber = self._subscriber
        subscriber.changed.clear()
        subscriber.pausing += 1
        try:
            async with self._transport.clock.timeout(seconds):
                await subscriber.changed.wait()
        except TimeoutError:
            pass
        finally:
            subscriber.pausing -= 1

    # -- replies ------------------------------------------------------------------------------

    def _checked(self, answer: Answer) -> Answer:
        """A broker takes an answer that is neither empty nor an event for a failure (E34)."""
        reply = self._reply_in(answer)
        if isinstance(reply, InvalidEvent):
            return Answer(502, answer.headers, answer.body, f"malformed reply: {reply}")
        if (
            reply is None
            and answer.body
            and self.subscription.strict_reply
            and not is_event(answer)
        ):
            return Answer(
                502, answer.headers, answer.body,
                "received a non-empty response not recognized as CloudEvent. "
                "The response MUST be either empty or a valid CloudEvent",
            )  # fmt: skip
        return answer

    @staticmethod
    def _reply_in(answer: Answer) -> Event | InvalidEvent | None:
        # The answer to a 202 is a status monitor, never a reply (data plane spec).
        if answer.status == 202 or not is_event(answer):
            return None
        try:
            return decode(answer.headers, answer.body)
        except InvalidEvent as error:
            return error

    # -- failure ------------------------------------------------------------------------------

    async def _give_up(self, message: Message, destination: str, answer: Answer) -> None:
        said = answer.error or f"{answer.status} from {destination}"
        dead_letter = self.subscription.dead_letter
        if not dead_letter:
            log.warning("%s: event %s lost: %s", self.subscription.name, message.event.id, said)
            self.step(message, "dropped", detail=f"{said}; no dead letter sink")
            return
        event = message.event.with_attributes(error_attributes(destination, answer))
        retry = 0
        while True:
            sent = await self._attempt(dead_letter, event, message, wants_reply=False)
            if sent.accepted:
                self.step(
                    message, "dead-letter", target=dead_letter, status=sent.status, detail=said
                )
                return
            if not await self._again(dead_letter, sent, retry):
                break
            retry += 1
        log.warning("%s: event %s lost: %s", self.subscription.name, message.event.id, said)
        self.step(
            message, "dropped", target=dead_letter, status=sent.status,
            detail=f"{said}; the dead letter sink did not take it: {sent.error or sent.status}",
        )  # fmt: skip

    # -- the trail ----------------------------------------------------------------------------

    def step_attempt(self, trail: Trail, url: str, answer: Answer, took: float) -> None:
        said = answer.error or (response_start(answer.body) if answer.body else "")
        now = self._transport.clock.now()
        self._transport.step(
            trail,
            Step("attempt", self.subscription.name, now, url, answer.status, took, said),
        )

    def step(
        self, message: Message, kind: StepKind, target: str = "", status: int = 0, detail: str = ""
    ) -> None:
        if message.trail is not None:
            now = self._transport.clock.now()
            step = Step(kind, self.subscription.name, now, target, status, 0.0, detail)
            self._transport.step(message.trail, step)
