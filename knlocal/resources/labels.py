"""Selectors: over labels ("app=a,tier in (x,y)", matchLabels, matchExpressions) and over fields.

Grammar and meaning follow k8s.io/apimachinery pkg/labels and pkg/fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from knlocal.resources import names
from knlocal.resources.base import Obj
from knlocal.resources.status import BadRequest


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label. `operator`: in, notin, exists, !, gt, lt."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        present = self.key in labels
        match self.operator:
            case "exists":
                return present
            case "!":
                return not present
            case "in":
                return present and labels[self.key] in self.values
            case "notin":
                return not present or labels[self.key] not in self.values
        try:
            number, bound = int(labels[self.key]), int(next(iter(self.values)))
        except (KeyError, ValueError):
            return False
        return number > bound if self.operator == "gt" else number < bound


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements must hold; with none, everything matches. `nothing` matches nothing."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        if self.nothing:
            return False
        return all(requirement.matches(labels or {}) for requirement in self.requirements)

    def __bool__(self) -> bool:
        """False when everything matches."""
        return self.nothing or bool(self.requirements)


EVERYTHING = Selector()
NOTHING = Selector(nothing=True)


def equals(labels: Mapping[str, str]) -> Selector:
    """The selector that asks for exactly these labels (`matchLabels`, a Service's selector)."""
    return Selector(tuple(Requirement(k, "in", frozenset([v])) for k, v in labels.items()))


_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


def from_label_selector(selector: Mapping[str, Any] | None) -> Selector:
    """A `metav1.LabelSelector` (matchLabels, matchExpressions). None selects nothing, {} all.

    Raises BadRequest for an unknown operator.
    """
    if selector is None:
        return NOTHING
    requirements = list(equals(selector.get("matchLabels") or {}).requirements)
    for expression in selector.get("matchExpressions") or ():
        operator = _OPERATORS.get(expression.get("operator", ""))
        if operator is None:
            raise BadRequest(
                f'"{expression.get("operator")}" is not a valid label selector operator'
            )
        values = frozenset(expression.get("values") or ())
        requirements.append(Requirement(expression.get("key", ""), operator, values))
    return Selector(tuple(requirements))


def label_selector_problem(selector: Any) -> str:
    """What is wrong with a `metav1.LabelSelector`, as Kubernetes says it; "" when nothing is."""
    wanted: Any = selector or {}
    expressions: Any = ()
    if isinstance(wanted, Mapping):
        expressions = wanted.get("matchExpressions") or ()
        wanted = wanted.get("matchLabels") or {}
    if not isinstance(wanted, Mapping) or not all(isinstance(v, str) for v in wanted.values()):
        return "matchLabels must be a map of strings"
    if isinstance(expressions, str) or not isinstance(expressions, Sequence):
        return "matchExpressions must be a list"
    for expression in expressions:
        if not isinstance(expression, Mapping):
            return "matchExpressions must be a list of objects"
        operator, values = expression.get("operator", ""), expression.get("values") or ()
        if operator not in _OPERATORS:
            return f'"{operator}" is not a valid label selector operator'
        if operator in ("In", "NotIn") and not values:
            return (
                "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
            )
        if operator in ("Exists", "DoesNotExist") and values:
            said = "values set must be empty for exists and does not exist"
            return f"values: Invalid value: {json.dumps(list(values))}: {said}"
    return ""


# --- the text form -------------------------------------------------------------------------------

_TOKEN = re.compile(r"\s*(==|!=|=|!|,|\(|\)|<|>|[^\s=!,()<>]+)")
_SYMBOLS = {"==", "!=", "=", "!", ",", "(", ")", "<", ">"}


def parse(text: str) -> Selector:
    """A selector as in a query string. Raises BadRequest that says what was found where."""
    return Selector(tuple(_Parser(text).requirements())) if text.strip() else EVERYTHING


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _TOKEN.findall(text)
        self._next = 0

    def requirements(self) -> Iterable[Requirement]:
        while True:
            yield self._requirement()
            if self._peek() == "":
                return
            self._expect(",", "found '%s', expected: ',' or 'end of string'")
            if self._peek() in ("", ","):
                self._fail(f"found '{self._peek()}', expected: identifier after ','")

    def _requirement(self) -> Requirement:
        if self._peek() == "!":
            self._take()
            return Requirement(self._key(), "!")
        key = self._key()
        operator = self._peek()
        if operator in ("", ","):
            return Requirement(key, "exists")
        self._take()
        match operator:
            case "=" | "==":
                return Requirement(key, "in", frozenset([self._value(key)]))
            case "!=":
                return Requirement(key, "notin", frozenset([self._value(key)]))
            case "in" | "notin":
                return Requirement(key, operator, frozenset(self._values(key)))
            case "<" | ">":
                name = "lt" if operator == "<" else "gt"
                bound = self._value(key)
                if not re.fullmatch(r"[+-]?\d+", bound):
                    self._fail("for 'Gt', 'Lt' operators, the value must be an integer")
                return Requirement(key, name, frozenset([bound]))
        self._fail(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")
        raise AssertionError

    def _key(self) -> str:
        token = self._take()
        if token in _SYMBOLS or not token:
            self._fail(f"found '{token}', expected: !, identifier, or 'end of string'")
        if wrong := names.qualified_name(token):
            raise BadRequest(f'key: Invalid value: "{token}": {"; ".join(wrong)}')
        return token

    def _value(self, key: str) -> str:
        if self._peek() in ("", ","):
            return ""
        token = self._take()
        if token in _SYMBOLS:
            self._fail(f"found '{token}', expected: identifier")
        return self._checked(key, token)

    def _values(self, key: str) -> list[str]:
        self._expect("(", "found '%s' expected: '('")
        values: list[str] = []
        word = ""
        while True:
            token = self._take()
            match token:
                case "":
                    self._fail("found '', expected: ')'")
                case "," | ")":
                    values.append(word)
                    word = ""
                    if token == ")":
                        return values
                case _ if token in _SYMBOLS or word:
                    self._fail(f"found '{token}', expected: ',' or ')'")
                case _:
                    word = self._checked(key, token)

    def _checked(self, key: str, value: str) -> str:
        if wrong := names.label_value(value):
            raise BadRequest(f'values[0][{key}]: Invalid value: "{value}": {"; ".join(wrong)}')
        return value

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._next += 1
        return token

    def _expect(self, wanted: str, complaint: str) -> None:
        token = self._take()
        if token != wanted:
            self._fail(complaint.replace("%s", token))

    def _fail(self, what: str) -> None:
        raise BadRequest(f"unable to parse requirement: {what}")


# --- fields --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    path: str
    value: str
    equal: bool = True

    def matches(self, obj: Obj) -> bool:
        return (field_value(obj, self.path) == self.value) == self.equal


@dataclass(frozen=True, slots=True)
class FieldSelector:
    requirements: tuple[FieldRequirement, ...] = ()

    def matches(self, obj: Obj) -> bool:
        return all(requirement.matches(obj) for requirement in self.requirements)

    def __bool__(self) -> bool:
        return bool(self.requirements)

    def exact(self, path: str) -> str | None:
        """The value that `path` must equal, if the selector asks for one (`metadata.name=x`)."""
        for requirement in self.requirements:
            if requirement.path == path and requirement.equal:
                return requirement.value
        return None


_ANY_KIND = ("metadata.name", "metadata.namespace")
_BY_KIND: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "Pod"): (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    ("", "Event"): (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    ("", "Secret"): ("type",),
    ("", "Namespace"): ("status.phase",),
    ("", "Node"): ("spec.unschedulable",),
    ("", "Service"): ("spec.clusterIP", "spec.type"),
    ("apps", "ReplicaSet"): ("status.replicas",),
    ("batch", "Job"): ("status.successful",),
}


def parse_fields(text: str, group: str = "", kind: str = "") -> FieldSelector:
    """A field selector for a kind. Raises BadRequest for a field that cannot be selected."""
    if not text.strip():
        return FieldSelector()
    requirements = []
    for term in text.split(","):
        match = re.fullmatch(r"\s*([^=!\s]+)\s*(==|!=|=)(.*)", term)
        if match is None:
            raise BadRequest(f"invalid selector: '{text}'; can't understand '{term}'")
        path, operator, value = match.groups()
        if path not in _ANY_KIND and path not in _BY_KIND.get((group, kind), ()):
            raise BadRequest(f"field label not supported: {path}")
        requirements.append(FieldRequirement(path, value.strip(), operator != "!="))
    return FieldSelector(tuple(requirements))


def field_value(obj: Obj, path: str) -> str:
    """The value at a dotted path, as text; "" when it is not there."""
    value: Any = obj
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    if isinstance(value, Mapping):  # `source` of an Event means its component
        value = value.get("component")
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
