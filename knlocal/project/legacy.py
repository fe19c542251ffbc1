"""Manifests of kinds that Knative has replaced, read as what replaced them.

CronJobSource (eventing before 0.16) and PingSource before v1beta2 are today's PingSource.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knlocal.resources.base import Obj

PING_SOURCE = "sources.knative.dev/v1"
_CRON_JOB_SOURCES = {
    "sources.knative.dev/v1alpha1", "sources.eventing.knative.dev/v1alpha1",
}  # fmt: skip
_OLD_PING_SOURCES = {
    f"sources.knative.dev/{version}" for version in ("v1alpha1", "v1alpha2", "v1beta1")
}
#: What CronJobSource had for its own pod, which nobody needs any more.
_POD_FIELDS = ("serviceAccountName", "resources")


def modern(obj: Obj) -> tuple[Obj, str]:
    """The object as it is written today, and a note on what that changes ("" for no change)."""
    api_version, kind = obj.get("apiVersion"), obj.get("kind")
    if kind == "CronJobSource" and api_version in _CRON_JOB_SOURCES:
        note = (
            "CronJobSource is read as a PingSource: its events have the type "
            "dev.knative.sources.ping, which was dev.knative.cronjob.event"
        )
        return _ping_source(obj), note
    if kind == "PingSource" and api_version in _OLD_PING_SOURCES:
        return _ping_source(obj), f"PingSource {api_version} is read as {PING_SOURCE}"
    return obj, ""


def _ping_source(obj: Obj) -> Obj:
    old = obj.get("spec")
    if not isinstance(old, dict):
        return {**obj, "apiVersion": PING_SOURCE, "kind": "PingSource"}
    spec = {key: value for key, value in old.items() if key not in _POD_FIELDS}
    if (data := spec.pop("jsonData", None)) is not None:
        spec["data"] = data
    if spec.get("data") and not spec.get("contentType") and _is_json(spec["data"]):
        spec["contentType"] = "application/json"
    if isinstance(spec.get("sink"), dict):
        spec["sink"] = _destination(spec["sink"])
    return {**obj, "apiVersion": PING_SOURCE, "kind": "PingSource", "spec": spec}


def _destination(sink: Mapping[str, Any]) -> dict[str, Any]:
    """Sinks were references themselves; now they hold one in `ref`."""
    if "ref" in sink or "uri" in sink:
        return dict(sink)
    ref = {key: sink[key] for key in ("apiVersion", "kind", "name", "namespace") if key in sink}
    if ref.get("kind") == "Service" and str(ref.get("apiVersion", "")).startswith("serving."):
        ref["apiVersion"] = "serving.knative.dev/v1"
    elif str(ref.get("apiVersion", "")).startswith(("eventing.", "messaging.")):
        ref["apiVersion"] = f"{ref['apiVersion'].partition('/')[0]}/v1"
    return {"ref": ref}


def _is_json(text: Any) -> bool:
    """These kinds sent JSON objects as JSON, and wrapped anything else."""
    return isinstance(text, str) and text.lstrip().startswith("{")
