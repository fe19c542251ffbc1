"""The door to the journal: which events passed, what became of each, sending and replaying.

Below `/knlocal/v1/events`, behind the API's own guard:

    GET  /knlocal/v1/events?type=order.*&limit=20        the newest, oldest first, {"items": […]}
    GET  /knlocal/v1/events?follow=true                  JSON lines, as events come; with
                            &outcomes=true               when they have been dealt with
    GET  /knlocal/v1/events/ID                           everything known about one id
    POST /knlocal/v1/send    {"event": {…}, "to": URL}   one event, structured
    POST /knlocal/v1/replay  {"id": …} or a selection, and "to" for another sink
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
from aiohttp import web

from knlocal.apiserver import negotiation
from knlocal.apiserver.users import User
from knlocal.clock import Clock
from knlocal.events import Event, InvalidEvent, encode, validate
from knlocal.events.json_format import from_object
from knlocal.gateway import HttpClient, HttpClientError
from knlocal.journal import Journal, Selection, replay
from knlocal.journal.recording import Recorded, recorded
from knlocal.resources.status import BadRequest, MethodNotAllowed, NotFound

PREFIX = "/knlocal/v1/"
MAX_BODY = 8 * 1024 * 1024
MAX_LISTED = 10_000
SEND_SECONDS = 60.0


class EventDoor:
    """Mounted by the daemon at `PREFIX`."""

    def __init__(self, journal: Journal, client: HttpClient, clock: Clock) -> None:
        self._journal = journal
        self._client = client
        self._clock = clock

    async def handle(self, request: web.BaseRequest, _user: User) -> web.StreamResponse:
        what, _, rest = request.path.removeprefix(PREFIX).partition("/")
        if what == "events" and request.method == "GET":
            if rest:
                return self._explain(rest)
            if _flag(request.query, "follow"):
                return await self._follow(request)
            return self._recent(request)
        if what == "send" and request.method == "POST":
            return await self._send(await _body(request))
        if what == "replay" and request.method == "POST":
            return await self._replay(await _body(request))
        if what in ("events", "send", "replay"):
            raise MethodNotAllowed(f"{request.method} is not for {request.path}")
        raise NotFound(f"nothing is at {request.path}")

    # -- reading ------------------------------------------------------------------------------

    def _explain(self, event_id: str) -> web.Response:
        found = self._journal.explain(event_id)
        if not found:
            raise NotFound(
                f"no event with id {event_id!r} passed here, or it is forgotten by now",
                name=event_id,
            )
        return negotiation.answer({"items": found})

    def _recent(self, request: web.BaseRequest) -> web.Response:
        limit = _number(request.query, "limit", 100)
        found = self._journal.recent(selection(request.query), min(limit, MAX_LISTED))
        return negotiation.answer({"items": found})

    async def _follow(self, request: web.BaseRequest) -> web.StreamResponse:
        wanted = selection(request.query)
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
        backlog = _number(request.query, "backlog", 0)
        with self._journal.tail(wanted, outcomes=_flag(request.query, "outcomes")) as tail:
            await response.prepare(request)
            for entry in self._journal.recent(wanted, backlog) if backlog else ():
                await response.write(orjson.dumps(entry) + b"\n")
            async for entry in tail:
                await response.write(orjson.dumps(entry) + b"\n")
        return response

    # -- sending ------------------------------------------------------------------------------

    async def _send(self, body: Mapping[str, Any]) -> web.Response:
        to = str(body.get("to") or "")
        if not to:
            raise BadRequest('"to" is missing: the URL that gets the event')
        event = _event(body.get("event"), str(body.get("mode") or "structured"))
        answer = await self._post(event, to)
        return negotiation.answer({"id": event.id, **answer})

    async def _replay(self, body: Mapping[str, Any]) -> web.Response:
        chosen = self._chosen(body)
        results: list[dict[str, Any]] = []

        async def send(event: Event, url: str) -> int:
            answer = await self._post(event, url)
            results.append({"id": event.id, "type": event.type, "to": url, **answer})
            return int(answer["status"])

        await replay(
            chosen, send, self._clock,
            to=str(body.get("to") or ""), keep_pace=bool(body.get("keepPace")),
        )  # fmt: skip
        return negotiation.answer({"items": results})

    def _chosen(self, body: Mapping[str, Any]) -> list[Recorded]:
        if "events" in body:  # a recording that the client read from a file
            try:
                return [recorded(entry) for entry in body["events"]]
            except (InvalidEvent, ValueError, KeyError, TypeError) as error:
                raise BadRequest(f"these events cannot be sent again: {error}") from None
        wanted = {k: str(v) for k, v in body.items() if k not in ("to", "keepPace", "limit")}
        limit = _number({"limit": str(body.get("limit") or "")}, "limit", MAX_LISTED)
        found = self._journal.recent(selection(wanted), limit)
        # A reply comes again by itself when the event that it answered is sent again; only an
        # event that was named, and data that was kept, can be sent again.
        entries = [e for e in found if body.get("id") or not e.get("parent")]
        if not entries:
            raise NotFound("no event matches, so there is nothing to send again")
        lost = [e["event"]["id"] for e in entries if e.get("dataOmitted")]
        if lost:
            raise BadRequest(
                f"the data of {', '.join(lost[:5])} was too large to keep, so it cannot be sent "
                "again; record events to a file to keep all of it"
            )
        return [recorded(entry) for entry in entries]

    async def _post(self, event: Event, url: str) -> dict[str, Any]:
        message = encode(event)
        began = self._clock.monotonic()
        try:
            response = await self._client.request(
                "POST", url, message.headers, message.body, SEND_SECONDS
            )
        except HttpClientError as error:
            return {"status": 0, "error": str(error)}
        milliseconds = round((self._clock.monotonic() - began) * 1000, 3)
        text = response.body[:1000].decode(errors="replace")
        return {"status": response.status, "response": text, "milliseconds": milliseconds}


def selection(query: Mapping[str, str]) -> Selection:
    """The selection that a query asks for; `attribute.NAME=pattern` for any attribute."""
    attributes = {
        name.removeprefix("attribute."): value
        for name, value in query.items()
        if name.startswith("attribute.")
    }
    return Selection(
        id=query.get("id", ""),
        type=query.get("type", ""),
        source=query.get("source", ""),
        door=query.get("door", ""),
        attributes=attributes or None,
        since=_moment(query, "since"),
        until=_moment(query, "until"),
        failed=_flag(query, "failed"),
    )


async def _body(request: web.BaseRequest) -> Mapping[str, Any]:
    data = await request.read()
    if len(data) > MAX_BODY:
        raise BadRequest(f"the body is longer than {MAX_BODY} bytes")
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    return body


def _event(document: Any, mode: str) -> Event:
    if not isinstance(document, dict):
        raise BadRequest('"event" is missing: a CloudEvent in the JSON format')
    try:
        event = from_object(document)
        validate(event.attributes)
    except InvalidEvent as error:
        raise BadRequest(f"not a valid CloudEvent: {error}") from None
    event.mode = "binary" if mode == "binary" else "structured"
    return event


def _flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").lower() in ("1", "true", "yes")


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name) or str(default)
    if not text.isdigit():
        raise BadRequest(f"{name}={text!r} is no number")
    return int(text)


def _moment(query: Mapping[str, str], name: str) -> datetime | None:
    text = query.get(name)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise BadRequest(
            f"{name}={text!r} is no time; write it like 2026-01-31T12:00:00Z"
        ) from None
    if moment.tzinfo is None:
        raise BadRequest(f"{name}={text!r} names no time zone; append Z for UTC")
    return moment
