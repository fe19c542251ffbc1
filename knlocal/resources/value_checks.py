"""What JSON schema says about values beside their type: bounds, lengths, patterns, formats, and
schemas combined with `allOf`, `anyOf`, `oneOf` and `not`.

Messages are those of k8s.io/kube-openapi (pkg/validation/errors), as the API server shows them.
"""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Any, NamedTuple

Schema = Mapping[str, Any]


class Raw(NamedTuple):
    """A finding before its path is known in full; `%s` in `message` stands for the path."""

    path: str
    message: str
    reason: str


Check = Callable[[Any], "list[Raw] | None"]
Compile = Callable[[Schema], Check]

_Bound = tuple[str, str, Callable[[Any], Any], Callable[[Any, Any], bool]]
_BOUNDS: tuple[_Bound, ...] = (
    ("minLength", "at least {} chars long", len, lambda v, b: v >= b),
    ("minItems", "at least {} items", len, lambda v, b: v >= b),
    ("minProperties", "at least {} properties", len, lambda v, b: v >= b),
    ("multipleOf", "a multiple of {}", lambda v: v, lambda v, b: v % b == 0),
)


def value_checks(schema: Schema, compile_: Compile) -> list[Check]:
    """The checks that `schema` asks for; `compile_` makes one of a schema inside it."""
    checkers: list[Check] = []
    if "enum" in schema:
        checkers.append(_enum_checker(list(schema["enum"])))
    if "pattern" in schema:
        checkers.append(_pattern_checker(str(schema["pattern"])))
    checkers += _limits(schema)
    for key, words, measure, holds in _BOUNDS:
        if key in schema:
            checkers.append(_bound_checker(schema[key], words, measure, holds))
    if "maxLength" in schema:
        checkers.append(_max_length_checker(int(schema["maxLength"])))
    for key in ("maxItems", "maxProperties"):
        if key in schema:
            checkers.append(_too_many_checker(int(schema[key])))
    fits = _FORMATS.get(schema.get("format") or "")
    if fits and schema.get("type") == "string":
        checkers.append(_format_checker(str(schema["format"]), fits))
    if not is_union_of_scalars(schema):
        checkers += _junctions(schema, compile_)
    return checkers


def is_union_of_scalars(schema: Schema) -> bool:
    """Whether this is how "a number or a string" is spelt: alternatives, and no type of its own."""
    branches = schema.get("oneOf") or schema.get("anyOf") or ()
    types = {branch.get("type") for branch in branches}
    return bool(types) and "type" not in schema and types <= {"integer", "number", "string"}


def _limits(schema: Schema) -> Iterable[Check]:
    if "minimum" in schema:
        if schema.get("exclusiveMinimum"):
            over: _Bound = ("", "greater than {}", lambda v: v, lambda v, b: v > b)
        else:
            over = ("", "greater than or equal to {}", lambda v: v, lambda v, b: v >= b)
        yield _bound_checker(schema["minimum"], *over[1:])
    if "maximum" in schema:
        if schema.get("exclusiveMaximum"):
            under: _Bound = ("", "less than {}", lambda v: v, lambda v, b: v < b)
        else:
            under = ("", "less than or equal to {}", lambda v: v, lambda v, b: v <= b)
        yield _bound_checker(schema["maximum"], *under[1:])


# --- schemas combined ----------------------------------------------------------------------------


def _junctions(schema: Schema, compile_: Compile) -> Iterable[Check]:
    """Each branch says something about the value; none of them gives it a shape of its own."""
    for key in ("allOf", "anyOf", "oneOf"):
        if branches := schema.get(key):
            yield _junction_checker(key, [compile_(_typed(branch, schema)) for branch in branches])
    if "not" in schema:
        yield _not_checker(compile_(_typed(schema["not"], schema)))


def _typed(branch: Schema, around: Schema) -> Schema:
    """Branches of a structural schema leave the type out; required fields are found by it."""
    if "type" in branch or "$ref" in branch or "type" not in around:
        return branch
    about = {"type": around["type"], **branch}
    known = around.get("properties") or {}
    if "properties" in branch:
        about["properties"] = {
            name: _typed(sub, known.get(name) or {}) for name, sub in branch["properties"].items()
        }
    if "items" in branch:
        about["items"] = _typed(branch["items"], around.get("items") or {})
    return about


