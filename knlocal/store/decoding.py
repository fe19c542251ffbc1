"""What Kubernetes says of its own kinds when a value does not fit the Go type it is decoded into.

Custom kinds are checked against their schemas (422 Invalid); for its own kinds, and for any
object's metadata, the API server fails to decode (400 BadRequest), naming Go's structs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from knlocal.resources import schema as schemas
from knlocal.resources.base import Obj
from knlocal.resources.kinds import Kind
from knlocal.resources.schema import Finding
from knlocal.resources.status import BadRequest
from knlocal.resources.structural import json_type

_STEP = re.compile(r"[^.\[\]]+|\[(\d+)\]")
_GOT = {"boolean": "bool", "integer": "number"}
_DATE_TIME = '"2006-01-02T15:04:05Z07:00"'


def is_decoded(kind: Kind, finding: Finding) -> bool:
    """Whether the value is one that Go decodes, instead of one that a schema describes."""
    return not kind.is_custom or finding.path.partition(".")[0] == "metadata"


def undecodable(kind: Kind, obj: Obj, finding: Finding) -> BadRequest:
    return BadRequest(
        f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
        f"{_why(kind, obj, finding)}"
    )


def _why(kind: Kind, obj: Obj, finding: Finding) -> str:
    value: Any = obj
    node: Mapping[str, Any] = {"$ref": kind.kind, **kind.schema}
    struct, steps = kind.kind, []
    for match in _STEP.finditer(finding.path):
        resolved = schemas.resolve(node) if "properties" not in node else node
        name, index = match.group(0), match.group(1)
        try:
            value = value[int(index)] if index else value[name]
        except (LookupError, TypeError, ValueError):
            return str(finding)
        if index:
            node = resolved.get("items") or {}
        elif name in (resolved.get("properties") or {}):
            struct = _struct(node) or struct
            steps.append(name)
            node = resolved["properties"][name]
        else:
            node = resolved.get("additionalProperties") or {}
    if schemas.resolve(node).get("format") == "date-time" and isinstance(value, str):
        return f'parsing time "{value}" as {_DATE_TIME}: cannot parse "{value}" as "2006"'
    got = json_type(value)
    return (
        f"json: cannot unmarshal {_GOT.get(got, got)} into Go struct field "
        f"{struct}.{'.'.join(steps)} of type {_go_type(node)}"
    )


def _struct(node: Mapping[str, Any]) -> str:
    """The name of the struct that a schema stands for; "" where it has none of its own."""
    target = node.get("$ref") or next(
        (part.get("$ref") for part in node.get("allOf") or () if part.get("$ref")), ""
    )
    return str(target).rpartition("/")[2].rpartition(".")[2]


def _go_type(node: Mapping[str, Any]) -> str:
    resolved = schemas.resolve(node)
    kind, form = resolved.get("type"), resolved.get("format") or ""
    if kind == "array":
        return f"[]{_go_type(resolved.get('items') or {})}"
    if kind == "object" and resolved.get("additionalProperties"):
        return f"map[string]{_go_type(resolved['additionalProperties'])}"
    if kind == "object" or kind is None:
        return f"v1.{_struct(node) or 'Object'}"
    if kind == "integer":
        return form if form in ("int32", "int64") else "int64"
    return {"boolean": "bool", "number": "float64"}.get(str(kind), str(kind))
