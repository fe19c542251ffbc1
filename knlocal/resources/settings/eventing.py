"""The ConfigMaps of knative-eventing (knative.dev/eventing/pkg/apis/…/config)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from knlocal.resources.labels import label_selector_problem
from knlocal.resources.settings.parsing import (
    EXAMPLE_KEY,
    SettingsError,
    as_int,
    as_yaml,
    read,
    setting,
)

ENABLED = "Enabled"
DISABLED = "Disabled"

_FLAG_WORDS = {
    word.lower(): word
    for word in (
        ENABLED,
        DISABLED,
        "Allowed",
        "Strict",
        "Permissive",
        "Allow-Same-Namespace",
        "Allow-All",
        "Deny-All",
    )
}
_FLAG_DEFAULTS = {
    "kreference-group": DISABLED,
    "delivery-retryafter": DISABLED,
    "delivery-timeout": ENABLED,
    "kreference-mapping": DISABLED,
    "transport-encryption": DISABLED,
    "eventtype-auto-create": DISABLED,
    "authentication-oidc": DISABLED,
    "default-authorization-mode": "Allow-Same-Namespace",
    "cross-namespace-event-links": DISABLED,
    "new-apiserversource-filters": DISABLED,
    "requestreply-default-timeout": "30s",
    "oidc-discovery-base-url": "https://kubernetes.default.svc",
    "istio": DISABLED,
}


@dataclass(frozen=True, slots=True)
class EventingFeatures:
    """config-features: flags by name. Unknown names are kept, as Knative does."""

    flags: Mapping[str, str] = field(default_factory=lambda: dict(_FLAG_DEFAULTS))

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> EventingFeatures:
        flags = dict(_FLAG_DEFAULTS)
        for key, raw in data.items():
            text = raw.strip()
            if key.startswith("_"):
                continue
            if key.startswith("apiserversources.nodeselector.") or key in (
                "oidc-discovery-base-url",
                "requestreply-default-timeout",
            ):
                flags[key] = text
            elif text.lower() in _FLAG_WORDS:
                flags[key] = _FLAG_WORDS[text.lower()]
            else:
                raise SettingsError(
                    f'cannot parse the flag "{key}" = "{raw}"; allowed: '
                    + ", ".join(sorted(_FLAG_WORDS))
                )
        return cls(flags)

    def flag(self, name: str) -> str:
        return self.flags.get(name, DISABLED)

    def is_enabled(self, name: str) -> bool:
        return self.flag(name) == ENABLED

    def is_allowed(self, name: str) -> bool:
        """Enabled or Allowed."""
        return self.flag(name) in (ENABLED, "Allowed")


@dataclass(frozen=True, slots=True)
class ClassDefaults:
    """What a new broker gets: its class, its config reference, its delivery spec."""

    broker_class: str = ""
    config: Mapping[str, Any] | None = None
    delivery: Mapping[str, Any] | None = None
    own_namespace: bool = False
    """Whether a broker's config must be in the broker's namespace."""

    @property
    def says_nothing(self) -> bool:
        return self.config is None and self.delivery is None


@dataclass(frozen=True, slots=True)
class BrokerDefaults:
    """config-br-defaults: `default-br-config`, cluster-wide and by namespace."""

    cluster: ClassDefaults = field(default_factory=ClassDefaults)
    cluster_classes: Mapping[str, ClassDefaults] = field(default_factory=dict)
    namespaces: Mapping[str, ClassDefaults] = field(default_factory=dict)
    namespace_classes: Mapping[str, Mapping[str, ClassDefaults]] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> BrokerDefaults:
        body = _mapping(data, "default-br-config")
        cluster = body.get("clusterDefault") or {}
        namespaces = body.get("namespaceDefaults") or {}
        return cls(
            _class_defaults(cluster),
            _class_map(cluster),
            {name: _class_defaults(entry or {}) for name, entry in namespaces.items()},
            {name: _class_map(entry or {}) for name, entry in namespaces.items()},
        )

    def broker_class(self, namespace: str) -> str:
        here = self.namespaces.get(namespace)
        return (here.broker_class if here else "") or self.cluster.broker_class

    def for_class(self, namespace: str, broker_class: str) -> ClassDefaults:
        """Config and delivery for a broker of this class in this namespace, the nearest first
        (`GetBrokerConfig` of knative.dev/eventing pkg/apis/config)."""
        here = self.namespaces.get(namespace)
        if here is not None and here.broker_class == broker_class:
            if not here.says_nothing:
                return here
        elif broker_class in (classes := self.namespace_classes.get(namespace) or {}):
            return classes[broker_class]
        if broker_class != self.cluster.broker_class and not self.cluster.says_nothing:
            return self.cluster_classes.get(broker_class, self.cluster)
        return self.cluster

    def wants_own_namespace(self, namespace: str) -> bool:
        """Whether a broker here may not refer to a config elsewhere."""
        return self.namespaces.get(namespace, self.cluster).own_namespace


def _class_defaults(entry: Mapping[str, Any]) -> ClassDefaults:
    config = {
        key: entry[key] for key in ("apiVersion", "kind", "name", "namespace") if entry.get(key)
    }
    return ClassDefaults(
        str(entry.get("brokerClass") or ""),
        config or None,
        entry.get("delivery") or None,
        entry.get("disallowDifferentNamespaceConfig") is True,
    )


def _class_map(entry: Mapping[str, Any]) -> dict[str, ClassDefaults]:
    classes = entry.get("brokerClasses") or {}
    return {
        name: _class_defaults({**(body or {}), "brokerClass": name})
        for name, body in classes.items()
    }


@dataclass(frozen=True, slots=True)
class ChannelDefaults:
    """default-ch-webhook: the channel implementation behind a generic Channel."""

    cluster: Mapping[str, Any] | None = None
    namespaces: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> ChannelDefaults:
        body = _mapping(data, "default-ch-config")
        return cls(body.get("clusterDefault"), body.get("namespaceDefaults") or {})

    def for_namespace(self, namespace: str) -> Mapping[str, Any] | None:
        """The `channelTemplate` ({apiVersion, kind, spec}), or None when nothing is configured."""
        return self.namespaces.get(namespace) or self.cluster


@dataclass(frozen=True, slots=True)
class ChannelTemplate:
    """config-br-default-channel: `channel-template-spec` of a channel-based broker."""

    template: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> ChannelTemplate:
        body = _mapping(data, "channel-template-spec", legacy="channelTemplateSpec")
        for key in ("apiVersion", "kind"):
            if not body.get(key):
                raise SettingsError(f"channel-template-spec: {key} is required")
        return cls(body)


@dataclass(frozen=True, slots=True)
class PingDefaults:
    """config-ping-defaults."""

    data_max_size: int = setting(
        "data-max-size", -1, "Largest size of data in bytes; -1: no limit.", parse=as_int
    )

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> PingDefaults:
        return read(cls, data)


@dataclass(frozen=True, slots=True)
class Sugar:
    """config-sugar: label selectors, None when that sugar is off; {} means everything."""

    namespace_selector: Mapping[str, Any] | None = setting(
        "namespace-selector",
        None,
        "Namespaces that get a Broker `default`: a label selector, YAML; empty: none, {}: all.",
        parse=as_yaml,
    )
    trigger_selector: Mapping[str, Any] | None = setting(
        "trigger-selector",
        None,
        "Triggers whose Broker is made for them: a label selector, YAML; empty: none, {}: all.",
        parse=as_yaml,
    )

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> Sugar:
        found = read(cls, data)
        for name, value in (
            ("namespace-selector", found.namespace_selector),
            ("trigger-selector", found.trigger_selector),
        ):
            if problem := label_selector_problem(value):
                raise SettingsError(f'failed to parse "{name}": {problem}')
        return found


@dataclass(frozen=True, slots=True)
class ImcDispatcher:
    """config-imc-event-dispatcher: connections of the in-memory channel dispatcher."""

    max_idle_connections: int = setting("MaxIdleConnections", 1000, "Idle connections kept in all.")
    max_idle_connections_per_host: int = setting(
        "MaxIdleConnectionsPerHost", 100, "Idle connections kept per host."
    )

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> ImcDispatcher:
        return read(cls, data)


def _mapping(data: Mapping[str, str], key: str, legacy: str = "") -> dict[str, Any]:
    text = data.get(key) or data.get(legacy)
    if text is None:
        if set(data) - {EXAMPLE_KEY}:
            raise SettingsError(f'not found: "{key}"')
        return {}
    try:
        body = as_yaml(text)
    except Exception as error:
        raise SettingsError(f'failed to parse "{key}": {error}') from None
    if body is not None and not isinstance(body, dict):
        raise SettingsError(f'failed to parse "{key}": a YAML mapping is expected')
    return body or {}
