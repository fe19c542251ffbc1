"""Shapes that eventing's kinds share: destinations, delivery, addresses, conditions, columns.

Rules: knative.dev/pkg/apis/duck/v1 and knative.dev/eventing/pkg/apis/duck/v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, TypedDict
from urllib.parse import urlsplit

from knlocal.resources import field_errors as errors
from knlocal.resources.base import Obj
from knlocal.resources.duration import parse_iso8601
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.kinds import AdmissionContext, Column, Kind
from knlocal.resources.schema import DATE_TIME, INT32, INT64

EVENTING_WEBHOOK = "validation.webhook.eventing.knative.dev"
EVENTING_CONTROLLER = "system:serviceaccount:knative-eventing:eventing-controller"
SYSTEM_NAMESPACE = "knative-eventing"

# --- models ----------------------------------------------------------------------------------


class KReference(TypedDict, total=False):
    """A reference to an object."""

    kind: str
    namespace: str
    name: str
    apiVersion: str
    group: str
    address: Annotated[str, "Name of the address in status.addresses to use."]


class Destination(TypedDict, total=False):
    """Where events go: an object with an address, a URI, or a URI relative to the object's."""

    ref: KReference
    uri: str
    CACerts: str
    audience: str


class Delivery(TypedDict, total=False):
    """How hard delivery is tried, and where an event goes that could not be delivered."""

    deadLetterSink: Destination
    retry: Annotated[int, INT32, "Retries after the first attempt."]
    timeout: Annotated[str, "ISO 8601 duration of one attempt, above zero."]
    backoffPolicy: Annotated[str, "linear or exponential."]
    backoffDelay: Annotated[str, "ISO 8601 duration: the unit of waiting between attempts."]
    backoffMax: Annotated[str, "ISO 8601 duration, above zero: the most that waiting grows to."]
    retryAfterMax: Annotated[str, "ISO 8601 duration: how long a Retry-After is honoured at most."]
    format: Annotated[str, "json (structured mode) or binary; unset keeps what came in."]


class DeliveryStatus(TypedDict, total=False):
    deadLetterSinkUri: str
    deadLetterSinkCACerts: str
    deadLetterSinkAudience: str


class Addressable(TypedDict, total=False):
    name: str
    url: str
    CACerts: str
    audience: str


class Condition(TypedDict, total=False):
    type: str
    status: str
    severity: str
    lastTransitionTime: Annotated[str, DATE_TIME]
    reason: str
    message: str


class Status(TypedDict, total=False):
    observedGeneration: Annotated[int, INT64]
    conditions: list[Condition]
    annotations: dict[str, str]


class Policy(TypedDict, total=False):
    apiVersion: str
    name: str


class AddressStatus(Status, total=False):
    address: Addressable
    addresses: list[Addressable]
    policies: list[Policy]


class AuthStatus(TypedDict, total=False):
    serviceAccountName: str
    serviceAccountNames: list[str]


class ChannelTemplate(TypedDict, total=False):
    """The kind, and further spec, of the channel to make."""

    apiVersion: str
    kind: str
    spec: dict[str, Any]


class CloudEventOverrides(TypedDict, total=False):
    extensions: dict[str, str]


class CloudEventAttributes(TypedDict, total=False):
    type: str
    source: str


class SourceStatus(Status, total=False):
    sinkUri: str
    sinkCACerts: str
    sinkAudience: str
    ceAttributes: list[CloudEventAttributes]
    auth: AuthStatus


# --- columns and CRD labels --------------------------------------------------------------------

URL = Column("URL", ".status.address.url")
SINK = Column("Sink", ".status.sinkUri")
AGE = Column("Age", ".metadata.creationTimestamp", type="date")
READY = Column("Ready", '.status.conditions[?(@.type=="Ready")].status')
REASON = Column("Reason", '.status.conditions[?(@.type=="Ready")].reason')

ADDRESSABLE_LABEL = {"duck.knative.dev/addressable": "true"}
RELEASE_LABELS = {"knative.dev/crd-install": "true", "app.kubernetes.io/name": "knative-eventing"}

# --- feature flags ------------------------------------------------------------------------------

_ON_BY_DEFAULT = frozenset({"delivery-timeout", "delivery-retryafter", "delivery-backoff-max"})
"""The last two are off in Knative; here they may be asked for without a flag."""


def feature(context: AdmissionContext, name: str) -> bool:
    """Whether an eventing feature flag (ConfigMap config-features) is enabled."""
    value = context.config("config-features", SYSTEM_NAMESPACE).get(name, "").strip().lower()
    return value == "enabled" if value else name in _ON_BY_DEFAULT


# --- defaulting -----------------------------------------------------------------------------------


def default_destination(destination: Any, namespace: str) -> None:
    """A reference without a namespace means the object's own."""
    if isinstance(destination, dict):
        ref = destination.get("ref")
        if ref and not ref.get("namespace") and namespace:
            ref["namespace"] = namespace


def default_delivery(delivery: Any, namespace: str) -> None:
    if isinstance(delivery, dict):
        default_destination(delivery.get("deadLetterSink"), namespace)


def namespace_of(obj: Obj) -> str:
    return str((obj.get("metadata") or {}).get("namespace") or "")


def signed(kind: Kind) -> Kind:
    """The kind with marks on its objects of who made them and who changed their spec last, as the
    webhook of Knative's eventing puts them (knative.dev/pkg webhook/…/defaulting/user_info.go)."""
    given = kind.default

    def default(obj: Obj, context: AdmissionContext) -> None:
        if given is not None:
            given(obj, context)
        marks = {f"{kind.group}/lastModifier": context.user}
        if context.old is None:
            marks[f"{kind.group}/creator"] = context.user
        elif obj.get("spec") == context.old.get("spec"):
            return
        metadata = obj["metadata"]
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **marks}

    return replace(kind, default=default)


