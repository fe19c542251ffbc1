"""JSON Merge Patch (RFC 7386): null removes, objects merge, everything else replaces."""

from __future__ import annotations

from typing import Any

from knlocal.apiserver.patches.json_patch import copy_value
from knlocal.resources.base import Obj
from knlocal.resources.status import BadRequest


def apply_merge_patch(obj: Obj, patch: Any) -> Obj:
    """A changed copy of `obj`. Raises BadRequest when the patch is no object."""
    if not isinstance(patch, dict):
        raise BadRequest("error decoding patch: a merge patch is an object")
    result: Obj = _merged(obj, patch)
    return result


def _merged(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy_value(patch)
    result = dict(value) if isinstance(value, dict) else {}
    for name, change in patch.items():
        if change is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), change)
    return result
