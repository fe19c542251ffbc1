"""Where a Trigger's broker and a Subscription's channel are: in the namespace of their own, or in
another with the feature `cross-namespace-event-links`."""

from __future__ import annotations

from knlocal.resources.base import GroupKind, Key, Obj, labels_of, spec_of, status_of
from knlocal.resources.ducks import SYSTEM_NAMESPACE
from knlocal.store.store import Store

FEATURE = "cross-namespace-event-links"
BROKER = GroupKind("eventing.knative.dev", "Broker")
TRIGGER = GroupKind("eventing.knative.dev", "Trigger")
CHANNEL = GroupKind("messaging.knative.dev", "Channel")
CRD = GroupKind("apiextensions.k8s.io", "CustomResourceDefinition")
SUBSCRIBABLE = "messaging.knative.dev/subscribable"


def are_on(store: Store) -> bool:
    flags = store.configs.get(f"{SYSTEM_NAMESPACE}/config-features") or {}
    return flags.get(FEATURE, "").strip().lower() == "enabled"


def broker_of(store: Store, trigger: Obj) -> Key:
    """The broker that a trigger means, there or not; its name may be ""."""
    spec, namespace = spec_of(trigger), trigger["metadata"]["namespace"]
    name = spec.get("broker") or ""
    reference = spec.get("brokerRef")
    if reference and are_on(store):
        name = reference.get("name") or name
        namespace = reference.get("namespace") or namespace
    return Key(*BROKER, namespace, name)


def triggers_of(store: Store, broker: Obj) -> list[Obj]:
    metadata = broker["metadata"]
    wanted = Key(*BROKER, metadata["namespace"], metadata["name"])
    triggers = store.list(TRIGGER) if are_on(store) else store.list(TRIGGER, wanted.namespace)
    return [trigger for trigger in triggers if broker_of(store, trigger) == wanted]


def channel_of(subscription: Obj) -> Key:
    """The channel that a subscription names, generic or not; one elsewhere is admitted only while
    the feature is on."""
    ref = spec_of(subscription).get("channel") or {}
    group = str(ref.get("apiVersion") or "").rpartition("/")[0]
    namespace = ref.get("namespace") or subscription["metadata"]["namespace"]
    return Key(group, str(ref.get("kind")), namespace, str(ref.get("name")))


def not_a_channel(store: Store, key: Key) -> str:
    """Why objects of a (known) kind are no channels: their CRD does not say that they are, as
    Knative asks of it. "" when they are."""
    kind = store.registry.stored(key.group_kind)
    if kind is None:
        return ""
    name = f"{kind.plural}.{kind.group}"
    marks = kind.crd_labels or labels_of(store.find(CRD, "", name) or {"metadata": {}})
    if marks.get(SUBSCRIBABLE) == "true":
        return ""
    return f'crd "{name}" does not contain mandatory label "{SUBSCRIBABLE}"'


def backing_channel(store: Store, subscription: Obj) -> Key | None:
    """The channel that really carries a subscription's events, or None while unknown."""
    key = channel_of(subscription)
    if key.group_kind != CHANNEL:
        return key
    backing = status_of(store.find_key(key) or {}).get("channel")
    if not backing:
        return None
    group = str(backing["apiVersion"]).rpartition("/")[0]
    return Key(group, backing["kind"], key.namespace, backing["name"])
