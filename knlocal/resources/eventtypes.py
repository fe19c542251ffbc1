"""EventType: v1beta3 as it is stored, v1beta2 and v1beta1 as they convert (E4, E78)."""

from __future__ import annotations

from typing import Any, TypedDict

from knlocal.resources import ducks
from knlocal.resources import field_errors as errors
from knlocal.resources.base import Obj
from knlocal.resources.ducks import AGE, READY, REASON, KReference, Status
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.kinds import AdmissionContext, Column, Kind
from knlocal.resources.schema import kind_schema

GROUP = "eventing.knative.dev"
BROKER_API = "eventing.knative.dev/v1"
REQUIRED = ("type", "source", "specversion", "id")


class Attribute(TypedDict, total=False):
    """An attribute that events of this type have, and its value (or pattern) when fixed."""

    name: str
    required: bool
    value: str


class Variable(TypedDict, total=False):
    name: str
    pattern: str
    example: str


class Spec(TypedDict, total=False):
    reference: KReference
    description: str
    attributes: list[Attribute]
    variables: list[Variable]


class BetaTwoSpec(TypedDict, total=False):
    type: str
    source: str
    schema: str
    schemaData: str
    broker: str
    reference: KReference
    description: str


def attribute(obj: Obj, name: str) -> str:
    """The value of an attribute of a (stored) EventType; "" when it has none."""
    for entry in (obj.get("spec") or {}).get("attributes") or []:
        if entry.get("name") == name:
            return str(entry.get("value") or "")
    return ""


def _default(obj: Obj, context: AdmissionContext) -> None:
    reference = obj.setdefault("spec", {}).get("reference")
    if reference and not reference.get("namespace"):
        reference["namespace"] = ducks.namespace_of(obj)


def _validate(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = obj.get("spec") or {}
    names = {entry.get("name") for entry in spec.get("attributes") or []}
    absent = [name for name in REQUIRED if name not in names]
    found = FieldErrors()
    if absent:
        found.also(errors.missing(*absent).via_field("attributes"))
    if spec.get("reference"):
        found.also(ducks.validate_reference(spec["reference"]).via_field("reference"))
    return found.via_field("spec")


def _to_storage(obj: Obj) -> Obj:
    spec = obj.get("spec") or {}
    attributes: list[dict[str, Any]] = [
        {"name": "specversion", "required": True},
        {"name": "id", "required": True},
    ]
    if spec.get("type"):
        attributes.append({"name": "type", "required": True, "value": spec["type"]})
    source: dict[str, Any] = {"name": "source", "required": True}
    if spec.get("source"):
        source["value"] = spec["source"]
    attributes.append(source)
    if spec.get("schema"):
        attributes.append({"name": "schemadata", "required": False, "value": spec["schema"]})
    converted: dict[str, Any] = {"attributes": attributes}
    if spec.get("reference"):
        converted["reference"] = spec["reference"]
    elif spec.get("broker"):
        converted["reference"] = {
            "apiVersion": BROKER_API,
            "kind": "Broker",
            "name": spec["broker"],
            "namespace": ducks.namespace_of(obj),
        }
    if spec.get("description"):
        converted["description"] = spec["description"]
    return {**obj, "apiVersion": f"{GROUP}/v1beta3", "spec": converted}


def _from_storage(version: str) -> Any:
    def convert(obj: Obj) -> Obj:
        spec = obj.get("spec") or {}
        converted = {
            "type": attribute(obj, "type"),
            "source": attribute(obj, "source"),
            "schema": attribute(obj, "schemadata"),
            "reference": spec.get("reference"),
            "description": spec.get("description"),
        }
        reference = spec.get("reference") or {}
        if version == "v1beta1" and reference.get("kind") == "Broker":
            converted["broker"] = reference.get("name")
        converted = {name: value for name, value in converted.items() if value}
        return {**obj, "apiVersion": f"{GROUP}/{version}", "spec": converted}

    return convert


_REFERENCE_COLUMNS = (
    Column("Reference Name", ".spec.reference.name"),
    Column("Reference Kind", ".spec.reference.kind"),
    Column("Description", ".spec.description"),
    READY,
    REASON,
)

STORED = Kind(
    group=GROUP,
    version="v1beta3",
    kind="EventType",
    plural="eventtypes",
    categories=("all", "knative", "eventing"),
    schema=kind_schema(Spec, Status, description="A type of event that can be consumed."),
    columns=(
        Column("Type", '.spec.attributes[?(@.name=="type")].value'),
        Column("Source", '.spec.attributes[?(@.name=="source")].value'),
        *_REFERENCE_COLUMNS,
        AGE,
    ),
    webhook=ducks.EVENTING_WEBHOOK,
    default=_default,
    validate=_validate,
    crd_labels=ducks.RELEASE_LABELS,
)


def _older(version: str) -> Kind:
    return Kind(
        group=GROUP,
        version=version,
        kind="EventType",
        plural="eventtypes",
        categories=("all", "knative", "eventing"),
        schema=kind_schema(BetaTwoSpec, Status, description="A type of event."),
        columns=(
            Column("Type", ".spec.type"),
            Column("Source", ".spec.source"),
            Column("Schema", ".spec.schema"),
            *_REFERENCE_COLUMNS,
        ),
        webhook=ducks.EVENTING_WEBHOOK,
        storage=False,
        to_storage=_to_storage,
        from_storage=_from_storage(version),
        crd_labels=ducks.RELEASE_LABELS,
    )


EVENT_TYPES: tuple[Kind, ...] = (_older("v1beta2"), STORED, _older("v1beta1"))
