"""CustomResourceDefinitions: one is shown for each of Knative's kinds, and users' own are served.

A user's CRD becomes `Kind`s in the registry as soon as it is stored: pruning, defaults, printer
columns, subresources and versions follow from it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from knlocal.apiserver import expressions
from knlocal.apiserver.schema_rules import has_rules, problems, validator_of
from knlocal.resources import schema as schemas
from knlocal.resources.base import GroupKind, Obj, copy, timestamp
from knlocal.resources.kinds import AdmissionContext, Column, Kind
from knlocal.resources.status import Invalid, StatusError
from knlocal.store.store import AdmissionRequest, Store
from knlocal.store.watch import WatchEvent

log = logging.getLogger(__name__)

CRD = GroupKind("apiextensions.k8s.io", "CustomResourceDefinition")
_API_VERSION = "apiextensions.k8s.io/v1"
#: Marks the CRDs that knlocal itself keeps, so that an upgrade may change them.
_OWN = {"app.kubernetes.io/managed-by": "knlocal"}


class CustomResources:
    """Keeps registry and CRD objects in step. `start` before serving, `stop` afterwards."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._registry = store.registry
        self._built_in = {kind.group_kind for kind in store.registry}
        self._served: dict[str, list[Kind]] = {}
        self._unsubscribe: Callable[[], object] = lambda: None
        store.admission.append(check_rules)

    def start(self) -> None:
        """Idempotent."""
        self.stop()
        for crd in self._store.list(CRD):
            self._serve(crd)
        self._show_own_kinds()
        self._unsubscribe = self._store.subscribe(self._changed)

    def stop(self) -> None:
        self._unsubscribe()
        self._unsubscribe = lambda: None

    # -- users' CRDs --------------------------------------------------------------------------

    def _changed(self, event: WatchEvent) -> None:
        if event.obj.get("kind") != CRD.kind or event.obj.get("apiVersion") != _API_VERSION:
            return
        name = event.obj["metadata"]["name"]
        if event.type == "DELETED":
            self._store.clock.call_later(0, self._withdraw, name)
            return
        self._serve(event.obj)
        if not _is_established(event.obj):
            self._store.clock.call_later(0, self._establish, name)

    def _serve(self, crd: Obj) -> None:
        spec = crd.get("spec") or {}
        names = spec.get("names") or {}
        if GroupKind(spec.get("group", ""), names.get("kind", "")) in self._built_in:
            return  # Knative's own: its behaviour is built in, whatever the CRD says
        name = crd["metadata"]["name"]
        self._remove_kinds(name)
        kinds = self._served[name] = kinds_of(crd)
        for kind in kinds:
            self._registry.add(kind)

    def _remove_kinds(self, name: str) -> None:
        for kind in self._served.pop(name, ()):
            self._registry.remove(kind)

    def _withdraw(self, name: str) -> None:
        """A CRD is gone: so are its objects, and then its kinds."""
        if self._store.find(CRD, "", name) is not None:
            return  # it came back meanwhile
        for kind in self._served.get(name, ())[:1]:
            for obj in self._store.list(kind.group_kind):
                metadata = obj["metadata"]
                try:
                    self._store.delete(
                        kind.group_kind, metadata.get("namespace") or "", metadata["name"]
                    )
                except StatusError as error:
                    log.debug("deleting what CRD %s defined: %s", name, error)
        self._remove_kinds(name)

    def _establish(self, name: str) -> None:
        crd = self._store.find(CRD, "", name)
        if crd is not None and not _is_established(crd):
            self._set_status(crd)

    def _set_status(self, crd: Obj) -> None:
        now = timestamp(self._store.clock.now())
        spec = crd["spec"]
        status = {
            "conditions": [
                {
                    "type": "NamesAccepted", "status": "True", "lastTransitionTime": now,
                    "reason": "NoConflicts", "message": "no conflicts found",
                },
                {
                    "type": "Established", "status": "True", "lastTransitionTime": now,
                    "reason": "InitialNamesAccepted",
                    "message": "the initial names have been accepted",
                },
            ],
            "acceptedNames": copy(spec["names"]),
            "storedVersions": [v["name"] for v in spec.get("versions") or () if v.get("storage")],
        }  # fmt: skip
        changed = copy(crd)
        changed["status"] = status
        self._store.update(changed, subresource="status")

    # -- Knative's kinds ----------------------------------------------------------------------

    def _show_own_kinds(self) -> None:
        versions: dict[GroupKind, list[Kind]] = {}
        for kind in self._registry:
            if kind.is_custom and kind.group_kind in self._built_in:
                versions.setdefault(kind.group_kind, []).append(kind)
        for kinds in versions.values():
            self._show(crd_of(kinds))

    def _show(self, crd: Obj) -> None:
        known = self._store.find(CRD, "", crd["metadata"]["name"])
        if known is None:
            known = self._store.create(crd)
        elif _OWN.items() <= (known["metadata"].get("labels") or {}).items():
            known = self._store.update(crd)
        if not _is_established(known):
            self._set_status(known)


