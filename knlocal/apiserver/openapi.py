"""OpenAPI documents made from the kinds' schemas: what `kubectl explain` and validation read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from knlocal.apiserver.openapi_protobuf import encode_document
from knlocal.resources import schema
from knlocal.resources.base import Obj
from knlocal.resources.kinds import Kind

_V3, _V2 = "#/components/schemas/", "#/definitions/"
_LIST_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
_STATUS = "io.k8s.apimachinery.pkg.apis.meta.v1.Status"
_DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"


class OpenAPI:
    """The documents for the kinds of one moment; each is made when first asked for."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._groups: dict[str, list[Kind]] = {}
        for kind in kinds:
            place = f"apis/{kind.api_version}" if kind.group else f"api/{kind.version}"
            self._groups.setdefault(place, []).append(kind)
        self._made: dict[str, bytes] = {}
        self._v2: Obj | None = None
        self._encoded: dict[str, bytes] = {}

    def index(self) -> Obj:
        """`/openapi/v3`: where the document of each group and version is."""
        paths = {
            place: {"serverRelativeURL": f"/openapi/v3/{place}?hash={self._hash(place)}"}
            for place in sorted(self._groups)
        }
        return {"paths": paths}

    def document(self, place: str) -> bytes | None:
        """`/openapi/v3/<place>`, JSON; None when there is no such group and version."""
        if place not in self._groups:
            return None
        if place not in self._made:
            self._made[place] = orjson.dumps(_document(place, self._groups[place]))
        return self._made[place]

    def swagger(self) -> bytes:
        """`/openapi/v2`, JSON."""
        return self._swagger_as("json", orjson.dumps)

    def swagger_protobuf(self) -> bytes:
        """`/openapi/v2`, protobuf."""
        return self._swagger_as("protobuf", encode_document)

    def _swagger_as(self, form: str, encode: Callable[[Obj], bytes]) -> bytes:
        if self._v2 is None:
            self._v2 = _swagger([kind for group in self._groups.values() for kind in group])
        if form not in self._encoded:
            self._encoded[form] = encode(self._v2)
        return self._encoded[form]

    def _hash(self, place: str) -> str:
        # Cheap and honest enough: the documents follow from the names and schemas of the kinds.
        shown = [(kind.kind, id(kind.schema)) for kind in self._groups[place]]
        return hashlib.sha256(repr(shown).encode()).hexdigest()[:32].upper()


def schema_name(kind: Kind) -> str:
    """The definition's name: `io.k8s.api.core.v1.Pod`, `dev.knative.serving.v1.Service`."""
    for name in (known for known in _builtin_names() if known.endswith(f".{kind.kind}")):
        for known in schema.definition(name).get("x-kubernetes-group-version-kind") or ():
            if (known["group"], known["version"]) == (kind.group, kind.version):
                return name
    reverse = ".".join(reversed(kind.group.split(".")))
    return f"{reverse}.{kind.version}.{kind.kind}"


def _builtin_names() -> list[str]:
    return [name for name in schema.definitions() if name.startswith("io.k8s.")]


def _document(place: str, kinds: list[Kind]) -> Obj:
    paths: Obj = {}
    for kind in kinds:
        paths |= _paths(kind, place)
    return {
        "openapi": "3.0.0",
        "info": {"title": "knlocal", "version": "unversioned"},
        "paths": paths,
        "components": {"schemas": _schemas(kinds)},
    }


def _schemas(kinds: list[Kind]) -> Obj:
    found: Obj = {}
    wanted = [_LIST_META, _STATUS, _DELETE_OPTIONS]
    for kind in kinds:
        name = schema_name(kind)
        found[name] = {**kind.schema, "x-kubernetes-group-version-kind": [_gvk(kind)]}
        found[f"{name}List"] = _list_schema(kind, name)
        wanted += [*_references(found[name]), *_references(found[f"{name}List"])]
    while wanted:
        name = wanted.pop()
        if name not in found and name in schema.definitions():
            found[name] = schema.definition(name)
            wanted += _references(found[name])
    if any(kind.is_custom for kind in kinds):
        _loosen(found)
    return found


def _loosen(schemas: Obj) -> None:
    """Knative takes pod specs in which names are missing; clients must not refuse them."""
    for name, known in schemas.items():
        if name.startswith("io.k8s.api.core.") and "required" in known:
            schemas[name] = {key: value for key, value in known.items() if key != "required"}


def _gvk(kind: Kind) -> Obj:
    return {"group": kind.group, "kind": kind.kind, "version": kind.version}


def _list_schema(kind: Kind, name: str) -> Obj:
    return {
        "type": "object",
        "description": f"{kind.list_name} is a list of {kind.kind}",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"$ref": _V3 + _LIST_META},
            "items": {"type": "array", "items": {"$ref": _V3 + name}},
        },
        "x-kubernetes-group-version-kind": [{**_gvk(kind), "kind": kind.list_name}],
    }


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        target = value.get("$ref")
        found = [target.removeprefix(_V3)] if isinstance(target, str) else []
        return found + [name for item in value.values() for name in _references(item)]
    if isinstance(value, list):
        return [name for item in value for name in _references(item)]
    return []


# --- paths ---------------------------------------------------------------------------------------