def _junction_checker(key: str, branches: list[Check]) -> Check:
    def check(value: Any) -> list[Raw] | None:
        valid = sum(not branch(value) for branch in branches)
        if key == "allOf":
            if valid == len(branches):
                return None
            words = "must validate all the schemas (allOf)"
        elif key == "anyOf":
            if valid:
                return None
            words = "must validate at least one schema (anyOf)"
        else:
            if valid == 1:
                return None
            found = f"Found {valid} valid alternatives" if valid else "Found none valid"
            words = f"must validate one and only one schema (oneOf). {found}"
        return [Raw("", f'Invalid value: "": "%s" {words}', "FieldValueInvalid")]

    return check


def _not_checker(refused: Check) -> Check:
    def check(value: Any) -> list[Raw] | None:
        if refused(value):
            return None
        message = 'Invalid value: "": "%s" must not validate the schema (not)'
        return [Raw("", message, "FieldValueInvalid")]

    return check


# --- formats -------------------------------------------------------------------------------------


def readable(read: Callable[[str], object]) -> Callable[[str], bool]:
    """Whether `read` takes a text without a ValueError."""

    def fits(text: str) -> bool:
        try:
            read(text)
        except ValueError:
            return False
        return True

    return fits


_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_FORMATS: Mapping[str, Callable[[str], bool]] = {
    "date-time": lambda text: (
        bool(_MOMENT.fullmatch(text)) and readable(datetime.fromisoformat)(text[:19])
    ),
    "date": lambda text: len(text) == 10 and readable(date.fromisoformat)(text),
    "ipv4": readable(ipaddress.IPv4Address),
    "ipv6": readable(ipaddress.IPv6Address),
    "cidr": lambda text: "/" in text and readable(ipaddress.ip_interface)(text),
    "uuid": readable(uuid.UUID),
    "email": lambda text: bool(re.fullmatch(r"[^@\s]+@[^@\s]+", text)),
}


def _format_checker(name: str, fits: Callable[[str], bool]) -> Check:
    def check(value: Any) -> list[Raw] | None:
        if not isinstance(value, str) or fits(value):
            return None
        message = f'Invalid value: "{value}": %s in body must be of type {name}: "{value}"'
        return [Raw("", message, "FieldValueInvalid")]

    return check


# --- single values -------------------------------------------------------------------------------


def _enum_checker(allowed: list[Any]) -> Check:
    listing = ", ".join(_quoted(item) for item in allowed)

    def check(value: Any) -> list[Raw] | None:
        if value in allowed:
            return None
        message = f"Unsupported value: {_quoted(value)}: supported values: {listing}"
        return [Raw("", message, "FieldValueNotSupported")]

    return check


def _pattern_checker(pattern: str) -> Check:
    try:
        compiled = re.compile(pattern)
    except re.error:  # RE2, the language of these patterns, knows what Python does not
        return lambda _value: None

    def check(value: Any) -> list[Raw] | None:
        if not isinstance(value, str) or compiled.search(value):
            return None
        message = f"Invalid value: {_quoted(value)}: %s in body should match '{pattern}'"
        return [Raw("", message, "FieldValueInvalid")]

    return check


def _bound_checker(
    bound: Any, words: str, measure: Callable[[Any], Any], holds: Callable[[Any, Any], bool]
) -> Check:
    wanted = words.format(bound)
    verb = "should have" if words.endswith(("items", "properties")) else "should be"

    def check(value: Any) -> list[Raw] | None:
        if holds(measure(value), bound):
            return None
        message = f"Invalid value: {_quoted(value)}: %s in body {verb} {wanted}"
        return [Raw("", message, "FieldValueInvalid")]

    return check


def _max_length_checker(bound: int) -> Check:
    def check(value: Any) -> list[Raw] | None:
        if len(value) <= bound:
            return None
        message = f"Too long: may not be more than {bound} bytes"
        return [Raw("", message, "FieldValueTooLong")]

    return check


def _too_many_checker(bound: int) -> Check:
    def check(value: Any) -> list[Raw] | None:
        if len(value) <= bound:
            return None
        message = f"Too many: {len(value)}: must have at most {bound} items"
        return [Raw("", message, "FieldValueTooMany")]

    return check


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
