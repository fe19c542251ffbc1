"""The event, and what makes one valid (CloudEvents 1.0, and 0.3 which is carried unchanged)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

Mode = Literal["binary", "structured"]

Content = Literal["", "json", "text", "binary"]
"""What `data` is in the JSON format: a JSON value, a string, bytes; "" means that nobody said, as
in binary mode, where the content type decides."""

SPEC_VERSIONS = ("1.0", "0.3")


class InvalidEvent(ValueError):
    """What came in is no valid CloudEvent; the message says why, attribute by attribute."""


class Event:
    """A CloudEvent: typed attributes, data as bytes, and the mode it came in.

    Treat it as immutable; `with_attributes` makes another. `attributes` holds str, and bool or
    int where the JSON format said so; `data` None means that there is none.
    """

    __slots__ = ("attributes", "cache", "content", "data", "mode", "plain", "wire")

    def __init__(
        self,
        attributes: dict[str, Any],
        data: bytes | None = None,
        mode: Mode = "binary",
        content: Content = "",
    ) -> None:
        self.attributes = attributes
        self.data = data
        self.mode: Mode = mode
        self.content: Content = content
        #: Whether every attribute is a string that needs no encoding in a header.
        self.plain = False
        #: Attributes whose header had escapes in it: the value, and the header that it came in.
        #: While the value is still that, the header goes on as it is.
        self.wire: dict[str, tuple[str, str]] | None = None
        #: Encodings already made: a fan-out encodes once. None when there are none.
        self.cache: dict[str, Any] | None = None

    @property
    def id(self) -> str:
        return str(self.attributes.get("id", ""))

    @property
    def type(self) -> str:
        return str(self.attributes.get("type", ""))

    @property
    def source(self) -> str:
        return str(self.attributes.get("source", ""))

    def with_attributes(self, changes: Mapping[str, Any]) -> Event:
        """The same event with some attributes set, or (value None) removed."""
        attributes = {**self.attributes, **changes}
        for name, value in changes.items():
            if value is None:
                del attributes[name]
        event = Event(attributes, self.data, self.mode, self.content)
        event.wire = self.wire
        return event

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Event)
            and self.attributes == other.attributes
            and self.data == other.data
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Event({self.attributes!r}, {len(self.data or b'')} bytes of data)"


def canonical(value: object) -> str:
    """An attribute's canonical string (CloudEvents 1.0, type system)."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


_NAME = re.compile(r"[a-z0-9]+").fullmatch
_CLEAN = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]*").fullmatch
_URI_REFERENCE = re.compile(r"(?:[^\s%<>\"{}|\\^`]|%[0-9a-fA-F]{2})+").fullmatch
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:").match
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z/-]+\s*(;.*)?").fullmatch
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d):(\d\d)(?:\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
).fullmatch
_INT32 = range(-(2**31), 2**31)


def validate(attributes: Mapping[str, Any]) -> None:
    """Raise InvalidEvent, with every reason, unless these are a valid event's attributes."""
    found = problems(attributes)
    if found:
        raise InvalidEvent("; ".join(found))


@lru_cache(maxsize=4096)
def is_reference(source: str) -> bool:
    """Whether a source, which repeats itself from event to event, is valid."""
    return not _uri_reference(source)


def is_media_type(value: str) -> bool:
    return _MEDIA_TYPE(value) is not None


def is_name(attribute: str) -> bool:
    return _NAME(attribute) is not None


is_usual_time = re.compile(
    r"\d{4}-(?:(?:0[13-9]|1[0-2])-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
    r"T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
).fullmatch
"""A quick yes to most timestamps; no says nothing."""


def problems(attributes: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong, as `attribute: what it must be`; empty when all is well."""
    found = []
    version = attributes.get("specversion")
    if version is None:
        found.append("specversion: REQUIRED, and missing")
    elif version not in SPEC_VERSIONS:
        found.append(f'specversion: unknown value "{version}", known are 1.0 and 0.3')
    for name in ("id", "source", "type"):
        if name not in attributes:
            found.append(f"{name}: REQUIRED, and missing")
    for name, value in attributes.items():
        if not _NAME(name):
            found.append(f'"{name}": names MUST consist of lower-case letters a-z and digits')
        elif name == "data":
            found.append("data: MUST NOT be used as the name of an attribute")
        elif type(value) is str:
            if not value:
                found.append(f"{name}: MUST be a non-empty string")
            elif not _CLEAN(value):
                found.append(f"{name}: MUST NOT contain control characters")
            elif (check := _CHECKS.get(name)) and (wrong := check(value)):
                found.append(f"{name}: {wrong}")
        elif name in _STRINGS:
            found.append(f"{name}: MUST be a string")
        elif not isinstance(value, (bool, int)):
            found.append(f"{name}: MUST be a string, a boolean or an integer")
        elif value not in _INT32:
            found.append(f"{name}: integers MUST fit into 32 bits")
    return found


def _uri_reference(value: str) -> str:
    return "" if _URI_REFERENCE(value) else "MUST be a URI-reference (RFC 3986)"


def _absolute_uri(value: str) -> str:
    valid = _URI_REFERENCE(value) and _ABSOLUTE(value)
    return "" if valid else "MUST be an absolute URI (RFC 3986)"


def _time(value: str) -> str:
    match = _RFC3339(value)
    if match:
        # datetime knows no leap second, and only Python 3.11's parser a lower-case zone.
        minute, second, zone = match.groups()
        second = "59" if second == "60" else second
        try:
            datetime.fromisoformat(f"{minute}:{second}{zone}".upper())
        except ValueError:
            pass
        else:
            return ""
    return "MUST be a timestamp (RFC 3339)"


def _media_type(value: str) -> str:
    return "" if _MEDIA_TYPE(value) else "MUST be a media type (RFC 2046)"


_CHECKS = {
    "source": _uri_reference,
    "dataschema": _absolute_uri,
    "schemaurl": _uri_reference,
    "time": _time,
    "datacontenttype": _media_type,
}
_STRINGS = frozenset({"specversion", "id", "type", "subject", *_CHECKS})
