"""The words of Knative's refusals of pod specs (B42 to B53 of the behaviours)."""

from __future__ import annotations

from typing import Any

import pytest

POD = "spec.template.spec"
FIRST = f"{POD}.containers[0]"
RFC1123 = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    r"for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
DISALLOWED = "must not set the field(s)"


@pytest.mark.parametrize(
    ("container", "said"),
    [
        ({"image": ""}, f"missing field(s): {FIRST}.image"),
        (
            {"image": "foo:bar:baz"},
            (
                f"Failed to parse image reference: {FIRST}.image\n"
                'image: "foo:bar:baz", error: could not parse reference: foo:bar:baz'
            ),
        ),
        (
            {"name": "queue-proxy"},
            f'"queue-proxy" is a reserved container name: {FIRST}.name',
        ),
        ({"lifecycle": {}}, f"{DISALLOWED}: {FIRST}.lifecycle"),
        (
            {"stdin": True, "stdinOnce": True, "tty": True},
            f"{DISALLOWED}: {FIRST}.stdin, {FIRST}.stdinOnce, {FIRST}.tty",
        ),
        ({"stdin": False}, ""),
        (
            {"terminationMessagePolicy": "Never"},
            f"invalid value: Never: {FIRST}.terminationMessagePolicy",
        ),
        # ports
        ({"ports": [{"name": "h2c"}]}, ""),
        (
            {"ports": [{"containerPort": 1}, {"containerPort": 2}]},
            (
                f"more than one container port is set: {POD}.containers[*].ports\n"
                "Only a single port is allowed across all containers"
            ),
        ),
        (
            {"ports": [{"containerPort": 65536}]},
            f"expected 0 <= 65536 <= 65535: {FIRST}.ports.containerPort",
        ),
        (
            {"ports": [{"containerPort": 8012}]},
            (
                f"invalid value: 8012 is a reserved port: {FIRST}.ports.containerPort\n"
                "8012 is a reserved port, please use a different value"
            ),
        ),
        (
            {"ports": [{"containerPort": 80, "name": "foobar"}]},
            (
                f"Port name foobar is not allowed: {FIRST}.ports\n"
                "Name must be empty, or one of: 'h2c', 'http1'"
            ),
        ),
        (
            {"ports": [{"containerPort": 80, "protocol": "UDP"}]},
            f"invalid value: UDP: {FIRST}.ports.protocol",
        ),
        (
            {"ports": [{"containerPort": 80, "hostPort": 80, "hostIP": "127.0.0.1"}]},
            f"{DISALLOWED}: {FIRST}.ports.hostIP, {FIRST}.ports.hostPort",
        ),
        # environment
        ({"env": [{"value": "x"}]}, f"missing field(s): {FIRST}.env[0].name"),
        (
            {"env": [{"name": "PORT", "value": "1"}]},
            f'"PORT" is a reserved environment variable: {FIRST}.env[0].name',
        ),
        (
            {"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "a"}}}]},
            f"{DISALLOWED}: {FIRST}.env[0].valueFrom.fieldRef",
        ),
        (
            {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]},
            "",
        ),
        (
            {"envFrom": [{}]},
            (
                "expected exactly one, got neither: "
                f"{FIRST}.envFrom.configMapRef, {FIRST}.envFrom.secretRef"
            ),
        ),
        (
            {"envFrom": [{"configMapRef": {"name": "a"}, "secretRef": {"name": "b"}}]},
            (
                "expected exactly one, got both: "
                f"{FIRST}.envFrom.configMapRef, {FIRST}.envFrom.secretRef"
            ),
        ),
        # security context
        (
            {"securityContext": {"privileged": True}},
            f"{DISALLOWED}: {FIRST}.securityContext.privileged",
        ),
        ({"securityContext": {"privileged": False}}, ""),
        (
            {"securityContext": {"capabilities": {"add": ["all"]}}},
            f"{DISALLOWED}: {FIRST}.securityContext.capabilities.add",
        ),
        (
            {"securityContext": {"runAsUser": -10}},
            f"expected 0 <= -10 <= 2147483647: {FIRST}.securityContext.runAsUser",
        ),
        # resources
        (
            {"resources": {"limits": {"cpu": "lots"}}},
            (
                f"invalid value: lots: {FIRST}.resources.limits.cpu\n"
                "quantities must match the regular expression "
                "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            ),
        ),
        # probes
        (
            {"livenessProbe": {"periodSeconds": 1}},
            "expected exactly one, got neither: "
            + ", ".join(
                f"{FIRST}.livenessProbe.{handler}"
                for handler in ("exec", "grpc", "httpGet", "tcpSocket")
            ),
        ),
        (
            {"readinessProbe": {"httpGet": {"path": "/"}, "exec": {}, "tcpSocket": {"port": 1}}},
            "expected exactly one, got both: "
            + ", ".join(
                f"{FIRST}.readinessProbe.{handler}" for handler in ("exec", "httpGet", "tcpSocket")
            ),
        ),
        (
            {"readinessProbe": {"failureThreshold": 2}},
            (
                "failureThreshold is disallowed when periodSeconds is zero: "
                f"{FIRST}.readinessProbe.failureThreshold"
            ),
        ),
        (
            {"readinessProbe": {"timeoutSeconds": 2}},
            (
                "timeoutSeconds is disallowed when periodSeconds is zero: "
                f"{FIRST}.readinessProbe.timeoutSeconds"
            ),
        ),
        (
            {"readinessProbe": {"periodSeconds": -1}},
            f"expected 0 <= -1 <= 2147483647: {FIRST}.readinessProbe.periodSeconds",
        ),
        (
            {"livenessProbe": {"tcpSocket": {"port": "imap"}}},
            (
                f"invalid value: imap: {FIRST}.livenessProbe.tcpSocket.port\n"
                "Probe port must match container port"
            ),
        ),
        ({"readinessProbe": {"httpGet": {"port": "http"}}}, ""),
        ({"livenessProbe": {"httpGet": {"path": "/", "port": 5000}}}, ""),
    ],
)
def test_containers(api: Any, container: dict[str, Any], said: str) -> None:
    assert api.refused(api.service({"image": "busybox", **container})) == said


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            {"serviceAccountName": "foo@bar.baz"},
            f"invalid value: foo@bar.baz: {POD}.serviceAccountName\n{RFC1123}",
        ),
        ({"nodeName": "n"}, f"{DISALLOWED}: {POD}.nodeName"),
        ({"restartPolicy": "Always"}, f"{DISALLOWED}: {POD}.restartPolicy"),
        (
            {"terminationGracePeriodSeconds": 0},
            f"{DISALLOWED}: {POD}.terminationGracePeriodSeconds",
        ),
        ({"automountServiceAccountToken": False}, ""),
        (
            {"automountServiceAccountToken": True},
            f"{DISALLOWED}: {POD}.automountServiceAccountToken",
        ),
        ({"imagePullSecrets": [{"name": "a"}]}, ""),
        ({"hostNetwork": False}, ""),
        ({"timeoutSeconds": 601}, f"expected 0 <= 601 <= 600: {POD}.timeoutSeconds"),
        ({"timeoutSeconds": -1}, f"expected 0 <= -1 <= 600: {POD}.timeoutSeconds"),
        (
            {"containerConcurrency": 1001},
            f"expected 0 <= 1001 <= 1000: {POD}.containerConcurrency",
        ),
        ({"idleTimeoutSeconds": 10_000, "responseStartTimeoutSeconds": 10_000}, ""),
        (
            {"initContainers": [{"image": "app-i"}]},
            (
                f"{DISALLOWED}: {POD}.initContainers\n"
                "pod spec support for init-containers is off, but found 1 init containers: "
            ),
        ),
    ],
)
def test_pods(api: Any, spec: dict[str, Any], said: str) -> None:
    assert api.refused(api.service(**spec)) == said


