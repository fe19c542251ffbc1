"""Structural schemas: derived from TypedDicts, shared by name, used to prune and to check types.

A `TypedDict` is the typed model of one of our own kinds, and `of` derives its OpenAPI v3 schema:

    class Target(TypedDict, total=False):
        percent: Annotated[int, INT64, "Share of the traffic, 0 to 100."]
        url: Required[str]

A plain string in `Annotated` is the description; the other markers are below. Shared definitions
(`io.k8s.api.core.v1.Container`) are referred to with `ref`, as values of `Annotated`:

    Container = Annotated[dict[str, Any], Ref("io.k8s.api.core.v1.Container")]
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypedDict,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from knlocal.resources import structural
from knlocal.resources.structural import REF_PREFIX, Finding, Schema

__all__ = [
    "DATE_TIME",
    "DOUBLE",
    "INT32",
    "INT64",
    "INT_OR_STRING",
    "PRESERVE_UNKNOWN",
    "QUANTITY",
    "Finding",
    "ListMap",
    "ListSet",
    "Marker",
    "Ref",
    "Schema",
    "check_types",
    "definition",
    "definitions",
    "kind_schema",
    "of",
    "prune",
    "ref",
    "register_definitions",
    "resolve",
]


@dataclass(frozen=True)
class Marker:
    """Extra keys for the schema of an annotated type."""

    extra: tuple[tuple[str, Any], ...]
    #: True when the extra keys are the whole schema (the Python type says nothing more).
    replaces: bool = False


INT32 = Marker((("format", "int32"),))
INT64 = Marker((("format", "int64"),))
DOUBLE = Marker((("format", "double"),))
DATE_TIME = Marker((("format", "date-time"),))
INT_OR_STRING = Marker((("x-kubernetes-int-or-string", True),), replaces=True)
QUANTITY = Marker(
    (
        ("anyOf", ({"type": "integer"}, {"type": "number"}, {"type": "string"})),
        ("x-kubernetes-int-or-string", True),
    ),
    replaces=True,
)
PRESERVE_UNKNOWN = Marker((("x-kubernetes-preserve-unknown-fields", True),))


def ListMap(*keys: str) -> Marker:
    """A list whose items are told apart by these keys."""
    return Marker((("x-kubernetes-list-type", "map"), ("x-kubernetes-list-map-keys", tuple(keys))))


ListSet = Marker((("x-kubernetes-list-type", "set"),))


def Ref(name: str) -> Marker:
    """The type is the shared definition `name`."""
    return Marker((("$ref", REF_PREFIX + name),), replaces=True)


def ref(name: str) -> dict[str, Any]:
    """A reference to the shared definition `name` ("io.k8s.api.core.v1.Container")."""
    return {"$ref": REF_PREFIX + name}


def of(model: Any) -> dict[str, Any]:
    """The OpenAPI v3 schema of a type annotation, usually a TypedDict.

    Raises TypeError for annotations that JSON has no word for.
    """
    return _of(model)


def kind_schema(
    spec: Any = None, status: Any = None, *, description: str = "", **top_level: Any
) -> dict[str, Any]:
    """The schema of a whole object: apiVersion, kind, metadata, and `spec` and `status` when given.

    `top_level` adds further fields (type annotations), as `data` of a ConfigMap.
    """
    properties: dict[str, Any] = {
        "apiVersion": {"type": "string", "description": "Group and version of this object's kind."},
        "kind": {"type": "string", "description": "What kind of object this is, in CamelCase."},
        "metadata": {**ref(OBJECT_META), "description": "Standard object's metadata."},
    }
    if spec is not None:
        properties["spec"] = of(spec)
    if status is not None:
        properties["status"] = of(status)
    for name, annotation in top_level.items():
        properties[name] = of(annotation)
    result: dict[str, Any] = {"type": "object", "properties": properties}
    if description:
        result["description"] = description
    return result


definitions = structural.definitions
definition = structural.definition
register_definitions = structural.register_definitions
resolve = structural.resolve
prune = structural.prune
check_types = structural.check_types


_SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    Any: {"x-kubernetes-preserve-unknown-fields": True},
    object: {"x-kubernetes-preserve-unknown-fields": True},
    type(None): {"nullable": True},
}


def _of(annotation: Any) -> dict[str, Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _annotated(annotation)
    if origin in (Required, NotRequired):
        return _of(get_args(annotation)[0])
    if is_typeddict(annotation):
        return _typed_dict(annotation)
    if origin is list:
        return {"type": "array", "items": _of(get_args(annotation)[0])}
    if origin is dict:
        values = _of(get_args(annotation)[1])
        if values == _SCALARS[Any]:
            return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        return {"type": "object", "additionalProperties": values}
    if origin is Literal:
        return {"type": "string", "enum": list(get_args(annotation))}
    if origin in (Union, types.UnionType):
        return _union(annotation)
    if annotation in _SCALARS:
        return dict(_SCALARS[annotation])
    raise TypeError(f"no schema for the annotation {annotation!r}")


def _annotated(annotation: Any) -> dict[str, Any]:
    inner, *markers = get_args(annotation)
    replaced = any(isinstance(marker, Marker) and marker.replaces for marker in markers)
    schema: dict[str, Any] = {} if replaced else _of(inner)
    for marker in markers:
        if isinstance(marker, str):
            schema["description"] = marker
        elif isinstance(marker, Marker):
            schema |= {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in marker.extra
            }
        else:
            raise TypeError(f"{marker!r} is not a schema marker")
    return schema


def _typed_dict(model: Any) -> dict[str, Any]:
    hints = get_type_hints(model, include_extras=True)
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: _of(hint) for name, hint in hints.items()},
    }
    required = sorted(name for name, hint in hints.items() if _is_required(hint))
    if required:
        schema["required"] = required
    doc = (model.__doc__ or "").strip()
    if doc and not doc.startswith("dict("):
        schema["description"] = " ".join(doc.split())
    return schema


def _is_required(hint: Any) -> bool:
    """Only `Required[…]` counts: `total` says how Python sees a model, not how the API does."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _is_required(get_args(hint)[0])
    return origin is Required


def _union(annotation: Any) -> dict[str, Any]:
    members = [member for member in get_args(annotation) if member is not type(None)]
    nullable = len(members) < len(get_args(annotation))
    if len(members) == 1:
        schema = _of(members[0])
    elif set(members) == {int, str}:
        schema = {"x-kubernetes-int-or-string": True}
    else:
        raise TypeError(f"no schema for the union {annotation!r}")
    if nullable:
        schema["nullable"] = True
    return schema


# --- metadata: the one definition that every object needs ---------------------------------------

OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_Time = Annotated[str, DATE_TIME]


class OwnerReference(TypedDict, total=False):
    """What owns this object; it goes when its owner goes."""

    apiVersion: Required[str]
    kind: Required[str]
    name: Required[str]
    uid: Required[str]
    controller: bool
    blockOwnerDeletion: bool


class ObjectMeta(TypedDict, total=False):
    """Standard object's metadata."""

    name: str
    generateName: str
    namespace: str
    selfLink: str
    uid: str
    resourceVersion: str
    generation: Annotated[int, INT64]
    creationTimestamp: _Time
    deletionTimestamp: _Time
    deletionGracePeriodSeconds: Annotated[int, INT64]
    labels: dict[str, str]
    annotations: dict[str, str]
    ownerReferences: Annotated[list[OwnerReference], ListMap("uid")]
    finalizers: Annotated[list[str], ListSet]
    managedFields: list[dict[str, Any]]


register_definitions({OBJECT_META: of(ObjectMeta)})
