"""Reads the protobuf bodies that typed Go clients send for Kubernetes' own kinds.

Only decoding is needed: clients take JSON answers. The envelope is `k8s\\0` and an `Unknown`
message (k8s.io/apimachinery/pkg/runtime); field numbers come from `knlocal.resources.core`.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import orjson

from knlocal.resources import schema
from knlocal.resources.base import Obj
from knlocal.resources.core.table import META, Field, message_fields

MAGIC = b"k8s\x00"
CONTENT_TYPE = "application/vnd.kubernetes.protobuf"
_RUNTIME = "io.k8s.apimachinery.pkg.runtime."


class ProtobufError(ValueError):
    """The bytes are not what they should be; the message says where."""


def decode(body: bytes) -> Obj:
    """The object in an enveloped protobuf body. Raises ProtobufError."""
    if not body.startswith(MAGIC):
        raise ProtobufError("provided data does not appear to be a protobuf message")
    envelope = decode_message(_RUNTIME + "Unknown", body[len(MAGIC) :])
    type_meta = envelope.get("typeMeta") or {}
    api_version, kind = type_meta.get("apiVersion", ""), type_meta.get("kind", "")
    raw = base64.b64decode(envelope.get("raw") or b"")
    if envelope.get("contentType") == "application/json":
        obj = _json(raw)
        if not isinstance(obj, dict):
            raise ProtobufError("the enveloped JSON is not an object")
        return obj
    name = message_name(api_version, kind)
    if name is None:
        raise ProtobufError(f'no kind "{kind}" is registered for version "{api_version}"')
    return {"apiVersion": api_version, "kind": kind, **decode_message(name, raw)}


def message_name(api_version: str, kind: str) -> str | None:
    """The definition behind an apiVersion and kind, if its field numbers are known."""
    if kind == "DeleteOptions":  # belongs to every group
        return META + "DeleteOptions"
    group, _, version = api_version.rpartition("/")
    return _names().get((group, version, kind))


@cache
def _names() -> dict[tuple[str, str, str], str]:
    names = {}
    for name, definition in schema.definitions().items():
        for known in definition.get("x-kubernetes-group-version-kind") or ():
            if message_fields(name) is not None:
                names[known["group"], known["version"], known["kind"]] = name
    return names


def decode_message(name: str, data: bytes) -> Any:
    """A message as the JSON that Go would print for it."""
    special = _SPECIAL.get(name)
    if special is not None:
        return special(data)
    fields = message_fields(name)
    if fields is None:
        raise ProtobufError(f"no message {name} is known")
    result: dict[str, Any] = {}
    for number, value in _wire(data):
        field = fields.get(number)
        if field is not None:
            _put(result, field, value)
    return result


def _put(result: dict[str, Any], field: Field, value: int | bytes) -> None:
    if field.kind == "map":
        key, item = _entry(field.message, _bytes(value))
        result.setdefault(field.name, {})[key] = item
    elif field.kind == "message" and not field.name:
        result.update(decode_message(field.message, _bytes(value)))
    elif field.repeated:
        # Numbers may come packed: one run of bytes for many.
        if field.kind in ("int", "bool") and isinstance(value, bytes):
            items = [_scalar(field.kind, number) for number in _varints(value)]
        else:
            items = [_value(field, value)]
        result.setdefault(field.name, []).extend(items)
    else:
        decoded = _value(field, value)
        # Go writes every field that is not a pointer: its zero means that nothing was set.
        if field.pointer or decoded not in ("", 0, False, None, {}):
            result[field.name] = decoded


def _value(field: Field, value: int | bytes) -> Any:
    if field.kind == "message":
        return decode_message(field.message, _bytes(value))
    return _scalar(field.kind, value)


def _scalar(kind: str, value: int | bytes) -> Any:
    match kind:
        case "string":
            return _text(_bytes(value))
        case "bytes":
            return base64.b64encode(_bytes(value)).decode()
        case "bool":
            return bool(value)
        case "double":
            return struct.unpack("<d", _bytes(value))[0]
    if not isinstance(value, int):
        raise ProtobufError("a number was expected")
    return value - (1 << 64) if value >> 63 else value


def _entry(name: str, data: bytes) -> tuple[str, Any]:
    fields = message_fields(name) or {}
    key, item = "", None
    for number, value in _wire(data):
        field = fields.get(number)
        if number == 1:
            key = _text(_bytes(value))
        elif number == 2 and field is not None:
            item = _value(field, value)
    if item is None and 2 in fields:
        item = {"string": "", "bytes": "", "int": 0, "bool": False}.get(fields[2].kind, {})
    return key, item


# --- messages with a JSON form of their own ------------------------------------------------------


def _time(data: bytes, *, micro: bool = False) -> str | None:
    numbers = {number: value for number, value in _wire(data) if isinstance(value, int)}
    seconds, nanos = _scalar("int", numbers.get(1, 0)), numbers.get(2, 0)
    if not seconds and not nanos:
        return None
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    except OverflowError:
        return None
    if moment.year <= 1:
        return None  # Go's zero time
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{nanos // 1000:06d}Z" if micro else f"{text}Z"


def _micro_time(data: bytes) -> str | None:
    return _time(data, micro=True)


def _quantity(data: bytes) -> str:
    for number, value in _wire(data):
        if number == 1:
            return _text(_bytes(value)) or "0"
    return "0"


def _int_or_string(data: bytes) -> int | str:
    values = dict(_wire(data))
    if values.get(1):
        return _text(_bytes(values.get(3, b"")))
    number = _scalar("int", values.get(2, 0))
    return int(number)


def _raw_json(data: bytes) -> Any:
    for number, value in _wire(data):
        if number == 1:
            return _json(_bytes(value))
    return None


def _items(data: bytes) -> list[str]:
    return [_text(_bytes(value)) for number, value in _wire(data) if number == 1]


_EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."


def _schema(data: bytes) -> Any:
    return decode_message(_EXTENSIONS + "JSONSchemaProps", data)


def _schema_or_bool(data: bytes) -> Any:
    values = dict(_wire(data))
    return _schema(_bytes(values[2])) if 2 in values else bool(values.get(1, 0))


def _schema_or_array(data: bytes) -> Any:
    values = list(_wire(data))
    for number, value in values:
        if number == 1:
            return _schema(_bytes(value))
    return [_schema(_bytes(value)) for number, value in values if number == 2]


def _schema_or_strings(data: bytes) -> Any:
    values = list(_wire(data))
    for number, value in values:
        if number == 1:
            return _schema(_bytes(value))
    return [_text(_bytes(value)) for number, value in values if number == 2]


_SPECIAL: dict[str, Callable[[bytes], Any]] = {
    META + "Time": _time,
    META + "MicroTime": _micro_time,
    META + "FieldsV1": _raw_json,
    META + "Verbs": _items,
    _RUNTIME + "RawExtension": _raw_json,
    "io.k8s.apimachinery.pkg.api.resource.Quantity": _quantity,
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": _int_or_string,
    "io.k8s.api.authentication.v1.ExtraValue": _items,
    "io.k8s.api.authorization.v1.ExtraValue": _items,
    "io.k8s.api.certificates.v1.ExtraValue": _items,
    _EXTENSIONS + "JSON": _raw_json,
    _EXTENSIONS + "JSONSchemaPropsOrBool": _schema_or_bool,
    _EXTENSIONS + "JSONSchemaPropsOrArray": _schema_or_array,
    _EXTENSIONS + "JSONSchemaPropsOrStringArray": _schema_or_strings,
}


# --- the wire ------------------------------------------------------------------------------------


def _wire(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and raw values: an int for varints, bytes for everything else."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise ProtobufError("illegal field number 0")
        if wire_type == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire_type == 2:
            length, at = _varint(data, at)
        elif wire_type in (1, 5):
            length = 8 if wire_type == 1 else 4
        else:
            raise ProtobufError(f"illegal wire type {wire_type}")
        if at + length > end:
            raise ProtobufError("unexpected EOF")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if at >= len(data):
            raise ProtobufError("unexpected EOF")
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
        if shift > 63:
            raise ProtobufError("integer overflow")


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ProtobufError("wrong wire type")
    return value


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ProtobufError(f"a string is not UTF-8: {error}") from None


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ProtobufError(f"broken JSON inside: {error}") from None
