"""serving.knative.dev: Service, Configuration, Revision, Route (v1) and DomainMapping (v1beta1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knlocal.resources import schema
from knlocal.resources.ducks import READY, REASON
from knlocal.resources.kinds import Column, Defaulter, Kind, Validator
from knlocal.resources.serving import defaults, models, validation
from knlocal.resources.serving.keys import (
    CONFIGURATION_GENERATION_LABEL,
    CONFIGURATION_LABEL,
    GROUP,
    WEBHOOK,
)

_URL = Column("URL", ".status.url")
_LATEST_CREATED = Column("LatestCreated", ".status.latestCreatedRevisionName")
_LATEST_READY = Column("LatestReady", ".status.latestReadyRevisionName")
_CRD_LABELS = {"app.kubernetes.io/name": "knative-serving", "knative.dev/crd-install": "true"}
_ADDRESSABLE = {"duck.knative.dev/addressable": "true"}
_PODSPECABLE = {"duck.knative.dev/podspecable": "true"}


def _label(name: str) -> str:
    return ".metadata.labels['" + name.replace(".", "\\.") + "']"


def _kind(
    kind: str,
    plural: str,
    short_names: tuple[str, ...],
    columns: tuple[Column, ...],
    spec: Any,
    status: Any,
    default: Defaulter,
    validate: Validator,
    labels: Mapping[str, str] | None = None,
    version: str = "v1",
    about: str = "",
) -> Kind:
    return Kind(
        group=GROUP,
        version=version,
        kind=kind,
        plural=plural,
        schema=schema.kind_schema(spec, status, description=about),
        short_names=short_names,
        categories=("all", "knative", "serving"),
        columns=columns,
        webhook=WEBHOOK,
        default=default,
        validate=validate,
        crd_labels={**_CRD_LABELS, **(labels or {})},
    )


SERVICE = _kind(
    "Service",
    "services",
    ("kservice", "ksvc"),
    (_URL, _LATEST_CREATED, _LATEST_READY, READY, REASON),
    models.ServiceSpec,
    models.ServiceStatus,
    defaults.service,
    validation.service,
    {**_ADDRESSABLE, **_PODSPECABLE},
    about="Code behind a URL: it keeps a Configuration and a Route of its name.",
)
CONFIGURATION = _kind(
    "Configuration",
    "configurations",
    ("config", "cfg"),
    (_LATEST_CREATED, _LATEST_READY, READY, REASON),
    models.ConfigurationSpec,
    models.ConfigurationStatus,
    defaults.configuration,
    validation.configuration,
    _PODSPECABLE,
    about="Makes a Revision of its template, and a new one whenever the template changes.",
)
REVISION = _kind(
    "Revision",
    "revisions",
    ("rev",),
    (
        Column("Config Name", _label(CONFIGURATION_LABEL)),
        Column("Generation", _label(CONFIGURATION_GENERATION_LABEL)),
        READY,
        REASON,
        Column("Actual Replicas", ".status.actualReplicas", type="integer"),
        Column("Desired Replicas", ".status.desiredReplicas", type="integer"),
    ),
    models.RevisionSpec,
    models.RevisionStatus,
    defaults.revision,
    validation.revision,
    about="A snapshot of code and configuration that never changes, scaled with its traffic.",
)
ROUTE = _kind(
    "Route",
    "routes",
    ("rt",),
    (_URL, READY, REASON),
    models.RouteSpec,
    models.RouteStatus,
    defaults.route,
    validation.route,
    _ADDRESSABLE,
    about="A URL, and how its traffic is shared out among Revisions.",
)
DOMAIN_MAPPING = _kind(
    "DomainMapping",
    "domainmappings",
    ("dm",),
    (_URL, READY, REASON),
    models.DomainMappingSpec,
    models.DomainMappingStatus,
    defaults.domain_mapping,
    validation.domain_mapping,
    version="v1beta1",
    about="A domain name of one's own for something addressable.",
)

KINDS: tuple[Kind, ...] = (SERVICE, CONFIGURATION, REVISION, ROUTE, DOMAIN_MAPPING)
