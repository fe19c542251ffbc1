"""Sending a source's events to its sink, as knative.dev/eventing pkg/adapter/v2 does."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from knlocal.clock import Clock
from knlocal.events import Event, encode
from knlocal.gateway import HttpClient, HttpClientError
from knlocal.journal import Journal, Step
from knlocal.journal.trail import response_start
from knlocal.resources.base import Key
from knlocal.sources.trace import Outcome, trace

log = logging.getLogger(__name__)

#: Behaviour E60: five retries, exponential from 50 ms.
RETRIES = 5
BACKOFF_FIRST = 0.05
TIMEOUT = 30.0
_RETRYABLE = {404, 408, 409, 429}


class Emitter:
    """Posts events to sinks. One for all sources.

    With a journal, an event that comes to no broker or channel here (these keep trails themselves)
    is traced at its source.
    """

    def __init__(self, client: HttpClient, clock: Clock, journal: Journal | None = None) -> None:
        self._client = client
        self._clock = clock
        self._journal = journal
        #: Requests that wait for their answer now.
        self.in_flight = 0

    def event(
        self,
        type_: str,
        source: str,
        data: bytes | None = None,
        content_type: str = "",
        *,
        subject: str = "",
        extensions: Mapping[str, Any] | None = None,
    ) -> Event:
        """A new event, with an id and the time. `extensions` override attributes of that name;
        those that are None or empty are left out, as an event cannot carry them."""
        attributes: dict[str, Any] = {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "type": type_,
            "source": source,
            "time": self._clock.now().isoformat().replace("+00:00", "Z"),
        }
        if subject:
            attributes["subject"] = subject
        if content_type and data is not None:
            attributes["datacontenttype"] = content_type
        attributes |= {k: v for k, v in (extensions or {}).items() if v not in (None, "")}
        return Event(attributes, data)

    async def send(self, event: Event, sink: str, sender: Key) -> bool:
        """Deliver with retries; False (and a log line) when the sink would not have it."""
        message = encode(event, "binary")
        headers = [*message.headers, ("Kn-Namespace", sender.namespace)]
        steps: list[Step] = []
        for attempt in range(1 + RETRIES):
            if attempt:
                await self._clock.sleep(BACKOFF_FIRST * 2 ** (attempt - 1))
            step = await self._attempt(sink, headers, message.body)
            steps.append(step)
            if 200 <= step.status < 300:
                self._trace(event, sink, sender, steps, "delivered")
                return True
            if 0 < step.status < 500 and step.status not in _RETRYABLE:
                break
        why = f"status {steps[-1].status}" if steps[-1].status else steps[-1].detail
        log.warning("event %s (%s) was not taken by %s: %s", event.id, event.type, sink, why)
        self._trace(event, sink, sender, steps, "dropped")
        return False

    async def _attempt(self, sink: str, headers: Sequence[tuple[str, str]], body: bytes) -> Step:
        at, began = self._clock.now(), self._clock.monotonic()
        self.in_flight += 1
        try:
            response = await self._client.request("POST", sink, headers, body, TIMEOUT)
        except HttpClientError as error:
            status, detail = 0, str(error)
        else:
            status, detail = response.status, response_start(response.body)
        finally:
            self.in_flight -= 1
        return Step("attempt", sink, at, sink, status, self._clock.monotonic() - began, detail)

    def _trace(
        self, event: Event, sink: str, sender: Key, steps: list[Step], outcome: Outcome
    ) -> None:
        if self._journal is None or self._journal.find(event.id):
            return
        detail = "" if outcome == "delivered" else "the sink did not take it"
        trace(self._journal, sender, sink, event, sink, outcome, detail, steps)


def overrides(spec: Mapping[str, Any]) -> dict[str, str]:
    """`ceOverrides.extensions` of a source's spec."""
    return dict((spec.get("ceOverrides") or {}).get("extensions") or {})
