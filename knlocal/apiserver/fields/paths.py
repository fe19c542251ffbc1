"""Paths of fields in an object, the way `fieldsV1` names them (sigs.k8s.io/structured-merge-diff).

A path is a tuple of elements: `f:name` (a field), `k:{"name":"a"}` (an item of a list told apart
by keys), `v:"a"` (an item of a set). What counts as one value follows from the schema: maps and
keyed lists are looked into, everything else is atomic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from knlocal.resources import schema as schemas
from knlocal.resources.base import Obj
from knlocal.resources.schema import Schema

Path = tuple[str, ...]
ITEM = object()
"""The value of a path that names an item of a keyed list as such."""

_NOTHING: Schema = {}
#: Defaults of fields that serve as list keys: clients leave them out, the server fills them in.
_KEY_DEFAULTS = {"protocol": "TCP"}


def leaves(obj: Any, schema: Schema) -> dict[Path, Any]:
    """Every path in `obj` that can be owned, with its value."""
    found: dict[Path, Any] = {}
    _collect(obj, schema, (), found)
    return found


def _collect(value: Any, schema: Schema, path: Path, found: dict[Path, Any]) -> None:
    if isinstance(value, dict) and value and not is_atomic(schema):
        for name, item in value.items():
            if item is not None:
                _collect(item, field_schema(schema, name), (*path, f"f:{name}"), found)
    elif isinstance(value, list) and value and (keys := list_keys(schema)):
        items = item_schema(schema)
        for item in value:
            place = (*path, key_element(item, keys))
            found[place] = ITEM
            if isinstance(item, dict):
                _collect(item, items, place, found)
    elif isinstance(value, list) and value and is_set(schema):
        for item in value:
            found[(*path, value_element(item))] = item
    else:
        found[path] = value


# --- what the schema says ------------------------------------------------------------------------


def field_schema(schema: Schema, name: str) -> Schema:
    """The schema of a field, with what stands beside its `$ref`."""
    resolved = schemas.resolve(schema)
    field = (resolved.get("properties") or _NOTHING).get(name)
    if field is None:
        field = resolved.get("additionalProperties")
    if not isinstance(field, Mapping):
        return _NOTHING
    if "$ref" not in field and "allOf" not in field:
        return field
    beside = {key: value for key, value in field.items() if key.startswith("x-kubernetes-")}
    return {**schemas.resolve(field), **beside}


def item_schema(schema: Schema) -> Schema:
    return schemas.resolve(schema.get("items") or _NOTHING)


def is_atomic(schema: Schema) -> bool:
    return schemas.resolve(schema).get("x-kubernetes-map-type") == "atomic"


def is_set(schema: Schema) -> bool:
    return schema.get("x-kubernetes-list-type") == "set"


def list_keys(schema: Schema) -> list[str]:
    """The keys that tell items of a list apart; empty for other lists."""
    if schema.get("x-kubernetes-list-type") == "map":
        return list(schema.get("x-kubernetes-list-map-keys") or ())
    return []


# --- elements ------------------------------------------------------------------------------------


def key_element(item: Any, keys: Iterable[str]) -> str:
    given = item if isinstance(item, dict) else {}
    values = {key: given.get(key, _KEY_DEFAULTS.get(key)) for key in keys}
    present = {key: value for key, value in values.items() if value is not None}
    return "k:" + orjson.dumps(present, option=orjson.OPT_SORT_KEYS).decode()


def value_element(item: Any) -> str:
    return "v:" + orjson.dumps(item, option=orjson.OPT_SORT_KEYS).decode()


def shown(path: Path) -> str:
    """`.spec.containers[name="a"].image`: a path as people read it."""
    text = ""
    for element in path:
        kind, value = element[:1], element[2:]
        if kind == "f":
            text += f".{value}"
        elif kind == "k":
            keys = orjson.loads(value)
            text += "[" + ",".join(f"{k}={orjson.dumps(v).decode()}" for k, v in keys.items()) + "]"
        else:
            text += f"[={value}]" if kind == "v" else f"[{value}]"
    return text


# --- fieldsV1 ------------------------------------------------------------------------------------


def to_fields(paths: Iterable[Path]) -> Obj:
    """The `fieldsV1` of a set of paths."""
    root: Obj = {}
    items: list[Obj] = []
    for path in sorted(paths):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        if path and path[-1].startswith("k:"):
            items.append(node)
    for node in items:
        node["."] = {}
    _put_dots_first(root)
    return root


def _put_dots_first(node: Obj) -> None:
    if "." in node:
        rest = {key: value for key, value in node.items() if key != "."}
        node.clear()
        node["."] = {}
        node.update(rest)
    for child in node.values():
        _put_dots_first(child)


def from_fields(fields: Any) -> set[Path]:
    """The paths in a `fieldsV1`; anything malformed in it is passed over."""
    found: set[Path] = set()
    _read(fields, (), found)
    found.discard(())
    return found


def _read(node: Any, path: Path, found: set[Path]) -> None:
    children = {} if not isinstance(node, dict) else node
    deeper = [name for name in children if name != "."]
    if not deeper or "." in children:
        found.add(path)
    for name in deeper:
        _read(children[name], (*path, name), found)


# --- changing values at paths --------------------------------------------------------------------


def merge(live: Any, applied: Any, schema: Schema) -> Any:
    """`live` with everything that `applied` says; nothing is removed."""
    if isinstance(applied, dict) and not is_atomic(schema):
        result = dict(live) if isinstance(live, dict) else {}
        for name, value in applied.items():
            if value is not None:
                result[name] = merge(result.get(name), value, field_schema(schema, name))
        return result
    if isinstance(applied, list) and isinstance(live, list):
        keys = list_keys(schema)
        if keys:
            return _merge_keyed(live, applied, keys, item_schema(schema))
        if is_set(schema):
            return [*live, *(item for item in applied if item not in live)]
    return applied


def _merge_keyed(live: list[Any], applied: list[Any], keys: list[str], schema: Schema) -> list[Any]:
    result = list(live)
    places = {key_element(item, keys): index for index, item in enumerate(result)}
    for item in applied:
        place = places.get(key_element(item, keys))
        if place is None:
            places[key_element(item, keys)] = len(result)
            result.append(item)
        else:
            result[place] = merge(result[place], item, schema)
    return result


def remove(obj: Any, path: Path, schema: Schema) -> Any:
    """`obj` without what is at `path`; maps and lists that this leaves empty go as well."""
    element, rest = path[0], path[1:]
    if element.startswith("f:") and isinstance(obj, dict):
        name = element[2:]
        if name not in obj:
            return obj
        result = dict(obj)
        if rest:
            below = field_schema(schema, name)
            result[name] = remove(obj[name], rest, below)
            if result[name] in ({}, []) and obj[name] and "properties" not in below:
                del result[name]
        else:
            del result[name]
        return result
    if not isinstance(obj, list):
        return obj
    if element.startswith("v:"):
        return [item for item in obj if value_element(item) != element]
    keys = list_keys(schema)
    if not rest:
        return [item for item in obj if key_element(item, keys) != element]
    return [
        remove(item, rest, item_schema(schema)) if key_element(item, keys) == element else item
        for item in obj
    ]