FLAGGED = {
    "affinity": ("affinity", {"nodeAffinity": {}}),
    "topologySpreadConstraints": (
        "topologyspreadconstraints",
        [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    ),
    "dnsPolicy": ("dnspolicy", "Default"),
    "dnsConfig": ("dnsconfig", {"nameservers": ["1.2.3.4"]}),
    "hostAliases": ("hostaliases", [{"ip": "127.0.0.1", "hostnames": ["a"]}]),
    "nodeSelector": ("nodeselector", {"kubernetes.io/arch": "amd64"}),
    "tolerations": ("tolerations", [{"key": "k"}]),
    "runtimeClassName": ("runtimeclassname", "test"),
    "securityContext": ("securitycontext", {}),
    "priorityClassName": ("priorityclassname", "foo"),
    "schedulerName": ("schedulername", "foo"),
    "shareProcessNamespace": ("shareprocessnamespace", True),
    "hostIPC": ("hostipc", True),
    "hostPID": ("hostpid", True),
    "hostNetwork": ("hostnetwork", True),
}


@pytest.mark.parametrize("field", FLAGGED)
def test_flagged_pod_fields_need_their_flag(api: Any, field: str) -> None:
    flag, value = FLAGGED[field]
    obj = api.service(**{field: value})
    assert api.refused(obj) == f"{DISALLOWED}: {POD}.{field}"
    for word in ("enabled", "allowed"):
        ctx = api.context(features={f"kubernetes.podspec-{flag}": word})
        assert api.refused(obj, ctx) == ""


@pytest.mark.parametrize(
    ("volume", "mount", "flags", "said"),
    [
        ({"secret": {"secretName": "a"}}, {}, {}, ""),
        ({"configMap": {"name": "a"}}, {}, {}, ""),
        ({"emptyDir": {"medium": "Memory", "sizeLimit": "400M"}}, {}, {}, ""),
        (
            {"emptyDir": {"sizeLimit": -1}},
            {},
            {},
            f"invalid value: -1: {POD}.volumes[0].emptyDir.sizeLimit",
        ),
        (
            {"emptyDir": {"medium": "Disk"}},
            {},
            {},
            f"invalid value: Disk: {POD}.volumes[0].emptyDir.medium",
        ),
        (
            {},
            {},
            {},
            "expected exactly one, got neither: "
            + ", ".join(
                f"{POD}.volumes[0].{kind}"
                for kind in ("configMap", "emptyDir", "projected", "secret")
            ),
        ),
        (
            {"persistentVolumeClaim": {"claimName": "myclaim"}},
            {},
            {},
            (
                "Persistent volume claim support is disabled, but found persistent volume claim "
                "myclaim: \n"
                "Persistent volume write support is disabled, but found persistent volume claim "
                "myclaim that is not read-only: \n"
                f"{DISALLOWED}: {POD}.volumes[0].persistentVolumeClaim"
            ),
        ),
        (
            {"persistentVolumeClaim": {"claimName": "myclaim", "readOnly": True}},
            {},
            {"kubernetes.podspec-persistent-volume-claim": "enabled"},
            f"volume is readOnly but volume mount is not: {FIRST}.volumeMounts[0].readOnly",
        ),
        (
            {"persistentVolumeClaim": {"claimName": "myclaim"}},
            {},
            {
                "kubernetes.podspec-persistent-volume-claim": "enabled",
                "kubernetes.podspec-persistent-volume-write": "enabled",
            },
            "",
        ),
        (
            {"hostPath": {"path": "/x"}},
            {},
            {},
            (
                "HostPath volume support is disabled, but found HostPath volume v: \n"
                f"{DISALLOWED}: {POD}.volumes[0].hostPath"
            ),
        ),
        ({"hostPath": {"path": "/x"}}, {}, {"kubernetes.podspec-volumes-hostpath": "enabled"}, ""),
        (
            {"secret": {"secretName": "a", "items": [{}]}},
            {},
            {},
            f"missing field(s): {POD}.volumes[0].items[0].key, {POD}.volumes[0].items[0].path",
        ),
        (
            {"projected": {"sources": [{"secret": {}}, {"configMap": {"name": "c"}}]}},
            {},
            {},
            f"missing field(s): {POD}.volumes[0].projected[0].secret.name",
        ),
        (
            {"projected": {"sources": [{"serviceAccountToken": {"audience": "x", "path": ""}}]}},
            {},
            {},
            f"missing field(s): {POD}.volumes[0].projected[0].serviceAccountToken.path",
        ),
        (
            {"secret": {"secretName": "a"}, "configMap": {"name": "b"}},
            {},
            {},
            (
                "expected exactly one, got both: "
                f"{POD}.volumes[0].configMap, {POD}.volumes[0].secret"
            ),
        ),
        (
            {"secret": {"secretName": "a"}},
            {"mountPath": "//dev//"},
            {},
            f'mountPath "/dev" is a reserved path: {FIRST}.volumeMounts[0].mountPath',
        ),
        (
            {"secret": {"secretName": "a"}},
            {"mountPath": "not/absolute"},
            {},
            f"invalid value: not/absolute: {FIRST}.volumeMounts[0].mountPath",
        ),
        (
            {"secret": {"secretName": "a"}},
            {"subPathExpr": "$(X)"},
            {},
            f"{DISALLOWED}: {FIRST}.volumeMounts[0].subPathExpr",
        ),
        (
            {"emptyDir": {}},
            {"mountPropagation": "HostToContainer"},
            {},
            f"{DISALLOWED}: {FIRST}.volumeMounts[0].mountPropagation",
        ),
        (
            {"emptyDir": {}},
            {"mountPropagation": "Bidirectional"},
            {"kubernetes.podspec-volumes-mount-propagation": "enabled"},
            f"invalid value: Bidirectional: {FIRST}.volumeMounts[0].mountPropagation",
        ),
    ],
)
def test_volumes(
    api: Any, volume: dict[str, Any], mount: dict[str, Any], flags: dict[str, str], said: str
) -> None:
    container = {"image": "app-a", "volumeMounts": [{"name": "v", "mountPath": "/m", **mount}]}
    obj = api.service(container, volumes=[{"name": "v", **volume}])
    assert api.refused(obj, api.context(features=flags)) == said


def test_volumes_and_mounts_must_meet(api: Any) -> None:
    unused = api.service(volumes=[{"name": "v", "secret": {"secretName": "a"}}])
    assert api.refused(unused) == f'volume with name "v" not mounted: {POD}.volumes[0].name'
    lost = api.service({"image": "app-a", "volumeMounts": [{"name": "v", "mountPath": "/m"}]})
    assert "volumeMount has no matching volume" in api.refused(lost)
    mounts = [{"name": "v", "mountPath": "/m"}, {"name": "v", "mountPath": "/m/"}]
    twice = api.service(
        {"image": "app-a", "volumeMounts": mounts}, volumes=[{"name": "v", "emptyDir": {}}]
    )
    assert (
        api.refused(twice)
        == f'invalid value: "/m/" must be unique: {FIRST}.volumeMounts[1].mountPath'
    )


WITH_PORT = {"name": "a", "image": "app-a", "ports": [{"containerPort": 8888}]}


@pytest.mark.parametrize(
    ("containers", "flags", "said"),
    [
        ([WITH_PORT, {"name": "b", "image": "app-b"}], {}, ""),
        (
            [WITH_PORT, {"name": "b", "image": "app-b"}],
            {"multi-container": "disabled"},
            "multi-container is off, but found 2 containers: ",
        ),
        (
            [{"name": "a", "image": "app-a"}, {"name": "b", "image": "app-b"}],
            {},
            f"missing field(s): {POD}.containers[*].ports",
        ),
        (
            [WITH_PORT, {**WITH_PORT, "name": "b"}],
            {},
            (
                f"more than one container port is set: {POD}.containers[*].ports\n"
                "Only a single port is allowed across all containers"
            ),
        ),
        (
            [WITH_PORT, {"name": "a", "image": "app-b"}],
            {},
            f'duplicate container name "a": {POD}.containers[1].name',
        ),
        (
            [WITH_PORT, {"name": "b", "image": "app-b", "env": [{"name": "PORT", "value": "1"}]}],
            {},
            "",
        ),
        (
            [
                WITH_PORT,
                {"name": "b", "image": "app-b", "env": [{"name": "K_SERVICE", "value": "1"}]},
            ],
            {},
            f'"K_SERVICE" is a reserved environment variable: {POD}.containers[1].env[0].name',
        ),
        (
            [
                WITH_PORT,
                {
                    "name": "b",
                    "image": "app-b",
                    "livenessProbe": {"tcpSocket": {"port": 1}, "timeoutSeconds": 1},
                },
            ],
            {},
            (
                f"{DISALLOWED}: {POD}.containers[1].livenessProbe, "
                f"{POD}.containers[1].livenessProbe.timeoutSeconds"
            ),
        ),
        (
            [
                WITH_PORT,
                {"name": "b", "image": "app-b", "livenessProbe": {"httpGet": {"path": "/"}}},
            ],
            {"multi-container-probing": "enabled"},
            (
                f"invalid value: 0: {POD}.containers[1].livenessProbe.httpGet.port\n"
                "Probe port must be specified"
            ),
        ),
        (
            [
                WITH_PORT,
                {"name": "b", "image": "app-b", "readinessProbe": {"httpGet": {"port": 5000}}},
            ],
            {"multi-container-probing": "enabled"},
            "",
        ),
    ],
)
def test_several_containers(
    api: Any, containers: list[dict[str, Any]], flags: dict[str, str], said: str
) -> None:
    assert api.refused(api.service(*containers), api.context(features=flags)) == said


def test_init_containers_have_no_probes_and_own_names(api: Any) -> None:
    ctx = api.context(features={"kubernetes.podspec-init-containers": "enabled"})
    init = {"name": "user-container", "image": "app-i", "livenessProbe": {"tcpSocket": {"port": 1}}}
    said = api.refused(
        api.service({"image": "app-a", "name": "user-container"}, initContainers=[init]), ctx
    )
    assert said == (
        f'duplicate container name "user-container": {POD}.initContainers[0].name\n'
        f"field not allowed in an init container: {POD}.initContainers[0].livenessProbe"
    )
    ports = [{"containerPort": 81}, {"containerPort": 82}]
    fine = api.service(initContainers=[{"image": "app-i", "ports": ports}])
    assert api.refused(fine, ctx) == ""


def test_concurrency_zero_can_be_forbidden(api: Any) -> None:
    ctx = api.context(defaults={"allow-container-concurrency-zero": "false"})
    said = api.refused(api.service(containerConcurrency=0), ctx)
    assert said == f"expected 1 <= 0 <= 1000: {POD}.containerConcurrency"


def test_insecure_defaults_are_warned_about_but_not_refused(api: Any) -> None:
    _, errors = api.admit(api.service())
    assert not errors
    prefix = f"{FIRST}.securityContext"
    fields = ("allowPrivilegeEscalation", "capabilities", "runAsNonRoot", "seccompProfile")
    assert errors.warnings() == [
        "Kubernetes default value is insecure, Knative may default this to secure in a future "
        "release: " + ", ".join(f"{prefix}.{field}" for field in fields)
    ]


def test_a_misspelt_all_is_warned_about(api: Any) -> None:
    secure = {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    context = {**secure, "capabilities": {"drop": ["all"]}}
    _, errors = api.admit(api.service({"image": "app-a", "securityContext": context}))
    assert errors.warnings() == [
        f"invalid value: all: {FIRST}.securityContext.capabilities.drop\nMust be spelled as 'ALL'"
    ]
    context = {**secure, "capabilities": {"drop": ["ALL"]}}
    _, errors = api.admit(api.service({"image": "app-a", "securityContext": context}))
    assert errors.warnings() == []


def test_secure_defaults_allow_binding_low_ports(api: Any) -> None:
    ctx = api.context(features={"secure-pod-defaults": "enabled"})
    context = {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}
    assert api.refused(api.service({"image": "app-a", "securityContext": context}), ctx) == ""


def test_a_service_without_containers_is_refused(api: Any) -> None:
    obj = api.service()
    obj["spec"]["template"]["spec"] = {}
    assert api.refused(obj) == f"missing field(s): {POD}.containers"
