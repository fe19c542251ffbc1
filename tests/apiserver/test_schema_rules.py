"""Validation rules of users' CRDs: CEL, schemas combined, lists that are sets or maps."""

from __future__ import annotations

from typing import Any

import pytest

from knlocal.apiserver import expressions
from knlocal.apiserver.schema_rules import validator_of
from knlocal.clock import SystemClock
from knlocal.resources.kinds import AdmissionContext
from tests.apiserver.conftest import Api
from tests.apiserver.test_custom_resources import CRDS, TABS, crd, tab

needs_cel = pytest.mark.skipif(not expressions.AVAILABLE, reason="the extra `cel` is not installed")


def rule(text: str, **about: Any) -> dict[str, Any]:
    return {"x-kubernetes-validations": [{"rule": text, **about}]}


def found(spec: dict[str, Any], new: Any, old: Any = None) -> list[str]:
    """What is wrong with `spec: new`, and what is only warned of."""
    validate = validator_of({"type": "object", "properties": {"spec": spec}})
    assert validate
    context = AdmissionContext("me", SystemClock().now(), old=old and obj(old))
    errors = validate(obj(new), context)
    return [str(error) for error in errors]


def obj(spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "mine", "labels": {"a": "b"}}, "spec": spec}


NUMBERS = {
    "type": "object",
    "properties": {
        "min": {"type": "integer"}, "max": {"type": "integer"}, "ratio": {"type": "number"},
        "namespace": {"type": "string"}, "my-key": {"type": "string"},
        "for": {"type": "string", "format": "duration"},
        "at": {"type": "string", "format": "date-time"},
        "names": {"type": "array", "items": {"type": "string"}},
    },
}  # fmt: skip


@needs_cel
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("self.min <= self.max", {"min": 1, "max": 2}),
        ("!has(self.max) || self.max > 3", {"min": 1}),
        ("self.ratio > 0.5", {"ratio": 1}),
        ("self.__namespace__ == 'a'", {"namespace": "a"}),
        ("self.my__dash__key == 'a'", {"my-key": "a"}),
        ("self.__for__ > duration('1m')", {"for": "1m1s"}),
        ("self.at < timestamp('2030-01-01T00:00:00Z')", {"at": "2020-01-01T00:00:00Z"}),
        ("self.names.all(n, n.startsWith('a')) && size(self.names) == 2", {"names": ["a", "ab"]}),
        ("self.names.exists_one(n, n == 'a')", {"names": ["a", "ab"]}),
        ("self.names.isSorted() && self.names.join('-') == 'a-b'", {"names": ["a", "b"]}),
        ("'x12'.find('[0-9]+') == '12' && isURL('http://a')", {}),
        ("self.names.map(n, n.upperAscii()) == ['A']", {"names": ["a"]}),
        # As the Gateway API writes them.
        ("self.names.all(a, self.names.exists_one(b, a == b))", {"names": ["a", "b"]}),
        ("self.names.all(n, n in ['a', 'b'] ? !has(self.max) : true)", {"names": ["a", "b"]}),
        ("self.names.filter(n, n == 'a').size() <= 1", {"names": ["a", "b"]}),
        (
            r'''self.names.all(n, n.matches(r"""^(?:[-a-z0-9/._~!$&'()]|%[0-9a-f]{2})+$"""))''',
            {"names": ["/a%20b"]},
        ),
        (
            "self.names.all(a, self.names.all(b, !has(self.min) ? a != '' : false))",
            {"names": ["a", "b"]},
        ),
        ("!(self.names[0] == 'a' && !has(self.min))", {"names": ["a"], "min": 1}),
        ("oldSelf.min == self.min", {"min": 1}),  # nothing was there before: no transition
    ],
)
def test_rules_that_hold(text: str, value: dict[str, Any]) -> None:
    assert found({**NUMBERS, **rule(text)}, value) == []


