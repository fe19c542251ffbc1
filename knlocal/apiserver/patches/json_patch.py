"""JSON Patch (RFC 6902), all operations or none."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from knlocal.resources.base import Obj, copy
from knlocal.resources.status import BadRequest, Invalid

_OPERATIONS = ("add", "remove", "replace", "move", "copy", "test")
#: As many operations as Kubernetes takes in one patch.
MAX_OPERATIONS = 10_000


class PatchFailed(Exception):
    """The patch is well-formed but does not fit the object."""


def apply_json_patch(obj: Obj, patch: Any) -> Obj:
    """A changed copy of `obj`. Raises BadRequest (not a patch) or Invalid (does not apply)."""
    if not isinstance(patch, list):
        raise BadRequest("error decoding patch: a JSON patch is a list of operations")
    if len(patch) > MAX_OPERATIONS:
        raise BadRequest(
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(patch)}"
        )
    result = copy(obj)
    for operation in patch:
        if not isinstance(operation, dict) or operation.get("op") not in _OPERATIONS:
            name = operation.get("op") if isinstance(operation, dict) else operation
            raise BadRequest(f"error decoding patch: Unexpected kind: {name}")
        try:
            result = _apply(result, operation)
        except PatchFailed as error:
            raise Invalid(
                f"the server rejected our request due to an error in our request: {error}"
            ) from None
    if not isinstance(result, dict):
        raise Invalid("the patch leaves no object behind")
    return result


def _apply(document: Any, operation: dict[str, Any]) -> Any:
    name = operation["op"]
    path = _pointer(operation.get("path"), name)
    if name in ("add", "replace", "test") and "value" not in operation:
        raise PatchFailed(f"{name} operation: the value is missing")
    match name:
        case "test":
            found = _read(document, path, name)
            if found != operation["value"]:
                raise PatchFailed(f"testing value {operation['path']} failed")
            return document
        case "remove":
            return _remove(document, path)
        case "replace":
            _read(document, path, name)
            return _write(document, path, copy_value(operation["value"]), replace=True)
        case "add":
            return _write(document, path, copy_value(operation["value"]), replace=False)
    source = _pointer(operation.get("from"), name)
    value = copy_value(_read(document, source, name))
    if name == "move":
        document = _remove(document, source)
    return _write(document, path, value, replace=False)


def copy_value(value: Any) -> Any:
    return deepcopy(value)


def _pointer(text: Any, operation: str) -> list[str]:
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise PatchFailed(f"{operation} operation does not apply: invalid path {text!r}")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _read(document: Any, path: list[str], operation: str) -> Any:
    value = document
    for step in path:
        try:
            value = value[_index(value, step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError):
            raise PatchFailed(
                f"{operation} operation does not apply: doc is missing path: "
                f'"/{"/".join(path)}": missing value'
            ) from None
    return value


def _remove(document: Any, path: list[str]) -> Any:
    if not path:
        raise PatchFailed("remove operation does not apply: the whole document")
    _read(document, path, "remove")
    parent = _read(document, path[:-1], "remove")
    if isinstance(parent, list):
        del parent[_index(parent, path[-1])]
    else:
        del parent[path[-1]]
    return document


def _write(document: Any, path: list[str], value: Any, *, replace: bool) -> Any:
    if not path:
        return value
    parent = _read(document, path[:-1], "replace" if replace else "add")
    step = path[-1]
    if isinstance(parent, list):
        if replace:
            parent[_index(parent, step)] = value
        elif step == "-":
            parent.append(value)
        else:
            place = _number(step)
            if not 0 <= place <= len(parent):
                raise PatchFailed(f"add operation does not apply: no index {step} in the list")
            parent.insert(place, value)
    elif isinstance(parent, dict):
        parent[step] = value
    else:
        raise PatchFailed(f'add operation does not apply: no parent for "/{"/".join(path)}"')
    return document


def _index(values: list[Any], step: str) -> int:
    place = _number(step)
    if not 0 <= place < len(values):
        raise IndexError(step)
    return place


def _number(step: str) -> int:
    if not step.isdigit():
        raise PatchFailed(f"{step!r} is not an index of a list")
    return int(step)
