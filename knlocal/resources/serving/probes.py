"""Validation of probes (knative.dev/serving/pkg/apis/serving/k8s_validation.go)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knlocal.resources import field_errors as errors
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.serving import masks

Spec = Mapping[str, Any]
MAX_INT32 = (1 << 31) - 1


def user_container(container: Spec, port_name: str) -> FieldErrors:
    """Probes of the container that serves; a named port must be the serving port's name."""
    return _all(container, port_name)


def sidecar(container: Spec, *, allowed: bool) -> FieldErrors:
    """Probes of other containers: behind a feature flag, and then with a port of their own."""
    if allowed:
        return _all(container, None)
    wrong = FieldErrors()
    for field in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(field)
        if probe is None:
            continue
        # A handler is inlined in Go: it shows as the probe itself.
        paths = {
            errors.CURRENT_FIELD if name in masks.HANDLERS else name
            for name, value in probe.items()
            if masks.is_set(name, value)
        }
        if paths:
            wrong.also(errors.disallowed(*sorted(paths)).via_field(field))
    return wrong


def init_container(container: Spec) -> FieldErrors:
    wrong = FieldErrors()
    for field in ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle"):
        if container.get(field) is not None:
            wrong.also(errors.generic("field not allowed in an init container", field))
    return wrong


def _all(container: Spec, port_name: str | None) -> FieldErrors:
    wrong = FieldErrors()
    for field in ("livenessProbe", "startupProbe"):
        if (probe := container.get(field)) is not None:
            wrong.also(_probe(probe, port_name).via_field(field))
    if (probe := container.get("readinessProbe")) is not None:
        found = _probe(probe, port_name).also(_readiness(probe))
        wrong.also(found.via_field("readinessProbe"))
    return wrong


def _probe(probe: Spec, port_name: str | None) -> FieldErrors:
    wrong = masks.disallowed(probe, masks.PROBE)
    handlers = [name for name in masks.HANDLERS if probe.get(name) is not None]
    for name in handlers:
        handler = probe[name]
        wrong.also(masks.disallowed(handler, masks.HANDLERS[name]).via_field(name))
        if name in ("httpGet", "tcpSocket"):
            wrong.also(_port(handler.get("port"), f"{name}.port", port_name))
    if not handlers:
        wrong.also(errors.missing_one_of("httpGet", "tcpSocket", "exec", "grpc"))
    elif len(handlers) > 1:
        wrong.also(errors.multiple_one_of(*handlers))
    return wrong


def _port(port: Any, path: str, port_name: str | None) -> FieldErrors | None:
    named = isinstance(port, str) and port != ""
    if port_name is None:
        if not named and not port:
            return errors.invalid_value(0, path, "Probe port must be specified")
        return None
    if named and port != port_name:
        return errors.invalid_value(port, path, "Probe port must match container port")
    return None


def _readiness(probe: Spec) -> FieldErrors:
    wrong = FieldErrors()

    def at_least(field: str, least: int) -> None:
        value = probe.get(field) or 0
        if value < least:
            wrong.also(errors.out_of_bounds(value, least, MAX_INT32, field))

    at_least("periodSeconds", 0)
    at_least("initialDelaySeconds", 0)
    at_least("successThreshold", 1)
    if probe.get("periodSeconds"):
        at_least("timeoutSeconds", 1)
        at_least("failureThreshold", 1)
        return wrong
    # A period of 0 asks for Knative's own probing, with aggressive retries.
    for field in ("failureThreshold", "timeoutSeconds"):
        if probe.get(field):
            message = f"{field} is disallowed when periodSeconds is zero"
            wrong.also(errors.generic(message, field))
    return wrong
