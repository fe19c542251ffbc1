"""What Kubernetes refuses in pods and in what makes them, in its own words
(pkg/apis/core/validation and its neighbours)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from knlocal.resources.base import Obj
from knlocal.resources.core import KINDS
from knlocal.resources.kinds import AdmissionContext

BY_NAME = {kind.kind: kind for kind in KINDS if kind.storage}


def problems(kind: str, content: Obj) -> list[str]:
    found, context = BY_NAME[kind], AdmissionContext("me", datetime(2026, 1, 1, tzinfo=UTC))
    obj = {"apiVersion": found.api_version, "kind": kind, "metadata": {"name": "a"}, **content}
    if found.default:
        found.default(obj, context)
    assert found.validate
    return [f"{error.paths[0]}: {error.message}" for error in found.validate(obj, context)]


def pod(**container: Any) -> Obj:
    return {"containers": [{"name": "c", "image": "i", **container}]}


def probe(**content: Any) -> Obj:
    return pod(livenessProbe=content)


def variable(**source: Any) -> Obj:
    return pod(env=[{"name": "A", "valueFrom": source}])


def template(**spec: Any) -> Obj:
    labels = {"app": "a"}
    body = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": pod()}}  # fmt: skip
    return {"spec": {**body, **spec}}


C = "spec.containers[0]"
PROBED = f"{C}.livenessProbe"
FROM = f"{C}.env[0].valueFrom"


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (
            pod(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            (f'{C}.resources.requests: Invalid value: "2": must be less than or equal to cpu limit '
            "of 1"),
        ),
        (
            pod(resources={"requests": {"cpu": "-1"}}),
            f'{C}.resources.requests[cpu]: Invalid value: "-1": must be greater than or equal to 0',
        ),
        (
            pod(resources={"limits": {"cpu": "much"}}),
            (f'{C}.resources.limits[cpu]: Invalid value: "much": quantities must match the regular '
            "expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
        ),
        (
            pod(resources={"requests": {"foo": "1"}}),
            (f'{C}.resources.requests[foo]: Invalid value: "foo": must be a standard resource for '
            "containers"),
        ),
        (
            variable(),
            (f'{FROM}: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, '
            "`configMapKeyRef` or `secretKeyRef`"),
        ),
        (variable(secretKeyRef={"name": "s"}), f"{FROM}.secretKeyRef.key: Required value"),
        (
            variable(fieldRef={"fieldPath": "spec.foo"}),
            (f'{FROM}.fieldRef.fieldPath: Invalid value: "spec.foo": error converting fieldPath: '
            "field label not supported: spec.foo"),
        ),
        (
            pod(env=[{"name": "a=b"}]),
            (f'{C}.env[0].name: Invalid value: "a=b": a valid environment variable name must '
            "consist only of printable ASCII characters other than '='"),
        ),
        (pod(envFrom=[{"configMapRef": {}}]), f"{C}.envFrom[0].configMapRef.name: Required value"),
        (
            pod(envFrom=[{}]),
            f'{C}.envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`',
        ),
        (probe(), f"{PROBED}: Required value: must specify a handler type"),
        (
            probe(exec={"command": ["a"]}, tcpSocket={"port": 1}),
            f"{PROBED}.tcpSocket: Forbidden: may not specify more than 1 handler type",
        ),
        (probe(exec={}), f"{PROBED}.exec.command: Required value"),
        (
            probe(tcpSocket={"port": 1}, successThreshold=2),
            f"{PROBED}.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            probe(tcpSocket={}),
            f"{PROBED}.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            probe(httpGet={"port": 1, "scheme": "FTP"}),
            f'{PROBED}.httpGet.scheme: Unsupported value: "FTP": supported values: "HTTP", "HTTPS"',
        ),
        (
            pod(ports=[{"containerPort": 1, "protocol": "X"}]),
            (f'{C}.ports[0].protocol: Unsupported value: "X": supported values: "SCTP", "TCP", '
            '"UDP"'),
        ),
        (
            pod(ports=[{"containerPort": 1, "name": "a-much-too-long-name"}]),
            (f'{C}.ports[0].name: Invalid value: "a-much-too-long-name": must be no more than 15 '
            "characters"),
        ),
        (
            pod(securityContext={"privileged": True, "allowPrivilegeEscalation": False}),
            (f'{C}.securityContext: Invalid value: {{"allowPrivilegeEscalation":false,'
            '"privileged":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` '
            "to true"),
        ),
        (
            pod(restartPolicy="Always"),
            f"{C}.restartPolicy: Forbidden: may not be set for non-init containers",
        ),
        (
            pod(image=" i"),
            f'{C}.image: Invalid value: " i": must not have leading or trailing whitespace',
        ),
        (
            {**pod(), "dnsPolicy": "X"},
            ('spec.dnsPolicy: Unsupported value: "X": supported values: "ClusterFirstWithHostNet", '
            '"ClusterFirst", "Default", "None"'),
        ),
        (
            {**pod(), "activeDeadlineSeconds": 0},
            ("spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, "
            "inclusive"),
        ),
        (
            {**pod(), "volumes": [{"name": "v", "secret": {}}]},
            "spec.volumes[0].secret.secretName: Required value",
        ),
        (
            {**pod(), "volumes": [{"name": "v", "configMap": {"name": "c", "items": [
                {"key": "k", "path": "../x"}]}}]},
            ('spec.volumes[0].configMap.items[0].path: Invalid value: "../x": must not contain '
            "'..'"),
        ),
        (
            {**pod(), "volumes": [{"name": "v", "projected": {"sources": [
                {"serviceAccountToken": {"path": "t", "expirationSeconds": 9}}]}}]},
            ("spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: "
            "Invalid value: 9: may not specify a duration less than 10 minutes"),
        ),
        (
            {**pod(volumeMounts=[{"name": "v", "mountPath": "/v", "subPath": "/a"}]),
             "volumes": [{"name": "v", "emptyDir": {}}]},
            f'{C}.volumeMounts.subPath: Invalid value: "/a": must be a relative path',
        ),
        (
            {**pod(), "initContainers": [
                {"name": "i", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}]},
            ("spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers "
            "without restartPolicy=Always"),
        ),
        (
            {**pod(), "securityContext": {"seccompProfile": {"type": "Foo"}}},
            ('spec.securityContext.seccompProfile.type: Unsupported value: "Foo": supported '
            'values: "Localhost", "RuntimeDefault", "Unconfined"'),
        ),
        (
            {**pod(), "tolerations": [{"operator": "X"}]},
            ('spec.tolerations[0].operator: Unsupported value: "X": supported values: "Equal", '
            '"Exists"'),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_pod_that_makes_no_sense_is_refused_at_once(spec: Obj, problem: str) -> None:
    assert problems("Pod", {"spec": spec}) == [problem]


@pytest.mark.parametrize(
    "spec",
    [
        pod(env=[{"name": "a b", "value": "1"}, {"name": "N", "valueFrom": {
            "fieldRef": {"fieldPath": "metadata.labels['app']"}}}]),
        pod(resources={"requests": {"cpu": "1"}, "limits": {"cpu": "1000m", "example.com/x": "2"}}),
        pod(readinessProbe={"tcpSocket": {"port": "http"}, "successThreshold": 3}),
        pod(lifecycle={"preStop": {"sleep": {"seconds": 1}}}),
        {**pod(), "initContainers": [{"name": "i", "image": "i", "restartPolicy": "Always",
         "startupProbe": {"exec": {"command": ["a"]}}}]},
        {**pod(), "volumes": [{"name": "v", "downwardAPI": {"items": [
            {"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]},
        {**pod(), "hostAliases": [{"ip": "::1", "hostnames": ["a"]}]},
    ],
)  # fmt: skip
def test_what_kubernetes_takes_is_taken(spec: Obj) -> None:
    assert problems("Pod", {"spec": spec}) == []


ROLLING = "spec.strategy.rollingUpdate"


@pytest.mark.parametrize(
    ("kind", "content", "problem"),
    [
        (
            "Deployment",
            template(strategy={"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}),
            f'{ROLLING}.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0',
        ),
        (
            "Deployment",
            template(strategy={"type": "Foo"}),
            ('spec.strategy.type: Unsupported value: "Foo": supported values: "Recreate", '
            '"RollingUpdate"'),
        ),
        (
            "Deployment",
            template(strategy={"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}),
            f"{ROLLING}: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            "Deployment",
            template(minReadySeconds=600),
            ("spec.progressDeadlineSeconds: Invalid value: 600: must be greater than "
            "minReadySeconds"),
        ),
        (
            "StatefulSet",
            template(replicas=-1),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "Job",
            {"spec": {"parallelism": -1, "template": {"spec": {
                **pod(), "restartPolicy": "Never"}}}},
            "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "HorizontalPodAutoscaler",
            {"spec": {"minReplicas": 5, "maxReplicas": 2, "scaleTargetRef": {
                "kind": "Deployment", "name": "d"}}},
            "spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`",
        ),
        (
            "Lease",
            {"spec": {"leaseDurationSeconds": 0}},
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        ),
        (
            "Secret",
            {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "YQ=="}},
            ('data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": invalid '
            "character looking for beginning of value"),
        ),
    ],
)  # fmt: skip
def test_what_makes_pods_is_looked_at_as_well(kind: str, content: Obj, problem: str) -> None:
    assert problems(kind, content) == [problem]
