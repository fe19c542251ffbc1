"""eventing.knative.dev/v1alpha1: EventTransform, RequestReply, EventPolicy (E75–E77)."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from knlocal.resources import ducks
from knlocal.resources import field_errors as errors
from knlocal.resources.base import Obj
from knlocal.resources.ducks import (
    AGE,
    READY,
    REASON,
    URL,
    AddressStatus,
    AuthStatus,
    Delivery,
    Destination,
    KReference,
)
from knlocal.resources.duration import format_iso8601, parse, parse_iso8601
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.kinds import AdmissionContext, Column, Kind
from knlocal.resources.schema import INT32, kind_schema

GROUP = "eventing.knative.dev"


class Jsonata(TypedDict, total=False):
    expression: str


class TransformReply(TypedDict, total=False):
    jsonata: Jsonata
    discard: bool


class EventTransformSpec(TypedDict, total=False):
    sink: Destination
    jsonata: Jsonata
    reply: TransformReply


class JsonataStatus(TypedDict, total=False):
    deployment: dict[str, Any]


class EventTransformStatus(AddressStatus, total=False):
    sinkUri: str
    sinkCACerts: str
    sinkAudience: str
    jsonata: JsonataStatus
    auth: AuthStatus


class RequestReplySpec(TypedDict, total=False):
    brokerRef: KReference
    timeout: Annotated[str, "ISO 8601 duration to wait for a reply."]
    correlationAttribute: str
    replyAttribute: str
    delivery: Delivery
    secrets: list[str]


class RequestReplyStatus(AddressStatus, total=False):
    desiredReplicas: Annotated[int, INT32]
    readyReplicas: Annotated[int, INT32]


class LabelSelectorRequirement(TypedDict, total=False):
    key: str
    operator: str
    values: list[str]


class PolicySelector(TypedDict, total=False):
    apiVersion: str
    kind: str
    matchLabels: dict[str, str]
    matchExpressions: list[LabelSelectorRequirement]


class PolicyTo(TypedDict, total=False):
    ref: KReference
    selector: PolicySelector


class PolicyFrom(TypedDict, total=False):
    ref: KReference
    sub: str


# "from" is a word of Python's, so these two take the functional form.
EventPolicySpec = TypedDict(
    "EventPolicySpec",
    {"to": list[PolicyTo], "from": list[PolicyFrom], "filters": list[dict[str, Any]]},
    total=False,
)
EventPolicyStatus = TypedDict(
    "EventPolicyStatus",
    {
        "observedGeneration": int,
        "conditions": list[ducks.Condition],
        "annotations": dict[str, str],
        "from": list[str],
    },
    total=False,
)

# --- EventTransform ------------------------------------------------------------------------------


def _default_transform(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    ducks.default_destination(spec.get("sink"), ducks.namespace_of(obj))


_CA_CERTS_UNSUPPORTED = (
    "CACerts for the sink is not supported for JSONata transformations, to propagate CA trust "
    "bundles use labeled ConfigMaps: https://knative.dev/docs/eventing/features/"
    "transport-encryption/#configure-additional-ca-trust-bundles"
)
_TYPE_CHANGED = (
    "Transformations types are immutable, transformation type cannot be changed to a jsonata "
    "transformation. Suggestion: create a new transformation, migrate services to the new one, "
    "and delete this transformation."
)


def _validate_transform(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = obj.get("spec") or {}
    found = FieldErrors()
    jsonata, sink, reply = spec.get("jsonata"), spec.get("sink"), spec.get("reply")
    if jsonata is None:
        found.also(errors.missing_one_of("jsonata"))
    elif not jsonata.get("expression"):
        found.also(errors.missing("jsonata.expression"))
    if sink is not None:
        wrong = ducks.validate_destination(sink, ducks.namespace_of(obj))
        if sink.get("CACerts") and jsonata is not None:
            wrong.also(errors.generic(_CA_CERTS_UNSUPPORTED, "CACerts"))
        found.also(wrong.via_field("sink"))
    if reply is not None:
        # A reply that says nothing is passed on as it is.
        if sink is None:
            found.also(errors.generic("reply is set without spec.sink", "reply"))
        elif reply.get("jsonata") is not None and reply.get("discard"):
            found.also(errors.multiple_one_of("reply.discard", "reply.jsonata"))
        elif reply.get("jsonata") is not None and not reply["jsonata"].get("expression"):
            found.also(errors.missing("reply.jsonata.expression"))
    if context.old is not None and jsonata is None:
        # Jsonata is the only type that there is, so this is the only change of it.
        found.also(errors.generic(_TYPE_CHANGED))
    return found.via_field("spec")


EVENT_TRANSFORM = Kind(
    group=GROUP,
    version="v1alpha1",
    kind="EventTransform",
    plural="eventtransforms",
    categories=("all", "knative", "eventing"),
    schema=kind_schema(
        EventTransformSpec, EventTransformStatus, description="Rewrites events by an expression."
    ),
    columns=(URL, Column("Sink", ".status.sinkUri"), READY, REASON),
    webhook=ducks.EVENTING_WEBHOOK,
    default=_default_transform,
    validate=_validate_transform,
    crd_labels={**ducks.RELEASE_LABELS, **ducks.ADDRESSABLE_LABEL},
)

# --- RequestReply --------------------------------------------------------------------------------

_TAKEN = frozenset(
    {"specversion", "id", "source", "type", "time", "subject", "dataschema", "datacontenttype"}
)


def _default_request_reply(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("timeout"):
        flags = context.config("config-features", ducks.SYSTEM_NAMESPACE)
        spec["timeout"] = _default_timeout(flags.get("requestreply-default-timeout", ""))
    spec.setdefault("correlationAttribute", "correlationid")
    spec.setdefault("replyAttribute", "replyid")
    ducks.default_delivery(spec.get("delivery"), ducks.namespace_of(obj))


def _default_timeout(text: str) -> str:
    """The flag holds a Go duration ("30s"), the spec an ISO 8601 one."""
    try:
        return format_iso8601(parse(text))
    except ValueError:
        return "PT30S"


def _validate_request_reply(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = obj.get("spec") or {}
    broker = spec.get("brokerRef") or {}
    found = FieldErrors()
    if not broker:
        found.also(errors.missing("brokerRef"))
    else:
        reference = ducks.validate_reference(broker)
        if broker.get("kind") not in (None, "Broker"):
            reference.also(
                errors.invalid_value(broker["kind"], "kind", "brokerRef kind must be Broker")
            )
        if broker.get("namespace"):
            reference.also(errors.disallowed("namespace"))
        found.also(reference.via_field("brokerRef"))
    try:
        if parse_iso8601(str(spec.get("timeout"))) <= 0:
            raise ValueError
    except ValueError:
        found.also(errors.invalid_value(spec.get("timeout"), "timeout"))
    for name in ("correlationAttribute", "replyAttribute"):
        value = str(spec.get(name) or "")
        details = ""
        if value in _TAKEN:
            details = f"{name} cannot use core cloudevents attributes"
        elif not (value.isascii() and value.isalnum() and value == value.lower()):
            details = "must consist of lower-case letters and digits"
        if details:
            found.also(errors.invalid_value(value, name, details))
    if spec.get("correlationAttribute") == spec.get("replyAttribute"):
        found.also(
            errors.generic(
                "correlationAttribute and replyAttribute must differ",
                "correlationAttribute",
                "replyAttribute",
            )
        )
    found.also(ducks.validate_delivery(spec.get("delivery"), context).via_field("delivery"))
    return found.via_field("spec")


REQUEST_REPLY = Kind(
    group=GROUP,
    version="v1alpha1",
    kind="RequestReply",
    plural="requestreplies",
    short_names=("rr",),
    categories=("all", "knative", "eventing"),
    schema=kind_schema(
        RequestReplySpec, RequestReplyStatus, description="Waits for the reply to an event."
    ),
    columns=(URL, AGE, READY, REASON),
    webhook=ducks.EVENTING_WEBHOOK,
    default=_default_request_reply,
    validate=_validate_request_reply,
    crd_labels={**ducks.RELEASE_LABELS, **ducks.ADDRESSABLE_LABEL},
)

# --- EventPolicy ---------------------------------------------------------------------------------


def _default_policy(obj: Obj, context: AdmissionContext) -> None:
    for entry in obj.setdefault("spec", {}).get("from") or []:
        ducks.default_destination(entry, ducks.namespace_of(obj))


def _validate_policy(obj: Obj, context: AdmissionContext) -> FieldErrors:
    if not ducks.feature(context, "authentication-oidc"):
        return errors.generic("oidc-authentication feature not enabled")
    spec = obj.get("spec") or {}
    found = FieldErrors()
    for index, entry in enumerate(spec.get("from") or []):
        if entry.get("ref") and entry.get("sub"):
            wrong = errors.multiple_one_of("ref", "sub")
        elif entry.get("ref"):
            wrong = ducks.validate_reference(entry["ref"]).via_field("ref")
        elif entry.get("sub"):
            star = entry["sub"].find("*")
            wrong = FieldErrors()
            if star >= 0 and star != len(entry["sub"]) - 1:
                details = "'*' is only allowed as suffix"
                wrong.also(errors.invalid_value(entry["sub"], "sub", details))
        else:
            wrong = errors.missing_one_of("ref", "sub")
        found.also(wrong.via_field_index("from", index))
    for index, entry in enumerate(spec.get("to") or []):
        if entry.get("ref") and entry.get("selector"):
            wrong = errors.multiple_one_of("ref", "selector")
        elif entry.get("ref"):
            wrong = ducks.validate_reference({**entry["ref"]}, ducks.namespace_of(obj))
            wrong = wrong.via_field("ref")
        elif not entry.get("selector"):
            wrong = errors.missing_one_of("ref", "selector")
        else:
            wrong = FieldErrors()
        found.also(wrong.via_field_index("to", index))
    return found.via_field("spec")


EVENT_POLICY = Kind(
    group=GROUP,
    version="v1alpha1",
    kind="EventPolicy",
    plural="eventpolicies",
    categories=("all", "knative", "eventing"),
    schema=kind_schema(
        EventPolicySpec, EventPolicyStatus, description="Who may send events to whom."
    ),
    columns=(AGE, READY, REASON),
    webhook=ducks.EVENTING_WEBHOOK,
    default=_default_policy,
    validate=_validate_policy,
    crd_labels=ducks.RELEASE_LABELS,
)

KINDS: tuple[Kind, ...] = (EVENT_POLICY, EVENT_TRANSFORM, REQUEST_REPLY)
