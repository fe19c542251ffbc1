"""Sending a source's events to its sink, as knative.dev/eventing pkg/adapter/v2 does."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any

from knlocal.clock import Clock
from knlocal.events import Event, encode
from knlocal.gateway import HttpClient, HttpClientError

log = logging.getLogger(__name__)

#: Behaviour E60: five retries, exponential from 50 ms.
RETRIES = 5
BACKOFF_FIRST = 0.05
TIMEOUT = 30.0
_RETRYABLE = {404, 408, 409, 429}


class Emitter:
    """Posts events to sinks. One for all sources."""

    def __init__(self, client: HttpClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

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
        """A new event, with an id and the time. `extensions` override attributes of that name."""
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
        return Event(attributes | dict(extensions or {}), data)

    async def send(self, event: Event, sink: str, namespace: str) -> bool:
        """Deliver with retries; False (and a log line) when the sink would not have it."""
        message = encode(event, "binary")
        headers = [*message.headers, ("Kn-Namespace", namespace)]
        why = ""
        for attempt in range(1 + RETRIES):
            if attempt:
                await self._clock.sleep(BACKOFF_FIRST * 2 ** (attempt - 1))
            try:
                response = await self._client.request("POST", sink, headers, message.body, TIMEOUT)
            except HttpClientError as error:
                why = str(error)
                continue
            if response.status < 300:
                return True
            why = f"status {response.status}"
            if response.status < 500 and response.status not in _RETRYABLE:
                break
        log.warning("event %s (%s) was not taken by %s: %s", event.id, event.type, sink, why)
        return False


def overrides(spec: Mapping[str, Any]) -> dict[str, str]:
    """`ceOverrides.extensions` of a source's spec."""
    return dict((spec.get("ceOverrides") or {}).get("extensions") or {})
