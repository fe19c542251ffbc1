"""Discovery, OpenAPI, version, health."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.conftest import Api, needs_kubectl


async def test_the_version_is_a_recent_kubernetes(api: Api) -> None:
    status, answer, _ = await api.call("GET", "/version?timeout=32s")
    assert status == 200
    assert (answer["major"], int(answer["minor"]) >= 32) == ("1", True)
    assert answer["gitVersion"] == f"v1.{answer['minor']}.0"


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/readyz/ping"])
async def test_health_says_ok(api: Api, path: str) -> None:
    status, answer, response = await api.call("GET", path)
    assert (status, answer) == (200, "ok")
    assert response.headers["Content-Type"].startswith("text/plain")


async def test_a_verbose_health_check_lists_what_was_checked(api: Api) -> None:
    for name in ("healthz", "livez", "readyz"):
        _, text, _ = await api.call("GET", f"/{name}?verbose")
        assert text == f"[+]ping ok\n[+]log ok\n[+]store ok\n{name} check passed\n"
    assert (await api.call("GET", "/readyz/nosuch"))[0] == 404


async def test_old_discovery_lists_core_first_and_every_resource(api: Api) -> None:
    _, versions, _ = await api.call("GET", "/api")
    assert (versions["kind"], versions["versions"]) == ("APIVersions", ["v1"])
    _, groups, _ = await api.call("GET", "/apis")
    assert groups["kind"] == "APIGroupList"
    serving = next(g for g in groups["groups"] if g["name"] == "serving.knative.dev")
    assert serving["preferredVersion"]["version"] == "v1"
    autoscaling = next(g for g in groups["groups"] if g["name"] == "autoscaling")
    assert [v["version"] for v in autoscaling["versions"]] == ["v2", "v1"]
    _, resources, _ = await api.call("GET", "/apis/serving.knative.dev/v1")
    rows = {row["name"]: row for row in resources["resources"]}
    assert rows["services"]["shortNames"] == ["kservice", "ksvc"]
    assert "all" in rows["services"]["categories"]
    assert rows["services/status"]["kind"] == "Service"
    _, core, _ = await api.call("GET", "/api/v1")
    names = {row["name"] for row in core["resources"]}
    assert {"pods/log", "pods/exec", "pods/portforward", "pods/eviction"} <= names
    _, apps, _ = await api.call("GET", "/apis/apps/v1")
    scale = next(row for row in apps["resources"] if row["name"] == "deployments/scale")
    assert (scale["group"], scale["kind"]) == ("autoscaling", "Scale")


@pytest.mark.parametrize("version", ["v2", "v2beta1"])
async def test_aggregated_discovery_says_its_full_type(api: Api, version: str) -> None:
    accept = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
    for path, groups in (("/api", {""}), ("/apis", {"apps", "serving.knative.dev"})):
        _, answer, response = await api.call(
            "GET", path, headers={"Accept": f"{accept},application/json"}
        )
        assert response.headers["Content-Type"] == accept
        assert answer["apiVersion"] == f"apidiscovery.k8s.io/{version}"
        assert groups <= {item["metadata"].get("name", "") for item in answer["items"]}


@pytest.mark.parametrize("path", ["/apis/nothing.example.com", "/apis/apps/v9", "/x", "/api/v2"])
async def test_what_is_not_there_is_a_plain_404(api: Api, path: str) -> None:
    status, answer, response = await api.call("GET", path)
    assert status == 404
    assert answer.strip() == "404 page not found"
    assert response.headers["Content-Type"].startswith("text/plain")


async def test_openapi_v3_has_paths_for_validation_and_schemas_for_explain(api: Api) -> None:
    _, index, _ = await api.call("GET", "/openapi/v3")
    for place, kind in (
        ("api/v1", "Pod"),
        ("apis/apps/v1", "Deployment"),
        ("apis/serving.knative.dev/v1", "Service"),
    ):
        url = index["paths"][place]["serverRelativeURL"]
        _, document, _ = await api.call("GET", url)
        patches = [
            operation
            for item in document["paths"].values()
            for method, operation in item.items()
            if method == "patch" and operation["x-kubernetes-group-version-kind"]["kind"] == kind
        ]
        names = {parameter["name"] for parameter in patches[0]["parameters"]}
        assert "fieldValidation" in names
        _check_references(document, document["components"]["schemas"])


def _check_references(value: Any, schemas: dict[str, Any]) -> None:
    if isinstance(value, dict):
        target = value.get("$ref")
        if isinstance(target, str):
            assert target.rpartition("/")[2] in schemas, target
        for item in value.values():
            _check_references(item, schemas)
    elif isinstance(value, list):
        for item in value:
            _check_references(item, schemas)


async def test_openapi_v2_is_json_or_protobuf(api: Api) -> None:
    _, swagger, _ = await api.call("GET", "/openapi/v2")
    assert swagger["swagger"] == "2.0"
    assert "io.k8s.api.core.v1.Pod" in swagger["definitions"]
    accept = {"Accept": "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"}
    status, answer, response = await api.call("GET", "/openapi/v2", headers=accept)
    assert status == 200
    assert response.headers["Content-Type"].endswith("spec.v2.v1.0+protobuf")
    assert "io.k8s.api.core.v1.Pod" in answer
    status, answer, _ = await api.call("GET", "/openapi/v2", headers={"Accept": "image/png"})
    assert (status, answer["reason"]) == (406, "NotAcceptable")


async def test_documents_cannot_be_posted_to(api: Api) -> None:
    status, answer, _ = await api.call("POST", "/version", {})
    assert (status, answer["reason"]) == (405, "MethodNotAllowed")


@needs_kubectl
async def test_kubectl_finds_kinds_by_their_many_names(api: Api) -> None:
    listed = await api.kubectl("api-resources", "-o", "name")
    assert {"pods", "deployments.apps", "services.serving.knative.dev"} <= set(listed.split())
    for word in ("ksvc", "configuration", "pingsource", "sinkbindings.sources.knative.dev",
                 "service.serving.knative.dev", "services"):  # fmt: skip
        assert "No resources found" in (await api.run("kubectl", "get", word)).err
    assert "the server doesn't have a resource type" in await api.refused("get", "nosuch")


@needs_kubectl
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("pods.spec.containers.env", "List of environment variables"),
        ("ksvc.spec.template", "GROUP:      serving.knative.dev"),
        ("deployment.spec.strategy.rollingUpdate.maxSurge", "<IntOrString>"),
        ("broker.spec.delivery", "<Object>"),
        ("crd.spec.versions.schema", "CustomResourceValidation"),
        ("ksvc", "Code behind a URL"),
        ("revision", "Group and version of this object's kind."),
    ],
)
async def test_kubectl_explains_fields(api: Api, path: str, words: str) -> None:
    assert words in await api.kubectl("explain", path)


@needs_kubectl
async def test_kubectl_shows_cluster_info(api: Api) -> None:
    assert api.server.url in await api.kubectl("cluster-info")
    assert "Server Version: v1." in await api.kubectl("version")
