"""Knative's ConfigMaps as typed settings, with Knative's keys, defaults and refusals.

`parse(name, data, namespace)` gives the settings object of a known ConfigMap; the classes
themselves have `parse(data)`. Within admission, `of_context` reads the ones that validation needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from knlocal.resources.base import Obj
from knlocal.resources.field_errors import FieldErrors, generic
from knlocal.resources.kinds import AdmissionContext
from knlocal.resources.settings.autoscaler import HPA, KPA, Autoscaler
from knlocal.resources.settings.components import LeaderElection, Logging
from knlocal.resources.settings.defaults import Defaults, ObjectMetaValues
from knlocal.resources.settings.deployment import Deployment
from knlocal.resources.settings.eventing import (
    BrokerDefaults,
    ChannelDefaults,
    ChannelTemplate,
    ClassDefaults,
    EventingFeatures,
    ImcDispatcher,
    PingDefaults,
    Sugar,
)
from knlocal.resources.settings.features import Features
from knlocal.resources.settings.gc import Gc
from knlocal.resources.settings.network import Domains, Network
from knlocal.resources.settings.observability import Observability
from knlocal.resources.settings.parsing import EXAMPLE_KEY, SettingsError
from knlocal.resources.settings.shipped import (
    CHECKSUM_ANNOTATION,
    DEFAULT_DOMAIN,
    EVENTING,
    SERVING,
    checksum,
    default_configmaps,
)
from knlocal.resources.status import BadRequest

__all__ = [
    "DEFAULT_DOMAIN",
    "EVENTING",
    "HPA",
    "KPA",
    "SERVING",
    "Autoscaler",
    "BrokerDefaults",
    "ChannelDefaults",
    "ChannelTemplate",
    "ClassDefaults",
    "Defaults",
    "Deployment",
    "Domains",
    "EventingFeatures",
    "Features",
    "Gc",
    "ImcDispatcher",
    "Network",
    "ObjectMetaValues",
    "Observability",
    "PingDefaults",
    "SettingsError",
    "Sugar",
    "admit_configmap",
    "config_webhook",
    "default_configmaps",
    "of_context",
    "parse",
    "validate_configmap",
]

_CLASSES: dict[tuple[str, str], Any] = {
    (SERVING, "config-autoscaler"): Autoscaler,
    (SERVING, "config-defaults"): Defaults,
    (SERVING, "config-deployment"): Deployment,
    (SERVING, "config-domain"): Domains,
    (SERVING, "config-features"): Features,
    (SERVING, "config-gc"): Gc,
    (SERVING, "config-leader-election"): LeaderElection,
    (SERVING, "config-logging"): Logging,
    (SERVING, "config-network"): Network,
    (SERVING, "config-observability"): Observability,
    (EVENTING, "config-br-defaults"): BrokerDefaults,
    (EVENTING, "config-br-default-channel"): ChannelTemplate,
    (EVENTING, "default-ch-webhook"): ChannelDefaults,
    (EVENTING, "config-features"): EventingFeatures,
    (EVENTING, "config-ping-defaults"): PingDefaults,
    (EVENTING, "config-sugar"): Sugar,
    (EVENTING, "config-imc-event-dispatcher"): ImcDispatcher,
    (EVENTING, "config-leader-election"): LeaderElection,
    (EVENTING, "config-logging"): Logging,
    (EVENTING, "config-observability"): Observability,
}
_PLACES = {cls: place for place, cls in reversed(_CLASSES.items())}

T = TypeVar("T")


def parse(name: str, data: Mapping[str, str] | None, namespace: str = SERVING) -> Any:
    """The settings object of ConfigMap `name`; defaults when `data` is None or empty.

    Raises SettingsError for values Knative refuses, LookupError for a ConfigMap without settings.
    """
    cls = _CLASSES.get((namespace, name))
    if cls is None:
        raise LookupError(f"ConfigMap {namespace}/{name} holds no settings known here")
    return _parse(cls, tuple(sorted((data or {}).items())))


def of_context(cls: type[T], ctx: AdmissionContext, namespace: str = "") -> T:
    """The settings of one class as the admission context has them; the defaults when what is
    stored does not parse (it then was stored before this version refused it)."""
    place, name = _PLACES[cls]
    data = tuple(sorted(ctx.config(name, namespace or place).items()))
    constructor: Any = cls
    try:
        found: T = _parse(constructor, data)
    except SettingsError:
        found = _parse(constructor, ())
    return found


@lru_cache(maxsize=256)
def _parse(cls: Any, data: tuple[tuple[str, str], ...]) -> Any:
    return cls.parse(dict(data))


def config_webhook(obj: Obj) -> str:
    """The webhook that checks this ConfigMap ("config.webhook.serving.knative.dev"), or ""."""
    metadata = obj.get("metadata") or {}
    namespace, name = str(metadata.get("namespace")), str(metadata.get("name"))
    # A channel template is judged where it is used: the broker's status tells what is wrong.
    if (namespace, name) not in _CLASSES or name == "config-br-default-channel":
        return ""
    return f"config.webhook.{namespace.removeprefix('knative-')}.knative.dev"


class _Request(Protocol):
    """An admission request, as far as it is looked at here."""

    @property
    def obj(self) -> Obj: ...


def admit_configmap(request: _Request) -> None:
    """An admission hook for the store: raises BadRequest in the words of Knative's webhook."""
    obj = request.obj
    if obj.get("kind") == "ConfigMap" and (errors := validate_configmap(obj)):
        raise BadRequest(
            f'admission webhook "{config_webhook(obj)}" denied the request: '
            f"validation failed: {errors}"
        )


def validate_configmap(obj: Obj, ctx: AdmissionContext | None = None) -> FieldErrors:
    """What Knative's config webhook refuses; nothing for other people's ConfigMaps."""
    if not config_webhook(obj):
        return FieldErrors()
    metadata = obj["metadata"]
    data = obj.get("data") or {}
    wanted = (metadata.get("annotations") or {}).get(CHECKSUM_ANNOTATION)
    if wanted and EXAMPLE_KEY in data and checksum(data[EXAMPLE_KEY]) != wanted:
        return generic(
            f'the update modifies a key in "{EXAMPLE_KEY}" which is probably not what you want. '
            "Instead, copy the respective setting to the top-level of the ConfigMap, "
            'directly below "data"',
            "data",
        )
    try:
        _CLASSES[metadata["namespace"], metadata["name"]].parse(data)
    except SettingsError as error:
        return generic(str(error), "data")
    return FieldErrors()
