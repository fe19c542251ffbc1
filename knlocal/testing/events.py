"""Sending events into a project, and expecting what comes of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from cloudevents.core.base import BaseCloudEvent

from knlocal.events import Event, encode
from knlocal.events.sdk import from_sdk
from knlocal.journal.trail import Trail
from knlocal.resources.base import GroupKind
from knlocal.testing.matching import data_of, explain, hidden, mismatches, seconds

if TYPE_CHECKING:
    from knlocal.testing.project import LocalProject

__tracebackhide__ = hidden

BROKER = GroupKind("eventing.knative.dev", "Broker")
CHANNEL = GroupKind("messaging.knative.dev", "Channel")


class Events:
    """`project.events`: what was sent where is in the journal; expectations read it there."""

    def __init__(self, project: LocalProject) -> None:
        self._project = project
        self._taken: set[int] = set()

    def send(
        self,
        to: str = "broker:default",
        *,
        event: BaseCloudEvent | Event | None = None,
        type: str = "",
        source: str = "/test",
        data: Any = None,
        id: str = "",
        **attributes: str,
    ) -> Event:
        """Send an event to "broker:NAME", "channel:NAME", "service:NAME" or a URL, and return it.

        `event` is a whole one (the CloudEvents SDK's or knlocal's); otherwise one is made of the
        other arguments. `data`: bytes as they are, text as text/plain, anything else as JSON.
        Fails the test when the event is not accepted.
        """
        sent = _whole(event) if event is not None else make(type, source, data, id, attributes)
        self._project.run(self._send(to, sent), 60)
        return sent

    async def asend(self, to: str = "broker:default", **what: Any) -> Event:
        """`send` for asynchronous tests."""
        whole = what.pop("event", None)
        event = _whole(whole) if whole is not None else make(
            what.pop("type", ""), what.pop("source", "/test"), what.pop("data", None),
            what.pop("id", ""), what,
        )  # fmt: skip
        await self._project.aio(self._send(to, event))
        return event

    async def _send(self, to: str, event: Event) -> None:
        await self.post(self._url(to), event)

    async def post(self, url: str, event: Event) -> None:
        """Send a whole event to a URL, on the daemon's loop; AssertionError when refused."""
        message = encode(event, "binary")
        answer = await self._project.daemon.client.request(
            "POST", url, message.headers, message.body, 30
        )
        if answer.status >= 300:
            raise AssertionError(
                f"{url} did not accept event {event.id} ({event.type}): status {answer.status} "
                f"{answer.body[:200].decode(errors='replace')}"
            )

    def _url(self, to: str) -> str:
        kind, _, name = to.partition(":")
        if name.startswith("//"):
            return to
        namespace = self._project.namespace
        if kind == "service":
            self._project.check_service(namespace, name)
            return f"http://{name}.{namespace}.svc.cluster.local/"
        group_kinds = {"broker": BROKER, "channel": CHANNEL}
        if kind not in group_kinds or not name:
            raise ValueError(
                f'{to!r} names no place; write "broker:NAME", "channel:NAME", "service:NAME" '
                "or a URL"
            )
        self._project.check(name, namespace, group_kinds[kind])
        obj = self._project.daemon.store.get(group_kinds[kind], namespace, name)
        url = ((obj.get("status") or {}).get("address") or {}).get("url")
        if not url:
            raise AssertionError(f"{to} has no address yet: is it ready?")
        return str(url)

    # -- expecting ----------------------------------------------------------------------------

    def expect(self, *, within: float | str = "5s", **wanted: Any) -> Event:
        """The first event, sent to any broker or channel of the project and not expected before,
        that has these attributes (and `data`). Fails with the trail of what did arrive."""
        limit = seconds(within)
        return self._project.run(self._expect(limit, wanted), limit + 10)

    async def aexpect(self, *, within: float | str = "5s", **wanted: Any) -> Event:
        return await self._project.aio(self._expect(seconds(within), wanted))

    def trails(self) -> str:
        """What passed the project's brokers and channels, and who wanted it: for messages."""
        place = self._project.namespace
        found = [t for t in self._project.daemon.journal.trails() if t.door.namespace == place]
        if not found:
            return ""
        lines = [line for trail in found[-10:] for line in _passed(trail)]
        return "\n".join(["", "what passed brokers and channels:", *lines])

    async def _expect(self, limit: float, wanted: Mapping[str, Any]) -> Event:
        journal, place = self._project.daemon.journal, self._project.namespace
        changed = asyncio.Event()
        stop = journal.listen(lambda *_: changed.set())
        seen: list[tuple[int, Event]] = []
        try:
            async with asyncio.timeout(limit):
                while True:
                    changed.clear()
                    seen = [
                        (t.seq, t.event)
                        for t in journal.trails()
                        if t.door.namespace == place and t.seq not in self._taken
                    ]
                    for number, event in seen:
                        if not mismatches(event, wanted):
                            self._taken.add(number)
                            return event
                    await changed.wait()
        except TimeoutError:
            shown = ", ".join(f"{name}={value!r}" for name, value in wanted.items()) or "any event"
            arrived = explain([event for _, event in seen], wanted)
            raise AssertionError(f"no event with {shown} within {limit:g} s; {arrived}") from None
        finally:
            stop()


def _passed(trail: Trail) -> Iterator[str]:
    """A trail in a line, and one for each who did not get the event."""
    entry = trail.to_json()
    yield f"  - {trail.event.type} {trail.event.id} at {entry['door']['label']}"
    if not entry["subscribers"]:
        yield "      where nobody subscribes"
    for one in entry["subscribers"]:
        if one["outcome"] == "refused":
            yield f"      {one['name']}: not for it: {one['refused']['text']}"
        else:
            yield f"      {one['name']}: {one['outcome']}"


def make(type_: str, source: str, data: Any, id_: str, attributes: Mapping[str, str]) -> Event:
    """An event as tests write it."""
    if not type_:
        raise ValueError('an event needs a type: send(type="order.created", …)')
    body, content_type = _encoded(data)
    found: dict[str, Any] = {
        "specversion": "1.0",
        "id": id_ or str(uuid.uuid4()),
        "type": type_,
        "source": source,
        **attributes,
    }
    if content_type:
        found.setdefault("datacontenttype", content_type)
    return Event(found, body)


def _whole(event: BaseCloudEvent | Event) -> Event:
    return event if isinstance(event, Event) else from_sdk(event)


def _encoded(data: Any) -> tuple[bytes | None, str]:
    if data is None:
        return None, ""
    if isinstance(data, bytes):
        return data, "application/octet-stream"
    if isinstance(data, str):
        return data.encode(), "text/plain"
    return orjson.dumps(data), "application/json"


__all__ = ["Events", "data_of", "make"]
