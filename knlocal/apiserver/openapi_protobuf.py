"""`/openapi/v2` as protobuf: kubectl validates `kind: List` manifests by it, and finds merge keys.

The message is gnostic's openapi.v2.Document (github.com/google/gnostic, openapiv2/OpenAPIv2.proto);
only what clients read is written: definitions, and per kind the patch operation's parameters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from knlocal.resources.base import Obj

CONTENT_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
#: What clients ask for: with a sign that no media type may hold, so answers are named otherwise.
ACCEPTED = frozenset({CONTENT_TYPE, CONTENT_TYPE.replace(".v2.v1", ".v2@v1")})


def encode_document(swagger: Obj) -> bytes:
    """The protobuf form of a Swagger 2.0 document."""
    info = _text(1, swagger["info"]["title"]) + _text(2, swagger["info"]["version"])
    definitions = b"".join(
        _message(1, _text(1, name) + _message(2, _schema(schema)))
        for name, schema in swagger["definitions"].items()
    )
    paths = b"".join(
        _message(2, _text(1, path) + _message(2, _path(item)))
        for path, item in swagger["paths"].items()
        if "patch" in item
    )
    return _text(1, "2.0") + _message(2, info) + _message(8, paths) + _message(9, definitions)


def _path(item: Obj) -> bytes:
    patch = item["patch"]
    parameters = b"".join(_parameter(p) for p in patch["parameters"] if p["in"] == "query")
    ok = _text(1, "OK")
    responses = _message(1, _text(1, "200") + _message(2, _message(1, ok)))
    operation = (
        _text(5, patch["operationId"])
        + parameters
        + _message(9, responses)
        + _extensions(13, patch)
    )
    return _message(8, operation)


def _parameter(parameter: Obj) -> bytes:
    inner = (
        _text(2, "query") + _text(4, parameter["name"]) + _text(6, parameter["type"])
        + _flag(20, bool(parameter.get("uniqueItems")))
    )  # fmt: skip
    # ParametersItem › Parameter › NonBodyParameter › QueryParameterSubSchema
    return _message(8, _message(1, _message(2, _message(3, inner))))


_TEXTS = {"format": 2, "title": 3, "description": 4, "pattern": 13}


def _schema(schema: Obj) -> bytes:
    target = schema.get("$ref")
    if isinstance(target, str):
        return _text(1, target) + _text(4, schema.get("description", "")) + _extensions(31, schema)
    out = b"".join(
        _text(number, schema[name])
        for name, number in _TEXTS.items()
        if isinstance(schema.get(name), str)
    )
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        # Clients would refuse fields beside the known ones; an untyped schema lets them pass.
        return out + _extensions(31, schema)
    out += b"".join(_text(19, name) for name in schema.get("required") or ())
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        out += _message(21, _message(1, _schema(additional)))
    if isinstance(schema.get("type"), str):
        out += _message(22, _text(1, schema["type"]))
    if isinstance(schema.get("items"), dict):
        out += _message(23, _message(1, _schema(schema["items"])))
    properties = schema.get("properties")
    if isinstance(properties, dict):
        fields = (_text(1, n) + _message(2, _schema(s)) for n, s in properties.items())
        out += _message(25, b"".join(_message(1, field) for field in fields))
    return out + _extensions(31, schema)


def _extensions(number: int, holder: Obj) -> bytes:
    """`x-…` keys; their values are YAML text, which JSON is."""
    named: Iterable[tuple[str, Any]] = (
        (name, value) for name, value in holder.items() if name.startswith("x-")
    )
    return b"".join(
        _message(number, _text(1, name) + _message(2, _text(2, json.dumps(value))))
        for name, value in named
    )


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _message(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode()) if text else b""


def _flag(number: int, value: bool) -> bytes:
    return _varint(number << 3) + b"\x01" if value else b""
