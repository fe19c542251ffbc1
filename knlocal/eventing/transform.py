"""EventTransform at work: JSONata over the event in the JSON format (behaviour E75)."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import orjson

from knlocal.eventing.dispatcher import Dispatcher
from knlocal.eventing.ingress import ALLOW, MAX_EVENT
from knlocal.eventing.subscriber import Answer
from knlocal.events import Event, InvalidEvent, decode, encode, has_event, to_json
from knlocal.events.json_format import from_object
from knlocal.gateway.http import BodyTooLarge, Request

EVALUATION_MILLISECONDS = 5_000
"""How long an expression may run: the language can loop for ever."""

SEND_SECONDS = 60.0

_threads = ThreadPoolExecutor(4, thread_name_prefix="jsonata")
_TEXT = (("Content-Type", "text/plain; charset=utf-8"),)


class TransformError(ValueError):
    """The expression does not parse, fails, or makes no valid event; the message says which."""


@lru_cache(maxsize=512)
def compiled(expression: str) -> Any:
    """The program (`evaluate(document)`); TransformError when it does not parse."""
    # Imported here: few projects transform, and all want to start soon.
    from jsonata import Jsonata
    from jsonata.jexception import JException

    try:
        return Jsonata(expression, timeout=EVALUATION_MILLISECONDS)
    except (JException, RecursionError) as error:
        raise TransformError(f"invalid JSONata expression: {error}") from None


async def transformed(event: Event, expression: str) -> Event:
    """The event that the expression makes of `event`."""
    program = compiled(expression)
    from jsonata.jexception import JException

    document = orjson.loads(to_json(event))
    loop = asyncio.get_running_loop()
    try:
        made = await loop.run_in_executor(_threads, program.evaluate, document)
    except RecursionError:
        raise TransformError("the expression nests too deeply") from None
    except JException as error:
        raise TransformError(f"the expression failed: {error}") from None
    try:
        # What JSONata makes are its own kinds of lists and maps: through JSON they become plain.
        result = from_object(orjson.loads(orjson.dumps(made)))
    except (InvalidEvent, TypeError) as error:
        raise TransformError(f"the expression made no valid CloudEvent: {error}") from None
    result.mode = event.mode
    return result


class TransformHandler:
    """Answers for one EventTransform; `spec` and `sink` are put right by its controller."""

    def __init__(self, dispatcher: Dispatcher, spec: dict[str, Any], sink: str) -> None:
        self._dispatcher = dispatcher
        self.spec = spec
        self.sink = sink

    async def __call__(self, request: Request) -> None:
        if request.method != "POST":
            status = 200 if request.method == "OPTIONS" else 405
            await request.respond(status, (ALLOW,))
            return
        try:
            event = decode(request.headers, await request.read(MAX_EVENT))
            result = await transformed(event, self.spec["jsonata"]["expression"])
            if self.sink:
                await self._pass_on(request, result)
            else:
                await _answer(request, 200, result)
        except BodyTooLarge:
            await request.respond(413, _TEXT, f"the event is larger than {MAX_EVENT} bytes\n")
        except InvalidEvent as error:
            await request.respond(400, _TEXT, f"{error}\n")
        except TransformError as error:
            await request.respond(500, _TEXT, f"{error}\n")

    async def _pass_on(self, request: Request, event: Event) -> None:
        answer = await self._dispatcher.send_once(self.sink, event, SEND_SECONDS)
        if not answer.status:
            await request.respond(502, _TEXT, f"{answer.error}\n")
            return
        reply = self.spec.get("reply") or {}
        if reply.get("discard"):
            await request.respond(answer.status)
        elif reply.get("jsonata") and answer.accepted and has_event(answer.headers):
            event = decode(answer.headers, answer.body)
            result = await transformed(event, reply["jsonata"]["expression"])
            await _answer(request, answer.status, result)
        else:
            await request.respond(answer.status, _content(answer), answer.body)


async def _answer(request: Request, status: int, event: Event) -> None:
    message = encode(event)
    await request.respond(status, message.headers, message.body)


def _content(answer: Answer) -> list[tuple[str, str]]:
    """The headers of an answer that belong to its body."""
    return [
        (name, value)
        for name, value in answer.headers.items()
        if name.lower() == "content-type" or name.lower().startswith("ce-")
    ]