_QUERY = {
    "list": ("continue", "fieldSelector", "labelSelector", "limit", "resourceVersion", "watch"),
    "get": ("pretty",),
    "post": ("dryRun", "fieldManager", "fieldValidation"),
    "put": ("dryRun", "fieldManager", "fieldValidation"),
    "patch": ("dryRun", "fieldManager", "fieldValidation", "force"),
    "delete": ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"),
}
_INTEGERS = {"limit", "gracePeriodSeconds"}
_FLAGS = {"watch", "force", "orphanDependents"}


def _paths(kind: Kind, place: str) -> Obj:
    prefix = f"/{place}/namespaces/{{namespace}}" if kind.namespaced else f"/{place}"
    collection, item = f"{prefix}/{kind.plural}", f"{prefix}/{kind.plural}/{{name}}"
    parameters = [_path_parameter("namespace")] if kind.namespaced else []
    verbs = set(kind.verbs)
    paths: Obj = {collection: {}, item: {}}
    if "list" in verbs:
        paths[collection]["get"] = _operation(kind, "list", "list")
        if kind.namespaced:
            everywhere = {"get": _operation(kind, "list", "list", suffix="ForAllNamespaces")}
            paths[f"/{place}/{kind.plural}"] = everywhere
    if "create" in verbs:
        paths[collection]["post"] = _operation(kind, "post", "post")
    for verb, method, action in (
        ("get", "get", "get"), ("update", "put", "put"), ("patch", "patch", "patch"),
        ("delete", "delete", "delete"),
    ):  # fmt: skip
        if verb in verbs:
            paths[item][method] = _operation(kind, method, action)
    for path, extra in ((collection, []), (item, [_path_parameter("name")])):
        if paths[path]:
            paths[path]["parameters"] = [*extra, *parameters]
        else:
            del paths[path]
    return paths


def _operation(kind: Kind, method: str, action: str, suffix: str = "") -> Obj:
    name = schema_name(kind) + ("List" if action == "list" else "")
    operation: Obj = {
        "tags": [f"{kind.group or 'core'}_{kind.version}"],
        "operationId": f"{action}{kind.group.title().replace('.', '')}{kind.version.title()}"
        f"{kind.kind}{suffix}",
        "parameters": [_query_parameter(parameter) for parameter in _QUERY[method]],
        "responses": {
            "200": {
                "description": "OK",
                "content": {"application/json": {"schema": {"$ref": _V3 + name}}},
            }
        },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(kind),
    }
    if method in ("post", "put"):
        content = {"application/json": {"schema": {"$ref": _V3 + name}}}
        operation["requestBody"] = {"content": content, "required": True}
    elif method == "patch":
        types = ["application/json-patch+json", "application/merge-patch+json",
                 "application/apply-patch+yaml"]  # fmt: skip
        if not kind.is_custom:
            types.append("application/strategic-merge-patch+json")
        content = {name: {"schema": {"type": "object"}} for name in types}
        operation["requestBody"] = {"content": content, "required": True}
    return operation


def _query_parameter(name: str) -> Obj:
    kind = "integer" if name in _INTEGERS else "boolean" if name in _FLAGS else "string"
    return {"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": True}}


def _path_parameter(name: str) -> Obj:
    return {
        "name": name, "in": "path", "required": True,
        "schema": {"type": "string", "uniqueItems": True},
    }  # fmt: skip


# --- version 2 -----------------------------------------------------------------------------------


def _swagger(kinds: list[Kind]) -> Obj:
    paths: Obj = {}
    for kind in kinds:
        place = f"apis/{kind.api_version}" if kind.group else f"api/{kind.version}"
        for path, item in _paths(kind, place).items():
            paths[path] = {method: _v2_operation(op) for method, op in item.items()}
    return {
        "swagger": "2.0",
        "info": {"title": "knlocal", "version": "unversioned"},
        "paths": paths,
        "definitions": {name: _v2(value) for name, value in _schemas(kinds).items()},
    }


def _v2_operation(operation: Any) -> Any:
    if isinstance(operation, list):  # the path's own parameters
        return [_v2_parameter(parameter) for parameter in operation]
    result = {
        key: value
        for key, value in operation.items()
        if key not in ("requestBody", "responses", "parameters")
    }
    result["parameters"] = [_v2_parameter(parameter) for parameter in operation["parameters"]]
    content = operation["responses"]["200"]["content"]["application/json"]["schema"]
    result["responses"] = {"200": {"description": "OK", "schema": _v2(content)}}
    body = operation.get("requestBody")
    if body:
        given = next(iter(body["content"].values()))["schema"]
        parameter = {"name": "body", "in": "body", "required": True, "schema": _v2(given)}
        result["parameters"].append(parameter)
        result["consumes"] = list(body["content"])
    return result


def _v2_parameter(parameter: Obj) -> Obj:
    rest = {key: value for key, value in parameter.items() if key != "schema"}
    return {**rest, **parameter["schema"]}


def _v2(value: Any) -> Any:
    if isinstance(value, list):
        return [_v2(item) for item in value]
    if not isinstance(value, dict):
        return value
    target = value.get("$ref")
    if isinstance(target, str):
        return {**value, "$ref": target.replace(_V3, _V2)}
    if value.get("format") == "int-or-string":
        return {"type": "string", "format": "int-or-string"}
    if "oneOf" in value and isinstance(value["oneOf"], list):
        rest = {key: _v2(item) for key, item in value.items() if key != "oneOf"}
        return {"type": "string", **rest}
    return {key: _v2(item) for key, item in value.items()}