def _is_established(crd: Obj) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)


def check_rules(request: AdmissionRequest) -> None:
    """An admission hook: refuse a CRD whose validation rules are not CEL (Invalid); warn of rules
    that are kept, but not evaluated here."""
    if request.kind.group_kind != CRD:
        return
    spec = request.obj.get("spec") or {}
    if not has_rules(spec.get("versions")):
        return
    if not expressions.AVAILABLE:
        request.options.warnings.append(
            "x-kubernetes-validations are not evaluated here without the extra: "
            "pip install 'knlocal[cel]'"
        )
        return
    wrong = []
    for index, version in enumerate(spec.get("versions") or ()):
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        path = f"spec.versions[{index}].schema.openAPIV3Schema"
        for place, why, is_fault in problems(schema, path):
            if is_fault:
                wrong.append((place, f"Invalid value: {why}"))
            else:
                request.options.warnings.append(f"{place} is not evaluated here: {why}")
    if wrong:
        name = request.obj["metadata"].get("name", "")
        raise Invalid(
            f'{CRD.kind}.{CRD.group} "{name}" is invalid: '
            + ", ".join(f"{place}: {why}" for place, why in wrong),
            group=CRD.group, kind=CRD.kind, name=name,
            causes=[{"reason": "FieldValueInvalid", "message": why, "field": place}
                    for place, why in wrong],
        )  # fmt: skip


# --- from a CRD to kinds -------------------------------------------------------------------------


def kinds_of(crd: Obj) -> list[Kind]:
    """The kinds that a CRD defines: one for each served (or stored) version."""
    spec = crd["spec"]
    versions = spec.get("versions") or []
    stored = next((v["name"] for v in versions if v.get("storage")), None)
    kinds = []
    for version in versions:
        is_stored = version["name"] == stored
        if version.get("served") or is_stored:
            kind = _kind(spec, version)
            if not is_stored:
                group = spec["group"]
                kind = replace(
                    kind, storage=False, to_storage=_as_version(f"{group}/{stored}"),
                    from_storage=_as_version(f"{group}/{version['name']}"),
                )  # fmt: skip
            kinds.append(kind)
    return kinds


def _kind(spec: Obj, version: Obj) -> Kind:
    names, subresources = spec["names"], version.get("subresources") or {}
    schema = _object_schema((version.get("schema") or {}).get("openAPIV3Schema") or {})
    return Kind(
        spec["group"], version["name"], names["kind"], names["plural"], schema,
        singular=names.get("singular") or "",
        list_kind=names.get("listKind") or "",
        namespaced=spec.get("scope") != "Cluster",
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        columns=tuple(_column(item) for item in version.get("additionalPrinterColumns") or ()),
        has_status="status" in subresources,
        has_scale="scale" in subresources,
        scale_paths=_scale_paths(subresources.get("scale") or {}),
        default=_defaulter(schema),
        validate=validator_of(schema),
        validates_status=True,
    )  # fmt: skip


def _scale_paths(scale: Obj) -> tuple[str, str, str]:
    return (
        scale.get("specReplicasPath") or ".spec.replicas",
        scale.get("statusReplicasPath") or ".status.replicas",
        scale.get("labelSelectorPath") or "",
    )


def _object_schema(schema: Obj) -> Obj:
    """The schema of whole objects: every object has its version, kind and metadata."""
    schema = _with_defaults_optional(schema)
    properties = {
        **(schema.get("properties") or {}),
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": schemas.ref("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"),
    }
    return {**schema, "type": "object", "properties": properties}


