from __future__ import annotations

from typing import Annotated, Any, Required, TypedDict

import pytest

from knlocal.resources import schema
from knlocal.resources.schema import INT32, INT_OR_STRING, PRESERVE_UNKNOWN, QUANTITY, ListMap, Ref


class Port(TypedDict, total=False):
    name: str
    number: Required[Annotated[int, INT32]]


class Spec(TypedDict, total=False):
    """What is wanted."""

    size: Annotated[int, INT32, "How many."]
    ports: Annotated[list[Port], ListMap("number")]
    labels: dict[str, str]
    target: Annotated[int | str, INT_OR_STRING]
    memory: Annotated[str, QUANTITY]
    anything: Annotated[dict[str, Any], PRESERVE_UNKNOWN]
    enabled: bool
    tree: Annotated[dict[str, Any], Ref("test.Tree")]


class Tree(TypedDict, total=False):
    leaf: str
    children: list[Annotated[dict[str, Any], Ref("test.Tree")]]


schema.register_definitions({"test.Tree": schema.of(Tree)})
THING = schema.kind_schema(Spec)


def thing(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "test/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec}


def test_a_typed_dict_becomes_an_openapi_schema() -> None:
    derived = schema.of(Spec)
    assert derived["description"] == "What is wanted."
    properties = derived["properties"]
    assert properties["size"] == {"type": "integer", "format": "int32", "description": "How many."}
    assert properties["ports"]["items"]["required"] == ["number"]
    assert properties["ports"]["x-kubernetes-list-map-keys"] == ["number"]
    assert properties["labels"] == {"type": "object", "additionalProperties": {"type": "string"}}
    assert properties["target"] == {"x-kubernetes-int-or-string": True}
    assert properties["tree"] == {"$ref": "#/components/schemas/test.Tree"}


@pytest.mark.parametrize(
    ("spec", "unknown", "left"),
    [
        ({"size": 1, "seize": 2}, ["spec.seize"], {"size": 1}),
        ({"ports": [{"number": 1, "x": 1}]}, ["spec.ports[0].x"], {"ports": [{"number": 1}]}),
        ({"size": None, "labels": {"a": None, "b": ""}}, [], {"labels": {"b": ""}}),
        (
            {"size": 0, "enabled": False, "labels": {}},
            [],
            {"size": 0, "enabled": False, "labels": {}},
        ),
        ({"anything": {"x": {"y": None}}}, [], {"anything": {"x": {"y": None}}}),
        (
            {"tree": {"children": [{"leaf": "a", "twig": 1}]}},
            ["spec.tree.children[0].twig"],
            {"tree": {"children": [{"leaf": "a"}]}},
        ),
    ],
)
def test_unknown_fields_are_pruned_and_named(
    spec: dict[str, Any], unknown: list[str], left: dict[str, Any]
) -> None:
    obj = thing(**spec)
    assert schema.prune(obj, THING) == unknown
    assert obj["spec"] == left


def test_metadata_noise_is_dropped_and_unknown_metadata_is_named() -> None:
    obj = thing()
    obj["metadata"] |= {"creationTimestamp": None, "colour": "red", "labels": {"a": "b"}}
    obj["extra"] = {}
    assert schema.prune(obj, THING) == ["metadata.colour", "extra"]
    assert obj["metadata"] == {"name": "a", "labels": {"a": "b"}}


@pytest.mark.parametrize(
    ("spec", "path", "wanted", "got"),
    [
        ({"size": "3"}, "spec.size", "integer", "string"),
        ({"labels": {"a": 3}}, "spec.labels.a", "string", "integer"),
        ({"ports": {}}, "spec.ports", "array", "object"),
        ({"ports": [3]}, "spec.ports[0]", "object", "integer"),
        ({"enabled": 1}, "spec.enabled", "boolean", "integer"),
        ({"target": []}, "spec.target", "integer,string", "array"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_as_kubernetes_does(
    spec: dict[str, Any], path: str, wanted: str, got: str
) -> None:
    assert [str(found) for found in schema.check_types(thing(**spec), THING)] == [
        f'{path}: Invalid value: "{got}": {path} in body must be of type {wanted}: "{got}"'
    ]


def test_a_missing_required_field_is_named() -> None:
    found = schema.check_types(thing(ports=[{"name": "x"}]), THING)
    assert [str(finding) for finding in found] == ["spec.ports[0].number: Required value"]


@pytest.mark.parametrize(
    "spec",
    [
        {"target": 80, "memory": "1Gi"},
        {"target": "http", "memory": 0.5},
        {"size": 3.0},
        {"anything": {"a": [1, "b"]}},
        {"tree": {"children": [{"children": []}]}},
    ],
)
def test_a_fitting_value_passes(spec: dict[str, Any]) -> None:
    assert schema.check_types(thing(**spec), THING) == []


def test_a_definition_registered_later_is_found() -> None:
    late = {"type": "object", "properties": {"a": schema.ref("test.Late")}}
    with pytest.raises(LookupError, match=r"test\.Late"):
        schema.prune({"a": {"b": 1}}, late)
    schema.register_definitions({"test.Late": {"type": "object", "properties": {"b": {}}}})
    assert schema.prune({"a": {"b": 1, "c": 2}}, late) == ["a.c"]
