from __future__ import annotations

import copy
from typing import Any

import pytest

CREATED = {
    "serving.knative.dev/creator": "kubernetes-admin",
    "serving.knative.dev/lastModifier": "kubernetes-admin",
}


def test_an_image_is_all_that_a_service_needs(api: Any) -> None:
    obj, errors = api.admit(api.service({"image": "busybox"}))
    assert not errors
    assert obj["metadata"]["annotations"] == CREATED
    assert obj["spec"] == {
        "template": {
            "spec": {
                "containerConcurrency": 0,
                "timeoutSeconds": 300,
                "enableServiceLinks": False,
                "containers": [
                    {
                        "name": "user-container",
                        "image": "busybox",
                        "resources": {},
                        "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 0}},
                    }
                ],
            }
        },
        "traffic": [{"latestRevision": True, "percent": 100}],
    }


def test_noise_that_clients_send_changes_nothing(api: Any) -> None:
    plain, _ = api.admit(api.service({"image": "busybox"}))
    noisy = api.service(
        {
            "image": "busybox",
            "name": "",
            "resources": {"limits": {}, "requests": {}},
            "env": [],
            "args": [],
            "ports": [],
        },
        volumes=[],
    )
    noisy["metadata"]["creationTimestamp"] = None
    noisy["spec"]["template"]["metadata"] = {"creationTimestamp": None, "labels": {}}
    admitted, errors = api.admit(noisy)
    assert not errors
    assert admitted == plain


def test_defaulting_twice_is_defaulting_once(api: Any) -> None:
    once, _ = api.admit(
        api.service({"image": "app-a", "ports": [{"name": "h2c"}]}, {"image": "app-b"})
    )
    twice, errors = api.admit(once, api.context(old=once))
    assert not errors
    assert twice == once


@pytest.mark.parametrize(
    ("spec", "defaults", "expected"),
    [
        ({}, {}, {"timeoutSeconds": 300}),
        ({"timeoutSeconds": 0}, {}, {"timeoutSeconds": 300}),
        ({"timeoutSeconds": 20}, {}, {"timeoutSeconds": 20}),
        (
            {"timeoutSeconds": 400},
            {},
            {"timeoutSeconds": 400, "responseStartTimeoutSeconds": 300},
        ),
        (
            {},
            {"revision-timeout-seconds": "100", "revision-idle-timeout-seconds": "30"},
            {"timeoutSeconds": 100, "idleTimeoutSeconds": 30},
        ),
        (
            {"timeoutSeconds": 20},
            {"revision-idle-timeout-seconds": "30"},
            {"timeoutSeconds": 20},
        ),
        ({}, {"container-concurrency": "7"}, {"containerConcurrency": 7}),
        ({"containerConcurrency": 0}, {"container-concurrency": "7"}, {"containerConcurrency": 0}),
        ({}, {"enable-service-links": "true"}, {"enableServiceLinks": True}),
    ],
)
def test_limits_come_from_config_defaults(
    api: Any, spec: dict[str, Any], defaults: dict[str, str], expected: dict[str, Any]
) -> None:
    obj, errors = api.admit(api.service(**spec), api.context(defaults=defaults))
    assert not errors
    found = api.template_spec(obj)
    fields = {"timeoutSeconds": 300, "containerConcurrency": 0, "enableServiceLinks": False}
    assert {k: v for k, v in found.items() if k != "containers"} == {**fields, **expected}


def test_enable_service_links_default_means_unset(api: Any) -> None:
    obj, _ = api.admit(api.service(), api.context(defaults={"enable-service-links": "default"}))
    assert "enableServiceLinks" not in api.template_spec(obj)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([""], ["user-container"]),
        (["mine"], ["mine"]),
        (["", ""], ["user-container-0", "user-container-1"]),
        (["", "user-container-0"], ["user-container-1", "user-container-0"]),
    ],
)
def test_unnamed_containers_are_named(api: Any, names: list[str], expected: list[str]) -> None:
    containers = [{"image": "app-a", "name": name} for name in names]
    containers[0]["ports"] = [{"containerPort": 8080}]
    obj, _ = api.admit(api.service(*containers))
    assert [c["name"] for c in api.template_spec(obj)["containers"]] == expected


