"""Server-side apply and managed fields."""

from __future__ import annotations

import json
from typing import Any

import pytest

from knlocal.resources.base import GroupKind
from tests.apiserver.conftest import (
    Api,
    config_map,
    deployment,
    knative_service,
    needs_kubectl,
)

APPLY = "application/apply-patch+yaml"
DEPLOYMENT = "/apis/apps/v1/namespaces/default/deployments/web"
CONFIG_MAP = "/api/v1/namespaces/default/configmaps/one"


async def apply(
    api: Api, path: str, body: Any, manager: str, *, force: bool = False
) -> tuple[int, Any]:
    query = f"fieldManager={manager}" + ("&force=true" if force else "")
    status, answer, _ = await api.call("PATCH", f"{path}?{query}", body, media=APPLY)
    return status, answer


def managers(answer: dict[str, Any]) -> set[tuple[str, str]]:
    return {(e["manager"], e["operation"]) for e in answer["metadata"].get("managedFields", [])}


def fields_of(answer: dict[str, Any], manager: str) -> dict[str, Any]:
    for entry in answer["metadata"]["managedFields"]:
        if entry["manager"] == manager:
            found: dict[str, Any] = entry["fieldsV1"]
            return found
    return {}


async def test_apply_creates_then_merges_and_records_who_owns_what(api: Api) -> None:
    status, answer = await apply(api, CONFIG_MAP, config_map(a="1", b="2"), "alice")
    assert status == 201
    assert fields_of(answer, "alice") == {"f:data": {"f:a": {}, "f:b": {}}}
    status, answer = await apply(api, CONFIG_MAP, config_map(c="3"), "bob")
    assert (status, answer["data"]) == (200, {"a": "1", "b": "2", "c": "3"})
    assert managers(answer) == {("alice", "Apply"), ("bob", "Apply")}


async def test_applying_the_same_again_changes_nothing(api: Api) -> None:
    await apply(api, DEPLOYMENT, deployment(), "alice")
    version = api.store.version
    status, _ = await apply(api, DEPLOYMENT, deployment(), "alice")
    assert (status, api.store.version) == (200, version)


async def test_what_a_manager_lets_go_is_removed_unless_others_hold_it(api: Api) -> None:
    await apply(api, CONFIG_MAP, config_map(a="1", b="2", c="3"), "alice")
    await apply(api, CONFIG_MAP, config_map(b="2"), "bob")
    _, answer = await apply(api, CONFIG_MAP, config_map(c="3"), "alice")
    assert answer["data"] == {"b": "2", "c": "3"}


async def test_list_items_are_owned_by_their_keys(api: Api) -> None:
    first = deployment()
    first["spec"]["template"]["spec"]["containers"].append({"name": "side", "image": "side:1"})
    await apply(api, DEPLOYMENT, first, "alice")
    second = deployment()
    second["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": 80}]
    _, answer = await apply(api, DEPLOYMENT, second, "alice")
    [container] = answer["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "main"
    owned = fields_of(answer, "alice")["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert 'k:{"containerPort":80,"protocol":"TCP"}' in owned['k:{"name":"main"}']["f:ports"]


async def test_another_value_for_anothers_field_is_a_conflict_with_causes(api: Api) -> None:
    await apply(api, DEPLOYMENT, deployment(), "alice")
    changed = deployment(replicas=5)
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = "nginx:9"
    status, answer = await apply(api, DEPLOYMENT, changed, "bob")
    assert (status, answer["reason"]) == (409, "Conflict")
    assert answer["message"] == (
        'Apply failed with 2 conflicts: conflicts with "alice":\n- .spec.replicas\n'
        '- .spec.template.spec.containers[name="main"].image'
    )
    assert answer["details"]["causes"][0] == {
        "reason": "FieldManagerConflict", "message": 'conflict with "alice"',
        "field": ".spec.replicas",
    }  # fmt: skip
    status, answer = await apply(api, DEPLOYMENT, changed, "bob", force=True)
    assert (status, answer["spec"]["replicas"]) == (200, 5)
    assert "f:replicas" not in fields_of(answer, "alice")["f:spec"]
    # The same value is shared, not fought over.
    status, answer = await apply(api, DEPLOYMENT, changed, "alice")
    assert status == 200
    assert "f:replicas" in fields_of(answer, "bob")["f:spec"]


async def test_an_update_takes_over_what_it_changes(api: Api) -> None:
    await apply(api, CONFIG_MAP, config_map(a="1", b="2"), "alice")
    patch = {"data": {"a": "9"}}
    path = f"{CONFIG_MAP}?fieldManager=editor"
    _, answer, _ = await api.call("PATCH", path, patch, media="application/merge-patch+json")
    assert fields_of(answer, "editor") == {"f:data": {"f:a": {}}}
    status, answer = await apply(api, CONFIG_MAP, config_map(a="1"), "alice")
    assert status == 409
    assert 'conflict with "editor" using v1 at ' in answer["message"]


async def test_maps_and_sets_of_knative_kinds_merge_too(api: Api) -> None:
    path = "/apis/serving.knative.dev/v1/namespaces/default/services/hello"
    one = knative_service()
    one["metadata"]["labels"] = {"a": "1"}
    status, answer = await apply(api, path, one, "alice")
    assert status == 201
    # What webhooks add belongs to nobody.
    assert "f:annotations" not in fields_of(answer, "alice").get("f:metadata", {})
    two = {"apiVersion": one["apiVersion"], "kind": "Service",
           "metadata": {"name": "hello", "labels": {"b": "2"}}}  # fmt: skip
    _, answer = await apply(api, path, two, "bob")
    assert answer["metadata"]["labels"] == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("body", "query", "status", "words"),
    [
        (config_map(), "", 422, "fieldManager: Required value"),
        (config_map() | {"kind": ""}, "fieldManager=a", 400, "kind must be set"),
        (b"a: [", "fieldManager=a", 400, "error decoding YAML"),
        (config_map("two"), "fieldManager=a", 400, "does not match the name on the URL"),
        (config_map() | {"data": {"a": 1}}, "fieldManager=a", 422, "must be of type string"),
        ({**config_map(), "x": 1}, "fieldManager=a&fieldValidation=Strict", 400, 'field "x"'),
    ],
)
async def test_an_apply_patch_is_checked(
    api: Api, body: Any, query: str, status: int, words: str
) -> None:
    got, answer, _ = await api.call("PATCH", f"{CONFIG_MAP}?{query}", body, media=APPLY)
    assert got == status, answer
    assert words in answer["message"]


async def test_yaml_is_the_language_of_apply_patches(api: Api) -> None:
    text = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\ndata: {day: 2026-01-01x}\n"
    status, answer = await apply(api, CONFIG_MAP, text, "alice")
    assert (status, answer["data"]) == (201, {"day": "2026-01-01x"})


async def test_managed_fields_can_be_cleared(api: Api) -> None:
    await apply(api, CONFIG_MAP, config_map(), "alice")
    patch = {"metadata": {"managedFields": [{}]}}
    _, answer, _ = await api.call("PATCH", CONFIG_MAP, patch, media="application/merge-patch+json")
    assert "managedFields" not in answer["metadata"]


@needs_kubectl
async def test_kubectl_moves_from_client_side_to_server_side(api: Api) -> None:
    await api.apply(config_map(a="1", b="2"), deployment())
    for obj in (config_map(a="5"), deployment(replicas=3)):
        await api.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(obj))
    shown = await api.kubectl("get", "cm", "one", "-o", "json", "--show-managed-fields")
    answer = json.loads(shown)
    assert answer["data"] == {"a": "5"}
    assert ("kubectl-client-side-apply", "Update") not in managers(answer)


