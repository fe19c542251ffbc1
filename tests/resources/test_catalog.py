from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from knlocal.resources import catalog, schema
from knlocal.resources.kinds import Kind

REGISTRY = catalog.registry()
ALL = list(REGISTRY)


def refs(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].rpartition("/")[2]
        for value in node.values():
            yield from refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from refs(value)


def test_every_reference_in_a_schema_is_defined() -> None:
    seen: set[str] = set()
    todo = [name for kind in ALL for name in refs(kind.schema)]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo.extend(refs(schema.definition(name)))
    assert "io.k8s.api.core.v1.Container" in seen


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: f"{kind.api_version}/{kind.kind}")
def test_an_empty_object_of_each_kind_can_be_pruned_and_checked(kind: Kind) -> None:
    obj = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "a"}, "nope": 1}
    assert schema.prune(obj, kind.schema) in (["nope"], [])
    schema.check_types(obj, kind.schema)


def test_no_two_kinds_share_a_path_and_each_is_stored_once() -> None:
    paths = [(kind.group, kind.version, kind.plural) for kind in ALL]
    assert len(set(paths)) == len(paths)
    for group_kind in {kind.group_kind for kind in ALL}:
        stored = [kind for kind in ALL if kind.group_kind == group_kind and kind.storage]
        assert len(stored) == 1, group_kind


@pytest.mark.parametrize(
    ("word", "resource"),
    [
        ("ksvc", "services.serving.knative.dev"),
        ("kservice", "services.serving.knative.dev"),
        ("rev", "revisions.serving.knative.dev"),
        ("rt", "routes.serving.knative.dev"),
        ("cfg", "configurations.serving.knative.dev"),
        ("config", "configurations.serving.knative.dev"),
        ("configuration", "configurations.serving.knative.dev"),
        ("dm", "domainmappings.serving.knative.dev"),
        ("sks", "serverlessservices.networking.internal.knative.dev"),
        ("king", "ingresses.networking.internal.knative.dev"),
        ("cdc", "clusterdomainclaims.networking.internal.knative.dev"),
        ("kpa", "podautoscalers.autoscaling.internal.knative.dev"),
        ("service.serving.knative.dev", "services.serving.knative.dev"),
    ],
)
def test_kinds_are_found_by_what_people_type(word: str, resource: str) -> None:
    assert REGISTRY.by_name(word)[0].resource == resource


def test_serving_kinds_are_listed_by_their_categories() -> None:
    for name in ("Service", "Configuration", "Revision", "Route"):
        kind = REGISTRY.by_version("serving.knative.dev/v1", name)
        assert kind is not None
        assert set(kind.categories) == {"all", "knative", "serving"}


@pytest.mark.parametrize(
    ("api_version", "name", "columns"),
    [
        (
            "serving.knative.dev/v1",
            "Service",
            ["URL", "LatestCreated", "LatestReady", "Ready", "Reason"],
        ),
        (
            "serving.knative.dev/v1",
            "Revision",
            [
                "Config Name",
                "Generation",
                "Ready",
                "Reason",
                "Actual Replicas",
                "Desired Replicas",
            ],
        ),
        ("serving.knative.dev/v1", "Route", ["URL", "Ready", "Reason"]),
        ("serving.knative.dev/v1beta1", "DomainMapping", ["URL", "Ready", "Reason"]),
    ],
)
def test_serving_kinds_have_knatives_columns(
    api_version: str, name: str, columns: list[str]
) -> None:
    kind = REGISTRY.by_version(api_version, name)
    assert kind is not None
    assert [column.name for column in kind.columns] == columns
