"""The doors of brokers and channels over HTTP (behaviours E19–E22, E49, E81).

A batch is taken event by event; its answer is 202 only when each of them was accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from knlocal.eventing.exchange import ACCEPTED, Exchange, Verdict
from knlocal.eventing.headers import forwarded, picked
from knlocal.events import Event, InvalidEvent
from knlocal.events.http import decode_batch, decode_usual
from knlocal.gateway.http import BodyTooLarge, HeaderPairs, Request
from knlocal.gateway.routes import Route

MAX_EVENT = 8 * 1024 * 1024
"""Bytes of a request's body; above it is 413."""

ALLOW = ("Allow", "POST, OPTIONS")
_OPTIONS = (ALLOW, ("WebHook-Allowed-Origin", "*"), ("WebHook-Allowed-Rate", "*"))
_TEXT = ("Content-Type", "text/plain; charset=utf-8")

Find = Callable[[str, str], Exchange | None]
"""The exchange of a broker, by namespace and name."""


class BrokerIngress:
    """`/<namespace>/<name>` on the brokers' host."""

    def __init__(
        self,
        find: Find,
        max_event: int = MAX_EVENT,
        *,
        why_not: Callable[[str, str], str] = lambda namespace, name: "",
    ) -> None:
        """`why_not` tells what is the matter with a broker that is there and takes no events; ""
        when there is none."""
        self._find = find
        self._why_not = why_not
        self._max_event = max_event
        self.route = Route(self, at_once=self.at_once)

    async def __call__(self, request: Request) -> None:
        if request.method != "POST":
            await _not_post(request)
            return
        namespace, name, problem = _broker_of(request.path)
        if problem is not None:
            await _say(request, problem)
            return
        exchange = self._find(namespace, name)
        if exchange is None:
            why = self._why_not(namespace, name)
            no_broker = Verdict(404, f"there is no broker {name} in {namespace}")
            await _say(request, Verdict(500, why) if why else no_broker)
            return
        await take(request, exchange, self._max_event)

    def at_once(self, request: Request) -> bool:
        """The same without a task, for what is accepted (`Route.at_once`)."""
        if request.method != "POST":
            return False
        namespace, name, problem = _broker_of(request.path)
        exchange = None if problem else self._find(namespace, name)
        return exchange is not None and take_at_once(request, exchange, self._max_event)


@lru_cache(maxsize=1024)
def _broker_of(path: str) -> tuple[str, str, Verdict | None]:
    """Namespace and name, or what is wrong with the path."""
    if path == "/":
        return "", "", Verdict(404, "post to /<namespace>/<broker>")
    parts = path.strip("/").split("/")
    if len(parts) != 2 or not all(parts):
        reason = f"malformed path {path}: it must be /<namespace>/<broker>"
        return "", "", Verdict(400, reason)
    return parts[0], parts[1], None


class ChannelIngress:
    """`/` on a channel's own host."""

    def __init__(self, exchange: Exchange, max_event: int = MAX_EVENT) -> None:
        self.exchange = exchange
        self._max_event = max_event
        self.route = Route(self, at_once=self.at_once)

    async def __call__(self, request: Request) -> None:
        if request.method != "POST":
            await _not_post(request)
            return
        if request.path not in ("", "/"):
            await _say(request, Verdict(400, f"malformed path {request.path}: it must be /"))
            return
        await take(request, self.exchange, self._max_event)

    def at_once(self, request: Request) -> bool:
        """The same without a task, for what is accepted (`Route.at_once`)."""
        return (
            request.method == "POST"
            and request.path in ("", "/")
            and take_at_once(request, self.exchange, self._max_event)
        )


def take_at_once(request: Request, exchange: Exchange, max_event: int) -> bool:
    """Let the exchange accept the event of a request that is all here and as most are; False, and
    nothing is done, for any other."""
    body = request.buffered()
    if body is None or len(body) > max_event:
        return False
    names, values = request.fields
    event = decode_usual(names, values, body)
    if event is None:
        return False

    def then(verdict: Verdict) -> None:
        if verdict is ACCEPTED:
            request.respond_now(202)
        else:
            request.respond_now(*_said(verdict))

    exchange.offer(event, picked(names, values), then, owned=True)
    return True


async def take(request: Request, exchange: Exchange, max_event: int) -> None:
    """Read the request's events and let the exchange accept them."""
    try:
        body = await request.read(max_event)
    except BodyTooLarge:
        exchange.refuse(_named(request.headers), 413, f"larger than {max_event} bytes")
        await _say(request, Verdict(413, f"the event is larger than {max_event} bytes"))
        return
    try:
        events = decode_batch(request.headers, body)
    except InvalidEvent as error:
        exchange.refuse(_named(request.headers), 400, str(error))
        await _say(request, Verdict(400, str(error)))
        return
    forward = forwarded(request.headers)
    verdict = ACCEPTED
    for event in events:
        verdict = await exchange.accept(event, forward, owned=True)
        if verdict is not ACCEPTED:
            break
    if verdict is ACCEPTED:
        await request.respond(202)
    else:
        await _say(request, verdict)


async def _not_post(request: Request) -> None:
    if request.method == "OPTIONS":
        await request.respond(200, _OPTIONS)
    else:
        await request.respond(405, (ALLOW, _TEXT), f"{request.method} is not allowed here\n")


async def _say(request: Request, verdict: Verdict) -> None:
    await request.respond(*_said(verdict))


def _said(verdict: Verdict) -> tuple[int, HeaderPairs, str]:
    headers = [_TEXT]
    if verdict.retry_after:
        headers.append(("Retry-After", str(verdict.retry_after)))
    return verdict.status, headers, f"{verdict.reason}\n"


def _named(headers: Mapping[str, str]) -> Event:
    """What an unreadable event says of itself, for the trail."""
    names = ("id", "source", "type")
    return Event({name: headers[f"ce-{name}"] for name in names if f"ce-{name}" in headers})
