"""The ConfigMaps a new project starts with: Knative's, with values that suit one machine."""

from __future__ import annotations

import zlib
from typing import Any

from knlocal.resources.base import Obj
from knlocal.resources.settings import parsing
from knlocal.resources.settings.autoscaler import Autoscaler
from knlocal.resources.settings.defaults import Defaults
from knlocal.resources.settings.deployment import QUEUE_SIDECAR_IMAGE, Deployment
from knlocal.resources.settings.eventing import ImcDispatcher, PingDefaults, Sugar
from knlocal.resources.settings.features import Features
from knlocal.resources.settings.gc import Gc
from knlocal.resources.settings.network import Network
from knlocal.resources.settings.observability import Observability

SERVING = "knative-serving"
EVENTING = "knative-eventing"
CHECKSUM_ANNOTATION = "knative.dev/example-checksum"

#: Hosts are `<service>.<namespace>.localhost`: such names resolve to this machine by themselves.
DEFAULT_DOMAIN = "localhost"

_BROKER_DEFAULTS = """\
clusterDefault:
  brokerClass: MTChannelBasedBroker
  apiVersion: v1
  kind: ConfigMap
  name: config-br-default-channel
  namespace: knative-eventing
  delivery:
    retry: 10
    backoffPolicy: exponential
    backoffDelay: PT0.2S
"""
_CHANNEL_TEMPLATE = """\
apiVersion: messaging.knative.dev/v1
kind: InMemoryChannel
"""
_CHANNEL_DEFAULTS = """\
clusterDefault:
  apiVersion: messaging.knative.dev/v1
  kind: InMemoryChannel
namespaceDefaults:
  some-namespace:
    apiVersion: messaging.knative.dev/v1
    kind: InMemoryChannel
"""
_LOGGING = '{"level": "info", "encoding": "json", "outputPaths": ["stdout"]}'
_EVENTING_FLAGS = {
    "kreference-group": "disabled",
    # Off in Knative; on here, so that `retryAfterMax` and `backoffMax` need no flag.
    "delivery-retryafter": "enabled",
    "delivery-backoff-max": "enabled",
    "delivery-timeout": "enabled",
    "kreference-mapping": "disabled",
    "transport-encryption": "disabled",
    "eventtype-auto-create": "disabled",
    "authentication-oidc": "disabled",
    "default-authorization-mode": "allow-same-namespace",
    "cross-namespace-event-links": "disabled",
    "new-apiserversource-filters": "disabled",
    "requestreply-default-timeout": "30s",
}

#: namespace → name → (data, settings class that its example is made from)
_SHIPPED: dict[str, dict[str, tuple[dict[str, str], Any]]] = {
    SERVING: {
        "config-autoscaler": ({}, Autoscaler),
        "config-defaults": ({}, Defaults),
        "config-deployment": ({"queue-sidecar-image": QUEUE_SIDECAR_IMAGE}, Deployment),
        "config-domain": ({DEFAULT_DOMAIN: ""}, None),
        "config-features": ({}, Features),
        "config-gc": ({}, Gc),
        # One person's machine: nobody else could have claimed the domain.
        "config-network": ({"autocreate-cluster-domain-claims": "true"}, Network),
        "config-observability": ({}, Observability),
        "config-logging": ({"zap-logger-config": _LOGGING}, None),
        "config-leader-election": ({}, None),
        "config-tracing": ({}, None),
        "config-certmanager": ({}, None),
    },
    EVENTING: {
        "config-br-defaults": ({"default-br-config": _BROKER_DEFAULTS}, None),
        "config-br-default-channel": ({"channel-template-spec": _CHANNEL_TEMPLATE}, None),
        "default-ch-webhook": ({"default-ch-config": _CHANNEL_DEFAULTS}, None),
        "config-features": (_EVENTING_FLAGS, None),
        "config-ping-defaults": ({}, PingDefaults),
        "config-sugar": ({}, Sugar),
        "config-kreference-mapping": ({}, None),
        "config-imc-event-dispatcher": (
            {"MaxIdleConnections": "1000", "MaxIdleConnectionsPerHost": "100"},
            ImcDispatcher,
        ),
        "config-observability": ({}, Observability),
        "config-logging": ({"zap-logger-config": _LOGGING}, None),
        "config-leader-election": ({}, None),
        "config-tracing": ({}, None),
        "eventing-integrations-images": ({}, None),
        "eventing-transformations-images": ({}, None),
    },
}


def default_configmaps() -> list[Obj]:
    """Every ConfigMap of the two system namespaces, ready to be created."""
    return [
        _configmap(namespace, name, data, settings)
        for namespace, maps in _SHIPPED.items()
        for name, (data, settings) in maps.items()
    ]


def _configmap(namespace: str, name: str, data: dict[str, str], settings: Any) -> Obj:
    product = namespace.removeprefix("knative-")
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "labels": {
            "app.kubernetes.io/name": namespace,
            "app.kubernetes.io/component": "controller",
            f"{product}.knative.dev/release": "devel",
        },
    }
    body = dict(data)
    if settings is not None:
        body[parsing.EXAMPLE_KEY] = parsing.example(settings)
        metadata["annotations"] = {CHECKSUM_ANNOTATION: checksum(body[parsing.EXAMPLE_KEY])}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": body}


def checksum(example: str) -> str:
    """What the annotation `knative.dev/example-checksum` must hold for this `_example`."""
    return f"{zlib.crc32(example.strip().encode()):08x}"
