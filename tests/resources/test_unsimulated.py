from __future__ import annotations

from typing import Any

import pytest

from knlocal.resources import unsimulated


def service(spec: dict[str, Any], annotations: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello"},
        "spec": {"template": {"metadata": {"annotations": annotations or {}}, "spec": spec}},
    }


@pytest.mark.parametrize(
    ("spec", "paths"),
    [
        ({"containers": [{"image": "x"}]}, []),
        ({"nodeSelector": {"a": "b"}, "tolerations": []}, ["nodeSelector"]),
        ({"runtimeClassName": "gvisor", "hostNetwork": True}, ["runtimeClassName", "hostNetwork"]),
        ({"schedulerName": "default-scheduler", "priority": 0}, []),
        (
            {"containers": [{"resources": {"limits": {"cpu": "1", "ephemeral-storage": "1Gi"}}}]},
            ["containers[0].resources.limits.ephemeral-storage"],
        ),
        (
            {
                "containers": [
                    {"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}},
                    {"securityContext": {"seccompProfile": {"type": "Localhost"}}},
                ]
            },
            ["containers[1].securityContext.seccompProfile"],
        ),
    ],
)
def test_fields_without_effect_are_named(spec: dict[str, Any], paths: list[str]) -> None:
    found = unsimulated.of(service(spec))
    assert [entry.path for entry in found] == [f"spec.template.spec.{path}" for path in paths]
    assert all(entry.why for entry in found)


def test_annotations_without_effect_are_named() -> None:
    found = unsimulated.of(
        service(
            {},
            {
                "autoscaling.knative.dev/class": "hpa.autoscaling.knative.dev",
                "networking.knative.dev/certificate.class": "own",
                "autoscaling.knative.dev/min-scale": "1",
                "queue.sidecar.serving.knative.dev/cpu-resource-request": "1",
            },
        )
    )
    prefix = "spec.template.metadata.annotations"
    assert [entry.path for entry in found] == [
        f"{prefix}.networking.knative.dev/certificate.class",
        f"{prefix}.queue.sidecar.serving.knative.dev/cpu-resource-request",
    ]


def test_whole_kinds_without_effect_are_named() -> None:
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {}}
    assert [entry.path for entry in unsimulated.of(policy)] == [""]
    assert unsimulated.of({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}) == []


@pytest.mark.parametrize("type_", ["ClusterIP", "NodePort", "LoadBalancer"])
def test_a_service_opens_no_port_of_the_machine(type_: str) -> None:
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"type": type_, "selector": {"app": "web"}, "ports": [{"port": 80}]},
    }  # fmt: skip
    found = [field.path for field in unsimulated.of(service)]
    assert found == ([] if type_ == "ClusterIP" else ["spec.type"])
    del service["spec"]["selector"]  # type: ignore[attr-defined]  # knlocal's own gateway
    assert unsimulated.of(service) == []


@pytest.mark.parametrize(
    ("container", "paths"),
    [
        ({"resources": {"limits": {"cpu": "1", "memory": "64Mi"}}},
         ["resources.limits.memory", "resources.limits.cpu"]),
        ({"resources": {"requests": {"cpu": "1"}}}, []),
        ({"volumeMounts": [{"name": "c", "mountPath": "/etc/c"}]}, ["volumeMounts"]),
        ({"volumeMounts": [{"name": "t",
                            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}, []),
        ({"securityContext": {"readOnlyRootFilesystem": True, "privileged": False}},
         ["securityContext.readOnlyRootFilesystem"]),
        ({"securityContext": {"capabilities": {"drop": ["ALL"]}}}, []),
        ({"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}},
         ["securityContext.capabilities"]),
        ({"tty": True, "stdin": True}, ["tty", "stdin"]),
    ],
)  # fmt: skip
def test_local_processes_lack_what_containers_have(
    container: dict[str, Any], paths: list[str]
) -> None:
    obj = service({"containers": [container], "dnsPolicy": "ClusterFirst"})
    assert unsimulated.of(obj) == []
    found = [field.path for field in unsimulated.of(obj, processes=True)]
    assert found == [f"spec.template.spec.containers[0].{path}" for path in paths]


def test_local_processes_resolve_names_as_the_machine_does() -> None:
    obj = service({"containers": [{}], "dnsPolicy": "None", "hostAliases": [{"ip": "192.0.2.1"}]})
    found = [field.path for field in unsimulated.of(obj, processes=True)]
    assert found == ["spec.template.spec.hostAliases", "spec.template.spec.dnsPolicy"]
