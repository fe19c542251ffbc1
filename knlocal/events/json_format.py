"""The JSON format of CloudEvents: structured mode, batches, saved events."""

from __future__ import annotations

import base64
import binascii
import json
import re
from functools import lru_cache
from typing import Any

import orjson

from knlocal.events.event import Event, InvalidEvent, validate

MEDIA_TYPE = "application/cloudevents+json"
BATCH_MEDIA_TYPE = "application/cloudevents-batch+json"

_LONG_NUMBER = re.compile(rb"\d{16}").search


def from_json(body: bytes) -> Event:
    """The event in a JSON document; InvalidEvent with the reason."""
    return from_object(_loads(body))


def from_batch(body: bytes) -> list[Event]:
    """The events in a JSON batch; InvalidEvent names the first bad one by its index."""
    items = _loads(body)
    if not isinstance(items, list):
        raise InvalidEvent("a batch MUST be a JSON array")
    events = []
    for index, item in enumerate(items):
        try:
            events.append(from_object(item))
        except InvalidEvent as error:
            raise InvalidEvent(f"event {index} of the batch: {error}") from None
    return events


def from_object(document: Any) -> Event:
    """The event in an already parsed JSON document."""
    if not isinstance(document, dict):
        raise InvalidEvent("an event in the JSON format MUST be a JSON object")
    attributes = {
        name: value
        for name, value in document.items()
        if value is not None and name not in ("data", "data_base64")
    }
    encoding = None
    if attributes.get("specversion") == "0.3":
        encoding = attributes.pop("datacontentencoding", None)
        if encoding is not None and str(encoding).lower() != "base64":
            raise InvalidEvent(f'datacontentencoding: "{encoding}" is unknown, only base64 is')
    validate(attributes)
    event = Event(attributes, mode="structured")
    if document.get("data_base64") is not None:
        if "data" in document:
            raise InvalidEvent("data and data_base64 MUST NOT both be present")
        event.data, event.content = _decode_base64(document["data_base64"], "data_base64"), "binary"
    elif "data" in document:
        _take_data(event, document["data"], encoding is not None)
    return event


def to_json(event: Event) -> bytes:
    """The event as a JSON document."""
    return orjson.dumps(to_object(event))


def to_object(event: Event) -> dict[str, Any]:
    """The event for `orjson.dumps` (JSON data is a ready-made fragment)."""
    document = dict(event.attributes)
    if event.data is None:
        return document
    content = event.content or _content_of(event)
    if content == "json":
        document["data"] = orjson.Fragment(event.data)
    elif content == "text":
        document["data"] = event.data.decode()
    elif event.attributes.get("specversion") == "0.3":
        document["datacontentencoding"] = "base64"
        document["data"] = base64.b64encode(event.data).decode()
    else:
        document["data_base64"] = base64.b64encode(event.data).decode()
    return document


def to_batch(events: list[Event]) -> bytes:
    return orjson.dumps([to_object(event) for event in events])


@lru_cache(maxsize=512)
def is_json(content_type: str) -> bool:
    """True for `*/json` and `*/*+json`, parameters aside."""
    media_type = content_type.partition(";")[0].strip().lower()
    subtype = media_type.partition("/")[2]
    return subtype == "json" or subtype.endswith("+json")


def _content_of(event: Event) -> Any:
    """How data that came in binary mode goes into JSON."""
    assert event.data is not None
    content_type = event.attributes.get("datacontenttype")
    if content_type and is_json(content_type):
        try:
            orjson.loads(event.data)
        except orjson.JSONDecodeError:
            return "binary"
        return "json"
    if content_type and (content_type.lower().startswith("text/") or "xml" in content_type):
        try:
            event.data.decode()
        except UnicodeDecodeError:
            return "binary"
        return "text"
    return "binary"


def _take_data(event: Event, data: Any, is_base64: bool) -> None:
    content_type = event.attributes.get("datacontenttype")
    if is_base64:
        event.data, event.content = _decode_base64(data, "data"), "binary"
    elif content_type is None or is_json(content_type):
        event.data, event.content = _dumps(data), "json"
        if content_type is None:
            # Implied by the JSON format; said aloud, so that binary mode keeps it.
            event.attributes["datacontenttype"] = "application/json"
    elif isinstance(data, str):
        event.data, event.content = data.encode(), "text"
    else:
        # Senders do this, and Knative lets it pass: the JSON text is the content.
        event.data, event.content = _dumps(data), "json"


def _decode_base64(value: Any, name: str) -> bytes:
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error:
            pass
    raise InvalidEvent(f"{name}: MUST be a base64 string")


def _loads(body: bytes) -> Any:
    # orjson turns integers beyond 64 bits into floats; an event must arrive as it was sent.
    try:
        return json.loads(body) if _LONG_NUMBER(body) else orjson.loads(body)
    except ValueError as error:
        raise InvalidEvent(f"the body is no JSON: {error}") from None
    except RecursionError:
        raise InvalidEvent("the body is no JSON: nested too deeply") from None


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer beyond 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
