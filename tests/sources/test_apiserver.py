"""ApiServerSource: events about objects (behaviours E61–E63, E69)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from knlocal.clock import VirtualClock
from knlocal.resources.base import Obj
from knlocal.resources.status import BadRequest
from knlocal.testing.sink import Sink
from tests.sources.house import House, to

CONFIG_MAPS = {"apiVersion": "v1", "kind": "ConfigMap"}
VERBS = ["get", "list", "watch"]


def watching(receiver: Sink, *resources: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"sink": {"uri": receiver.url}, "resources": list(resources) or [CONFIG_MAPS], **spec}


async def permit(house: House, resource: str = "configmaps", verbs: list[str] = VERBS) -> None:
    """Let the service account `default` of namespace `default` look at a resource everywhere."""
    rules = [{"apiGroups": ["*"], "resources": [resource], "verbs": verbs}]
    await house.apply("ClusterRole", f"look-{resource}", namespace="", extra={"rules": rules})
    await house.apply(
        "ClusterRoleBinding", f"look-{resource}", namespace="",
        extra={
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": f"look-{resource}",
            },
        },
    )  # fmt: skip


async def config_map(house: House, name: str, value: str = "1", **more: Any) -> Obj:
    return await house.apply("ConfigMap", name, extra={"data": {"v": value}}, **more)


def subject(name: str, namespace: str = "default") -> str:
    return f"/apis/v1/namespaces/{namespace}/configmaps/{name}"


@pytest.fixture
async def permitted(house: House) -> House:
    await permit(house)
    return house


# -- events ---------------------------------------------------------------------------------------


async def test_references_to_what_comes_changes_and_goes(permitted: House, receiver: Sink) -> None:
    house = permitted
    await house.apply("ApiServerSource", "watch", watching(receiver))
    await config_map(house, "one")
    await config_map(house, "one", "2")
    await house.delete("ConfigMap", "one")
    events = await house.received(receiver, 3)
    assert [event.type for event in events] == [
        f"dev.knative.apiserver.ref.{change}" for change in ("add", "update", "delete")
    ]
    event = events[0]
    assert event.source == "https://kubernetes.default.svc"
    assert event.attributes["subject"] == subject("one")
    assert event.attributes["datacontenttype"] == "application/json"
    extensions = {name: event.attributes[name] for name in ("kind", "apiversion", "name")}
    assert extensions == {"kind": "ConfigMap", "apiversion": "v1", "name": "one"}
    assert event.attributes["namespace"] == "default"
    assert orjson.loads(event.data or b"") == {
        "apiVersion": "v1", "kind": "ConfigMap", "name": "one", "namespace": "default",
    }  # fmt: skip


async def test_resource_mode_sends_the_whole_object(permitted: House, receiver: Sink) -> None:
    house = permitted
    await house.apply("ApiServerSource", "watch", watching(receiver, mode="Resource"))
    made = await config_map(house, "one")
    await house.delete("ConfigMap", "one")
    events = await house.received(receiver, 2)
    assert [event.type for event in events] == [
        "dev.knative.apiserver.resource.add", "dev.knative.apiserver.resource.delete",
    ]  # fmt: skip
    assert orjson.loads(events[0].data or b"") == made


async def test_what_exists_already_is_no_event(permitted: House, receiver: Sink) -> None:
    house = permitted
    await config_map(house, "old")
    await house.apply("ApiServerSource", "watch", watching(receiver))
    await config_map(house, "new")
    [event] = await house.received(receiver, 1)
    assert event.attributes["name"] == "new"
    await config_map(house, "old", "2")
    assert (await house.received(receiver, 2))[1].type == "dev.knative.apiserver.ref.update"


async def test_events_keep_the_order_of_the_changes(permitted: House, receiver: Sink) -> None:
    house = permitted
    receiver.answers(503, 202, 503, 202)
    await house.apply("ApiServerSource", "watch", watching(receiver, mode="Resource"))
    for number in range(20):
        await config_map(house, "one", str(number))
    events = await house.until(lambda: len(receiver.events) >= 22 and receiver.events)
    seen = list(dict.fromkeys(orjson.loads(event.data)["data"]["v"] for event in events))
    assert seen == [str(number) for number in range(20)]


async def test_a_selector_decides_and_its_transitions_are_adds_and_deletes(
    permitted: House, receiver: Sink
) -> None:
    house = permitted
    selector = {"matchLabels": {"app": "mine"}}
    await house.apply(
        "ApiServerSource", "watch", watching(receiver, {**CONFIG_MAPS, "selector": selector})
    )
    await config_map(house, "other", labels={"app": "theirs"})
    await config_map(house, "one", labels={"app": "theirs"})
    await config_map(house, "one", labels={"app": "mine"})
    await config_map(house, "one", "2", labels={"app": "mine"})
    await config_map(house, "one", labels={"app": "theirs"})
    events = await house.received(receiver, 3)
    assert [(event.attributes["name"], event.type.rpartition(".")[2]) for event in events] == [
        ("one", "add"), ("one", "update"), ("one", "delete"),
    ]  # fmt: skip


async def test_expressions_select_too(permitted: House, receiver: Sink) -> None:
    house = permitted
    selector = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}
    await house.apply(
        "ApiServerSource", "watch", watching(receiver, {**CONFIG_MAPS, "selector": selector})
    )
    for name in ("a", "c", "b"):
        await config_map(house, name, labels={"app": name})
    events = await house.received(receiver, 2)
    assert [event.attributes["name"] for event in events] == ["a", "b"]


async def test_several_kinds_are_watched_at_once(permitted: House, receiver: Sink) -> None:
    house = permitted
    await permit(house, "jobs")
    jobs = {"apiVersion": "batch/v1", "kind": "Job"}
    await house.apply("ApiServerSource", "watch", watching(receiver, CONFIG_MAPS, jobs))
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
    await house.apply("Job", "work", {"template": {"spec": pod}})
    await config_map(house, "one")
    events = await house.received(receiver, 2)
    assert [event.attributes["subject"] for event in events] == [
        "/apis/batch/v1/namespaces/default/jobs/work", subject("one"),
    ]  # fmt: skip


async def test_only_what_an_owner_of_that_kind_controls(permitted: House, receiver: Sink) -> None:
    house = permitted
    owner = {"apiVersion": "v1", "kind": "ConfigMap"}
    await house.apply("ApiServerSource", "watch", watching(receiver, owner=owner))
    parent = await config_map(house, "parent")
    reference = {**owner, "name": "parent", "uid": parent["metadata"]["uid"], "controller": True}
    await config_map(house, "child", ownerReferences=[reference])
    [event] = await house.received(receiver, 1)
    assert event.attributes["name"] == "child"


async def test_objects_come_in_the_version_asked_for(permitted: House, receiver: Sink) -> None:
    house = permitted
    await permit(house, "pingsources")
    old = {"apiVersion": "sources.knative.dev/v1beta2", "kind": "PingSource"}
    await house.apply("ApiServerSource", "watch", watching(receiver, old, mode="Resource"))
    await house.apply("PingSource", "tick", {"sink": {"uri": "http://nowhere.test"}})
    event = (await house.received(receiver, 1))[0]
    assert orjson.loads(event.data or b"")["apiVersion"] == "sources.knative.dev/v1beta2"
    assert event.attributes["apiversion"] == "sources.knative.dev/v1beta2"


async def test_objects_without_namespace_are_watched(permitted: House, receiver: Sink) -> None:
    house = permitted
    await permit(house, "namespaces")
    kind = {"apiVersion": "v1", "kind": "Namespace"}
    await house.apply("ApiServerSource", "watch", watching(receiver, kind, namespaceSelector={}))
    await house.apply("Namespace", "new", namespace="")
    event = (await house.received(receiver, 1))[0]
    assert event.attributes["name"] == "new"
    assert "namespace" not in event.attributes


async def test_overrides_and_namespace_header_are_there(permitted: House, receiver: Sink) -> None:
    house = permitted
    spec = watching(receiver, ceOverrides={"extensions": {"team": "blue"}})
    await house.apply("ApiServerSource", "watch", spec)
    await config_map(house, "one")
    [event] = await house.received(receiver, 1)
    assert event.attributes["team"] == "blue"
    assert receiver.requests[0].headers["Kn-Namespace"] == "default"


async def test_filters_hold_back_events_when_the_feature_is_on(
    permitted: House, receiver: Sink
) -> None:
    house = permitted

    async def feature(state: str) -> None:
        features = house.get("ConfigMap", "config-features", "knative-eventing")
        data = {**features["data"], "new-apiserversource-filters": state}
        house.store.update({**features, "data": data})
        await house.settled()

    await feature("enabled")
    spec = watching(receiver, filters=[{"exact": {"name": "wanted"}}])
    await house.apply("ApiServerSource", "watch", spec)
    await config_map(house, "first")
    await config_map(house, "wanted")
    await house.received(receiver, 1)
    await feature("disabled")
    await config_map(house, "second")
    events = await house.received(receiver, 2)
    assert [event.attributes["name"] for event in events] == ["wanted", "second"]


async def test_a_changed_source_loses_nothing_that_waits(
    permitted: House, clock: VirtualClock, receiver: Sink, other_receiver: Sink
) -> None:
    house = permitted
    await house.addressable("there", "http://127.0.0.1:1/")
    spec = {"sink": to("there"), "resources": [CONFIG_MAPS]}
    await house.apply("ApiServerSource", "watch", spec)
    for name in ("one", "two", "three"):
        await config_map(house, name)
    await house.addressable("there", receiver.url)
    await house.apply("ApiServerSource", "watch", {**spec, "mode": "Resource"})
    await house.until(lambda: len(receiver.events) >= 2)
    assert [event.attributes["name"] for event in receiver.events] == ["two", "three"]


# -- namespaces -----------------------------------------------------------------------------------


async def test_only_its_own_namespace_unless_told_otherwise(
    permitted: House, receiver: Sink
) -> None:
    house = permitted
    await house.apply("ApiServerSource", "watch", watching(receiver))
    assert house.status("ApiServerSource", "watch")["namespaces"] == ["default"]
    await config_map(house, "far", namespace="other")
    await config_map(house, "near")
    [event] = await house.received(receiver, 1)
    assert event.attributes["name"] == "near"


async def test_an_empty_namespace_selector_means_all(permitted: House, receiver: Sink) -> None:
    house = permitted
    await house.apply("ApiServerSource", "watch", watching(receiver, namespaceSelector={}))
    assert house.status("ApiServerSource", "watch")["namespaces"] == [""]
    await config_map(house, "far", namespace="other")
    [event] = await house.received(receiver, 1)
    assert event.attributes["subject"] == subject("far", "other")


async def test_namespaces_that_come_to_match_are_watched_from_then_on(
    permitted: House, receiver: Sink
) -> None:
    house = permitted
    selector = {"matchLabels": {"env": "test"}}
    await house.apply("ApiServerSource", "watch", watching(receiver, namespaceSelector=selector))
    assert house.status("ApiServerSource", "watch")["namespaces"] == []
    await config_map(house, "before", namespace="other")
    await house.apply("Namespace", "other", namespace="", labels={"env": "test"})
    assert house.status("ApiServerSource", "watch")["namespaces"] == ["other"]
    await config_map(house, "after", namespace="other")
    [event] = await house.received(receiver, 1)
    assert event.attributes["name"] == "after"


# -- permissions ----------------------------------------------------------------------------------


async def test_without_permission_it_is_not_ready_and_says_what_is_missing(
    house: House, receiver: Sink
) -> None:
    await house.apply("ApiServerSource", "watch", watching(receiver))
    state, _, message = house.condition("ApiServerSource", "watch", "SufficientPermissions")
    assert state == "False"
    assert message == (
        "User system:serviceaccount:default:default cannot get, list, watch resource "
        '"configmaps" in API group "" in Namespace "default"'
    )
    assert house.condition("ApiServerSource", "watch")[0] == "False"
    assert not house.list("Deployment")
    assert "ceAttributes" not in house.status("ApiServerSource", "watch")
    await config_map(house, "one")
    await house.clock.advance(10)
    assert not receiver.requests


async def test_permission_given_later_is_noticed_and_taken_away_again(
    house: House, receiver: Sink
) -> None:
    await house.apply("ApiServerSource", "watch", watching(receiver))
    await permit(house, verbs=["get", "list"])
    assert "cannot watch resource" in house.condition("ApiServerSource", "watch")[2]
    await permit(house)
    assert house.condition("ApiServerSource", "watch")[0] == "True"
    await config_map(house, "one")
    await house.received(receiver, 1)
    await house.delete("ClusterRoleBinding", "look-configmaps", namespace="")
    assert house.condition("ApiServerSource", "watch")[0] == "False"
    assert not house.list("Deployment")
    await config_map(house, "two")
    assert len(receiver.events) == 1


async def test_a_role_of_the_namespace_suffices_for_another_account(
    house: House, receiver: Sink
) -> None:
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": VERBS}]
    await house.apply("Role", "looker", extra={"rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "looker"}
    subjects = [{"kind": "ServiceAccount", "name": "events", "namespace": "default"}]
    await house.apply("RoleBinding", "looker", extra={"subjects": subjects, "roleRef": reference})
    spec = watching(receiver, serviceAccountName="events")
    await house.apply("ApiServerSource", "watch", spec)
    assert house.condition("ApiServerSource", "watch")[0] == "True"
    await house.apply("ApiServerSource", "all", {**spec, "namespaceSelector": {}})
    assert house.condition("ApiServerSource", "all")[0] == "False"


async def test_without_a_check_beforehand_the_adapter_fails_at_its_first_look(
    house: House, receiver: Sink
) -> None:
    skip = {"features.knative.dev/apiserversource-skip-permissions-check": "true"}
    await house.apply("ApiServerSource", "watch", watching(receiver), annotations=skip)
    assert house.condition("ApiServerSource", "watch", "SufficientPermissions")[0] == "True"
    state, reason, message = house.condition("ApiServerSource", "watch")
    assert (state, reason) == ("False", "MinimumReplicasUnavailable")
    assert "cannot get, list, watch" in message
    [deployment] = house.list("Deployment")
    [adapter] = deployment["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry.get("value") for entry in adapter["env"]}
    assert orjson.loads(env["K_SOURCE_CONFIG"])["failFast"] is True
    assert "knlocal.dev/simulated-down" in deployment["metadata"]["annotations"]
    await permit(house)
    assert house.condition("ApiServerSource", "watch")[0] == "True"
    [deployment] = house.list("Deployment")
    assert "knlocal.dev/simulated-down" not in deployment["metadata"]["annotations"]


# -- what is shown --------------------------------------------------------------------------------


async def test_the_adapter_is_shown_as_a_ready_deployment(permitted: House, receiver: Sink) -> None:
    house = permitted
    source = await house.apply("ApiServerSource", "watch", watching(receiver))
    [deployment] = house.list("Deployment")
    metadata = deployment["metadata"]
    assert metadata["name"].startswith("apiserversource-watch-")
    assert metadata["ownerReferences"][0]["uid"] == source["metadata"]["uid"]
    assert deployment["status"]["readyReplicas"] == 1
    assert deployment["status"]["availableReplicas"] == 1
    env = {
        e["name"]: e["value"]
        for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert orjson.loads(env["K_SOURCE_CONFIG"]) == {
        "namespaces": ["default"], "allNamespaces": False, "mode": "Reference",
        "resources": [{"gvr": {"Group": "", "Version": "v1", "Resource": "configmaps"}}],
    }  # fmt: skip
    assert not house.list("Pod")
    await house.apply("ApiServerSource", "watch", watching(receiver, mode="Resource"))
    [deployment] = house.list("Deployment")
    assert "Resource" in str(deployment["spec"])
    await house.delete("ApiServerSource", "watch")
    assert not house.list("Deployment")


async def test_it_tells_three_event_types_of_its_mode(permitted: House, receiver: Sink) -> None:
    house = permitted
    await house.addressable("there", receiver.url)
    spec = {"sink": to("there"), "resources": [CONFIG_MAPS], "mode": "Resource"}
    await house.apply("ApiServerSource", "watch", spec)
    types = {f"dev.knative.apiserver.resource.{change}" for change in ("add", "update", "delete")}
    sent = house.status("ApiServerSource", "watch")["ceAttributes"]
    assert {pair["type"] for pair in sent} == types
    assert registered(house) == types
    await house.apply("ApiServerSource", "watch", {**spec, "mode": "Reference"})
    assert registered(house) == {type_.replace(".resource.", ".ref.") for type_ in types}


def registered(house: House) -> set[str]:
    """The types of all EventTypes."""
    entries = [entry for one in house.list("EventType") for entry in one["spec"]["attributes"]]
    return {entry["value"] for entry in entries if entry["name"] == "type"}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"resources": []}, "missing field(s): spec.resources"),
        ({"resources": [{"apiVersion": "v1"}]}, "missing field(s): spec.resources[0].kind"),
        ({"mode": "Both"}, "invalid value: Both: spec.mode"),
        ({"owner": {"kind": "Job"}}, "missing field(s): spec.owner.apiVersion"),
    ],
)
async def test_nonsense_is_refused_with_the_place(
    house: House, receiver: Sink, spec: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadRequest) as error:
        await house.apply("ApiServerSource", "watch", watching(receiver) | spec)
    assert said in str(error.value)