@needs_cel
@pytest.mark.parametrize(
    ("spec", "value", "said"),
    [
        (rule("self.min <= self.max"), {"min": 3, "max": 2},
         'Invalid value: "object": failed rule: self.min <= self.max: spec'),
        (rule("self.min <= self.max", message="too small"), {"min": 3, "max": 2},
         'Invalid value: "object": too small: spec'),
        (rule("self.min < 1", messageExpression="'is %d'.format([self.min])"), {"min": 3},
         'Invalid value: "object": is 3: spec'),
        (rule("self.min < 1", reason="FieldValueForbidden", message="no", fieldPath=".min"),
         {"min": 3}, "Forbidden: no: spec.min"),
        (rule("self.max > 1", message="needed"), {"min": 3},
         'Invalid value: "object": no such key: max evaluating rule: needed: spec'),
    ],
)  # fmt: skip
def test_rules_that_do_not_hold_say_so_in_kubernetes_words(
    spec: dict[str, Any], value: dict[str, Any], said: str
) -> None:
    assert found({**NUMBERS, **spec}, value) == [said]


@needs_cel
def test_a_transition_rule_compares_with_what_was_there() -> None:
    fixed = {"type": "string", **rule("self == oldSelf", message="is immutable")}
    spec = {"type": "object", "properties": {"a": fixed}}
    assert found(spec, {"a": "1"}) == []
    assert found(spec, {"a": "1"}, old={"a": "1"}) == []
    assert found(spec, {"a": "2"}, old={"b": "1"}) == []
    assert found(spec, {"a": "2"}, old={"a": "1"}) == ['Invalid value: "2": is immutable: spec.a']
    once = {"type": "string", **rule("oldSelf.hasValue() || self == 'first'", optionalOldSelf=True)}
    assert found({"type": "object", "properties": {"a": once}}, {"a": "other"})


