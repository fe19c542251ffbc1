"""The HTTP binding of CloudEvents: requests and responses to events and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote, unquote

from knlocal.events.event import Event, InvalidEvent, Mode, canonical, is_valid, validate
from knlocal.events.json_format import (
    BATCH_MEDIA_TYPE,
    MEDIA_TYPE,
    from_batch,
    from_json,
    to_batch,
    to_json,
)

STRUCTURED_CONTENT_TYPE = f"{MEDIA_TYPE}; charset=utf-8"
BATCH_CONTENT_TYPE = f"{BATCH_MEDIA_TYPE}; charset=utf-8"

_PLAIN = re.compile(r"[!#$&-~]*").fullmatch
_SAFE = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"%')
_QUOTED_PAIR = re.compile(r"\\(.)")


class Message(NamedTuple):
    """Header fields and body of a request or response."""

    headers: tuple[tuple[str, str], ...]
    body: bytes


def has_event(headers: Mapping[str, str]) -> bool:
    """Whether a message with these (case-insensitive) headers means to carry an event."""
    return "ce-specversion" in headers or headers.get("content-type", "").lower().startswith(
        "application/cloudevents"
    )


def decode(headers: Mapping[str, str], body: bytes) -> Event:
    """The one event of a message in binary or structured mode; InvalidEvent with the reason.

    `headers` compare without case, as a CIMultiDict does.
    """
    content_type = headers.get("content-type", "")
    if content_type[:23].lower() == "application/cloudevents":
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type == MEDIA_TYPE:
            return from_json(body)
        if media_type == BATCH_MEDIA_TYPE:
            raise InvalidEvent("a batch of events is not accepted here, send them one by one")
        raise InvalidEvent(f"the event format {media_type} is not supported, {MEDIA_TYPE} is")
    return _from_binary(headers, content_type, body)


def decode_batch(headers: Mapping[str, str], body: bytes) -> list[Event]:
    """The events of a message in any mode."""
    content_type = headers.get("content-type", "")
    if content_type[:29].lower() == "application/cloudevents-batch":
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type == BATCH_MEDIA_TYPE:
            return from_batch(body)
    return [decode(headers, body)]


def encode(event: Event, mode: Mode | None = None) -> Message:
    """The event as a message, in the mode it came in unless told otherwise. Made only once."""
    mode = mode or event.mode
    cache = event.cache
    if cache is None:
        cache = event.cache = {}
    message: Message | None = cache.get(mode)
    if message is None:
        if mode == "structured":
            message = Message((("Content-Type", STRUCTURED_CONTENT_TYPE),), to_json(event))
        else:
            message = _to_binary(event)
        cache[mode] = message
    return message


def lines(event: Event, mode: Mode | None = None) -> tuple[str, bytes]:
    """The event as `encode` has it: its headers as HTTP/1.1 lines, each with its CRLF, and the
    body. Made only once."""
    key = (mode or event.mode) + " lines"
    found: tuple[str, bytes] | None = event.cache.get(key) if event.cache else None
    if found is None:
        headers, body = encode(event, mode)
        text = "".join([f"{name}: {value}\r\n" for name, value in headers])
        if text.count("\n") != len(headers) or text.count("\r") != len(headers):
            raise ValueError("an attribute contains a line break")
        found = text, body
        assert event.cache is not None
        event.cache[key] = found
    return found


def encode_batch(events: Iterable[Event]) -> Message:
    return Message((("Content-Type", BATCH_CONTENT_TYPE),), to_batch(list(events)))


def decode_header(value: str) -> str:
    """An attribute's value out of a header (HTTP binding, 3.1.3.2)."""
    if value[:1] == '"' and value[-1:] == '"' and len(value) > 1:
        value = _QUOTED_PAIR.sub(r"\1", value[1:-1])
    if "%" in value:
        try:
            value = unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise InvalidEvent(f'"{value}" does not decode to UTF-8') from None
    return value


def encode_header(value: str) -> str:
    """An attribute's value for a header (HTTP binding, 3.1.3.2)."""
    return value if _PLAIN(value) else quote(value, safe=_SAFE)


#: Headers that belong to no attribute.
_OTHER = ""
#: Attribute by header name, as received; "" for other headers. Most events use the same few.
_ATTRIBUTES: dict[str, str] = {}
_KNOWN_AT_MOST = 4096


def _attribute_of(header: str) -> str:
    """The attribute that a header carries, or "". Remembers, up to a bound."""
    lower = header.lower()
    if lower.startswith("ce-"):
        name = lower[3:]
    else:
        name = "datacontenttype" if lower == "content-type" else _OTHER
    if len(_ATTRIBUTES) >= _KNOWN_AT_MOST:
        _ATTRIBUTES.clear()
    _ATTRIBUTES[header] = name
    return name


def _from_binary(headers: Mapping[str, str], content_type: str, body: bytes) -> Event:
    if "ce-specversion" not in headers:
        raise InvalidEvent(
            f"not a CloudEvent: neither a ce-specversion header nor a Content-Type of {MEDIA_TYPE}"
        )
    attributes: dict[str, str] = {}
    plain = True
    known = _ATTRIBUTES
    for header, value in headers.items():
        name = known.get(header)
        if name is None:
            name = _attribute_of(header)
        if not name:
            continue
        if not _PLAIN(value) and name != "datacontenttype":
            plain = False
            try:
                value = decode_header(value)
            except InvalidEvent as error:
                raise InvalidEvent(f"{name}: {error}") from None
        elif name == "datacontenttype" and header[:3].lower() == "ce-":
            raise InvalidEvent("ce-datacontenttype MUST NOT be present, Content-Type says it")
        attributes[name] = value
    if attributes.get("datacontenttype") == "":
        del attributes["datacontenttype"]
    if not (plain and is_valid(attributes)):
        validate(attributes)
    event = Event(attributes, body or None)
    event.plain = plain
    return event


_HEADERS: dict[str, str] = {}


def _header_of(attribute: str) -> str:
    if len(_HEADERS) >= _KNOWN_AT_MOST:
        _HEADERS.clear()
    _HEADERS[attribute] = header = f"Ce-{attribute.capitalize()}"
    return header


def _to_binary(event: Event) -> Message:
    headers = []
    content_type = ""
    plain = event.plain
    known = _HEADERS
    for name, value in event.attributes.items():
        if name == "datacontenttype":
            content_type = value
        else:
            header = known.get(name) or _header_of(name)
            headers.append((header, value if plain else encode_header(canonical(value))))
    if content_type:
        headers.append(("Content-Type", content_type))
    return Message(tuple(headers), event.data or b"")
