"""Users' own CRDs, and the CRDs shown for Knative's kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from knlocal.apiserver.custom_resources import CRD, CustomResources, fill_defaults, kinds_of
from knlocal.clock import SystemClock
from knlocal.resources.base import GroupKind
from knlocal.resources.catalog import registry
from knlocal.store.store import Store
from tests.apiserver.conftest import Api, eventually, needs_kubectl

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TABS = "/apis/stable.example.com/v1/namespaces/default/crontabs"


def crd(**changes: Any) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["cronSpec"],
                "properties": {
                    "cronSpec": {"type": "string", "pattern": "^[*0-9 /]+$"},
                    "image": {"type": "string", "default": "busybox"},
                    "replicas": {"type": "integer", "minimum": 1},
                    "anything": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            },
            "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
        },
    }
    paths = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    stored = {
        "name": "v1", "served": True, "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}, "scale": paths},
        "additionalPrinterColumns": [
            {"name": "Spec", "type": "string", "jsonPath": ".spec.cronSpec"}
        ],
    }  # fmt: skip
    older = {"name": "v1beta1", "served": True, "storage": False,
             "schema": {"openAPIV3Schema": schema}}  # fmt: skip
    names = {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"]}
    spec = {"group": "stable.example.com", "scope": "Namespaced", "names": names,
            "versions": [stored, older], **changes}  # fmt: skip
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"}, "spec": spec,
    }  # fmt: skip


def tab(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "stable.example.com/v1", "kind": "CronTab",
        "metadata": {"name": "mine"}, "spec": {"cronSpec": "* * *", **spec},
    }  # fmt: skip


@needs_kubectl
async def test_a_crd_is_served_pruned_defaulted_and_printed(api: Api) -> None:
    await api.apply(crd())
    await api.kubectl("wait", "--for=condition=Established", "crd/crontabs.stable.example.com")
    said = await api.refused("apply", "-f", "-", stdin=json.dumps(tab(colour="red")))
    assert 'unknown field "spec.colour"' in said
    await api.kubectl(
        "apply", "--validate=false", "-f", "-",
        stdin=json.dumps(tab(colour="red", anything={"x": {"y": 1}})),
    )  # fmt: skip
    obj = json.loads(await api.kubectl("get", "ct", "mine", "-o", "json"))
    assert obj["spec"] == {"cronSpec": "* * *", "image": "busybox", "anything": {"x": {"y": 1}}}
    assert (await api.kubectl("get", "ct")).split() == ["NAME", "SPEC", "mine", "*", "*", "*"]
    assert "-required-" in await api.kubectl("explain", "ct.spec")
    await api.kubectl("scale", "ct", "mine", "--replicas=3")
    older = json.loads(
        await api.kubectl("get", "crontabs.v1beta1.stable.example.com", "-o", "json")
    )
    assert older["items"][0]["apiVersion"] == "stable.example.com/v1beta1"
    assert older["items"][0]["spec"]["replicas"] == 3


async def test_its_schema_is_enforced(api: Api) -> None:
    await api.call("POST", CRDS, crd())
    for spec, words in (
        ({"replicas": 0}, "spec.replicas in body should be greater than or equal to 1"),
        ({"cronSpec": "daily"}, "should match '^[*0-9 /]+$'"),
        ({"cronSpec": 5}, "must be of type string"),
    ):
        status, answer, _ = await api.call("POST", TABS, tab(**spec))
        assert status == 422
        assert words in answer["message"]
    status, answer, _ = await api.call("POST", TABS, tab() | {"spec": {}})
    assert "spec.cronSpec: Required value" in answer["message"]


async def test_status_is_a_subresource_of_its_own(api: Api) -> None:
    await api.call("POST", CRDS, crd())
    await api.call("POST", TABS, tab() | {"status": {"replicas": 9}})
    _, answer, _ = await api.call("GET", f"{TABS}/mine")
    assert "status" not in answer
    answer["status"] = {"replicas": 2}
    answer["spec"]["cronSpec"] = "1"
    _, answer, _ = await api.call("PUT", f"{TABS}/mine/status", answer)
    assert (answer["status"], answer["spec"]["cronSpec"]) == ({"replicas": 2}, "* * *")
    assert answer["metadata"]["generation"] == 1


async def test_scale_reads_and_writes_where_the_crd_says(api: Api) -> None:
    body = crd()
    version = body["spec"]["versions"][0]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["pool"] = {
        "type": "object", "properties": {"size": {"type": "integer"}, "labels": {"type": "string"}}
    }  # fmt: skip
    version["subresources"]["scale"] = {
        "specReplicasPath": ".spec.pool.size", "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".spec.pool.labels",
    }  # fmt: skip
    await api.call("POST", CRDS, body)
    await api.call("POST", TABS, tab(pool={"size": 2, "labels": "a=b"}))
    _, scale, _ = await api.call("GET", f"{TABS}/mine/scale")
    assert (scale["spec"], scale["status"]) == ({"replicas": 2}, {"replicas": 0, "selector": "a=b"})
    scale["spec"]["replicas"] = 5
    await api.call("PUT", f"{TABS}/mine/scale", scale)
    _, stored, _ = await api.call("GET", f"{TABS}/mine")
    assert stored["spec"]["pool"] == {"size": 5, "labels": "a=b"}


async def test_a_changed_crd_serves_its_new_versions(api: Api) -> None:
    _, made, _ = await api.call("POST", CRDS, crd())
    _, mine, _ = await api.call("POST", TABS, tab())
    made["spec"]["versions"] = made["spec"]["versions"][:1]
    made["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"][
        "extra"
    ] = {"type": "string"}
    _, current, _ = await api.call("GET", f"{CRDS}/crontabs.stable.example.com")
    made["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
    status, answer, _ = await api.call("PUT", f"{CRDS}/crontabs.stable.example.com", made)
    assert status == 200, answer
    mine["spec"]["extra"] = "yes"
    _, answer, _ = await api.call("PUT", f"{TABS}/mine", mine)
    assert answer["spec"]["extra"] == "yes"
    assert (await api.call("GET", TABS.replace("/v1/", "/v1beta1/")))[0] == 404


async def test_a_custom_object_is_only_replaced_by_who_knows_its_version(api: Api) -> None:
    await api.call("POST", CRDS, crd())
    _, made, _ = await api.call("POST", TABS, tab())
    version = made["metadata"].pop("resourceVersion")
    for path in (f"{TABS}/mine", f"{TABS}/mine/status"):
        status, answer, _ = await api.call("PUT", path, made)
        assert (status, answer["reason"]) == (422, "Invalid")
        assert answer["message"] == (
            'crontabs.stable.example.com "mine" is invalid: metadata.resourceVersion: '
            "Invalid value: 0x0: must be specified for an update"
        )
    made["metadata"]["resourceVersion"] = version
    assert (await api.call("PUT", f"{TABS}/mine", made))[0] == 200


async def test_a_deleted_crd_takes_its_objects_along(api: Api) -> None:
    await api.call("POST", CRDS, crd())
    await api.call("POST", TABS, tab())
    await api.call("DELETE", f"{CRDS}/crontabs.stable.example.com")
    kind = GroupKind("stable.example.com", "CronTab")
    await eventually(api.store, lambda: not api.store.list(kind))
    assert (await api.call("GET", TABS))[0] == 404


async def test_crds_and_their_objects_survive_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "state.sqlite"
    store = Store(registry(), SystemClock(), file)
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    custom = CustomResources(store)
    custom.start()
    store.create(crd())
    obj = tab()
    obj["metadata"]["namespace"] = "default"
    store.create(obj)
    store.close()
    again = Store(registry(), SystemClock(), file)
    CustomResources(again).start()
    assert again.registry.by_path("stable.example.com", "v1", "crontabs")
    assert again.list(GroupKind("stable.example.com", "CronTab"))
    again.close()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"group": "other.example.com"}, 'must be spec.names.plural+"."+spec.group'),
        ({"scope": "Somewhere"}, 'Unsupported value: "Somewhere"'),
        ({"versions": []}, "must have exactly one version marked as storage version"),
        ({"versions": [{"name": "v1", "served": True, "storage": True}]}, "schemas are required"),
    ],
)
async def test_a_crd_that_makes_no_sense_is_refused(
    api: Api, changes: dict[str, Any], words: str
) -> None:
    status, answer, _ = await api.call("POST", CRDS, crd(**changes))
    assert status == 422
    assert words in answer["message"]


async def test_knatives_own_kinds_cannot_be_redefined(api: Api) -> None:
    own = api.store.get(CRD, "", "services.serving.knative.dev")
    body = {**own, "spec": {**own["spec"], "versions": own["spec"]["versions"][:1]}}
    status, _, _ = await api.call("PUT", f"{CRDS}/services.serving.knative.dev", body)
    assert status == 200
    assert (await api.call("GET", "/apis/serving.knative.dev/v1/services"))[0] == 200


async def test_every_custom_kind_is_shown_as_an_established_crd(api: Api) -> None:
    shown = {obj["metadata"]["name"]: obj for obj in api.store.list(CRD)}
    for kind in api.store.registry:
        if kind.is_custom:
            served = shown[kind.resource]["spec"]["versions"]
            assert kind.version in {version["name"] for version in served}
            assert "$ref" not in json.dumps(served)
    assert kinds_of(shown["services.serving.knative.dev"])[0].kind == "Service"


def test_defaults_fill_only_what_is_missing() -> None:
    schema = {
        "properties": {
            "a": {"default": {"x": 1}, "properties": {"y": {"default": 2}}},
            "items": {"items": {"properties": {"z": {"default": 3}}}},
            "map": {"additionalProperties": {"properties": {"w": {"default": 4}}}},
        }
    }
    value: dict[str, Any] = {"items": [{}, {"z": 0}], "map": {"k": {}}}
    fill_defaults(value, schema)
    assert value == {
        "a": {"x": 1, "y": 2}, "items": [{"z": 3}, {"z": 0}], "map": {"k": {"w": 4}},
    }  # fmt: skip
