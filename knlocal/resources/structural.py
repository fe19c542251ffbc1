"""What a structural schema is good for: pruning unknown fields and checking types.

Schemas are compiled once to nested functions, so that admission of an object takes microseconds.
`$ref`s point into one process-wide registry of named definitions and are resolved when first used,
so the order of registration does not matter.

Rules follow k8s.io/apiextensions-apiserver (pkg/apiserver/schema/pruning and .../validation).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from knlocal.resources.value_checks import Check as _Checker
from knlocal.resources.value_checks import Raw as _Raw
from knlocal.resources.value_checks import is_union_of_scalars, value_checks

Schema = Mapping[str, Any]
REF_PREFIX = "#/components/schemas/"


class Finding(NamedTuple):
    """A value that does not fit its schema. `message` is Kubernetes' sentence without the path
    (`Invalid value: "string": spec.x in body must be of type integer: "string"`), `reason` the
    CamelCase word of a `Status` cause."""

    path: str
    message: str
    reason: str = "FieldValueInvalid"

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


# --- the registry --------------------------------------------------------------------------------

_definitions: dict[str, Schema] = {}
#: Definitions whose `required` is for readers only: Kubernetes' own types, whose validators decide
#: (Knative, for one, takes containers without a name).
_advisory: set[int] = set()
_pruners: dict[int, tuple[Schema, _Pruner]] = {}
_checkers: dict[int, tuple[Schema, _Checker]] = {}


def definitions() -> Mapping[str, Schema]:
    """All named definitions."""
    return _definitions


def definition(name: str) -> Schema:
    """The definition `name`. Raises LookupError when nobody registered it."""
    try:
        return _definitions[name]
    except KeyError:
        raise LookupError(f"no schema is registered under the name {name!r}") from None


def register_definitions(new: Mapping[str, Schema]) -> None:
    """Add named definitions, or replace those of the same name."""
    _definitions.update(new)
    _advisory.update(id(schema) for name, schema in new.items() if name.startswith("io.k8s."))
    _pruners.clear()
    _checkers.clear()


def resolve(schema: Schema) -> Schema:
    """The schema itself, or what its `$ref` (or single `allOf`) points at."""
    while _elsewhere(schema):
        target = schema.get("$ref")
        if target is None:
            schema = schema["allOf"][0]
        else:
            schema = definition(target.removeprefix(REF_PREFIX).removeprefix("#/definitions/"))
    return schema


def _elsewhere(schema: Schema) -> bool:
    """Whether the schema only points at another one."""
    if "$ref" in schema:
        return True
    return len(schema.get("allOf") or ()) == 1 and not {"properties", "type"} & schema.keys()


# --- pruning -------------------------------------------------------------------------------------


def prune(obj: Any, schema: Schema) -> list[str]:
    """Remove from `obj`, in place, what `schema` does not know; returns the paths of what went.

    Nulls of known fields and of map values go too, silently, as if they had not been sent; explicit
    zero values stay. Inside `x-kubernetes-preserve-unknown-fields` everything is kept.
    """
    return _pruner(schema)(obj) or []


_Pruner = Callable[[Any], "list[str] | None"]


def _keep(value: Any) -> list[str] | None:
    return None


def _pruner(schema: Schema) -> _Pruner:
    cached = _pruners.get(id(schema))
    if cached is None:
        # The schema is kept beside its function: its id must not be used again while cached.
        cached = _pruners[id(schema)] = (schema, _compile_pruner(schema))
    return cached[1]


def _compile_pruner(schema: Schema) -> _Pruner:
    if _elsewhere(schema):
        late: _Pruner = _late(schema, _pruner)
        return late
    preserve = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    properties = schema.get("properties")
    additional = schema.get("additionalProperties")
    if properties is not None or schema.get("x-kubernetes-embedded-resource"):
        fields = {name: _pruner(sub) for name, sub in (properties or {}).items()}
        nullable = {name for name, sub in (properties or {}).items() if sub.get("nullable")}
        values = _pruner(additional) if isinstance(additional, Mapping) else None
        return _object_pruner(fields, nullable, values, preserve or additional is True)
    if isinstance(additional, Mapping):
        return _map_pruner(_pruner(additional), bool(additional.get("nullable")))
    if "items" in schema:
        return _list_pruner(_pruner(schema["items"]))
    if schema.get("type") == "object" and not preserve and additional is not True:
        return _object_pruner({}, set(), None, False)
    return _keep


def _late(schema: Schema, compiler: Callable[[Schema], Any]) -> Any:
    """A function that compiles what `schema` refers to when first called (recursion, order)."""
    compiled: list[Any] = []

    def call(*args: Any) -> Any:
        if not compiled:
            target = resolve(schema)
            compiled.append(compiler(target))
        return compiled[0](*args)

    return call


def _object_pruner(
    fields: dict[str, _Pruner], nullable: set[str], values: _Pruner | None, preserve: bool
) -> _Pruner:
    def prune_object(value: Any) -> list[str] | None:
        if not isinstance(value, dict):
            return None
        unknown: list[str] | None = None
        dropped: list[str] | None = None
        for name, item in value.items():
            field = fields.get(name)
            if field is None:
                if values is not None:
                    field = values
                elif preserve:
                    continue
                else:
                    (dropped := dropped or []).append(name)
                    (unknown := unknown or []).append(name)
                    continue
            if item is None:
                if name not in nullable:
                    (dropped := dropped or []).append(name)
                continue
            found = field(item)
            if found:
                (unknown := unknown or []).extend(_below(name, path) for path in found)
        if dropped:
            for name in dropped:
                del value[name]
        return unknown

    return prune_object


def _map_pruner(values: _Pruner, nullable: bool) -> _Pruner:
    if values is _keep:

        def drop_nulls(value: Any) -> list[str] | None:
            if isinstance(value, dict) and not nullable and None in value.values():
                for name in [name for name, item in value.items() if item is None]:
                    del value[name]
            return None

        return drop_nulls
    return _object_pruner({}, set(), values, False)


def _list_pruner(items: _Pruner) -> _Pruner:
    if items is _keep:
        return _keep

    def prune_list(value: Any) -> list[str] | None:
        if not isinstance(value, list):
            return None
        unknown: list[str] | None = None
        for index, item in enumerate(value):
            found = items(item)
            if found:
                (unknown := unknown or []).extend(_below(f"[{index}]", path) for path in found)
        return unknown

    return prune_list


def _below(prefix: str, path: str) -> str:
    return f"{prefix}{path}" if path.startswith("[") else f"{prefix}.{path}"


# --- checking types ------------------------------------------------------------------------------


def check_types(obj: Any, schema: Schema) -> list[Finding]:
    """Where `obj` does not have the shape that `schema` asks for.

    Checks type, required, enum, pattern, bounds and lengths; not what only a webhook can know.
    """
    return [
        Finding(raw.path or "<nil>", raw.message.replace("%s", raw.path or "<nil>"), raw.reason)
        for raw in _checker(schema)(obj) or ()
    ]


def _checker(schema: Schema) -> _Checker:
    cached = _checkers.get(id(schema))
    if cached is None:
        cached = _checkers[id(schema)] = (schema, _compile_checker(schema))
    return cached[1]


def _fits(value: Any) -> list[_Raw] | None:
    return None


def _compile_checker(schema: Schema) -> _Checker:
    if _elsewhere(schema):
        late: _Checker = _late(schema, _checker)
        return late
    steps = [step for step in (_type_checker(schema), *value_checks(schema, _checker)) if step]
    if not steps:
        return _fits
    nullable = bool(schema.get("nullable"))

    def check(value: Any) -> list[_Raw] | None:
        if value is None and nullable:
            return None
        for step in steps:
            found = step(value)
            if found:
                return found
        return None

    return check


_INT_OR_STRING_FORMATS = {"int-or-string", "quantity"}


def _type_checker(schema: Schema) -> _Checker | None:
    if (
        schema.get("x-kubernetes-int-or-string")
        or schema.get("format") in _INT_OR_STRING_FORMATS
        or is_union_of_scalars(schema)
    ):
        return _scalar_checker("integer,string", lambda value: not isinstance(value, dict | list))
    match schema.get("type"):
        case "object":
            return _object_checker(schema)
        case "array":
            return _list_checker(schema)
        case "string":
            return _scalar_checker("string", lambda value: isinstance(value, str))
        case "boolean":
            return _scalar_checker("boolean", lambda value: isinstance(value, bool))
        case "integer":
            return _scalar_checker("integer", _is_integer)
        case "number":
            return _scalar_checker(
                "number",
                lambda value: isinstance(value, int | float) and not isinstance(value, bool),
            )
    return None


def _is_integer(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _wrong_type(wanted: str, value: Any) -> list[_Raw]:
    got = json_type(value)
    text = f'Invalid value: "{got}": %s in body must be of type {wanted}: "{got}"'
    return [_Raw("", text, "FieldValueTypeInvalid")]


def json_type(value: Any) -> str:
    """The JSON name of a value's type: "string", "integer", "object", …"""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _scalar_checker(wanted: str, fits: Callable[[Any], bool]) -> _Checker:
    def check(value: Any) -> list[_Raw] | None:
        return None if fits(value) and value is not None else _wrong_type(wanted, value)

    return check


