"""sources.knative.dev: PingSource, ApiServerSource, ContainerSource, SinkBinding,
IntegrationSource (behaviours E59–E67)."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, TypedDict
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from knlocal.resources import ducks, labels
from knlocal.resources import field_errors as errors
from knlocal.resources.base import Obj
from knlocal.resources.core import table as _core  # registers the definitions referred to
from knlocal.resources.cron import ZONE_PREFIX, schedule_problem
from knlocal.resources.ducks import (
    AGE,
    READY,
    REASON,
    SINK,
    CloudEventOverrides,
    Destination,
    SourceStatus,
)
from knlocal.resources.eventing import SubscriptionsFilter, validate_filters
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.kinds import AdmissionContext, Column, Kind
from knlocal.resources.names import (
    c_identifier,
    dns1123_label,
    dns1123_subdomain,
    qualified_name,
)
from knlocal.resources.schema import INT32, Ref, kind_schema

GROUP = "sources.knative.dev"
LABEL_SELECTOR = f"{_core.META}LabelSelector"

LabelSelector = Annotated[dict[str, Any], Ref(LABEL_SELECTOR)]
#: Not typed here: names are filled in first, and the Deployment that it becomes is checked.
PodTemplate = dict[str, Any]

SOURCE_LABELS = {
    **ducks.RELEASE_LABELS,
    "duck.knative.dev/source": "true",
    "eventing.knative.dev/source": "true",
}
_CATEGORIES = ("all", "knative", "sources")


def _event_types(*types: dict[str, str]) -> dict[str, str]:
    return {"registry.knative.dev/eventTypes": json.dumps(types)}


class SourceSpec(TypedDict, total=False):
    sink: Destination
    ceOverrides: CloudEventOverrides


def default_source(obj: Obj, context: AdmissionContext) -> None:
    """The defaulting that every source needs: where its sink's reference points."""
    sink = obj.setdefault("spec", {}).get("sink")
    ducks.default_destination(sink, ducks.namespace_of(obj))


def validate_source(obj: Obj, context: AdmissionContext) -> FieldErrors:
    """The validation that every source needs: its sink and its overrides."""
    return ducks.validate_source_spec(obj.get("spec") or {}).via_field("spec")


# --- PingSource ----------------------------------------------------------------------------------


class PingSourceSpec(SourceSpec, total=False):
    schedule: Annotated[str, "A cron line, with optional seconds; * * * * * if not given."]
    timezone: str
    contentType: str
    data: str
    dataBase64: str


class OldPingSourceSpec(PingSourceSpec, total=False):
    jsonData: Annotated[str, "JSON, as versions before v1 spelt `data` of that content type."]