def _with_defaults_optional(schema: Any) -> Any:
    """Types are checked before defaults are filled in: what has a default need not be sent."""
    if isinstance(schema, list):
        return [_with_defaults_optional(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _with_defaults_optional(value) for key, value in schema.items()}
    fields, required = found.get("properties"), found.get("required")
    if isinstance(fields, dict) and isinstance(required, list):
        found["required"] = [
            name for name in required
            if not (isinstance(fields.get(name), dict) and "default" in fields[name])
        ]  # fmt: skip
    return found


def _column(item: Obj) -> Column:
    return Column(
        item["name"], item["jsonPath"], item.get("type", "string"), item.get("priority", 0),
        item.get("description", ""), item.get("format", ""),
    )  # fmt: skip


def _as_version(api_version: str) -> Callable[[Obj], Obj]:
    def convert(obj: Obj) -> Obj:
        return {**obj, "apiVersion": api_version}

    return convert


def _defaulter(schema: Obj) -> Callable[[Obj, AdmissionContext], None]:
    def default(obj: Obj, _context: AdmissionContext) -> None:
        fill_defaults(obj, schema)

    return default


def fill_defaults(value: Any, schema: Any) -> None:
    """Put the schema's `default`s where nothing is (structural defaulting), in place."""
    if isinstance(value, dict):
        for name, field in (schema.get("properties") or {}).items():
            if name not in value and "default" in field:
                value[name] = copy({"default": field["default"]})["default"]
            if name in value:
                fill_defaults(value[name], field)
        additional = schema.get("additionalProperties")
        if isinstance(additional, dict):
            for item in value.values():
                fill_defaults(item, additional)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            fill_defaults(item, schema["items"])


# --- from kinds to a CRD -------------------------------------------------------------------------


def crd_of(kinds: list[Kind]) -> Obj:
    """The CRD object for all versions of one kind."""
    first = next((kind for kind in kinds if kind.storage), kinds[0])
    return {
        "apiVersion": _API_VERSION,
        "kind": CRD.kind,
        "metadata": {
            "name": first.resource,
            "labels": {**_OWN, **first.crd_labels},
            **({"annotations": dict(first.crd_annotations)} if first.crd_annotations else {}),
        },
        "spec": {
            "group": first.group,
            "names": {
                "kind": first.kind,
                "listKind": first.list_name,
                "plural": first.plural,
                "singular": first.singular_name,
                **({"shortNames": list(first.short_names)} if first.short_names else {}),
                **({"categories": list(first.categories)} if first.categories else {}),
            },
            "scope": "Namespaced" if first.namespaced else "Cluster",
            "versions": [_version(kind) for kind in kinds],
            "conversion": {"strategy": "None"},
        },
    }


def _version(kind: Kind) -> Obj:
    version: Obj = {
        "name": kind.version,
        "served": True,
        "storage": kind.storage,
        "schema": {"openAPIV3Schema": _inlined(dict(kind.schema))},
    }
    subresources: Obj = {"status": {}} if kind.has_status else {}
    if kind.has_scale:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
        }  # fmt: skip
    if subresources:
        version["subresources"] = subresources
    if kind.columns:
        version["additionalPrinterColumns"] = [
            {
                "name": column.name, "type": column.type, "jsonPath": column.path,
                **({"priority": column.priority} if column.priority else {}),
                **({"description": column.description} if column.description else {}),
            }
            for column in kind.columns
        ]  # fmt: skip
    return version


#: CRDs cannot refer to definitions. What belongs to Kubernetes itself is left open in them: the
#: real schema is behind `kubectl explain`.
_OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def _inlined(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_inlined(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    target = schema.get("$ref")
    if isinstance(target, str):
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        if target.endswith(".ObjectMeta"):
            return {"type": "object"}
        if ".io.k8s." in target or "/io.k8s." in target:
            resolved = schemas.resolve(schema)
            kept = {key: resolved[key] for key in ("type", "format", "oneOf") if key in resolved}
            return {**beside, **(_OPEN if resolved.get("type", "object") == "object" else kept)}
        return {**beside, **_inlined(dict(schemas.resolve(schema)))}
    return {
        key: {name: _inlined(sub) for name, sub in value.items()}
        if key == "properties"
        else _inlined(value)
        for key, value in schema.items()
    }
