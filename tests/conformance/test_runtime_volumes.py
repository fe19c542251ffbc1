"""Environment from objects, and everything that can be mounted."""

from __future__ import annotations

import urllib.parse
from typing import Any

import pytest

from tests.conformance.conftest import NAMESPACE, SERVING, Cluster, condition, name, service

pytestmark = pytest.mark.docker
CORE = f"/api/v1/namespaces/{NAMESPACE}"


@pytest.fixture(scope="module")
def made(cluster: Cluster) -> dict[str, Any]:
    """One Service with all kinds of environment and volumes."""
    cluster.must(
        "POST", f"{CORE}/configmaps", {"metadata": {"name": "settings"},
        "data": {"GREETING": "hi", "color": "blue", "shape": "round"}},
    )  # fmt: skip
    cluster.must(
        "POST", f"{CORE}/secrets", {"metadata": {"name": "keys"}, "stringData": {"KEY": "s3cret"}}
    )
    cluster.must("POST", f"{CORE}/serviceaccounts", {"metadata": {"name": "worker"}})
    cluster.must(
        "POST", f"{CORE}/persistentvolumeclaims",
        {"metadata": {"name": "claim"}, "spec": {"accessModes": ["ReadWriteOnce"],
         "resources": {"requests": {"storage": "1Gi"}}}},
    )  # fmt: skip
    mounts = {
        "config": "/v/config", "items": "/v/items", "secret": "/v/secret",
        "optional": "/v/optional",
        "empty": "/v/empty", "memory": "/v/memory", "projected": "/v/projected",
        "claim": "/v/claim",
    }  # fmt: skip
    container = {
        "env": [
            {"name": "COLOR", "valueFrom": {
                "configMapKeyRef": {"name": "settings", "key": "color"}}},
            {"name": "FROM_SECRET", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "KEY"}}},
            {"name": "NONE", "valueFrom": {
                "configMapKeyRef": {"name": "none", "key": "x", "optional": True}}},
            {"name": "BOTH", "value": "$(COLOR)-$(FROM_SECRET)-$$(COLOR)-$(UNKNOWN)"},
        ],
        "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "P_"},
                    {"secretRef": {"name": "keys"}}],
        "volumeMounts": [
            *({"name": n, "mountPath": p, **({"readOnly": True} if n in READ_ONLY else {})}
              for n, p in mounts.items()),
            {"name": "config", "mountPath": "/v/just-color", "subPath": "color", "readOnly": True},
        ],
    }  # fmt: skip
    volumes = [
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "items", "configMap": {"name": "settings",
                                        "items": [{"key": "shape", "path": "deep/down/shape"}]}},
        {"name": "secret", "secret": {"secretName": "keys", "defaultMode": 0o444}},
        {"name": "optional", "configMap": {"name": "none", "optional": True}},
        {"name": "empty", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "10M"}},
        {"name": "projected", "projected": {"sources": [
            {"configMap": {"name": "settings", "items": [{"key": "color", "path": "c"}]}},
            {"secret": {"name": "keys", "items": [{"key": "KEY", "path": "k"}]}},
            {"downwardAPI": {"items": [
                {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {"serviceAccountToken": {"path": "token", "audience": "me"}},
        ]}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}},
    ]  # fmt: skip
    return cluster.ready_service(
        service(
            name("volumes"), container=container,
            spec={"volumes": volumes, "serviceAccountName": "worker",
                  "securityContext": {"fsGroup": 65532}},
            annotations={"autoscaling.knative.dev/min-scale": "1"},
        )
    )  # fmt: skip


READ_ONLY = {"config", "items", "secret", "optional", "projected"}


def test_environment_comes_from_config_maps_and_secrets(
    cluster: Cluster, made: dict[str, Any]
) -> None:
    env = cluster.info(made)["env"]
    assert env["COLOR"] == "blue"
    assert env["FROM_SECRET"] == env["KEY"] == "s3cret"
    assert env["P_GREETING"] == "hi"
    assert env["BOTH"] == "blue-s3cret-$(COLOR)-$(UNKNOWN)"
    assert "NONE" not in env


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/v/config/color", "blue"), ("/v/items/deep/down/shape", "round"),
        ("/v/just-color", "blue"),
        ("/v/secret/KEY", "s3cret"), ("/v/projected/c", "blue"), ("/v/projected/k", "s3cret"),
    ],
)  # fmt: skip
def test_files_have_the_content_of_their_objects(
    cluster: Cluster, made: dict[str, Any], path: str, content: str
) -> None:
    assert cluster.call(made["status"]["url"], f"/cat?path={path}").text == content


def test_projected_volumes_tell_about_the_pod_and_hold_a_token(
    cluster: Cluster, made: dict[str, Any]
) -> None:
    url = made["status"]["url"]
    (pod,) = cluster.pods(made["metadata"]["name"])
    assert cluster.call(url, "/cat?path=/v/projected/name").text == pod["metadata"]["name"]
    assert cluster.call(url, "/cat?path=/v/projected/token").text.count(".") == 2


def test_an_optional_volume_of_nothing_is_an_empty_folder(
    cluster: Cluster, made: dict[str, Any]
) -> None:
    answer = cluster.call(made["status"]["url"], "/ls?path=/v/optional")
    assert [n for n in answer.json() if not n.startswith("..")] == []


def test_some_volumes_can_be_written_by_any_user_and_others_by_none(
    cluster: Cluster, made: dict[str, Any]
) -> None:
    paths = ("/v/empty", "/v/memory", "/v/claim", "/v/config", "/v/secret")
    query = urllib.parse.urlencode([("path", p) for p in paths])
    found = cluster.call(made["status"]["url"], f"/files?{query}").json()
    assert {p: found[p]["write"] == "ok" for p in paths} == dict(
        zip(paths, (True, True, True, False, False), strict=True)
    )


def test_a_changed_config_map_reaches_the_container(cluster: Cluster, made: dict[str, Any]) -> None:
    cluster.update(f"{CORE}/configmaps/settings", lambda it: it["data"].update(later="yes"))
    url = made["status"]["url"]
    cluster.until(lambda: cluster.call(url, "/cat?path=/v/config/later").text == "yes")


def test_what_is_not_there_keeps_the_pod_from_starting(cluster: Cluster) -> None:
    called = name("wants")
    ref = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "x"}}}]
    cluster.create_service(service(called, container={"env": ref}))

    def reason() -> Any:
        for pod in cluster.pods(called):
            for state in pod["status"].get("containerStatuses", []):
                if state["state"].get("waiting", {}).get("reason") == "CreateContainerConfigError":
                    return True
        return False

    cluster.until(reason, lambda: cluster.pods(called))
    assert condition(cluster.get(f"{SERVING}/services/{called}")).get("status") != "True"
    cluster.must("DELETE", f"{SERVING}/services/{called}")
