"""Protobuf bodies as Go clients write them. The bytes were made by hand from the field numbers of
Kubernetes' generated.proto files; real clients are in tests/apiserver."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from knlocal.resources import protobuf
from knlocal.resources.protobuf import ProtobufError, decode


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def chunk(field: int, data: bytes | str) -> bytes:
    raw = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(raw)) + raw


def enveloped(api_version: str, kind: str, raw: bytes, content_type: str = "") -> bytes:
    meta = chunk(1, api_version) + chunk(2, kind)
    return b"k8s\x00" + chunk(1, meta) + chunk(2, raw) + chunk(4, content_type)


def go_meta(name: str, *more: bytes) -> bytes:
    """ObjectMeta as Go writes it: every field that is no pointer, even when empty."""
    empty = b"".join(chunk(field, "") for field in (2, 3, 4, 5, 6)) + number(7, 0) + chunk(8, b"")
    return chunk(1, chunk(1, name) + empty + b"".join(more))


def test_a_config_map_reads_as_the_json_that_go_would_print() -> None:
    entry = chunk(1, "key") + chunk(2, "value")
    empty_entry = chunk(1, "empty") + chunk(2, "")
    binary = chunk(1, "raw") + chunk(2, b"\x00\xff")
    labels = chunk(11, chunk(1, "a") + chunk(2, "b"))
    raw = go_meta("one", labels) + chunk(2, entry) + chunk(2, empty_entry) + chunk(3, binary)
    assert decode(enveloped("v1", "ConfigMap", raw)) == {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "one", "labels": {"a": "b"}},
        "data": {"key": "value", "empty": ""},
        "binaryData": {"raw": base64.b64encode(b"\x00\xff").decode()},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("api_version", "kind", "raw", "expected"),
    [
        # A pointer's zero was meant: replicas 0, and an empty emptyDir.
        ("apps/v1", "Deployment", chunk(2, number(1, 0)), {"spec": {"replicas": 0}}),
        ("v1", "Pod", chunk(2, chunk(1, chunk(1, "v") + chunk(2, chunk(2, b"")))),
         {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        # A value's zero was not.
        ("v1", "Pod", chunk(2, number(11, 0)), {}),
        # Negative numbers, quantities, int-or-string.
        ("batch/v1", "Job", chunk(2, number(3, -5)), {"spec": {"activeDeadlineSeconds": -5}}),
        ("v1", "ResourceQuota", chunk(2, chunk(1, chunk(1, "cpu") + chunk(2, chunk(1, "50m")))),
         {"spec": {"hard": {"cpu": "50m"}}}),
        ("v1", "Service",
         chunk(2, chunk(1, number(3, 80) + chunk(4, number(1, 0) + number(2, 8080)))),
         {"spec": {"ports": [{"port": 80, "targetPort": 8080}]}}),
        ("v1", "Service",
         chunk(2, chunk(1, number(3, 80) + chunk(4, number(1, 1) + chunk(3, "http")))),
         {"spec": {"ports": [{"port": 80, "targetPort": "http"}]}}),
        # Embedded structs lie directly in the object around them.
        ("rbac.authorization.k8s.io/v1", "Role", chunk(2, chunk(1, "get") + chunk(3, "pods")),
         {"rules": [{"verbs": ["get"], "resources": ["pods"]}]}),
        ("autoscaling/v1", "Scale", chunk(2, number(1, 3)), {"spec": {"replicas": 3}}),
        ("apps/v1", "DeleteOptions", number(1, 0) + chunk(4, "Foreground") + chunk(5, "All"),
         {"gracePeriodSeconds": 0, "propagationPolicy": "Foreground", "dryRun": ["All"]}),
        ("policy/v1", "Eviction", chunk(1, chunk(1, "p")), {"metadata": {"name": "p"}}),
        ("authorization.k8s.io/v1", "SubjectAccessReview",
         chunk(2, chunk(3, "me") + chunk(5, chunk(1, "k") + chunk(2, chunk(1, "v")))),
         {"spec": {"user": "me", "extra": {"k": ["v"]}}}),
        ("v1", "Event", chunk(6, number(1, 1767225600) + number(2, 0)),
         {"firstTimestamp": "2026-01-01T00:00:00Z"}),
        ("v1", "Event", chunk(10, number(1, 1767225600) + number(2, 5000)),
         {"eventTime": "2026-01-01T00:00:00.000005Z"}),
    ],
)  # fmt: skip
def test_values_keep_their_meaning(
    api_version: str, kind: str, raw: bytes, expected: dict[str, Any]
) -> None:
    decoded = decode(enveloped(api_version, kind, raw))
    assert decoded == {"apiVersion": api_version, "kind": kind, **expected}


def test_probes_carry_their_handler_inline() -> None:
    handler = chunk(1, chunk(2, chunk(1, "/ready") + chunk(2, number(1, 0) + number(2, 80))))
    container = chunk(1, "a") + chunk(11, handler + number(4, 7))
    obj = decode(enveloped("v1", "Pod", chunk(2, chunk(2, container))))
    assert obj["spec"]["containers"][0]["readinessProbe"] == {
        "httpGet": {"path": "/ready", "port": 80}, "periodSeconds": 7,
    }  # fmt: skip


def test_a_crd_keeps_its_schema() -> None:
    any_map = number(38, 1) + chunk(30, number(1, 1))
    of_strings = chunk(5, "array") + chunk(24, chunk(1, chunk(5, "string")))
    colour = chunk(5, "string") + chunk(8, chunk(1, '"red"')) + chunk(20, chunk(1, '"red"'))
    properties = (
        chunk(29, chunk(1, "any") + chunk(2, any_map))
        + chunk(29, chunk(1, "words") + chunk(2, of_strings))
        + chunk(29, chunk(1, "colour") + chunk(2, colour))
    )
    version = chunk(1, "v1") + number(2, 1) + number(3, 1) + chunk(4, chunk(1, properties))
    raw = go_meta("things.example.com") + chunk(2, chunk(1, "example.com") + chunk(7, version))
    obj = decode(enveloped("apiextensions.k8s.io/v1", "CustomResourceDefinition", raw))
    [shown] = obj["spec"]["versions"]
    assert (shown["served"], shown["storage"]) == (True, True)
    assert shown["schema"]["openAPIV3Schema"]["properties"] == {
        "any": {"x-kubernetes-preserve-unknown-fields": True, "additionalProperties": True},
        "words": {"type": "array", "items": {"type": "string"}},
        "colour": {"type": "string", "default": "red", "enum": ["red"]},
    }


def test_json_may_come_in_the_envelope() -> None:
    inner = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}
    body = enveloped("v1", "ConfigMap", json.dumps(inner).encode(), "application/json")
    assert decode(body) == inner


def test_unknown_fields_are_passed_over() -> None:
    raw = go_meta("one") + number(200, 5) + chunk(201, b"x") + varint(202 << 3 | 1) + b"12345678"
    assert decode(enveloped("v1", "ConfigMap", raw))["metadata"] == {"name": "one"}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"k8s", b"k8s\x00\xff", b"k8s\x00" + chunk(1, b"\x0a\xff"),
        enveloped("v1", "Nothing", b""), enveloped("v1", "Pod", b"\x0a\x05ab"),
        enveloped("v1", "Pod", number(1, 5)), enveloped("v1", "Pod", b"\x00\x01"),
        enveloped("v1", "Pod", b"\x0b"), enveloped("v1", "Pod", b"\xff" * 20),
        enveloped("v1", "ConfigMap", chunk(1, chunk(1, b"\xff\xfe"))),
        enveloped("v1", "ConfigMap", b"{", "application/json"),
        enveloped("v1", "ConfigMap", b"[]", "application/json"),
    ],
)  # fmt: skip
def test_broken_bytes_are_refused_with_a_word(body: bytes) -> None:
    with pytest.raises(ProtobufError):
        decode(body)


def test_every_kind_that_typed_clients_send_has_field_numbers() -> None:
    wanted = [
        *(("v1", kind) for kind in ("Namespace", "ConfigMap", "Secret", "Service", "Pod",
                                    "ServiceAccount", "PersistentVolumeClaim", "Event", "Node")),
        *(("rbac.authorization.k8s.io/v1", kind) for kind in (
            "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")),
        *(("apps/v1", kind) for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")),
        ("batch/v1", "Job"), ("batch/v1", "CronJob"),
        ("authorization.k8s.io/v1", "SubjectAccessReview"),
        ("authorization.k8s.io/v1", "SelfSubjectAccessReview"),
        ("authentication.k8s.io/v1", "TokenRequest"), ("policy/v1", "Eviction"),
        ("autoscaling/v1", "Scale"), ("autoscaling/v2", "HorizontalPodAutoscaler"),
        ("coordination.k8s.io/v1", "Lease"), ("discovery.k8s.io/v1", "EndpointSlice"),
        ("meta/v1", "DeleteOptions"), ("serving.knative.dev/v1", "DeleteOptions"),
    ]  # fmt: skip
    missing = [known for known in wanted if protobuf.message_name(*known) is None]
    assert missing == []
