"""Strategic merge patch, for Kubernetes' own kinds: lists merge by the keys their schema names
(k8s.io/apimachinery/pkg/util/strategicpatch).

Directives: `$patch: delete|replace|merge`, `$deleteFromPrimitiveList/<field>`,
`$setElementOrder/<field>`, `$retainKeys`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knlocal.apiserver.patches.json_patch import copy_value
from knlocal.resources import schema as schemas
from knlocal.resources.base import Obj
from knlocal.resources.schema import Schema
from knlocal.resources.status import BadRequest

_DIRECTIVE = "$patch"
_DELETE_PRIMITIVES = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"
_RETAIN = "$retainKeys"
_NOTHING: Schema = {}


def apply_strategic_patch(obj: Obj, patch: Any, schema: Schema) -> Obj:
    """A changed copy of `obj`. Raises BadRequest for what is no such patch."""
    if not isinstance(patch, dict):
        raise BadRequest("error decoding patch: a strategic merge patch is an object")
    return _merge_map(obj, patch, schema)


def _merge_map(original: Any, patch: dict[str, Any], schema: Schema) -> dict[str, Any]:
    directive = patch.get(_DIRECTIVE)
    if directive is not None:
        if directive not in ("delete", "replace", "merge"):
            raise BadRequest(f"Unknown patch type found: {directive}")
        if directive != "merge":
            rest = {key: value for key, value in patch.items() if key != _DIRECTIVE}
            return {} if directive == "delete" else _plain(rest)
    result = dict(original) if isinstance(original, dict) else {}
    retain = patch.get(_RETAIN)
    if isinstance(retain, list):
        result = {key: value for key, value in result.items() if key in retain}
    for key, change in patch.items():
        if key in (_DIRECTIVE, _RETAIN) or key.startswith(_ORDER):
            continue
        if key.startswith(_DELETE_PRIMITIVES):
            name = key[len(_DELETE_PRIMITIVES) :]
            if isinstance(result.get(name), list) and isinstance(change, list):
                result[name] = [item for item in result[name] if item not in change]
            continue
        if change is None:
            result.pop(key, None)
            continue
        result[key] = _merge_value(result.get(key), change, _field(schema, key))
    for key, order in patch.items():
        if key.startswith(_ORDER) and isinstance(order, list):
            name = key[len(_ORDER) :]
            if isinstance(result.get(name), list):
                result[name] = _ordered(result[name], order, _field(schema, name))
    return result


def _merge_value(original: Any, change: Any, schema: Schema) -> Any:
    if isinstance(change, dict):
        strategy = schema.get("x-kubernetes-patch-strategy", "")
        if "replace" in strategy:
            return _plain(change)
        return _merge_map(original, change, schema)
    if isinstance(change, list):
        return _merge_list(original if isinstance(original, list) else [], change, schema)
    return change


def _merge_list(original: list[Any], change: list[Any], schema: Schema) -> list[Any]:
    strategy = schema.get("x-kubernetes-patch-strategy", "")
    if "merge" not in strategy.split(","):
        return [_plain(item) for item in change if not _is_directive(item)]
    key = schema.get("x-kubernetes-patch-merge-key")
    if key is None:
        return [*original, *(item for item in change if item not in original)]
    if any(isinstance(item, dict) and item.get(_DIRECTIVE) == "replace" for item in change):
        return [_plain(item) for item in change if not _is_directive(item)]
    items = schemas.resolve(schema.get("items") or _NOTHING)
    result = [copy_value(item) for item in original]
    for item in change:
        if not isinstance(item, dict):
            raise BadRequest(f"error decoding patch: expected objects with the key {key}")
        if key not in item:
            raise BadRequest(f"map: {item} does not contain declared merge key: {key}")
        place = next((i for i, known in enumerate(result) if _same(known, item, key)), None)
        if item.get(_DIRECTIVE) == "delete":
            result = [known for known in result if not _same(known, item, key)]
        elif place is None:
            result.append(_merge_map({}, item, items))
        else:
            result[place] = _merge_map(result[place], item, items)
    return result


def _same(known: Any, item: dict[str, Any], key: str) -> bool:
    return isinstance(known, dict) and known.get(key) == item[key]


def _is_directive(item: Any) -> bool:
    return isinstance(item, dict) and set(item) == {_DIRECTIVE}


def _ordered(values: list[Any], order: list[Any], schema: Schema) -> list[Any]:
    """The items named in `order` in that order; others keep their place after their neighbour."""
    key = schema.get("x-kubernetes-patch-merge-key")

    def identity(item: Any) -> Any:
        return item.get(key) if key and isinstance(item, dict) else item

    wanted = [identity(item) for item in order]
    named = sorted(
        (value for value in values if identity(value) in wanted),
        key=lambda value: wanted.index(identity(value)),
    )
    result: list[Any] = []
    pending = iter(named)
    for value in values:
        result.append(next(pending) if identity(value) in wanted else value)
    return result


def _plain(value: Any) -> Any:
    """A value without directives, for what is taken over whole; nulls mean absence."""
    if isinstance(value, dict):
        return {
            key: _plain(item)
            for key, item in value.items()
            if item is not None and key not in (_DIRECTIVE, _RETAIN)
            and not key.startswith((_ORDER, _DELETE_PRIMITIVES))
        }  # fmt: skip
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _field(schema: Schema, name: str) -> Schema:
    """The schema of a field, with the merge strategy that stands beside its `$ref`."""
    resolved = schemas.resolve(schema)
    properties = resolved.get("properties") or {}
    field = properties.get(name)
    if field is None:
        additional = resolved.get("additionalProperties")
        return additional if isinstance(additional, Mapping) else _NOTHING
    if "$ref" not in field:
        return dict(field)
    beside = {key: value for key, value in field.items() if key.startswith("x-kubernetes-patch")}
    return {**schemas.resolve(field), **beside}
