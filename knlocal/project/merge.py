"""Three-way merge as `kubectl apply` does it: what was said last time, what is said now, what is.

The last words are kept in the annotation that kubectl uses, so both can take turns.
"""

from __future__ import annotations

import json
from typing import Any

from knlocal.resources.base import Obj, copy

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def with_last_applied(obj: Obj) -> Obj:
    """A copy of `obj` that carries its own text in the annotation."""
    result = copy(obj)
    annotations = (result.setdefault("metadata", {})).get("annotations") or {}
    annotations.pop(LAST_APPLIED, None)
    if "annotations" in result["metadata"]:
        result["metadata"]["annotations"] = dict(annotations)
    text = json.dumps(result, separators=(",", ":"), sort_keys=True) + "\n"
    result["metadata"]["annotations"] = {**annotations, LAST_APPLIED: text}
    return result


def last_applied(live: Obj) -> Obj:
    text = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED)
    try:
        found = json.loads(text) if text else {}
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def three_way(live: Obj, wanted: Obj) -> Obj:
    """`live` with everything in `wanted`, without what was wanted last time and no longer is."""
    marked = with_last_applied(wanted)
    result = _merge(last_applied(live), marked, live)
    result.pop("status", None)
    if "status" in live:
        result["status"] = live["status"]
    return result


def _merge(last: Any, wanted: Obj, live: Any) -> Obj:
    result = dict(live) if isinstance(live, dict) else {}
    if isinstance(last, dict):
        for key in last.keys() - wanted.keys():
            result.pop(key, None)
    for key, value in wanted.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            before = last.get(key) if isinstance(last, dict) else None
            result[key] = _merge(before, value, result.get(key))
        else:
            result[key] = value
    return result