@needs_kubectl
async def test_kubectl_reports_conflicts_and_forces(api: Api) -> None:
    text = json.dumps(deployment())
    await api.kubectl("apply", "--server-side", "-f", "-", stdin=text)
    await api.kubectl("scale", "deploy", "web", "--replicas=7")
    said = await api.refused("apply", "--server-side", "-f", "-", stdin=text)
    assert "conflict" in said
    assert ".spec.replicas" in said
    await api.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
    shown = await api.kubectl("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}")
    assert shown == "2"


async def test_who_writes_a_status_owns_its_fields_there(api: Api) -> None:
    path = "/apis/serving.knative.dev/v1/namespaces/default/services/hello"
    api.store.create(knative_service())

    async def patch(manager: str, url: str) -> dict[str, Any]:
        _, answer, _ = await api.call(
            "PATCH", f"{path}/status?fieldManager={manager}", {"status": {"url": url}},
            media="application/merge-patch+json",
        )  # fmt: skip
        found: dict[str, Any] = answer
        return found

    answer = await patch("one", "http://a")
    [entry] = answer["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"], entry["subresource"]) == (
        "one", "Update", "status",
    )  # fmt: skip
    assert entry["fieldsV1"] == {"f:status": {"f:url": {}}}
    answer = await patch("two", "http://b")
    assert managers(answer) == {("two", "Update")}
    wanted = {
        "apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "hello"},
        "status": {"url": "http://c"},
    }  # fmt: skip
    status, answer = await apply(api, f"{path}/status", wanted, "three")
    assert (status, answer["reason"]) == (409, "Conflict")
    assert 'conflict with "two" with subresource "status"' in answer["message"]
    status, answer = await apply(api, f"{path}/status", wanted, "three", force=True)
    assert (status, answer["status"]["url"]) == (200, "http://c")
    assert managers(answer) == {("three", "Apply")}


async def test_sending_the_same_again_later_changes_nothing(api: Api) -> None:
    """What was sent lacks the defaults that were filled in: once they are, nothing differs."""
    media = "application/merge-patch+json"
    path = "/apis/serving.knative.dev/v1/namespaces/default/services"
    _, made, _ = await api.call("POST", path, knative_service())

    def date_back(obj: dict[str, Any]) -> None:
        for entry in obj["metadata"]["managedFields"]:
            entry["time"] = "2020-01-01T00:00:00Z"

    kind = GroupKind("serving.knative.dev", "Service")
    before = api.store.modify(kind, "default", "hello", date_back)
    _, after, _ = await api.call("PATCH", f"{path}/hello", knative_service(), media=media)
    assert after["metadata"] == before["metadata"]
    assert after["metadata"]["uid"] == made["metadata"]["uid"]
