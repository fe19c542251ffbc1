"""messaging.knative.dev: Channel, InMemoryChannel, Subscription."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, TypedDict

from knlocal.resources import ducks
from knlocal.resources import field_errors as errors
from knlocal.resources.base import Obj, annotations_of
from knlocal.resources.ducks import (
    AGE,
    READY,
    REASON,
    URL,
    AddressStatus,
    AuthStatus,
    ChannelTemplate,
    Delivery,
    DeliveryStatus,
    Destination,
    KReference,
    Status,
)
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.kinds import AdmissionContext, Kind
from knlocal.resources.schema import INT64, kind_schema
from knlocal.resources.settings.eventing import ChannelDefaults
from knlocal.resources.settings.parsing import SettingsError

GROUP = "messaging.knative.dev"
SUBSCRIBABLE_ANNOTATION = "messaging.knative.dev/subscribable"
SCOPE_ANNOTATION = "eventing.knative.dev/scope"
DEFAULT_TEMPLATE = {"apiVersion": "messaging.knative.dev/v1", "kind": "InMemoryChannel"}


class Subscriber(TypedDict, total=False):
    """One entry of a channel, written by the Subscription's controller."""

    uid: str
    name: str
    generation: Annotated[int, INT64]
    subscriberUri: str
    subscriberCACerts: str
    subscriberAudience: str
    replyUri: str
    replyCACerts: str
    replyAudience: str
    delivery: Delivery
    auth: AuthStatus


class SubscriberStatus(TypedDict, total=False):
    uid: str
    observedGeneration: Annotated[int, INT64]
    ready: str
    message: str
    auth: AuthStatus


class ChannelSpec(TypedDict, total=False):
    channelTemplate: ChannelTemplate
    subscribers: list[Subscriber]
    delivery: Delivery


class ChannelStatus(AddressStatus, DeliveryStatus, total=False):
    subscribers: list[SubscriberStatus]
    channel: KReference


class InMemoryChannelSpec(TypedDict, total=False):
    subscribers: list[Subscriber]
    delivery: Delivery


class InMemoryChannelStatus(AddressStatus, DeliveryStatus, total=False):
    subscribers: list[SubscriberStatus]


class SubscriptionSpec(TypedDict, total=False):
    channel: KReference
    subscriber: Destination
    reply: Destination
    delivery: Delivery


class PhysicalSubscription(DeliveryStatus, total=False):
    subscriberUri: str
    subscriberCACerts: str
    subscriberAudience: str
    replyUri: str
    replyCACerts: str
    replyAudience: str


class SubscriptionStatus(Status, total=False):
    physicalSubscription: PhysicalSubscription
    auth: AuthStatus


def default_channel_template(context: AdmissionContext, namespace: str) -> dict[str, Any]:
    """What ConfigMap default-ch-webhook gives to this namespace (InMemoryChannel if nothing)."""
    try:
        known = ChannelDefaults.parse(context.config("default-ch-webhook", ducks.SYSTEM_NAMESPACE))
    except SettingsError:
        known = ChannelDefaults()
    template = known.for_namespace(namespace) or DEFAULT_TEMPLATE
    return {name: value for name, value in template.items() if value is not None}


def _default_channel(obj: Obj, context: AdmissionContext) -> None:
    annotations = obj["metadata"].setdefault("annotations", {})
    annotations.setdefault(SUBSCRIBABLE_ANNOTATION, "v1")
    spec = obj.setdefault("spec", {})
    namespace = ducks.namespace_of(obj)
    if not spec.get("channelTemplate"):
        spec["channelTemplate"] = default_channel_template(context, namespace)
    ducks.default_delivery(spec.get("delivery"), namespace)


