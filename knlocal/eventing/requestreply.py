"""RequestReply at work: an event goes to the broker, and its sender waits for the reply (E76).

The correlation id is `<event id>:<base64url of an AES-GCM seal over it>:<pod index>`, so that only
a reply to something asked here is taken for one.
"""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from knlocal.clock import Clock
from knlocal.eventing.exchange import Exchange
from knlocal.eventing.ingress import ALLOW, MAX_EVENT, forwarded
from knlocal.events import Event, InvalidEvent, decode, encode
from knlocal.gateway.http import BodyTooLarge, Request

SERVICE = "request-reply"
_TEXT = (("Content-Type", "text/plain; charset=utf-8"),)
_NONCE = 12


@dataclass(slots=True)
class Conversation:
    """One RequestReply: where it asks, and who waits for what."""

    exchange: Callable[[], Exchange | None]
    timeout: float
    correlation: str
    reply: str
    waiting: dict[str, asyncio.Future[Event]] = field(default_factory=dict)


class RequestReplyDoor:
    """`/<namespace>/<name>` on the host of all RequestReplies. Both questions and, from the
    trigger, replies come here."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seal = AESGCM(AESGCM.generate_key(256))
        self.conversations: dict[tuple[str, str], Conversation] = {}

    async def __call__(self, request: Request) -> None:
        if request.method != "POST":
            status = 200 if request.method == "OPTIONS" else 405
            await request.respond(status, (ALLOW,))
            return
        parts = request.path.strip("/").split("/")
        conversation = self.conversations.get((parts[0], parts[1])) if len(parts) == 2 else None
        if conversation is None:
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
        if conversation.reply in event.attributes:
            await self._take_reply(request, conversation, event)
        else:
            await self._ask(request, conversation, event)

    async def _ask(self, request: Request, conversation: Conversation, event: Event) -> None:
        exchange = conversation.exchange()
        if exchange is None:
            await request.respond(503, _TEXT, "the broker is not ready\n")
            return
        correlation = self._correlation(event.id)
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
        correlation = str(event.attributes[conversation.reply])
        if not self._is_ours(correlation):
            await request.respond(400, _TEXT, f"{conversation.reply} is none that was given here\n")
            return
        waiting = conversation.waiting.get(correlation)
        if waiting is not None and not waiting.done():
            waiting.set_result(event)
        # A reply that comes too late has nobody to go to; sending it again would not help.
        await request.respond(202)

    def _correlation(self, event_id: str) -> str:
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._seal.encrypt(nonce, event_id.encode(), None)
        return f"{event_id}:{base64.urlsafe_b64encode(sealed).decode()}:0"

    def _is_ours(self, correlation: str) -> bool:
        event_id, _, rest = correlation.rpartition(":")[0].rpartition(":")
        try:
            sealed = base64.urlsafe_b64decode(rest)
            opened = self._seal.decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
        except (ValueError, InvalidTag):
            return False
        return opened == event_id.encode()
