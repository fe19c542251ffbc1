"""RequestReply at work: an event goes to the broker, and its sender waits for the reply (E76)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from knlocal.clock import Clock
from knlocal.eventing.correlation import CorrelationKeys
from knlocal.eventing.exchange import Exchange
from knlocal.eventing.headers import forwarded
from knlocal.eventing.ingress import ALLOW, MAX_EVENT
from knlocal.events import Event, InvalidEvent, decode, encode
from knlocal.gateway.http import BodyTooLarge, Request

SERVICE = "request-reply"
_TEXT = (("Content-Type", "text/plain; charset=utf-8"),)


@dataclass(slots=True)
class Conversation:
    """One RequestReply: where it asks, and who waits for what."""

    namespace: str
    name: str
    exchange: Callable[[], Exchange | None]
    timeout: float
    correlation: str
    reply: str
    waiting: dict[str, asyncio.Future[Event]] = field(default_factory=dict)


class RequestReplyDoor:
    """`/<namespace>/<name>` on the host of all RequestReplies takes questions, `/reply` below it
    the replies that the trigger brings."""

    def __init__(self, clock: Clock, keys: CorrelationKeys) -> None:
        self._clock = clock
        self._keys = keys
        self.conversations: dict[tuple[str, str], Conversation] = {}

    async def __call__(self, request: Request) -> None:
        if request.method != "POST":
            status = 200 if request.method == "OPTIONS" else 405
            await request.respond(status, (ALLOW,))
            return
        namespace, _, name = request.path.strip("/").partition("/")
        name, _, below = name.partition("/")
        conversation = self.conversations.get((namespace, name))
        if conversation is None or below not in ("", "reply"):
            await request.respond(404, _TEXT, f"there is no RequestReply at {request.path}\n")
            return
        try:
            event = decode(request.headers, await request.read(MAX_EVENT))
        except BodyTooLarge:
            await request.respond(413, _TEXT, f"the event is larger than {MAX_EVENT} bytes\n")
            return
        except InvalidEvent as error:
            await request.respond(400, _TEXT, f"{error}\n")
            return
        if below:
            await self._take_reply(request, conversation, event)
        else:
            await self._ask(request, conversation, event)

    async def _ask(self, request: Request, conversation: Conversation, event: Event) -> None:
        exchange = conversation.exchange()
        if exchange is None:
            await request.respond(503, _TEXT, "the broker is not ready\n")
            return
        correlation = self._keys.seal(conversation.namespace, conversation.name, event.id)
        answer: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        conversation.waiting[correlation] = answer
        try:
            asked = event.with_attributes({conversation.correlation: correlation})
            verdict = await exchange.accept(asked, forwarded(request.headers))
            if verdict.status != 202:
                await request.respond(verdict.status, _TEXT, f"{verdict.reason}\n")
                return
            reply = await self._clock.wait_for(answer, conversation.timeout)
        except TimeoutError:
            await request.respond(504, _TEXT, f"no reply within {conversation.timeout:g} s\n")
            return
        finally:
            del conversation.waiting[correlation]
        message = encode(reply)
        await request.respond(200, message.headers, message.body)

    async def _take_reply(self, request: Request, conversation: Conversation, event: Event) -> None:
        correlation = str(event.attributes.get(conversation.reply, ""))
        if not self._keys.verify(correlation, conversation.namespace, conversation.name):
            await request.respond(400, _TEXT, f"{conversation.reply} is none that was given here\n")
            return
        waiting = conversation.waiting.get(correlation)
        if waiting is not None and not waiting.done():
            waiting.set_result(event)
        # A reply that comes too late has nobody to go to; sending it again would not help.
        await request.respond(202)