# --- validation -----------------------------------------------------------------------------------


def validate_reference(ref: Mapping[str, Any] | None, parent: str = "") -> FieldErrors:
    """`parent`: the namespace that the reference may not leave ("" lets it)."""
    ref = ref or {}
    found = FieldErrors()
    for name in ("name", "apiVersion", "kind"):
        if not ref.get(name) and not (name == "apiVersion" and ref.get("group")):
            found.also(errors.missing(name))
    namespace = ref.get("namespace")
    if parent and namespace and namespace != parent:
        details = f'parent namespace: "{parent}" does not match ref: "{namespace}"'
        found.also(errors.generic("mismatched namespaces", "namespace", details=details))
    return found


def validate_destination(destination: Mapping[str, Any] | None, parent: str = "") -> FieldErrors:
    destination = destination or {}
    ref, uri = destination.get("ref"), destination.get("uri")
    if not ref and not uri:
        return errors.missing_at_least_one_of("ref", "uri")
    if uri:
        parts = urlsplit(uri)
        if ref and parts.scheme:
            return errors.generic(
                "Absolute URI is not allowed when Ref or [apiVersion, kind, name] is present",
                "[apiVersion, kind, name]", "ref", "uri",
            )  # fmt: skip
        if not ref and not (parts.scheme and parts.netloc):
            return errors.invalid_value(
                "Relative URI is not allowed when Ref and [apiVersion, kind, name] is absent", "uri"
            )
        return FieldErrors()
    return validate_reference(ref, parent).via_field("ref")


def validate_delivery(
    delivery: Mapping[str, Any] | None, context: AdmissionContext, parent: str = ""
) -> FieldErrors:
    found = FieldErrors()
    if not delivery:
        return found
    if (sink := delivery.get("deadLetterSink")) is not None:
        found.also(validate_destination(sink, parent).via_field("deadLetterSink"))
    retry = delivery.get("retry")
    if retry is not None and retry < 0:
        found.also(errors.invalid_value(retry, "retry"))
    if delivery.get("backoffPolicy") not in (None, "linear", "exponential"):
        found.also(errors.invalid_value(delivery["backoffPolicy"], "backoffPolicy"))
    if delivery.get("format") not in (None, "json", "binary"):
        found.also(errors.invalid_value(delivery["format"], "format"))
    found.also(_duration(delivery, "backoffDelay", lambda seconds: True))
    if "timeout" in delivery and not feature(context, "delivery-timeout"):
        found.also(errors.disallowed("timeout"))
    else:
        found.also(_duration(delivery, "timeout", lambda seconds: seconds > 0))
    if "backoffMax" in delivery and not feature(context, "delivery-backoff-max"):
        found.also(errors.disallowed("backoffMax"))
    else:
        found.also(_duration(delivery, "backoffMax", lambda seconds: seconds > 0))
    if "retryAfterMax" in delivery and not feature(context, "delivery-retryafter"):
        found.also(errors.disallowed("retryAfterMax"))
    else:
        found.also(_duration(delivery, "retryAfterMax", lambda seconds: seconds >= 0))
    return found


def _duration(delivery: Mapping[str, Any], name: str, fits: Any) -> FieldErrors | None:
    text = delivery.get(name)
    if text is None:
        return None
    try:
        if fits(parse_iso8601(text)):
            return None
    except ValueError:
        pass
    return errors.invalid_value(text, name)


def validate_channel_template(template: Mapping[str, Any] | None) -> FieldErrors:
    if template is None:
        return errors.missing("channelTemplate")
    found = FieldErrors()
    for name in ("kind", "apiVersion"):
        if not template.get(name):
            found.also(errors.missing(name))
    return found.via_field("channelTemplate")


def validate_overrides(overrides: Mapping[str, Any] | None) -> FieldErrors:
    """`ceOverrides`: names of extensions must be CloudEvents attribute names."""
    found = FieldErrors()
    for key in (overrides or {}).get("extensions") or {}:
        if not (key.isascii() and key.isalnum() and key == key.lower()):
            found.also(
                errors.invalid_key(
                    key, "", "keys MUST consist of lower-case letters and digits"
                ).via_key(key)
            )
    return found.via_field("ceOverrides", "extensions")


def validate_source_spec(spec: Mapping[str, Any], parent: str = "") -> FieldErrors:
    """What every source shares: a sink, and overrides."""
    return (
        validate_destination(spec.get("sink"), parent)
        .via_field("sink")
        .also(validate_overrides(spec.get("ceOverrides")))
    )


def immutable(old: Any, new: Any, model: str, *paths: str) -> FieldErrors | None:
    """Knative's refusal of a changed field; None when nothing changed."""
    difference = short_diff(old, new, f"{{{model}}}")
    if not difference:
        return None
    return errors.generic("Immutable fields changed (-old +new)", *paths, details=difference)


def short_diff(old: Any, new: Any, path: str) -> str:
    """Differences as knative.dev/pkg/kmp prints them, one leaf after the other."""
    if old == new:
        return ""
    if isinstance(old, dict) and isinstance(new, dict):
        return "".join(
            short_diff(old.get(name), new.get(name), f"{path}.{name[:1].upper()}{name[1:]}")
            for name in sorted({*old, *new})
        )
    before = f'\t-: "{old}"\n' if old is not None else ""
    after = f'\t+: "{new}"\n' if new is not None else ""
    return f"{path}:\n{before}{after}"
