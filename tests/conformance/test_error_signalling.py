"""Conditions, over every Knative object there is (spec common/error-signalling)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conformance.conftest import NAMESPACE, SERVING, Cluster, condition, name, service

pytestmark = pytest.mark.docker
KINDS = {
    "serving.knative.dev/v1": ("services", "configurations", "routes", "revisions"),
    "eventing.knative.dev/v1": ("brokers", "triggers"),
    "messaging.knative.dev/v1": ("channels", "subscriptions", "inmemorychannels"),
}


@pytest.fixture(scope="module")
def objects(cluster: Cluster, hello: dict[str, Any]) -> list[dict[str, Any]]:
    """Good ones and bad ones, of every kind that is served."""
    failing = name("failing")
    cluster.create_service(service(failing, container={"image": "127.0.0.1:1/none:1"}))
    lost = {
        "apiVersion": "eventing.knative.dev/v1", "kind": "Trigger",
        "metadata": {"name": name("lost"), "namespace": NAMESPACE},
        "spec": {"broker": "nowhere", "subscriber": {"uri": "http://127.0.0.1:9"}},
    }  # fmt: skip
    triggers = f"/apis/eventing.knative.dev/v1/namespaces/{NAMESPACE}/triggers"
    cluster.must("POST", triggers, lost)
    cluster.ready(f"{triggers}/{lost['metadata']['name']}", "False")  # type: ignore[index]
    cluster.ready(f"{SERVING}/services/{failing}", "False")
    found = []
    for version, plurals in KINDS.items():
        for plural in plurals:
            listed = cluster.get(f"/apis/{version}/namespaces/{NAMESPACE}/{plural}")
            found += [item for item in listed["items"] if is_ours(item["metadata"])]
    return found


def is_ours(metadata: dict[str, Any]) -> bool:
    """Whether a controller has to say how it is: other tests leave a broker of a class that
    nobody here serves."""
    broker_class = metadata.get("annotations", {}).get("eventing.knative.dev/broker.class")
    return "deletionTimestamp" not in metadata and broker_class in (None, "MTChannelBasedBroker")


def test_every_object_has_conditions_of_distinct_types(objects: list[dict[str, Any]]) -> None:
    for obj in objects:
        types = [c["type"] for c in obj["status"]["conditions"]]
        assert len(types) == len(set(types)), obj
        assert "Ready" in types, obj
        for one in obj["status"]["conditions"]:
            assert one["status"] in ("True", "False", "Unknown"), obj
            assert set(one) <= {
                "type", "status", "reason", "message", "severity", "lastTransitionTime",
            }  # fmt: skip


def test_ready_sums_the_other_conditions_up(objects: list[dict[str, Any]]) -> None:
    for obj in objects:
        ready = condition(obj)
        others = [
            c["status"] for c in obj["status"]["conditions"]
            if c["type"] != "Ready" and not c.get("severity")
        ]  # fmt: skip
        if "False" in others:
            assert ready["status"] == "False", json.dumps(obj["status"], indent=1)
        elif "Unknown" in others:
            assert ready["status"] != "True", json.dumps(obj["status"], indent=1)


def test_what_is_not_true_says_why(objects: list[dict[str, Any]]) -> None:
    false = [
        c for obj in objects for c in obj["status"]["conditions"] if c["status"] == "False"
    ]  # fmt: skip
    assert false
    for one in false:
        assert one["reason"], one
        assert one.get("message") or one.get("severity"), one


def test_the_schema_describes_every_field_of_a_condition(cluster: Cluster) -> None:
    document = cluster.get("/openapi/v3/apis/serving.knative.dev/v1")
    text = json.dumps(document)
    for field in ("conditions", "lastTransitionTime", "severity", "observedGeneration"):
        assert f'"{field}"' in text