def _object_checker(schema: Schema) -> _Checker:
    fields = {
        name: checker
        for name, sub in (schema.get("properties") or {}).items()
        if (checker := _checker(sub)) is not _fits
    }
    additional = schema.get("additionalProperties")
    others = _checker(additional) if isinstance(additional, Mapping) else None
    required = () if id(schema) in _advisory else tuple(schema.get("required") or ())

    def check(value: Any) -> list[_Raw] | None:
        if not isinstance(value, dict):
            return _wrong_type("object", value)
        found: list[_Raw] | None = None
        for name in required:
            if name not in value:
                (found := found or []).append(_Raw(name, "Required value", "FieldValueRequired"))
        for name, item in value.items():
            checker = fields.get(name) or others
            if checker is not None and (below := checker(item)):
                (found := found or []).extend(_lift(name, raw) for raw in below)
        return found

    return check


def _list_checker(schema: Schema) -> _Checker:
    items = _checker(schema["items"]) if "items" in schema else _fits

    def check(value: Any) -> list[_Raw] | None:
        if not isinstance(value, list):
            return _wrong_type("array", value)
        found: list[_Raw] | None = None
        if items is not _fits:
            for index, item in enumerate(value):
                if below := items(item):
                    (found := found or []).extend(_lift(f"[{index}]", raw) for raw in below)
        return found

    return check


def _lift(prefix: str, raw: _Raw) -> _Raw:
    return raw._replace(path=_below(prefix, raw.path) if raw.path else prefix)