@needs_cel
def test_items_are_told_apart_by_their_keys() -> None:
    fixed = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
        **rule("self.size >= oldSelf.size", message="may not shrink"),
    }
    listing = {"type": "array", "items": fixed}
    by_name = {**listing, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    old = [{"name": "a", "size": 1}, {"name": "b", "size": 5}]
    new = [{"name": "b", "size": 4}, {"name": "a", "size": 2}]
    assert found(by_name, new, old) == ['Invalid value: "object": may not shrink: spec[0]']
    assert found({**listing, "x-kubernetes-list-type": "atomic"}, new, old) == []


def test_items_of_sets_and_maps_come_once() -> None:
    names = {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}
    assert found(names, ["a", "b", "a"]) == ['Duplicate value: "a": spec[2]']
    ports = {
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
        "items": {"type": "object", "properties": {"port": {"type": "integer"}}},
    }  # fmt: skip
    assert found(ports, [{"port": 1}, {"port": 2}, {"port": 1, "x": 2}]) == [
        'Duplicate value: {"port":1}: spec[2]'
    ]


@needs_cel
async def test_rules_guard_objects_through_the_api(api: Api) -> None:
    body = crd()
    schema = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["x-kubernetes-validations"] = [
        {"rule": "!has(self.replicas) || self.replicas < 5", "message": "five is too many"}
    ]
    schema["x-kubernetes-validations"] = [{"rule": "self.metadata.name.startsWith('m')"}]
    status, answer, _ = await api.call("POST", CRDS, body)
    assert status == 201, answer
    status, made, _ = await api.call("POST", TABS, tab(replicas=4))
    assert status == 201
    made["spec"]["replicas"] = 7
    status, answer, _ = await api.call("PUT", f"{TABS}/mine", made)
    assert (status, answer["reason"]) == (422, "Invalid")
    assert answer["message"] == (
        'CronTab.stable.example.com "mine" is invalid: spec: Invalid value: "object": '
        "five is too many"
    )
    other = tab()
    other["metadata"]["name"] = "other"
    status, answer, _ = await api.call("POST", TABS, other)
    assert (status, answer["details"]["causes"][0]["field"]) == (422, "<nil>")


@needs_cel
async def test_rules_are_asked_about_a_status_too_and_not_about_what_stays(api: Api) -> None:
    body = crd()
    schema = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert (await api.call("POST", CRDS, body))[0] == 201
    assert (await api.call("POST", TABS, tab(replicas=7)))[0] == 201
    schema["properties"]["spec"] |= rule("self.replicas < 5", message="five is too many")
    schema["properties"]["status"] |= rule("self.replicas >= 0", message="fewer than none")
    _, current, _ = await api.call("GET", f"{CRDS}/{body['metadata']['name']}")
    body["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
    status, answer, _ = await api.call("PUT", f"{CRDS}/{body['metadata']['name']}", body)
    assert status == 200, answer
    tabbed = tab(replicas=7)
    for replicas, expected in ((-1, 422), (1, 200)):
        tabbed["status"] = {"replicas": replicas}
        _, current, _ = await api.call("GET", f"{TABS}/mine")
        tabbed["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
        status, answer, _ = await api.call("PUT", f"{TABS}/mine/status", tabbed)
        assert status == expected, answer
        if status == 422:
            assert answer["message"].endswith('status: Invalid value: "object": fewer than none')
    assert answer["status"] == {"replicas": 1}, "the spec was like this before"


@needs_cel
@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        ("self.replicas <", 422, "compilation failed: ERROR: <input>:1:16: Syntax error"),
        ("self.?replicas.orValue(1) > 0", 201, "is not evaluated here"),
    ],
)
async def test_a_rule_that_is_not_cel_is_refused_with_its_crd(
    api: Api, text: str, status: int, words: str
) -> None:
    body = crd()
    schema = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"] |= rule(text)
    got, answer, response = await api.call("POST", CRDS, body)
    assert got == status, answer
    said = answer.get("message", "") + response.headers.get("Warning", "")
    assert words in said
    assert "properties[spec].x-kubernetes-validations[0].rule" in said


EITHER = {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}


@pytest.mark.parametrize(
    ("more", "value", "words"),
    [
        (EITHER, {"a": "1"}, ""),
        (EITHER, {}, '"spec.x" must validate one and only one schema (oneOf). Found none valid'),
        (EITHER, {"a": "1", "b": "1"}, "(oneOf). Found 2 valid alternatives"),
        ({"anyOf": EITHER["oneOf"]}, {"a": "1", "b": "1"}, ""),
        ({"anyOf": EITHER["oneOf"]}, {}, '"spec.x" must validate at least one schema (anyOf)'),
        ({"allOf": EITHER["oneOf"]}, {"a": "1"}, "must validate all the schemas (allOf)"),
        ({"allOf": EITHER["oneOf"][:1]}, {"b": "1"}, "must validate all the schemas (allOf)"),
        ({"not": {"required": ["a"]}}, {"a": "1"}, "must not validate the schema (not)"),
        ({"not": {"properties": {"a": {"enum": ["1"]}}}}, {"a": "2"}, ""),
        ({"minProperties": 1}, {}, "should have at least 1 properties"),
        ({"maxProperties": 1}, {"a": "1", "b": "2"}, "Too many: 2: must have at most 1 items"),
        ({"required": ["d"]}, {}, ""),  # it has a default
        ({}, {"n": 4}, "spec.x.n in body should be less than 4"),
        ({}, {"n": 3}, "spec.x.n in body should be a multiple of 2"),
        ({}, {"t": "yesterday"}, "spec.x.t in body must be of type date-time"),
        ({}, {"t": "2026-01-01T00:00:00Z", "l": ["a"], "n": 2}, ""),
        ({}, {"l": ["a", "b"]}, "Too many: 2: must have at most 1 items"),
    ],
)
async def test_combined_schemas_and_bounds_are_checked(
    api: Api, more: dict[str, Any], value: dict[str, Any], words: str
) -> None:
    body = crd()
    schema = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["x"] = {
        "type": "object",
        "properties": {
            "a": {"type": "string"}, "b": {"type": "string"},
            "d": {"type": "string", "default": "x"},
            "n": {"type": "integer", "maximum": 4, "exclusiveMaximum": True, "multipleOf": 2},
            "t": {"type": "string", "format": "date-time"},
            "l": {"type": "array", "items": {"type": "string"}, "maxItems": 1},
        },
        **more,
    }  # fmt: skip
    status, answer, _ = await api.call("POST", CRDS, body)
    assert status == 201, answer
    status, answer, _ = await api.call("POST", TABS, tab(x=value))
    if words:
        assert status == 422, answer
        assert words in answer["message"]
    else:
        assert status == 201, answer
