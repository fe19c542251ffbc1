"""One subscriber at work: takes from its queue, delivers, retries, routes replies, dead-letters."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from knlocal.clock import Clock, Timer
from knlocal.eventing.deadletter import error_attributes
from knlocal.eventing.delivery import should_retry
from knlocal.eventing.engines import Message, Queue
from knlocal.eventing.subscription import Answer, Subscription
from knlocal.events import Event, InvalidEvent, decode, has_event
from knlocal.journal import Step, Trail
from knlocal.journal.trail import StepKind, response_start

log = logging.getLogger(__name__)

_UNTRIED = Answer(-1)

QUICK = 0.01
"""Seconds that a delivery may take for its subscriber to count as quick."""

SOFT_DEPTH = 64
"""Waiting messages above which a quick subscriber is given time to catch up."""

HOLD_SECONDS = 0.05
"""How long an answer at the door may be held while nothing is delivered."""


class Transport(NamedTuple):
    """How a subscriber's worker reaches the world."""

    clock: Clock
    send: Callable[..., Awaitable[Answer]]
    """send(url, event, message, subscription, *, via, wants_reply) makes one attempt."""
    step: Callable[[Trail, Step], None]


class Subscriber:
    """The workers of one subscription. `update` may change everything but the queue."""

    def __init__(self, subscription: Subscription, queue: Queue, transport: Transport) -> None:
        self.subscription = subscription
        self.queue = queue
        self._transport = transport
        self._workers: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._busy: dict[int, str] = {}
        #: Deliveries being made now.
        self.active = 0
        #: Those among them that wait: for an address, or before a retry.
        self.pausing = 0
        #: Whether the last delivery succeeded at once and soon.
        self.quick = False
        self._held: deque[asyncio.Future[None]] = deque()
        self._hold_timer: Timer | None = None
        self._delivered = self._delivered_then = 0

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        while len(self._workers) < self.subscription.parallel:
            worker = asyncio.create_task(self._work(), name=f"deliver to {self.subscription.name}")
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    def update(self, subscription: Subscription) -> None:
        """Take a new form into account; a pause before a retry ends when the way changed."""
        before, self.subscription = self.subscription, subscription
        if _route(before) != _route(subscription):
            self._changed.set()
        self.start()

    async def stop(self) -> None:
        """Break off at once; what was not done stays in the queue."""
        self._release_all()
        if self._hold_timer is not None:
            self._hold_timer.cancel()
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        if workers:
            await asyncio.wait(workers, timeout=10)

    @property
    def idle(self) -> bool:
        return self.queue.depth == 0

    @property
    def stuck(self) -> bool:
        """Whether nothing moves until time has passed or something has changed."""
        return self.queue.depth > 0 and self.active > 0 and self.active == self.pausing

    def waiting(self, trail: Trail) -> str:
        """Why the event of `trail` has not been dealt with, for people."""
        busy = self._busy.get(trail.seq)
        if busy is not None:
            return busy
        if self.subscription.unresolved:
            return f"the subscriber has no address yet: {self.subscription.unresolved}"
        for seq, what in self._busy.items():
            if seq < trail.seq:
                return f"in the queue ({self.queue.depth} events), behind one that is: {what}"
        return f"in the queue ({self.queue.depth} events)"

    # -- pace ---------------------------------------------------------------------------------

    @property
    def behind(self) -> bool:
        """Whether the door does well to slow down a little: events come faster than even a quick
        subscriber can be sent them. A slow, failing or absent one never holds up anybody."""
        return self.quick and self.queue.depth > SOFT_DEPTH

    async def catch_up(self) -> None:
        """Return when some of what waits is delivered, or soon anyway."""
        held = asyncio.get_running_loop().create_future()
        self._held.append(held)
        if self._hold_timer is None:
            self._delivered_then = self._delivered
            self._hold_timer = self._transport.clock.call_later(HOLD_SECONDS, self._hold_over)
        await held

    def _release(self) -> None:
        """One delivery made, one sender may go on."""
        if self.queue.depth <= SOFT_DEPTH:
            self._release_all()
            return
        held = self._held.popleft()
        if not held.done():
            held.set_result(None)

    def _hold_over(self) -> None:
        """No sender is held by a worker that has not got on since."""
        self._hold_timer = None
        if self._delivered == self._delivered_then:
            self._release_all()
        elif self._held:
            self._delivered_then = self._delivered
            self._hold_timer = self._transport.clock.call_later(HOLD_SECONDS, self._hold_over)

    def _release_all(self) -> None:
        while self._held:
            held = self._held.popleft()
            if not held.done():
                held.set_result(None)

    # -- work ---------------------------------------------------------------------------------

    async def _work(self) -> None:
        queue = self.queue
        while len(self._workers) <= self.subscription.parallel:
            message = queue.take_now() or await queue.take()
            self.active += 1
            try:
                first = await self._first_attempt(message)
                if first is not None:
                    self.quick = False
                    self._release_all()
                    await self._deliver(message, first)
            except asyncio.CancelledError:
                raise
            except Exception:
                # A defect here must not stop the queue; the event is told as lost.
                log.exception("delivery to %s failed", self.subscription.name)
                self._step(message, "dropped", detail="internal error, see the log")
            finally:
                self.active -= 1
                if message.trail is not None:
                    self._busy.pop(message.trail.seq, None)
            committed = queue.done(message)
            if committed is not None:
                await committed
            self._delivered += 1
            if self._held:
                self._release()

    async def _first_attempt(self, message: Message) -> Answer | None:
        """The usual case in few steps: the subscriber is known, and simply accepts. None when that
        was all; else what `_deliver` has to go on with (status -1: nothing was tried yet)."""
        subscription = self.subscription
        url = subscription.subscriber
        if not url or subscription.unresolved:
            return _UNTRIED
        clock, trail = self._transport.clock, message.trail
        if trail is not None:
            self._busy[trail.seq] = f"being delivered to {url}"
        began = clock.monotonic()
        answer = await self._transport.send(
            url, message.event, message, subscription, wants_reply=True
        )
        took = clock.monotonic() - began
        if not answer.accepted or answer.body or _is_event(answer):
            if trail is not None:
                self._step_attempt(trail, url, answer, took)
            return answer
        self.quick = took < QUICK
        if trail is not None:
            self._transport.step(
                trail,
                Step("delivered", subscription.name, clock.now(), url, answer.status, took),
            )
        return None

    async def _deliver(self, message: Message, first: Answer) -> None:
        """Everything that may be needed: waiting for an address, retries, reply, dead letter."""
        while self.subscription.unresolved:
            await self._pause(None)
        if not self.subscription.subscriber:
            await self._forward_as_is(message)
            return
        answer = await self._attempts(message, message.event, reply=False, first=first)
        subscription = self.subscription
        if not answer.accepted:
            await self._give_up(message, subscription.subscriber, answer)
            return
        reply = self._reply_in(answer)
        if isinstance(reply, Event) and subscription.reply:
            if message.ttl is not None:
                reply = reply.with_attributes({"knativebrokerttl": message.ttl})
            sent = await self._attempts(message, reply, reply=True)
            self._step(
                message, "reply", target=subscription.reply, status=sent.status, detail=reply.id
            )
            if not sent.accepted:
                await self._give_up(message, subscription.reply, sent)
                return
        self._step(message, "delivered")

    async def _forward_as_is(self, message: Message) -> None:
        """Without a subscriber the event itself is the reply."""
        if not self.subscription.reply:
            self._step(message, "dropped", detail="neither subscriber nor reply")
            return
        answer = await self._attempts(message, message.event, reply=True)
        if answer.accepted:
            self._step(message, "delivered", target=self.subscription.reply)
        else:
            await self._give_up(message, self.subscription.reply, answer)

    async def _attempts(
        self, message: Message, event: Event, *, reply: bool, first: Answer | None = None
    ) -> Answer:
        """Try until it is accepted, refused for good, or tried often enough. `first` is the answer
        to an attempt that was made already."""
        retry = 0
        answer = first if first is not None else _UNTRIED
        while True:
            subscription = self.subscription
            url = subscription.reply if reply else subscription.subscriber
            if answer is _UNTRIED:
                answer = await self._attempt(url, event, message, wants_reply=not reply)
            if not reply and answer.accepted:
                answer = self._checked(answer)
            policy = subscription.policy
            if answer.accepted or retry >= policy.retry or not should_retry(answer.status):
                return answer
            retry_after = answer.headers.get("retry-after", "")
            pause = policy.pause(retry, answer.status, retry_after, self._transport.clock.now())
            retry += 1
            said = answer.error or f"{answer.status} from {url}"
            self._note(
                message, f"retry {retry} of {policy.retry}, {pause:g} s after {said} at "
                f"{self._transport.clock.now():%H:%M:%S}"
            )  # fmt: skip
            await self._pause(pause)
            answer = _UNTRIED

    async def _attempt(
        self, url: str, event: Event, message: Message, *, wants_reply: bool
    ) -> Answer:
        clock = self._transport.clock
        trail = message.trail
        if trail is None:
            return await self._transport.send(
                url, event, message, self.subscription, wants_reply=wants_reply
            )
        self._busy[trail.seq] = f"being delivered to {url}"
        began = clock.monotonic()
        answer = await self._transport.send(
            url, event, message, self.subscription, wants_reply=wants_reply
        )
        self._step_attempt(trail, url, answer, clock.monotonic() - began)
        return answer

    async def _pause(self, seconds: float | None) -> None:
        """Wait (None: for good), but not beyond a change of the subscription."""
        if seconds is not None and seconds <= 0:
            await asyncio.sleep(0)
            return
        self._changed.clear()
        self.pausing += 1
        try:
            async with self._transport.clock.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass
        finally:
            self.pausing -= 1

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
            and not _is_event(answer)
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
        if answer.status == 202 or not _is_event(answer):
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
            self._step(message, "dropped", detail=f"{said}; no dead letter sink")
            return
        event = message.event.with_attributes(error_attributes(destination, answer))
        policy = self.subscription.policy
        retry = 0
        while True:
            sent = await self._attempt(dead_letter, event, message, wants_reply=False)
            if sent.accepted:
                self._step(
                    message, "dead-letter", target=dead_letter, status=sent.status, detail=said
                )
                return
            if retry >= policy.retry or not should_retry(sent.status):
                break
            retry_after = sent.headers.get("retry-after", "")
            pause = policy.pause(retry, sent.status, retry_after, self._transport.clock.now())
            retry += 1
            self._note(message, f"the dead letter sink is tried again in {pause:g} s")
            await self._pause(pause)
        log.warning("%s: event %s lost: %s", self.subscription.name, message.event.id, said)
        self._step(
            message, "dropped", target=dead_letter, status=sent.status,
            detail=f"{said}; the dead letter sink did not take it: {sent.error or sent.status}",
        )  # fmt: skip

    # -- the trail ----------------------------------------------------------------------------

    def _note(self, message: Message, what: str) -> None:
        if message.trail is not None:
            self._busy[message.trail.seq] = what

    def _step_attempt(self, trail: Trail, url: str, answer: Answer, took: float) -> None:
        said = answer.error or (response_start(answer.body) if answer.body else "")
        now = self._transport.clock.now()
        self._transport.step(
            trail,
            Step("attempt", self.subscription.name, now, url, answer.status, took, said),
        )

    def _step(
        self, message: Message, kind: StepKind, target: str = "", status: int = 0, detail: str = ""
    ) -> None:
        if message.trail is not None:
            now = self._transport.clock.now()
            step = Step(kind, self.subscription.name, now, target, status, 0.0, detail)
            self._transport.step(message.trail, step)


def _route(one: Subscription) -> tuple[object, ...]:
    """What a delivery in progress depends on."""
    return one.subscriber, one.unresolved, one.dead_letter, one.reply, one.policy


def _is_event(answer: Answer) -> bool:
    return has_event(answer.headers)
