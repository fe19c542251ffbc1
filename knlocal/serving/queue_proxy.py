"""The queue-proxy container that clients see in each pod (never run: the gateway does its work).

Source: knative.dev/serving/pkg/reconciler/revision/resources/queue.go.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from knlocal.resources import quantity
from knlocal.resources.base import Obj, annotations_of, labels_of, spec_of
from knlocal.serving.config import Config
from knlocal.serving.kinds import (
    CONFIGURATION_LABEL,
    QUEUE_PROXY,
    QUEUE_PROXY_IMAGE,
    SERVICE_LABEL,
)

_PREFIX = "queue.sidecar.serving.knative.dev"
_PERCENTAGE = (f"{_PREFIX}/resource-percentage", f"{_PREFIX}/resourcePercentage")
#: Bounds of what resource-percentage works out (behaviour B89).
_BOUNDS = {
    ("requests", "cpu"): ("25m", "100m"),
    ("limits", "cpu"): ("40m", "500m"),
    ("requests", "memory"): ("50Mi", "200Mi"),
    ("limits", "memory"): ("200Mi", "500Mi"),
}
_NAMES = ("cpu", "memory", "ephemeral-storage")


def queue_proxy_container(revision: Obj, serving: Obj, port: int, config: Config) -> Obj:
    """As Knative would add it to the revision's pods."""
    h2c = (serving.get("ports") or [{}])[0].get("name") == "h2c"
    queue_port = 8013 if h2c else 8012
    return {
        "name": QUEUE_PROXY,
        "image": QUEUE_PROXY_IMAGE,
        "resources": _resources(revision, serving, config),
        "ports": [
            {"name": "http-queueadm", "containerPort": 8022},
            {"name": "http-autometric", "containerPort": 9090},
            {"name": "http-usermetric", "containerPort": 9091},
            {"name": "queue-port", "containerPort": queue_port},
            {"name": "https-port", "containerPort": 8112},
        ],
        "env": _environment(revision, serving, port, queue_port, config),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
    }


def _environment(
    revision: Obj, serving: Obj, port: int, queue_port: int, config: Config
) -> list[Obj]:
    spec, labels = spec_of(revision), labels_of(revision)
    observed = config.observability
    values: dict[str, str] = {
        "SERVING_NAMESPACE": revision["metadata"]["namespace"],
        "SERVING_SERVICE": labels.get(SERVICE_LABEL, ""),
        "SERVING_CONFIGURATION": labels.get(CONFIGURATION_LABEL, ""),
        "SERVING_REVISION": revision["metadata"]["name"],
        "QUEUE_SERVING_PORT": str(queue_port),
        "CONTAINER_CONCURRENCY": str(spec.get("containerConcurrency") or 0),
        "REVISION_TIMEOUT_SECONDS": str(spec.get("timeoutSeconds") or 0),
        "REVISION_RESPONSE_START_TIMEOUT_SECONDS": str(
            spec.get("responseStartTimeoutSeconds") or 0
        ),
        "REVISION_IDLE_TIMEOUT_SECONDS": str(spec.get("idleTimeoutSeconds") or 0),
        "SERVING_REQUEST_LOG_TEMPLATE": observed.request_log_template,
        "SERVING_ENABLE_REQUEST_LOG": _go(observed.enable_request_log),
        "SERVING_ENABLE_PROBE_REQUEST_LOG": _go(observed.enable_probe_request_log),
        "USER_PORT": str(port),
        "SERVING_READINESS_PROBE": _probe_json(serving, port),
        "ENABLE_HTTP2_AUTO_DETECTION": _go(config.features.auto_detect_http2 == "Enabled"),
    }
    # What says nothing is left out: there is one such list per revision, kept in memory.
    return [{"name": name, "value": value} for name, value in values.items() if value]


def _go(flag: bool) -> str:
    return "true" if flag else "false"


def _probe_json(serving: Obj, port: int) -> str:
    """The readiness probe as queue-proxy is told it."""
    probe: dict[str, Any] = dict(serving.get("readinessProbe") or {})
    for handler in ("httpGet", "tcpSocket", "grpc"):
        if probe.get(handler) is not None:
            probe[handler] = dict(probe[handler])
            probe[handler]["port"] = probe[handler].get("port") or port
            if handler != "grpc":
                probe[handler].setdefault("host", "127.0.0.1")
    return json.dumps(probe, separators=(",", ":")) if probe else ""


# -- resources ------------------------------------------------------------------------------------


def _resources(revision: Obj, serving: Obj, config: Config) -> Obj:
    annotations = annotations_of(revision)
    settings = config.deployment
    result: dict[str, dict[str, str]] = {"requests": {}, "limits": {}}
    for name in _NAMES:
        for what in ("request", "limit"):
            default = getattr(settings, f"queue_sidecar_{name.replace('-', '_')}_{what}")
            own = annotations.get(f"{_PREFIX}/{name}-resource-{what}")
            if own or default:
                result[f"{what}s"][name] = own or default
    share = _percentage(annotations)
    if share is not None:
        user = serving.get("resources") or {}
        for (kind, name), (least, most) in _BOUNDS.items():
            value = (user.get(kind) or {}).get(name)
            if value:
                result[kind][name] = _share_of(str(value), share, least, most)
    return {kind: values for kind, values in result.items() if values}


def _percentage(annotations: dict[str, str]) -> Decimal | None:
    for name in _PERCENTAGE:
        if name in annotations:
            try:
                return Decimal(annotations[name]) / 100
            except ArithmeticError:
                return None
    return None


def _share_of(value: str, share: Decimal, least: str, most: str) -> str:
    amount = quantity.parse(value) * share
    if amount < quantity.parse(least):
        return least
    if amount > quantity.parse(most):
        return most
    return quantity.canonical(f"{int(amount * 1000)}m")
