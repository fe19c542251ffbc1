"""What a user's CRD says about values beyond their types: CEL rules, and lists that are sets or
maps (`x-kubernetes-validations`, `x-kubernetes-list-type`).

Semantics and words follow k8s.io/apiextensions-apiserver (pkg/apiserver/schema/cel and
.../listtype).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from knlocal.apiserver import expressions
from knlocal.apiserver.expressions import Expression, Failed, Malformed, Unsupported, to_cel
from knlocal.resources.base import Obj
from knlocal.resources.field_errors import FieldError, FieldErrors
from knlocal.resources.kinds import AdmissionContext, Validator

Schema = Mapping[str, Any]
_RULES = "x-kubernetes-validations"
#: How the message of each reason begins; the others show the type of the value, too.
_REASONS = {"FieldValueRequired": "Required value", "FieldValueForbidden": "Forbidden"}


def validator_of(schema: Schema) -> Validator | None:
    """The checks that the schema of a whole object asks for; None when there are none."""
    node = _node(schema)
    if node is None:
        return None

    def validate(obj: Obj, context: AdmissionContext) -> FieldErrors:
        return FieldErrors(list(_check(node, "", _seen(obj), context.old and _seen(context.old))))

    return validate


def _seen(obj: Obj) -> Obj:
    """Rules at the top see of the metadata only who the object is."""
    metadata = {k: v for k, v in obj["metadata"].items() if k in ("name", "generateName")}
    return {**obj, "metadata": metadata}


def problems(schema: Schema, path: str) -> Iterator[tuple[str, str, bool]]:
    """Rules of a schema that cannot be used: (path, why, whether it is the rule's own fault)."""
    for index, rule in enumerate(schema.get(_RULES) or ()):
        place = f"{path}.{_RULES}[{index}].rule"
        try:
            Expression(str(rule.get("rule") or ""))
        except Malformed as error:
            yield place, f"compilation failed: {error}", True
        except Unsupported as error:
            yield place, str(error), False
    for name, sub in (schema.get("properties") or {}).items():
        yield from problems(sub, f"{path}.properties[{name}]")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            yield from problems(schema[key], f"{path}.{key}")


def has_rules(schema: Any) -> bool:
    """Whether there is a CEL rule anywhere in it."""
    if isinstance(schema, Mapping):
        return bool(schema.get(_RULES)) or any(has_rules(sub) for sub in schema.values())
    return isinstance(schema, list) and any(has_rules(sub) for sub in schema)


# --- the schema, compiled ------------------------------------------------------------------------


@dataclass(slots=True)
class _Rule:
    expression: Expression
    about: Schema

    @property
    def is_transition(self) -> bool:
        return "oldSelf" in self.expression.variables


@dataclass(slots=True)
class _Node:
    """A part of the schema with something to check in it or below it."""

    schema: Schema
    rules: list[_Rule] = field(default_factory=list)
    fields: dict[str, _Node] = field(default_factory=dict)
    values: _Node | None = None
    items: _Node | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """What tells the items of a list apart; none for lists whose items are not told apart."""
        if self.schema.get("x-kubernetes-list-type") != "map":
            return ()
        return tuple(self.schema.get("x-kubernetes-list-map-keys") or ())


def _node(schema: Any) -> _Node | None:
    if not isinstance(schema, Mapping):
        return None
    node = _Node(schema, list(_rules(schema)))
    for name, sub in (schema.get("properties") or {}).items():
        if (below := _node(sub)) is not None:
            node.fields[name] = below
    node.values = _node(schema.get("additionalProperties"))
    node.items = _node(schema.get("items"))
    is_told_apart = schema.get("x-kubernetes-list-type") in ("set", "map")
    wanted = node.rules or node.fields or node.values or node.items or is_told_apart
    return node if wanted else None


def _rules(schema: Schema) -> Iterator[_Rule]:
    if not expressions.AVAILABLE:
        return
    for rule in schema.get(_RULES) or ():
        try:
            yield _Rule(Expression(str(rule.get("rule") or "")), rule)
        except (Malformed, Unsupported):
            continue  # said when the CRD came


# --- checking ------------------------------------------------------------------------------------


def _check(node: _Node, path: str, value: Any, old: Any) -> Iterator[FieldError]:
    """`old` is the value that stood at this place before; None when there was none."""
    if value is None:
        return
    # What has not changed may stay as it is (ratcheting).
    unchanged = old is not None and value == old
    for rule in node.rules:
        if unchanged and not rule.is_transition:
            continue
        yield from _apply(rule, node.schema, path, value, old)
    if isinstance(value, dict):
        before = old if isinstance(old, dict) else {}
        for name, item in value.items():
            if (below := node.fields.get(name)) is not None:
                place = f"{path}.{name}" if path else name
                yield from _check(below, place, item, before.get(name))
            elif node.values is not None and name not in (node.schema.get("properties") or {}):
                yield from _check(node.values, f"{path}[{name}]", item, before.get(name))
    elif isinstance(value, list):
        yield from _duplicates(node, path, value)
        if node.items is not None:
            known = _by_key(node.keys, old) if isinstance(old, list) else {}
            for index, item in enumerate(value):
                earlier = known.get(_key(node.keys, item)) if node.keys else None
                yield from _check(node.items, f"{path}[{index}]", item, earlier)


def _apply(rule: _Rule, schema: Schema, path: str, value: Any, old: Any) -> Iterator[FieldError]:
    values = {"self": to_cel(value, schema)}
    if rule.is_transition:
        before = None if old is None else to_cel(old, schema)
        if rule.about.get("optionalOldSelf"):
            before = expressions.optional(before)
        elif old is None:
            return
        values["oldSelf"] = before
    place = (path + _relative(rule.about.get("fieldPath") or "")).lstrip(".") or "<nil>"
    try:
        if rule.expression.evaluate(values) is True:
            return
    except Unsupported as error:
        yield FieldError(
            f"a validation rule is not evaluated here: {error}", (place,), warning=True
        )
        return
    except Failed as error:
        said = f"{error} evaluating rule: {_message(rule, {})}"
        yield FieldError(f"Invalid value: {_shown(value)}: {said}", (place,))
        return
    reason = rule.about.get("reason") or "FieldValueInvalid"
    if reason == "FieldValueDuplicate":
        yield FieldError(f"Duplicate value: {_shown(value)}", (place,))
        return
    begins = _REASONS.get(reason) or f"Invalid value: {_shown(value)}"
    yield FieldError(f"{begins}: {_message(rule, values)}", (place,))


def _shown(value: Any) -> str:
    """Of objects and lists only the type is shown."""
    if isinstance(value, dict | list):
        return '"object"' if isinstance(value, dict) else '"array"'
    return orjson.dumps(value).decode()


def _relative(path: str) -> str:
    """`.spec['a.b']` as paths are shown: `.spec[a.b]`."""
    return path.replace("['", "[").replace("']", "]")


def _message(rule: _Rule, values: dict[str, Any]) -> str:
    text = rule.about.get("messageExpression")
    if text and values:
        try:
            said = Expression(str(text)).evaluate(values)
        except (Malformed, Unsupported, Failed):
            said = None
        if isinstance(said, str) and said.strip() and "\n" not in said:
            return said
    return str(rule.about.get("message") or f"failed rule: {rule.expression.text}").strip()


def _duplicates(node: _Node, path: str, items: list[Any]) -> Iterator[FieldError]:
    kind = node.schema.get("x-kubernetes-list-type")
    if kind not in ("set", "map"):
        return
    seen = set()
    for index, item in enumerate(items):
        key = _key(node.keys, item) if kind == "map" else orjson.dumps(item)
        if key in seen:
            shown = item
            if kind == "map":
                shown = {name: item[name] for name in node.keys if name in item}
            text = orjson.dumps(shown).decode()
            yield FieldError(f"Duplicate value: {text}", (f"{path}[{index}]",))
        seen.add(key)


def _key(keys: tuple[str, ...], item: Any) -> bytes:
    found = [item.get(name) for name in keys] if isinstance(item, dict) else item
    return orjson.dumps(found)


def _by_key(keys: tuple[str, ...], items: list[Any]) -> dict[bytes, Any]:
    return {_key(keys, item): item for item in items} if keys else {}
