"""Defaults and tables of Kubernetes' own kinds (validation is tested through the API)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from knlocal.resources import schema
from knlocal.resources.base import GroupKind, Obj
from knlocal.resources.core import KINDS
from knlocal.resources.core.pod_printer import pod_state
from knlocal.resources.core.printers import PRINTERS
from knlocal.resources.kinds import AdmissionContext, Kind

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BY_NAME = {(kind.api_version, kind.kind): kind for kind in KINDS}


def kind_of(api_version: str, kind: str) -> Kind:
    return BY_NAME[api_version, kind]


def defaulted(api_version: str, kind: str, obj: Obj, old: Obj | None = None) -> Obj:
    found = kind_of(api_version, kind)
    assert found.default
    obj = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "a", "uid": "u"}, **obj}
    found.default(obj, AdmissionContext("me", NOW, old=old))
    return obj


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.api_version}-{kind.kind}")
def test_every_kind_has_a_schema_and_a_table(kind: Kind) -> None:
    properties = schema.resolve(kind.schema)["properties"]
    assert {"apiVersion", "kind", "metadata"} <= set(properties)
    assert kind.has_status <= ("status" in properties)
    obj = {"metadata": {"name": "a", "creationTimestamp": "2025-12-31T23:59:00Z"}}
    printer = PRINTERS.get(kind.group_kind)
    if printer is not None:
        assert len(printer.cells(obj, NOW)) == len(printer.columns)


def test_secrets_fold_string_data_and_have_a_type() -> None:
    obj = defaulted("v1", "Secret", {"stringData": {"a": "b"}, "data": {"c": "ZA=="}})
    assert (obj["type"], obj["data"]) == ("Opaque", {"a": "Yg==", "c": "ZA=="})
    assert "stringData" not in obj


def test_services_get_an_address_that_stays() -> None:
    obj = defaulted("v1", "Service", {"spec": {"ports": [{"port": 80}]}})
    spec = obj["spec"]
    assert spec["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert spec["clusterIP"].startswith("10.96.")
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    old = {"spec": {"clusterIP": "10.96.1.1"}}
    again = defaulted("v1", "Service", {"spec": {"ports": [{"port": 81}]}}, old)
    assert again["spec"]["clusterIP"] == "10.96.1.1"
    external = defaulted("v1", "Service", {"spec": {"type": "ExternalName"}})
    assert "clusterIP" not in external["spec"]


def test_containers_get_what_the_api_server_fills_in() -> None:
    container = {
        "name": "a", "image": "nginx", "ports": [{"containerPort": 1}],
        "readinessProbe": {"httpGet": {"port": 1}},
        "resources": {"limits": {"cpu": "1"}},
        "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    }  # fmt: skip
    volumes = [{"name": "v"}, {"name": "c", "configMap": {"name": "x"}}]
    obj = defaulted("v1", "Pod", {"spec": {"containers": [container], "volumes": volumes}})
    [filled] = obj["spec"]["containers"]
    assert filled["imagePullPolicy"] == "Always"
    assert filled["ports"] == [{"containerPort": 1, "protocol": "TCP"}]
    assert filled["readinessProbe"] == {
        "httpGet": {"port": 1, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
        "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
    }  # fmt: skip
    assert filled["resources"] == {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}
    assert filled["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert obj["spec"]["volumes"] == [
        {"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "x", "defaultMode": 420}}
    ]  # fmt: skip
    assert (obj["spec"]["restartPolicy"], obj["status"]["phase"]) == ("Always", "Pending")


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"), ("nginx:latest", "Always"), ("nginx:1", "IfNotPresent"),
        ("localhost:5000/a", "Always"), ("localhost:5000/a:1", "IfNotPresent"),
        ("a@sha256:1234", "IfNotPresent"),
    ],
)  # fmt: skip
def test_the_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    obj = defaulted("v1", "Pod", {"spec": {"containers": [{"name": "a", "image": image}]}})
    assert obj["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_jobs_select_their_pods_by_uid() -> None:
    obj = defaulted("batch/v1", "Job", {"spec": {"template": {"spec": {"containers": []}}}})
    assert obj["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}
    assert obj["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "a"
    assert (obj["spec"]["completions"], obj["spec"]["backoffLimit"]) == (1, 6)
    assert "restartPolicy" not in obj["spec"]["template"]["spec"]


def test_autoscalers_speak_both_versions() -> None:
    old = kind_of("autoscaling/v1", "HorizontalPodAutoscaler")
    assert old.to_storage
    assert old.from_storage
    v1 = {"apiVersion": "autoscaling/v1", "kind": old.kind, "metadata": {"name": "a"},
          "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}}  # fmt: skip
    v2 = old.to_storage(dict(v1, spec=dict(v1["spec"])))
    assert v2["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"] == 50
    assert old.from_storage(v2) == v1


RUNNING = {"state": {"running": {}}, "ready": True, "name": "a"}


@pytest.mark.parametrize(
    ("pod", "state"),
    [
        ({"status": {"phase": "Pending"}}, "Pending"),
        ({"status": {"phase": "Running", "containerStatuses": [RUNNING]}}, "Running"),
        ({"status": {"phase": "Running", "containerStatuses": [
            {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}, "CrashLoopBackOff"),
        ({"status": {"phase": "Failed", "containerStatuses": [
            {"state": {"terminated": {"exitCode": 3}}}]}}, "ExitCode:3"),
        ({"status": {"phase": "Succeeded", "containerStatuses": [
            {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}}, "Completed"),
        ({"status": {"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "state": {"running": {}}}]},
          "spec": {"initContainers": [{"name": "i"}, {"name": "j"}]}}, "Init:0/2"),
        ({"status": {"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]},
          "spec": {"initContainers": [{"name": "i"}]}}, "Init:Error"),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
          "status": {"phase": "Running"}}, "Terminating"),
        ({"status": {"phase": "Failed", "reason": "Evicted"}}, "Evicted"),
    ],
)  # fmt: skip
def test_a_pods_state_is_told_in_one_word(pod: Obj, state: str) -> None:
    assert pod_state({"metadata": {}, **pod}) == state


@pytest.mark.parametrize(
    ("group", "kind", "obj", "cells"),
    [
        ("apps", "Deployment", {"spec": {"replicas": 3}, "status": {
            "readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}},
         ["a", "2/3", 3, 2, "60s"]),
        ("", "Service", {"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "ports": [
            {"port": 80, "nodePort": 30000, "protocol": "TCP"}]}},
         ["a", "LoadBalancer", "10.0.0.1", "<pending>", "80:30000/TCP", "60s"]),
        ("", "Service", {"spec": {"type": "ExternalName", "externalName": "x.example.com"}},
         ["a", "ExternalName", "<none>", "x.example.com", "<none>", "60s"]),
        ("batch", "Job", {"spec": {"completions": 1}, "status": {
            "succeeded": 1, "startTime": "2025-12-31T23:59:00Z",
            "completionTime": "2025-12-31T23:59:05Z",
            "conditions": [{"type": "Complete", "status": "True"}]}},
         ["a", "Complete", "1/1", "5s", "60s"]),
        ("", "ConfigMap", {"data": {"a": "", "b": ""}, "binaryData": {"c": ""}}, ["a", 3, "60s"]),
        ("", "Node", {"status": {"conditions": [{"type": "Ready", "status": "True"}],
                                 "nodeInfo": {"kubeletVersion": "v1"}}},
         ["a", "Ready", "<none>", "60s", "v1"]),
        ("rbac.authorization.k8s.io", "RoleBinding", {
            "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "ServiceAccount", "name": "s", "namespace": "n"}]},
         ["a", "Role/r", "60s", "", "", "n/s"]),
    ],
)  # fmt: skip
def test_rows_are_what_kubectl_shows(group: str, kind: str, obj: Obj, cells: list[Any]) -> None:
    obj = {"metadata": {"name": "a", "creationTimestamp": "2025-12-31T23:59:00Z"}, **obj}
    assert PRINTERS[GroupKind(group, kind)].cells(obj, NOW)[: len(cells)] == cells
