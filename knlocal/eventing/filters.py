"""Trigger filters: the attributes filter and the dialects of the CloudEvents Subscriptions API.

A filter is compiled once into a function of the event's attributes, and can say afterwards which
of its clauses refused an event (knative.dev/eventing/pkg/eventfilter).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from knlocal.eventing.cesql import CesqlError, compile_expression
from knlocal.events.event import canonical

Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an event did not pass: the clause, what it wanted, and what the event has.

    `found` is None when the event lacks the attribute. `detail` holds the error of an expression.
    """

    clause: str
    wanted: str
    found: str | None = None
    detail: str = ""

    def __str__(self) -> str:
        if self.detail:
            return f"{self.clause}: {self.detail}"
        has = "the event has none" if self.found is None else f'the event has "{self.found}"'
        return f"{self.clause}: wanted {self.wanted}, {has}"


Explain = Callable[[Attributes], Refusal | None]


@dataclass(frozen=True, slots=True)
class Filter:
    """`matches` is for the hot path, `explain` for people: None means that the event passes."""

    matches: Callable[[Attributes], bool]
    explain: Explain


EVERYTHING = Filter(lambda attributes: True, lambda attributes: None)


def trigger_filter(spec: Mapping[str, Any]) -> Filter:
    """The filter of a Trigger's spec: `filters`, when there are any, override `filter`.

    Raises CesqlError for an expression that does not parse.
    """
    filters = spec.get("filters")
    if filters:
        return _all(filters, "filters")
    attributes = (spec.get("filter") or {}).get("attributes")
    return _attributes(attributes, "filter.attributes") if attributes else EVERYTHING


def lookup(attributes: Attributes, name: str) -> str | None:
    """An attribute as filters see it: canonical text, with the names that Knative adds."""
    value = attributes.get(name)
    if value is None:
        if name == "dataschema":
            value = attributes.get("schemaurl")
        elif name == "schemaurl":
            value = attributes.get("dataschema")
        elif name == "datamediatype":
            content_type = attributes.get("datacontenttype")
            value = content_type.partition(";")[0].strip() if content_type else None
        if value is None:
            return None
    return value if type(value) is str else canonical(value)


def _dialect(element: Mapping[str, Any], path: str) -> Filter:
    found = []
    for name, value in element.items():
        match name:
            case "exact" if value:
                found.append(_compare(value, f"{path}.exact", "", str.__eq__))
            case "prefix" if value:
                found.append(_compare(value, f"{path}.prefix", "prefix ", str.startswith))
            case "suffix" if value:
                found.append(_compare(value, f"{path}.suffix", "suffix ", str.endswith))
            case "all" if value:
                found.append(_all(value, f"{path}.all"))
            case "any" if value:
                found.append(_any(value, f"{path}.any"))
            case "not" if value:
                found.append(_not(value, f"{path}.not"))
            case "cesql" if value:
                found.append(_cesql(value, f"{path}.cesql"))
    return _and(found)


def _attributes(wanted: Mapping[str, str], path: str) -> Filter:
    """Equality; the empty value means: any, but present."""
    some = {name: value for name, value in wanted.items() if value}
    present = [name for name in wanted if name not in some]

    def matches(attributes: Attributes) -> bool:
        return all(lookup(attributes, name) is not None for name in present)

    def explain(attributes: Attributes) -> Refusal | None:
        for name in present:
            if lookup(attributes, name) is None:
                return Refusal(f"{path}.{name}", "any value")
        return None

    parts = [_compare(some, path, "", str.__eq__)] if some else []
    return _and([*parts, *([Filter(matches, explain)] if present else [])])


def _compare(
    wanted: Mapping[str, str], path: str, says: str, agrees: Callable[[str, str], bool]
) -> Filter:
    clauses = list(wanted.items())

    def explain(attributes: Attributes) -> Refusal | None:
        for name, value in clauses:
            found = lookup(attributes, name)
            if found is None or not agrees(found, value):
                return Refusal(f"{path}.{name}", f'{says}"{value}"', found)
        return None

    if len(clauses) == 1:
        [(one, expected)] = clauses

        def matches(attributes: Attributes) -> bool:
            found = attributes.get(one)
            if type(found) is not str:
                found = lookup(attributes, one)
            return found is not None and agrees(found, expected)

        return Filter(matches, explain)

    def matches_all(attributes: Attributes) -> bool:
        for name, value in clauses:
            found = lookup(attributes, name)
            if found is None or not agrees(found, value):
                return False
        return True

    return Filter(matches_all, explain)


def _and(parts: Sequence[Filter]) -> Filter:
    if not parts:
        return EVERYTHING
    if len(parts) == 1:
        return parts[0]
    checks = [part.matches for part in parts]

    def matches(attributes: Attributes) -> bool:
        return all(check(attributes) for check in checks)

    def explain(attributes: Attributes) -> Refusal | None:
        for part in parts:
            refusal = part.explain(attributes)
            if refusal is not None:
                return refusal
        return None

    return Filter(matches, explain)


def _all(elements: Sequence[Mapping[str, Any]], path: str) -> Filter:
    return _and([_dialect(element, f"{path}[{n}]") for n, element in enumerate(elements)])


def _any(elements: Sequence[Mapping[str, Any]], path: str) -> Filter:
    parts = [_dialect(element, f"{path}[{n}]") for n, element in enumerate(elements)]
    checks = [part.matches for part in parts]

    def matches(attributes: Attributes) -> bool:
        return any(check(attributes) for check in checks)

    def explain(attributes: Attributes) -> Refusal | None:
        refusals = [part.explain(attributes) for part in parts]
        if any(refusal is None for refusal in refusals):
            return None
        said = "; ".join(str(refusal) for refusal in refusals)
        return Refusal(path, "one of them to pass", detail=f"none passes ({said})")

    return Filter(matches, explain)


def _not(element: Mapping[str, Any], path: str) -> Filter:
    inner = _dialect(element, path)

    def explain(attributes: Attributes) -> Refusal | None:
        if inner.explain(attributes) is not None:
            return None
        said = ", ".join(f"{name}={canonical(v)}" for name, v in attributes.items())
        return Refusal(path, "no match", detail=f"the event passes what it must not ({said})")

    return Filter(lambda attributes: not inner.matches(attributes), explain)


def _cesql(text: str, path: str) -> Filter:
    expression = compile_expression(text)

    def explain(attributes: Attributes) -> Refusal | None:
        result = expression.evaluate(attributes)
        if result.errors:
            said = "; ".join(str(error) for error in result.errors)
            return Refusal(path, text, detail=f"{text} failed: {said}")
        if result.value is True:
            return None
        names = sorted(expression.attributes)
        said = ", ".join(
            f'{n}="{canonical(attributes[n])}"' if n in attributes else f"{n} absent" for n in names
        )
        value = canonical(result.value)
        return Refusal(path, text, detail=f"{text} is {value}{f' with {said}' if said else ''}")

    return Filter(expression.matches, explain)


def cesql_problem(text: str) -> str:
    """Why an expression does not parse, with its position; "" when it does."""
    try:
        compile_expression(text)
    except CesqlError as error:
        return str(error)
    return ""
