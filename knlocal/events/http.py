"""The HTTP binding of CloudEvents: requests and responses to events and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple
from urllib.parse import quote, unquote

from knlocal.events.event import (
    SPEC_VERSIONS,
    Event,
    InvalidEvent,
    Mode,
    canonical,
    is_media_type,
    is_name,
    is_reference,
    is_usual_time,
    validate,
)
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
_ESCAPED = re.compile(r"[!#-~]*").fullmatch
"""A header as it may go on: nothing in it that would have to be encoded, but for %."""
_URIS = frozenset({"source", "dataschema", "schemaurl"})
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
    names, values = tuple(headers.keys()), tuple(headers.values())
    return decode_usual(names, values, body) or _from_binary(headers, body)


def decode_usual(names: tuple[str, ...], values: tuple[str, ...], body: bytes) -> Event | None:
    """The event of a message in binary mode, by the names and values of its headers, if it is as
    nearly all are: valid, and without anything that is encoded. None means that `decode` has to
    look."""
    shape = _SHAPES.get(names) or _shape_of(names)
    picked = shape.pick(values)
    if "" in picked or not _PLAIN("".join(picked)):
        return None
    attributes = dict(zip(shape.attributes, picked, strict=True))
    if attributes["specversion"] not in SPEC_VERSIONS or not is_reference(attributes["source"]):
        return None
    if "time" in attributes and not is_usual_time(attributes["time"]):
        return None
    if shape.content_type >= 0:
        content_type = values[shape.content_type]
        if not _is_of_data(content_type):
            return None
        attributes["datacontenttype"] = content_type
    event = Event(attributes, body or None)
    event.plain = True
    return event


class _Shape(NamedTuple):
    """What the names of a message's headers say."""

    attributes: tuple[str, ...]
    """The attributes in them, but for the content type."""
    pick: Callable[[tuple[str, ...]], tuple[str, ...]]
    """Their values, out of those of all headers."""
    content_type: int
    """Where the content type is, -1 without one."""


#: By the names as received. Bounded.
_SHAPES: dict[tuple[str, ...], _Shape] = {}
_UNUSUAL = _Shape((), lambda values: ("",), -1)
_REQUIRED = {"specversion", "id", "type", "source"}
#: Attributes whose values are checked one by one, or must not be there.
_LOOKED_AT = {"datacontenttype", "dataschema", "schemaurl", "data"}


def _shape_of(names: tuple[str, ...]) -> _Shape:
    lower = [name.lower() for name in names]
    places = [place for place, name in enumerate(lower) if name.startswith("ce-")]
    attributes = tuple([lower[place][3:] for place in places])
    shape = _UNUSUAL
    if (
        set(attributes) >= _REQUIRED
        and len(set(attributes)) == len(attributes)
        and not _LOOKED_AT & set(attributes)
        and all(map(is_name, attributes))
        and lower.count("content-type") <= 1
    ):
        content_type = lower.index("content-type") if "content-type" in lower else -1
        shape = _Shape(attributes, itemgetter(*places), content_type)
    if len(_SHAPES) >= 512:
        _SHAPES.clear()
    _SHAPES[names] = shape
    return shape


@lru_cache(maxsize=512)
def _is_of_data(content_type: str) -> bool:
    """Whether a content type is valid, and not that of an event format."""
    return is_media_type(content_type) and not content_type.lower().startswith(
        "application/cloudevents"
    )


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
    body."""
    if event.plain and (mode or event.mode) == "binary":
        attributes = event.attributes
        names = tuple(attributes)
        pattern = _LINES.get(names) or _lines_of(names)
        return pattern % tuple(attributes.values()), event.data or b""
    headers, body = encode(event, mode)
    text = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers):
        raise ValueError("an attribute contains a line break")
    return text, body


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


def _from_binary(headers: Mapping[str, str], body: bytes) -> Event:
    if "ce-specversion" not in headers:
        raise InvalidEvent(
            f"not a CloudEvent: neither a ce-specversion header nor a Content-Type of {MEDIA_TYPE}"
        )
    attributes: dict[str, str] = {}
    wire: dict[str, tuple[str, str]] = {}
    for header, value in headers.items():
        name = header.lower()
        if name == "content-type":
            if value:
                attributes["datacontenttype"] = value
        elif name == "ce-datacontenttype":
            raise InvalidEvent("ce-datacontenttype MUST NOT be present, Content-Type says it")
        elif name.startswith("ce-"):
            attribute = name[3:]
            attributes[attribute] = decoded = _decoded(attribute, value)
            if "%" in value and _ESCAPED(value):
                wire[attribute] = decoded, value
    validate(attributes)
    event = Event(attributes, body or None)
    event.wire = wire or None
    return event


def _decoded(attribute: str, value: str) -> str:
    try:
        decoded = decode_header(value)
    except InvalidEvent as error:
        raise InvalidEvent(f"{attribute}: {error}") from None
    if attribute in _URIS and not is_reference(decoded) and is_reference(value):
        return value  # many SDKs send a URI as it is, and its escapes are its own
    return decoded


#: Header by attribute. Bounded.
_HEADERS: dict[str, str] = {}
#: Header lines by the names of the attributes, with a %s for each value. Bounded.
_LINES: dict[tuple[str, ...], str] = {}


def _header_of(attribute: str) -> str:
    header = "Content-Type" if attribute == "datacontenttype" else f"Ce-{attribute.capitalize()}"
    if len(_HEADERS) >= 4096:
        _HEADERS.clear()
    _HEADERS[attribute] = header
    return header


def _lines_of(attributes: tuple[str, ...]) -> str:
    found = "".join([f"{_header_of(name)}: %s\r\n" for name in attributes])
    if len(_LINES) >= 512:
        _LINES.clear()
    _LINES[attributes] = found
    return found


def _to_binary(event: Event) -> Message:
    plain = event.plain
    known = _HEADERS
    wire = event.wire or {}
    headers = tuple(
        [
            (
                known.get(name) or _header_of(name),
                value
                if plain or name == "datacontenttype"
                else wire[name][1]
                if name in wire and wire[name][0] == value
                else encode_header(canonical(value)),
            )
            for name, value in event.attributes.items()
        ]
    )
    return Message(headers, event.data or b"")