def test_the_container_name_may_be_a_template_over_the_parent(api: Any) -> None:
    ctx = api.context(defaults={"container-name-template": "{{.Name}}-{{.Namespace}}"})
    obj, _ = api.admit(api.service(), ctx)
    assert api.template_spec(obj)["containers"][0]["name"] == "hello-default"


def test_init_containers_are_named(api: Any) -> None:
    ctx = api.context(features={"kubernetes.podspec-init-containers": "enabled"})
    one, errors = api.admit(api.service(initContainers=[{"image": "app-i"}]), ctx)
    assert not errors
    assert api.template_spec(one)["initContainers"][0]["name"] == "init-container"
    two, _ = api.admit(api.service(initContainers=[{"image": "app-i"}, {"image": "app-j"}]), ctx)
    names = [c["name"] for c in api.template_spec(two)["initContainers"]]
    assert names == ["init-container-0", "init-container-1"]


def test_resources_are_filled_in_and_spelt_canonically(api: Any) -> None:
    ctx = api.context(defaults={"revision-cpu-request": "0.1", "revision-memory-limit": "1024Mi"})
    given = {"requests": {"memory": "0.5Gi"}, "limits": {"cpu": 2, "memory": "1Gi"}}
    obj, errors = api.admit(api.service({"image": "app-a", "resources": given}), ctx)
    assert not errors
    assert api.template_spec(obj)["containers"][0]["resources"] == {
        "requests": {"cpu": "100m", "memory": "512Mi"},
        "limits": {"cpu": "2", "memory": "1Gi"},
    }


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        (None, {"tcpSocket": {"port": 0}, "successThreshold": 1}),
        ({"initialDelaySeconds": 3}, {"initialDelaySeconds": 3, "tcpSocket": {"port": 0}}),
        ({"httpGet": {"path": "/x"}}, {"httpGet": {"path": "/x", "port": 0}}),
        (
            {"periodSeconds": 5, "exec": {"command": ["a"]}},
            {
                "periodSeconds": 5,
                "exec": {"command": ["a"]},
                "failureThreshold": 3,
                "timeoutSeconds": 1,
            },
        ),
        ({"grpc": {}}, {"grpc": {"port": 0, "service": ""}}),
        ({"tcpSocket": {"port": 80}, "successThreshold": 2}, {"tcpSocket": {"port": 80}}),
    ],
)
def test_the_readiness_probe_is_completed(
    api: Any, probe: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    container = {"image": "app-a", **({"readinessProbe": probe} if probe is not None else {})}
    obj, errors = api.admit(api.service(container))
    assert not errors
    threshold = (probe or {}).get("successThreshold", 1)
    found = api.template_spec(obj)["containers"][0]["readinessProbe"]
    assert found == {"successThreshold": threshold, **expected}


def test_only_the_container_with_ports_gets_a_probe(api: Any) -> None:
    obj, _ = api.admit(
        api.service({"image": "app-a", "ports": [{"containerPort": 80}]}, {"image": "app-b"})
    )
    first, second = api.template_spec(obj)["containers"]
    assert "readinessProbe" in first
    assert "readinessProbe" not in second


def test_mounts_are_read_only_unless_the_volume_is_made_for_writing(api: Any) -> None:
    mounts = [{"name": "s", "mountPath": "/s"}, {"name": "e", "mountPath": "/e"}]
    volumes = [{"name": "s", "secret": {"secretName": "x"}}, {"name": "e", "emptyDir": {}}]
    obj, errors = api.admit(
        api.service({"image": "app-a", "volumeMounts": mounts}, volumes=volumes)
    )
    assert not errors
    assert api.template_spec(obj)["containers"][0]["volumeMounts"] == [
        {"name": "s", "mountPath": "/s", "readOnly": True},
        {"name": "e", "mountPath": "/e"},
    ]


@pytest.mark.parametrize(
    ("flag", "port", "expected"),
    [
        ("disabled", 8080, None),
        (
            "enabled",
            8080,
            {
                "allowPrivilegeEscalation": False,
                "seccompProfile": {"type": "RuntimeDefault"},
                "capabilities": {"drop": ["ALL"]},
                "runAsNonRoot": True,
            },
        ),
        (
            "AllowRootBounded",
            80,
            {
                "allowPrivilegeEscalation": False,
                "seccompProfile": {"type": "RuntimeDefault"},
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            },
        ),
    ],
)
def test_secure_pod_defaults(
    api: Any, flag: str, port: int, expected: dict[str, Any] | None
) -> None:
    ctx = api.context(features={"secure-pod-defaults": flag})
    container = {"image": "app-a", "ports": [{"containerPort": port}]}
    obj, errors = api.admit(api.service(container), ctx)
    assert not errors
    assert api.template_spec(obj)["containers"][0].get("securityContext") == expected


def test_traffic_targets_are_completed(api: Any) -> None:
    targets = [{"percent": 100}, {"revisionName": "hello-00001", "tag": "old"}]
    obj, errors = api.admit(api.service(traffic=targets))
    assert not errors
    assert obj["spec"]["traffic"] == [
        {"percent": 100, "latestRevision": True},
        {"revisionName": "hello-00001", "tag": "old", "latestRevision": False, "percent": 0},
    ]


def test_the_last_modifier_changes_only_with_the_spec(api: Any) -> None:
    stored, _ = api.admit(api.service())
    labelled = copy.deepcopy(stored)
    labelled["metadata"]["labels"] = {"a": "b"}
    after, errors = api.admit(labelled, api.context(old=stored, user="somebody"))
    assert not errors
    assert after["metadata"]["annotations"] == CREATED
    changed = copy.deepcopy(stored)
    api.template_spec(changed)["containers"][0]["image"] = "other"
    after, errors = api.admit(changed, api.context(old=stored, user="somebody"))
    assert not errors
    assert after["metadata"]["annotations"]["serving.knative.dev/lastModifier"] == "somebody"
    assert after["metadata"]["annotations"]["serving.knative.dev/creator"] == "kubernetes-admin"


def test_owned_children_carry_no_user(api: Any) -> None:
    owned = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Route",
        "metadata": {
            "name": "hello",
            "namespace": "default",
            "ownerReferences": [{"apiVersion": "x/v1", "kind": "Y", "name": "z", "uid": "1"}],
        },
        "spec": {"traffic": [{"configurationName": "hello", "percent": 100}]},
    }
    obj, errors = api.admit(owned)
    assert not errors
    assert "annotations" not in obj["metadata"]
    assert obj["spec"]["traffic"][0]["latestRevision"] is True


def test_a_template_kept_by_name_is_not_defaulted_again(api: Any) -> None:
    stored, _ = api.admit(api.service(template={"name": "hello-one"}))
    ctx = api.context(old=stored, defaults={"revision-timeout-seconds": "77"})
    after, errors = api.admit(stored, ctx)
    assert not errors
    assert api.template_spec(after)["timeoutSeconds"] == 300


def test_a_domain_mapping_refers_to_its_own_namespace(api: Any) -> None:
    mapping = {
        "apiVersion": "serving.knative.dev/v1beta1",
        "kind": "DomainMapping",
        "metadata": {"name": "www.example.com", "namespace": "default"},
        "spec": {
            "ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello"}
        },
    }
    obj, errors = api.admit(mapping)
    assert not errors
    assert obj["spec"]["ref"]["namespace"] == "default"
    assert obj["metadata"]["annotations"] == CREATED


def test_a_stored_revision_is_never_defaulted_again(api: Any) -> None:
    revision = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {"name": "hello-00001", "namespace": "default"},
        "spec": {"containers": [{"image": "app-a", "name": "x"}]},
    }
    after, errors = api.admit(revision, api.context(old=revision))
    assert not errors
    assert after["spec"] == revision["spec"]
