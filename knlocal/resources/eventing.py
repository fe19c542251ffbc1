"""eventing.knative.dev: Broker, Trigger, EventType (three versions)."""

from __future__ import annotations

import json
import re
from functools import lru_cache
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
    Delivery,
    DeliveryStatus,
    Destination,
    KReference,
    Status,
)
from knlocal.resources.eventing_alpha import KINDS as ALPHA_KINDS
from knlocal.resources.eventtypes import EVENT_TYPES
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.kinds import AdmissionContext, Column, Kind
from knlocal.resources.schema import Marker, kind_schema
from knlocal.resources.settings.eventing import BrokerDefaults, ClassDefaults
from knlocal.resources.settings.parsing import SettingsError

GROUP = "eventing.knative.dev"
BROKER_CLASS = "eventing.knative.dev/broker.class"
MT_CHANNEL_BROKER = "MTChannelBasedBroker"
BROKER_LABEL = "eventing.knative.dev/broker"
DEPENDENCY = "knative.dev/dependency"
INJECTION = "eventing.knative.dev/injection"

#: What Knative ships in ConfigMap config-br-defaults.
SHIPPED_BROKER_DEFAULTS = BrokerDefaults(
    ClassDefaults(
        MT_CHANNEL_BROKER,
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": "config-br-default-channel",
            "namespace": ducks.SYSTEM_NAMESPACE,
        },
        {"retry": 10, "backoffPolicy": "exponential", "backoffDelay": "PT0.2S"},
    )
)

# --- models ----------------------------------------------------------------------------------


class BrokerSpec(TypedDict, total=False):
    config: KReference
    delivery: Delivery


class BrokerStatus(AddressStatus, DeliveryStatus, total=False):
    pass


class TriggerFilter(TypedDict, total=False):
    attributes: dict[str, str]


def _filter_schema(levels: int) -> dict[str, Any]:
    """The recursive filter, spelled out: a CRD's schema cannot refer to itself."""
    values = {"type": "object", "additionalProperties": {"type": "string"}}
    deepest = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    inner = _filter_schema(levels - 1) if levels else deepest
    return {
        "type": "object",
        "properties": {
            "exact": {**values, "description": "Attributes that must be equal."},
            "prefix": {**values, "description": "Attributes that must start so."},
            "suffix": {**values, "description": "Attributes that must end so."},
            "all": {"type": "array", "items": inner, "description": "All must pass."},
            "any": {"type": "array", "items": inner, "description": "One must pass."},
            "not": {**inner, "description": "Must not pass."},
            "cesql": {"type": "string", "description": "A CloudEvents SQL expression."},
        },
    }


SubscriptionsFilter = Annotated[
    dict[str, Any], Marker(tuple(_filter_schema(2).items()), replaces=True)
]


class TriggerSpec(TypedDict, total=False):
    broker: str
    brokerRef: KReference
    filter: TriggerFilter
    filters: list[SubscriptionsFilter]
    subscriber: Destination
    delivery: Delivery


class TriggerStatus(Status, DeliveryStatus, total=False):
    subscriberUri: str
    subscriberCACerts: str
    subscriberAudience: str
    auth: AuthStatus


# --- Broker ------------------------------------------------------------------------------------


def _broker_defaults(context: AdmissionContext) -> BrokerDefaults:
    data = context.config("config-br-defaults", ducks.SYSTEM_NAMESPACE)
    return _parsed_defaults(data.get("default-br-config") or "")


@lru_cache(maxsize=8)
def _parsed_defaults(text: str) -> BrokerDefaults:
    try:
        found = BrokerDefaults.parse({"default-br-config": text})
    except SettingsError:
        return SHIPPED_BROKER_DEFAULTS
    return (
        found if found.namespaces or found.cluster != ClassDefaults() else SHIPPED_BROKER_DEFAULTS
    )


