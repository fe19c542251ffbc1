"""What a SinkBinding puts into pod templates: K_SINK, K_CE_OVERRIDES, K_CA_CERTS."""

from __future__ import annotations

from typing import Any

import orjson

from knlocal.resources.base import Obj

K_SINK, K_CE_OVERRIDES, K_CA_CERTS = "K_SINK", "K_CE_OVERRIDES", "K_CA_CERTS"
_NAMES = {K_SINK, K_CE_OVERRIDES, K_CA_CERTS}


def bind(obj: Obj, sink: str, extensions: dict[str, str], ca_certs: str = "") -> None:
    """Set the variables in every container and init container of a PodSpecable, in place."""
    unbind(obj)
    overrides = orjson.dumps({"extensions": extensions}).decode() if extensions else ""
    variables = [{"name": K_SINK, "value": sink}]
    if ca_certs:
        variables.append({"name": K_CA_CERTS, "value": ca_certs})
    variables.append({"name": K_CE_OVERRIDES, "value": overrides})
    for container in _containers(obj):
        container["env"] = [*container.get("env", ()), *(dict(v) for v in variables)]


def unbind(obj: Obj) -> None:
    """Remove the variables again."""
    for container in _containers(obj):
        kept = [v for v in container.get("env") or () if v.get("name") not in _NAMES]
        if kept:
            container["env"] = kept
        else:
            container.pop("env", None)


def pod_spec(obj: Obj) -> dict[str, Any] | None:
    """The pod spec in a PodSpecable's template (a CronJob's is one level deeper)."""
    spec = obj.get("spec") or {}
    spec = (spec.get("jobTemplate") or {}).get("spec") or spec
    found = (spec.get("template") or {}).get("spec")
    return found if isinstance(found, dict) else None


def _containers(obj: Obj) -> list[dict[str, Any]]:
    spec = pod_spec(obj) or {}
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
