"""Cells that several tables of Kubernetes' own kinds share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from knlocal.resources.ages import age
from knlocal.resources.base import Obj


def created(obj: Obj, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def joined(items: Sequence[str], most: int) -> str:
    """The first few, and how many more there are."""
    if not items:
        return "<none>"
    shown = ",".join(items[:most])
    return f"{shown} + {len(items) - most} more..." if len(items) > most else shown


def container_names(pod_spec: dict[str, Any]) -> str:
    return ",".join(c.get("name", "") for c in pod_spec.get("containers") or ())


def container_images(pod_spec: dict[str, Any]) -> str:
    return ",".join(c.get("image", "") for c in pod_spec.get("containers") or ())


def selector_text(selector: dict[str, Any] | None) -> str:
    """A label selector as people write it; `<none>` for an empty one."""
    selector = selector or {}
    if "matchLabels" not in selector and "matchExpressions" not in selector:
        selector = {"matchLabels": selector}  # the plain map of a Service or old controller
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for rule in selector.get("matchExpressions") or ():
        key, values = rule.get("key", ""), ",".join(sorted(rule.get("values") or ()))
        parts.append({
            "In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key,
        }.get(rule.get("operator", ""), f"!{key}"))  # fmt: skip
    return ",".join(parts) or "<none>"