def _default_broker(obj: Obj, context: AdmissionContext) -> None:
    namespace = ducks.namespace_of(obj)
    known = _broker_defaults(context)
    annotations = obj["metadata"].setdefault("annotations", {})
    if not annotations.get(BROKER_CLASS):
        annotations[BROKER_CLASS] = known.broker_class(namespace) or MT_CHANNEL_BROKER
    defaults = known.for_class(namespace, annotations[BROKER_CLASS])
    spec = obj.setdefault("spec", {})
    if not spec.get("config") and defaults.config:
        spec["config"] = dict(defaults.config)
    if spec.get("config"):
        spec["config"].setdefault("namespace", namespace)
    if spec.get("delivery") is None and defaults.delivery:
        spec["delivery"] = json.loads(json.dumps(defaults.delivery))
    ducks.default_delivery(spec.get("delivery"), namespace)


def _validate_broker(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = obj.get("spec") or {}
    found = FieldErrors()
    namespace = ducks.namespace_of(obj)
    parent = namespace if _broker_defaults(context).wants_own_namespace(namespace) else ""
    if spec.get("config"):
        found.also(ducks.validate_reference(spec["config"], parent).via_field("config"))
    found.also(ducks.validate_delivery(spec.get("delivery"), context, parent).via_field("delivery"))
    found = found.via_field("spec")
    broker_class = annotations_of(obj).get(BROKER_CLASS)
    if not broker_class:
        found.also(errors.missing(BROKER_CLASS))
    if context.old is not None:
        old = {**(context.old.get("spec") or {}), "delivery": None}
        new = {**spec, "delivery": None}
        found.also(ducks.immutable(old, new, "v1.BrokerSpec", "spec"))
        before = annotations_of(context.old).get(BROKER_CLASS)
        found.also(ducks.immutable(before, broker_class, "string", "annotations"))
    return found


# --- Trigger -----------------------------------------------------------------------------------

_ATTRIBUTE_NAME = re.compile(r"[a-z][a-z0-9]*").fullmatch
_DIALECTS = ("exact", "prefix", "suffix", "all", "any", "not", "cesql")


def _default_trigger(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    namespace = ducks.namespace_of(obj)
    if spec.get("filter") is None:
        spec["filter"] = {}
    broker = spec.get("broker")
    if ducks.feature(context, "cross-namespace-event-links"):
        broker = (spec.get("brokerRef") or {}).get("name") or broker
    if broker and len(broker) <= 63:
        obj["metadata"].setdefault("labels", {})[BROKER_LABEL] = broker
    ducks.default_destination(spec.get("subscriber"), namespace)
    ducks.default_delivery(spec.get("delivery"), namespace)


def _validate_trigger(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = obj.get("spec") or {}
    found = FieldErrors()
    links = ducks.feature(context, "cross-namespace-event-links")
    if not spec.get("broker") and not (links and spec.get("brokerRef")):
        found.also(errors.missing("broker"))
    attributes = (spec.get("filter") or {}).get("attributes")
    found.also(validate_attribute_names(attributes).via_field("filter", "attributes"))
    found.also(validate_filters(spec.get("filters")).via_field("filters"))
    found.also(ducks.validate_destination(spec.get("subscriber")).via_field("subscriber"))
    found.also(ducks.validate_delivery(spec.get("delivery"), context).via_field("delivery"))
    found = found.via_field("spec")
    found.also(_validate_annotations(obj))
    if context.old is not None:
        before, after = (context.old.get("spec") or {}).get("broker"), spec.get("broker")
        found.also(ducks.immutable(before, after, "string", "spec", "broker"))
        if links:
            before, after = (context.old.get("spec") or {}).get("brokerRef"), spec.get("brokerRef")
            found.also(ducks.immutable(before, after, "*v1.KReference", "spec", "brokerRef"))
    return found


def validate_attribute_names(attributes: Any) -> FieldErrors:
    found = FieldErrors()
    for name in attributes or {}:
        if not _ATTRIBUTE_NAME(name):
            details = (
                "Attribute name must start with a letter and can only contain "
                "lowercase alphanumeric"
            )
            found.also(errors.invalid_key(name, "", details).via_key(name))
    return found


def validate_filters(filters: Any) -> FieldErrors:
    """The list form; whether a CESQL expression parses is checked by eventing's admission hook,
    which has the parser."""
    found = FieldErrors()
    for index, element in enumerate(filters or []):
        found.also(validate_filter(element).via_index(index))
    return found


def validate_filter(element: Any) -> FieldErrors:
    if not isinstance(element, dict):
        return errors.invalid_value(element, "", "a filter must be an object")
    found = FieldErrors()
    set_dialects = [name for name in _DIALECTS if element.get(name)]
    if len(set_dialects) > 1:
        found.also(errors.generic("multiple dialects found, filters can have only one dialect set"))
    for name in ("exact", "prefix", "suffix"):
        found.also(validate_attribute_names(element.get(name)).via_field(name))
        for attribute, value in (element.get(name) or {}).items():
            if not value:
                wrong = errors.invalid_value(value, "", "the value must not be empty")
                found.also(wrong.via_key(attribute).via_field(name))
    for name in ("all", "any"):
        found.also(validate_filters(element.get(name)).via_field(name))
    if element.get("not"):
        found.also(validate_filter(element["not"]).via_field("not"))
    return found


def _validate_annotations(obj: Obj) -> FieldErrors:
    annotations = annotations_of(obj)
    found = FieldErrors()
    if DEPENDENCY in annotations:
        wrong = _validate_dependency(annotations[DEPENDENCY], ducks.namespace_of(obj))
        found.also(wrong.via_field(f"metadata.annotations[{DEPENDENCY}]"))
    if INJECTION in annotations:
        wrong = _validate_injection(annotations[INJECTION], (obj.get("spec") or {}).get("broker"))
        found.also(wrong.via_field(f"metadata.annotations[{INJECTION}]"))
    return found


def _validate_dependency(text: str, namespace: str) -> FieldErrors:
    try:
        reference = json.loads(text)
    except ValueError as error:
        reference, problem = None, str(error)
    else:
        problem = "not a JSON object"
    if not isinstance(reference, dict):
        message = f'The provided annotation was not a corev1.ObjectReference: "{text}"'
        return errors.generic(message, details=problem)
    found = FieldErrors()
    if reference.get("namespace") not in (None, "", namespace):
        found.also(
            errors.generic(
                f'Namespace must be empty or equal to the trigger namespace "{namespace}"',
                "namespace",
            )
        )
    for name in ("kind", "name", "apiVersion"):
        if not reference.get(name):
            found.also(errors.missing(name))
    return found


def _validate_injection(value: str, broker: Any) -> FieldErrors:
    if value not in ("enabled", "disabled"):
        return errors.generic(
            'The provided injection annotation value can only be "enabled" or "disabled", '
            f'not "{value}"'
        )
    if broker != "default":
        return errors.generic(
            "The provided injection annotation is only used for default broker, "
            f'but non-default broker specified here: "{broker or ""}"'
        )
    return FieldErrors()


BROKER = Kind(
    group=GROUP,
    version="v1",
    kind="Broker",
    plural="brokers",
    categories=("all", "knative", "eventing"),
    schema=kind_schema(BrokerSpec, BrokerStatus, description="Collects events for triggers."),
    columns=(
        URL,
        AGE,
        READY,
        REASON,
        Column("Class", r".metadata.annotations.eventing\.knative\.dev/broker\.class", priority=1),
    ),
    webhook=ducks.EVENTING_WEBHOOK,
    default=_default_broker,
    validate=_validate_broker,
    crd_labels={**ducks.RELEASE_LABELS, **ducks.ADDRESSABLE_LABEL},
)

TRIGGER = Kind(
    group=GROUP,
    version="v1",
    kind="Trigger",
    plural="triggers",
    categories=("all", "knative", "eventing"),
    schema=kind_schema(TriggerSpec, TriggerStatus, description="Sends a broker's events on."),
    columns=(
        Column("Broker", ".spec.broker"),
        Column("Subscriber_URI", ".status.subscriberUri"),
        AGE,
        READY,
        REASON,
    ),
    webhook=ducks.EVENTING_WEBHOOK,
    default=_default_trigger,
    validate=_validate_trigger,
    crd_labels=ducks.RELEASE_LABELS,
)

KINDS: tuple[Kind, ...] = (BROKER, TRIGGER, *EVENT_TYPES, *ALPHA_KINDS)