def _default_ping(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("schedule"):
        spec["schedule"] = "* * * * *"
    ducks.default_destination(spec.get("sink"), ducks.namespace_of(obj))


def _validate_ping(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = obj.get("spec") or {}
    found = _validate_schedule(str(spec.get("schedule") or ""), str(spec.get("timezone") or ""))
    found.also(ducks.validate_source_spec(spec))
    if spec.get("data") and spec.get("dataBase64"):
        return found.also(errors.multiple_one_of("data", "dataBase64")).via_field("spec")
    for name in ("data", "dataBase64"):
        text = spec.get(name)
        if text:
            problem = _data_problem(name, text, spec.get("contentType"), context)
            if problem:
                found.also(errors.invalid_value(problem, name))
    return found.via_field("spec")


def _validate_schedule(line: str, timezone: str) -> FieldErrors:
    if "@every" in line:
        return errors.invalid_value("unsupported descriptor @every", "schedule")
    if timezone:
        if wrong := _zone_problem(timezone):
            return errors.invalid_value(wrong, "timezone")
    elif (zone := ZONE_PREFIX.fullmatch(line.strip())) is not None:
        # robfig/cron also reads it from the line, which is how Knative hands the timezone over.
        if wrong := _zone_problem(zone[1]):
            return errors.invalid_value(wrong, "timezone")
        line = zone[2]
    problem = schedule_problem(line)
    return errors.invalid_value(problem, "schedule") if problem else FieldErrors()


def _zone_problem(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return f"provided bad location {name}: unknown time zone {name}"
    return ""


#: What Go calls the kinds of JSON values.
_JSON_WORDS = {list: "array", str: "string", bool: "bool", int: "number", float: "number"}


def _data_problem(name: str, text: str, content_type: Any, context: AdmissionContext) -> str:
    defaults = context.config("config-ping-defaults", ducks.SYSTEM_NAMESPACE)
    try:
        limit = int(defaults.get("data-max-size", "-1"))
    except ValueError:
        limit = -1
    size = len(text.encode())
    if limit > -1 and size > limit:
        return f"the {name} length of {size} bytes exceeds limit set at {limit}."
    data = text.encode()
    if name == "dataBase64":
        try:
            data = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            return f"illegal base64 data: {error}"
    if content_type == "application/json":
        try:
            value = json.loads(data)
            if value is not None and not isinstance(value, dict):
                what = _JSON_WORDS[type(value)]
                return (
                    f"json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"
                )
        except ValueError as error:
            return str(error)
    return ""


def _ping(version: str, *, storage: bool) -> Kind:
    def convert(obj: Obj) -> Obj:
        spec = dict(obj.get("spec") or {})
        if (data := spec.pop("jsonData", None)) and not spec.get("data"):
            spec |= {"data": data, "contentType": spec.get("contentType") or "application/json"}
        return {**obj, "apiVersion": f"{GROUP}/v1", "spec": spec}

    def revert(obj: Obj) -> Obj:
        return {**obj, "apiVersion": f"{GROUP}/{version}"}

    return Kind(
        group=GROUP,
        version=version,
        kind="PingSource",
        plural="pingsources",
        categories=_CATEGORIES,
        schema=kind_schema(
            PingSourceSpec if storage else OldPingSourceSpec,
            SourceStatus,
            description="Sends a fixed event on a cron schedule.",
        ),
        columns=(SINK, Column("Schedule", ".spec.schedule"), AGE, READY, REASON),
        webhook=ducks.EVENTING_WEBHOOK,
        default=_default_ping if storage else None,
        validate=_validate_ping if storage else None,
        storage=storage,
        to_storage=None if storage else convert,
        from_storage=None if storage else revert,
        crd_labels=SOURCE_LABELS,
        crd_annotations=_event_types(
            {
                "type": "dev.knative.sources.ping",
                "description": "CloudEvent type for fixed payloads on a specified cron schedule",
            }
        ),
    )


# --- ApiServerSource -----------------------------------------------------------------------------


class WatchedResource(TypedDict, total=False):
    apiVersion: str
    kind: str
    selector: LabelSelector


class ResourceOwner(TypedDict, total=False):
    apiVersion: str
    kind: str


class ApiServerSourceSpec(SourceSpec, total=False):
    resources: list[WatchedResource]
    owner: ResourceOwner
    mode: Annotated[str, "Reference (the object's reference is sent) or Resource (all of it)."]
    serviceAccountName: str
    namespaceSelector: LabelSelector
    filters: list[SubscriptionsFilter]


class ApiServerSourceStatus(SourceStatus, total=False):
    namespaces: list[str]


def _default_api_server(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("mode"):
        spec["mode"] = "Reference"
    if not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = "default"
    ducks.default_destination(spec.get("sink"), ducks.namespace_of(obj))


def _validate_api_server(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = obj.get("spec") or {}
    found = FieldErrors()
    resources = spec.get("resources") or []
    if not resources:
        found.also(errors.missing("resources"))
    for index, resource in enumerate(resources):
        wrong = FieldErrors()
        version = resource.get("apiVersion") or ""
        if not version or version.count("/") > 1:
            wrong.also(errors.invalid_value(version, "apiVersion"))
        if not resource.get("kind"):
            wrong.also(errors.missing("kind"))
        wrong.also(_validate_selector(resource.get("selector"), "selector"))
        found.also(wrong.via_field_index("resources", index))
    if spec.get("mode") not in ("Reference", "Resource"):
        found.also(errors.invalid_value(spec.get("mode"), "mode"))
    owner = spec.get("owner")
    if owner is not None:
        absent = [name for name in ("apiVersion", "kind") if not owner.get(name)]
        if absent:
            found.also(errors.missing(*absent).via_field("owner"))
    found.also(_validate_selector(spec.get("namespaceSelector"), "namespaceSelector"))
    found.also(_validate_event_filters(spec.get("filters"), context).via_field("filters"))
    found.also(ducks.validate_source_spec(spec))
    return found.via_field("spec")


def _validate_event_filters(filters: Any, context: AdmissionContext) -> FieldErrors:
    if filters and not ducks.feature(context, "new-apiserversource-filters"):
        said = "Filters is not empty but the NewAPIServerFilters feature is disabled."
        return errors.generic(said)
    return validate_filters(filters)


def _validate_selector(selector: Any, name: str) -> FieldErrors | None:
    problem = labels.label_selector_problem(selector)
    return errors.invalid_value(problem, name) if problem else None


_CHANGES = ("add", "update", "delete")

API_SERVER_SOURCE = Kind(
    group=GROUP,
    version="v1",
    kind="ApiServerSource",
    plural="apiserversources",
    categories=_CATEGORIES,
    schema=kind_schema(
        ApiServerSourceSpec, ApiServerSourceStatus, description="Sends the API's changes."
    ),
    columns=(SINK, AGE, READY, REASON),
    webhook=ducks.EVENTING_WEBHOOK,
    default=_default_api_server,
    validate=_validate_api_server,
    crd_labels=SOURCE_LABELS,
    crd_annotations=_event_types(
        *(
            {
                "type": f"dev.knative.apiserver.{mode}.{change}",
                "description": f"CloudEvent type used for {change} operations when in "
                f"{'Reference' if mode == 'ref' else 'Resource'} mode",
            }
            for mode in ("resource", "ref")
            for change in _CHANGES
        )
    ),
)

# --- ContainerSource -----------------------------------------------------------------------------


class ContainerSourceSpec(SourceSpec, total=False):
    template: PodTemplate


def _default_container(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    ducks.default_destination(spec.get("sink"), ducks.namespace_of(obj))
    for index, container in enumerate(_containers(spec)):
        if not container.get("name"):
            container["name"] = f"{obj['metadata'].get('name', '')}-{index}"


def _containers(spec: Obj) -> list[Obj]:
    return list(((spec.get("template") or {}).get("spec") or {}).get("containers") or [])


def _validate_container(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = obj.get("spec") or {}
    found = FieldErrors()
    containers = _containers(spec)
    if not containers:
        found.also(errors.missing("containers"))
    for index, container in enumerate(containers):
        absent = [name for name in ("name", "image") if not container.get(name)]
        if absent:
            found.also(errors.missing(*absent).via_field_index("containers", index))
    found.also(ducks.validate_source_spec(spec))
    return found.via_field("spec")


CONTAINER_SOURCE = Kind(
    group=GROUP,
    version="v1",
    kind="ContainerSource",
    plural="containersources",
    categories=_CATEGORIES,
    schema=kind_schema(
        ContainerSourceSpec, SourceStatus, description="A container that sends events."
    ),
    columns=(SINK, AGE, READY, REASON),
    webhook=ducks.EVENTING_WEBHOOK,
    default=_default_container,
    validate=_validate_container,
    crd_labels=SOURCE_LABELS,
)

# --- SinkBinding ---------------------------------------------------------------------------------


class Subject(TypedDict, total=False):
    """Whose containers learn where to send events."""

    apiVersion: str
    kind: str
    namespace: str
    name: str
    selector: LabelSelector


class SinkBindingSpec(SourceSpec, total=False):
    subject: Subject


class SinkBindingStatus(SourceStatus, total=False):
    oidcTokenSecretName: str


def _default_sink_binding(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    namespace = ducks.namespace_of(obj)
    subject = spec.setdefault("subject", {})
    if not subject.get("namespace") and namespace:
        subject["namespace"] = namespace
    ducks.default_destination(spec.get("sink"), namespace)


#: As knative.dev/pkg/tracker's Reference wants its fields.
_SUBJECT_CHECKS = {
    "apiVersion": qualified_name,
    "kind": c_identifier,
    "namespace": dns1123_label,
    "name": dns1123_subdomain,
}


def _validate_sink_binding(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = obj.get("spec") or {}
    subject = spec.get("subject") or {}
    found = FieldErrors()
    for name, check in _SUBJECT_CHECKS.items():
        value = subject.get(name)
        if not value and name != "name":
            found.also(errors.missing(name))
        elif value and (wrong := check(value)):
            found.also(errors.invalid_value(", ".join(wrong), name))
    found.also(_validate_selector(subject.get("selector"), "selector"))
    own = ducks.namespace_of(obj)
    if own and subject.get("namespace") not in (None, "", own):
        found.also(errors.invalid_value(subject["namespace"], "namespace"))
    has_name, has_selector = bool(subject.get("name")), subject.get("selector") is not None
    if has_name and has_selector:
        found.also(errors.multiple_one_of("selector", "name"))
    elif not has_name and not has_selector:
        found.also(errors.missing_one_of("selector", "name"))
    return found.via_field("subject").also(ducks.validate_source_spec(spec)).via_field("spec")


SINK_BINDING = Kind(
    group=GROUP,
    version="v1",
    kind="SinkBinding",
    plural="sinkbindings",
    categories=(*_CATEGORIES, "bindings"),
    schema=kind_schema(
        SinkBindingSpec, SinkBindingStatus, description="Tells a workload where to send events."
    ),
    columns=(SINK, AGE, READY, REASON),
    webhook=ducks.EVENTING_WEBHOOK,
    default=_default_sink_binding,
    validate=_validate_sink_binding,
    crd_labels={**SOURCE_LABELS, "duck.knative.dev/binding": "true"},
)

# --- IntegrationSource ---------------------------------------------------------------------------


class Timer(TypedDict, total=False):
    period: Annotated[int, INT32, "Milliseconds between two events."]
    message: str
    contentType: str
    repeatCount: Annotated[int, INT32]


class SecretReference(TypedDict, total=False):
    name: str


class AwsSecret(TypedDict, total=False):
    ref: SecretReference


class AwsAuth(TypedDict, total=False):
    secret: AwsSecret
    serviceAccountName: str


class AwsSources(TypedDict, total=False):
    s3: dict[str, Any]
    sqs: dict[str, Any]
    ddbStreams: dict[str, Any]
    auth: AwsAuth


class IntegrationSourceSpec(SourceSpec, total=False):
    timer: Timer
    aws: AwsSources
    template: PodTemplate


#: What Knative calls a service in its messages, where that is not the field's name.
_AWS_WORDS = {"ddbStreams": "ddb-streams"}
#: Which parameter names the AWS resource of each service.
_AWS_SOURCES = {"s3": "arn", "sqs": "arn", "ddbStreams": "table"}


def _default_integration(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    timer = spec.get("timer")
    if timer is not None:
        timer.setdefault("period", 1000)
        timer.setdefault("contentType", "text/plain")
    ducks.default_destination(spec.get("sink"), ducks.namespace_of(obj))


def validate_aws(aws: Obj, services: dict[str, str]) -> FieldErrors:
    """Each service that is set has its resource and region; some credentials are given."""
    found = FieldErrors()
    for service, resource in services.items():
        parameters = aws.get(service)
        if parameters is None:
            continue
        for name in (resource, "region"):
            if not parameters.get(name):
                called = _AWS_WORDS.get(service, service)
                found.also(errors.missing(f"aws.{called}.{name}"))
    auth = aws.get("auth") or {}
    secret = ((auth.get("secret") or {}).get("ref") or {}).get("name")
    if not secret and not auth.get("serviceAccountName"):
        found.also(errors.missing("aws.auth.secret.ref.name"))
    return found


def _validate_integration(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = obj.get("spec") or {}
    aws = spec.get("aws") or {}
    chosen = [name for name in _AWS_SOURCES if aws.get(name) is not None]
    count = len(chosen) + (spec.get("timer") is not None)
    found = FieldErrors()
    if count > 1:
        found.also(errors.generic("only one source type can be set"))
    elif count == 0:
        found.also(errors.generic("at least one source type must be specified"))
    elif chosen:
        found.also(validate_aws(aws, _AWS_SOURCES))
    found.also(ducks.validate_source_spec(spec))
    return found.via_field("spec")


INTEGRATION_SOURCE = Kind(
    group=GROUP,
    version="v1alpha1",
    kind="IntegrationSource",
    plural="integrationsources",
    categories=_CATEGORIES,
    schema=kind_schema(
        IntegrationSourceSpec, SourceStatus, description="Events of third-party systems."
    ),
    columns=(SINK, AGE, READY, REASON),
    webhook=ducks.EVENTING_WEBHOOK,
    default=_default_integration,
    validate=_validate_integration,
    crd_labels=SOURCE_LABELS,
    crd_annotations=_event_types(
        *(
            {"type": f"dev.knative.eventing.{name}", "description": f"Events of {label}"}
            for name, label in (
                ("timer", "a timer"),
                ("aws-s3", "AWS S3"),
                ("aws-sqs", "AWS SQS"),
                ("aws-ddb-streams", "AWS DynamoDB streams"),
            )
        )
    ),
)

KINDS: tuple[Kind, ...] = (
    _ping("v1", storage=True),
    _ping("v1beta2", storage=False),
    API_SERVER_SOURCE,
    CONTAINER_SOURCE,
    SINK_BINDING,
    INTEGRATION_SOURCE,
)