def _validate_channel(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = obj.get("spec") or {}
    found = ducks.validate_channel_template(spec.get("channelTemplate"))
    if spec.get("subscribers"):
        found.also(errors.disallowed("subscribers").via_field("subscribable"))
    delivery = ducks.validate_delivery(spec.get("delivery"), context, ducks.namespace_of(obj))
    found.also(delivery.via_field("delivery"))
    found = found.via_field("spec")
    if context.old is not None:
        old = {**(context.old.get("spec") or {}), "subscribers": None}
        new = {**spec, "subscribers": None}
        found.also(ducks.immutable(old, new, "v1.ChannelSpec", "spec"))
    return found


def _default_in_memory_channel(obj: Obj, context: AdmissionContext) -> None:
    obj["metadata"].setdefault("annotations", {}).setdefault(SUBSCRIBABLE_ANNOTATION, "v1")
    ducks.default_delivery(obj.setdefault("spec", {}).get("delivery"), ducks.namespace_of(obj))


def _validate_in_memory_channel(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = obj.get("spec") or {}
    found = FieldErrors()
    for index, subscriber in enumerate(spec.get("subscribers") or []):
        if not subscriber.get("subscriberUri") and not subscriber.get("replyUri"):
            wrong = _detailed(
                errors.missing("replyURI", "subscriberURI"), "expected at least one of, got none"
            )
            found.also(wrong.via_field_index("subscriber", index).via_field("subscribable"))
    delivery = ducks.validate_delivery(spec.get("delivery"), context, ducks.namespace_of(obj))
    found.also(delivery.via_field("delivery"))
    found = found.via_field("spec")
    scope = annotations_of(obj).get(SCOPE_ANNOTATION)
    if scope not in (None, "cluster", "namespace"):
        details = "expected either 'cluster' or 'namespace'"
        wrong = errors.invalid_value(scope, "", details)
        found.also(wrong.via_field_key("annotations", SCOPE_ANNOTATION).via_field("metadata"))
    if context.old is not None and context.user != ducks.EVENTING_CONTROLLER:
        old = (context.old.get("spec") or {}).get("subscribers") or []
        new = spec.get("subscribers") or []
        difference = ducks.short_diff(old, new, "{[]v1.SubscriberSpec}")
        if difference:
            found.also(
                errors.generic(
                    f"Channel.Spec.Subscribers changed by user {context.user} "
                    f"which was not the {ducks.EVENTING_CONTROLLER} service account",
                    "spec.subscribers",
                    details=difference,
                )
            )
    return found


def _default_subscription(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    namespace = ducks.namespace_of(obj)
    ducks.default_destination(spec.get("subscriber"), namespace)
    ducks.default_destination(spec.get("reply"), namespace)
    ducks.default_delivery(spec.get("delivery"), namespace)


def _validate_subscription(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = obj.get("spec") or {}
    channel = spec.get("channel")
    if not channel:
        details = "the Subscription must reference a channel"
        return _detailed(errors.missing("channel"), details).via_field("spec")
    found = ducks.validate_reference(channel).via_field("channel")
    links = ducks.feature(context, "cross-namespace-event-links")
    if channel.get("namespace") and not links:
        details = "only name, apiVersion and kind are supported fields"
        found.also(_detailed(errors.disallowed("namespace"), details).via_field("channel"))
    if not spec.get("subscriber"):
        details = "the Subscription must reference a subscriber"
        found.also(_detailed(errors.missing("subscriber"), details))
    else:
        found.also(ducks.validate_destination(spec["subscriber"]).via_field("subscriber"))
    if spec.get("reply"):
        found.also(ducks.validate_destination(spec["reply"]).via_field("reply"))
    found.also(ducks.validate_delivery(spec.get("delivery"), context).via_field("delivery"))
    found = found.via_field("spec")
    if context.old is not None:
        mutable = {"subscriber": None, "reply": None, "delivery": None}
        old, new = {**(context.old.get("spec") or {}), **mutable}, {**spec, **mutable}
        found.also(ducks.immutable(old, new, "v1.SubscriptionSpec", "spec"))
    return found


def _detailed(found: FieldErrors, details: str) -> FieldErrors:
    return FieldErrors([replace(error, details=details) for error in found])


_CHANNEL_LABELS = {
    **ducks.RELEASE_LABELS,
    **ducks.ADDRESSABLE_LABEL,
    "messaging.knative.dev/subscribable": "true",
}

CHANNEL = Kind(
    group=GROUP,
    version="v1",
    kind="Channel",
    plural="channels",
    short_names=("ch",),
    categories=("all", "knative", "messaging", "channel"),
    schema=kind_schema(ChannelSpec, ChannelStatus, description="A generic channel."),
    columns=(URL, AGE, READY, REASON),
    webhook=ducks.EVENTING_WEBHOOK,
    default=_default_channel,
    validate=_validate_channel,
    crd_labels=_CHANNEL_LABELS,
)

IN_MEMORY_CHANNEL = Kind(
    group=GROUP,
    version="v1",
    kind="InMemoryChannel",
    plural="inmemorychannels",
    short_names=("imc",),
    categories=("all", "knative", "messaging", "channel"),
    schema=kind_schema(
        InMemoryChannelSpec, InMemoryChannelStatus, description="A channel held in memory."
    ),
    columns=(URL, AGE, READY, REASON),
    webhook=ducks.EVENTING_WEBHOOK,
    default=_default_in_memory_channel,
    validate=_validate_in_memory_channel,
    crd_labels=_CHANNEL_LABELS,
)

SUBSCRIPTION = Kind(
    group=GROUP,
    version="v1",
    kind="Subscription",
    plural="subscriptions",
    short_names=("sub",),
    categories=("all", "knative", "messaging"),
    schema=kind_schema(
        SubscriptionSpec, SubscriptionStatus, description="Sends a channel's events to someone."
    ),
    columns=(AGE, READY, REASON),
    webhook=ducks.EVENTING_WEBHOOK,
    default=_default_subscription,
    validate=_validate_subscription,
    crd_labels=ducks.RELEASE_LABELS,
)

KINDS: tuple[Kind, ...] = (CHANNEL, IN_MEMORY_CHANNEL, SUBSCRIPTION)
