"""The everyday commands of an unmodified kubectl."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from knlocal.resources.base import GroupKind
from tests.apiserver.conftest import (
    PATIENCE,
    Api,
    config_map,
    deployment,
    eventually,
    knative_service,
    needs_kubectl,
)

pytestmark = needs_kubectl
CONFIG_MAP = GroupKind("", "ConfigMap")
DEPLOYMENT = GroupKind("apps", "Deployment")


async def got(api: Api, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await api.kubectl("get", *words, "-o", "json"))
    return found


async def test_apply_creates_then_changes_then_leaves_alone(api: Api) -> None:
    assert "created" in await api.apply(config_map(a="1"), deployment())
    assert "unchanged" in await api.apply(config_map(a="1"))
    assert "configured" in await api.apply(config_map(b="2"))
    assert (await got(api, "cm", "one"))["data"] == {"b": "2"}
    changed = deployment()
    changed["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "value": "a"}]
    await api.apply(changed)
    obj = await got(api, "deploy", "web")
    assert obj["metadata"]["generation"] == 2
    [container] = obj["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["env"]) == ("nginx:1.25", [{"name": "A", "value": "a"}])


async def test_apply_of_a_knative_service_merges_and_counts_generations(api: Api) -> None:
    await api.apply(knative_service())
    await api.apply(knative_service(image="example.com/hello:2"))
    obj = await got(api, "ksvc", "hello")
    assert obj["metadata"]["generation"] == 2
    [container] = obj["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "example.com/hello:2"
    await api.apply(knative_service(image="example.com/hello:2"))
    assert (await got(api, "ksvc", "hello"))["metadata"]["generation"] == 2


async def test_diff_shows_what_apply_would_do_and_does_not_do_it(api: Api) -> None:
    await api.apply(config_map(a="1"))
    before = api.store.version
    ran = await api.run("kubectl", "diff", "-f", "-", stdin=json.dumps(config_map(a="2")))
    assert ran.code == 1
    assert '+  a: "2"' in ran.out
    assert api.store.version == before


async def test_a_dry_run_answers_with_defaults_and_stores_nothing(api: Api) -> None:
    text = json.dumps(deployment())
    out = await api.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=text)
    assert json.loads(out)["spec"]["progressDeadlineSeconds"] == 600
    assert api.store.find(DEPLOYMENT, "default", "web") is None


async def test_edit_writes_what_the_editor_leaves(api: Api) -> None:
    await api.apply(config_map(colour="red"))
    await api.kubectl("edit", "cm", "one", KUBE_EDITOR="sed -i s/red/green/")
    assert (await got(api, "cm", "one"))["data"] == {"colour": "green"}


@pytest.mark.parametrize(
    ("kind", "patch", "path", "value"),
    [
        ("strategic", {"spec": {"template": {"spec": {"containers": [
            {"name": "side", "image": "b"}]}}}}, "containers", ["side", "main"]),
        ("strategic", {"spec": {"template": {"spec": {"containers": [
            {"name": "main", "$patch": "delete"}, {"name": "side", "image": "b"}]}}}},
         "containers", ["side"]),
        ("merge", {"spec": {"template": {"spec": {"containers": [
            {"name": "only", "image": "b"}]}}}}, "containers", ["only"]),
        ("json", [{"op": "add", "path": "/spec/template/spec/containers/-",
                   "value": {"name": "last", "image": "c"}}], "containers", ["main", "last"]),
    ],
)  # fmt: skip
async def test_each_kind_of_patch_merges_in_its_own_way(
    api: Api, kind: str, patch: Any, path: str, value: list[str]
) -> None:
    await api.apply(deployment())
    await api.kubectl("patch", "deploy", "web", f"--type={kind}", "-p", json.dumps(patch))
    found = (await got(api, "deploy", "web"))["spec"]["template"]["spec"][path]
    assert sorted(c["name"] for c in found) == sorted(value)


async def test_a_strategic_patch_is_for_kubernetes_own_kinds_only(api: Api) -> None:
    await api.apply(config_map(), knative_service())
    await api.kubectl("patch", "cm", "one", "-p", '{"data":{"b":"2","a":null}}')
    assert (await got(api, "cm", "one"))["data"] == {"b": "2"}
    said = await api.refused("patch", "ksvc", "hello", "-p", '{"spec":{}}')
    assert "strategic-merge-patch+json is not supported" in said


async def test_label_annotate_scale_set_image_and_rollout(api: Api) -> None:
    await api.apply(deployment())
    await api.kubectl("label", "deploy", "web", "tier=front")
    await api.kubectl("annotate", "deploy", "web", "note=yes")
    await api.kubectl("scale", "deploy", "web", "--replicas=5")
    await api.kubectl("set", "image", "deploy/web", "main=nginx:1.27")
    await api.kubectl("rollout", "restart", "deploy/web")
    obj = await got(api, "deploy", "web")
    assert obj["metadata"]["labels"] == {"app": "web", "tier": "front"}
    assert obj["metadata"]["annotations"]["note"] == "yes"
    assert obj["spec"]["replicas"] == 5
    template = obj["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == "nginx:1.27"
    assert "kubectl.kubernetes.io/restartedAt" in template["metadata"]["annotations"]
    assert await api.kubectl("get", "deploy", "web", "--subresource=scale", "-o", "name")


async def test_replace_needs_the_version_it_was_made_from(api: Api) -> None:
    await api.apply(config_map(a="1"))
    stale = await got(api, "cm", "one")
    await api.apply(config_map(a="2"))
    said = await api.refused("replace", "-f", "-", stdin=json.dumps(stale))
    assert "the object has been modified; please apply your changes to the latest version" in said
    del stale["metadata"]["resourceVersion"]
    await api.kubectl("replace", "-f", "-", stdin=json.dumps(stale))
    assert (await got(api, "cm", "one"))["data"] == {"a": "1"}


GENERATED = [
    ("namespace", "made"),
    ("configmap", "made", "--from-literal=a=1"),
    ("secret", "generic", "made", "--from-literal=a=1"),
    ("serviceaccount", "made"),
    ("role", "made", "--verb=get", "--resource=pods"),
    ("rolebinding", "made", "--role=x", "--serviceaccount=default:default"),
    ("clusterrole", "made", "--verb=get", "--resource=nodes"),
    ("clusterrolebinding", "made", "--clusterrole=x", "--user=alice"),
    ("deployment", "made", "--image=nginx", "--port=80"),
    ("job", "made", "--image=busybox", "--", "date"),
    ("cronjob", "made", "--image=busybox", "--schedule=* * * * *", "--", "date"),
    ("service", "clusterip", "made", "--tcp=80:8080"),
    ("service", "externalname", "made", "--external-name=example.com"),
    ("quota", "made", "--hard=cpu=1"),
    ("poddisruptionbudget", "made", "--selector=a=b", "--min-available=1"),
    ("priorityclass", "made", "--value=10"),
    ("ingress", "made", "--rule=a.example.com/=svc:80"),
]


@pytest.mark.parametrize("words", GENERATED, ids=lambda words: "-".join(words[:2]))
async def test_kubectl_create_sends_protobuf_and_is_understood(
    api: Api, words: tuple[str, ...]
) -> None:
    assert "made created" in await api.kubectl("create", *words)


async def test_what_came_as_protobuf_reads_back_as_json(api: Api) -> None:
    await api.kubectl("create", "deployment", "d", "--image=nginx", "--port=8080", "--replicas=0")
    await api.kubectl("create", "secret", "generic", "s", "--from-literal=a=geheim")
    spec = (await got(api, "deploy", "d"))["spec"]
    assert spec["replicas"] == 0
    assert spec["template"]["spec"]["containers"][0]["ports"] == [
        {"containerPort": 8080, "protocol": "TCP"}
    ]
    assert (await got(api, "secret", "s"))["data"] == {"a": "Z2VoZWlt"}


async def test_delete_waits_until_the_object_is_gone(api: Api) -> None:
    await api.apply(config_map("one"), config_map("two"), deployment())
    assert 'configmap "one" deleted' in await api.kubectl("delete", "cm", "one")
    assert api.store.find(CONFIG_MAP, "default", "one") is None
    await api.kubectl("delete", "deploy", "--all")
    assert api.store.list(DEPLOYMENT) == []
    assert "NotFound" in await api.refused("delete", "cm", "one")
    await api.kubectl("delete", "cm", "one", "--ignore-not-found")


@pytest.mark.parametrize(
    ("cascade", "child_left"), [("background", False), ("foreground", False), ("orphan", True)]
)
async def test_cascade_decides_over_children(api: Api, cascade: str, child_left: bool) -> None:
    owner = api.store.create(config_map("owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner",
                 "uid": owner["metadata"]["uid"], "blockOwnerDeletion": True}  # fmt: skip
    child = config_map("child")
    child["metadata"]["ownerReferences"] = [reference]
    api.store.create(child)
    await api.kubectl("delete", "cm", "owner", f"--cascade={cascade}")

    def settled() -> bool:
        return (api.store.find(CONFIG_MAP, "default", "child") is not None) == child_left

    await eventually(api.store, settled)
    if child_left:
        left = api.store.get(CONFIG_MAP, "default", "child")
        assert not left["metadata"].get("ownerReferences")


async def test_a_namespace_goes_with_its_content(api: Api) -> None:
    await api.kubectl("create", "namespace", "shop")
    await api.kubectl("create", "configmap", "one", "-n", "shop")
    await api.kubectl("delete", "namespace", "shop")
    assert api.store.list(CONFIG_MAP, "shop") == []
    assert "NotFound" in await api.refused("get", "namespace", "shop")


async def test_get_watch_prints_each_change(api: Api) -> None:
    await api.apply(knative_service())
    watching = await api.start_kubectl("get", "ksvc", "-w")
    assert watching.stdout
    header = await asyncio.wait_for(watching.stdout.readline(), PATIENCE)
    assert header.split() == b"NAME URL LATESTCREATED LATESTREADY READY REASON".split()
    await asyncio.wait_for(watching.stdout.readline(), PATIENCE)
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    status = {"url": "http://hello.example.com", "conditions": [ready]}
    key_of = api.store.get(GroupKind("serving.knative.dev", "Service"), "default", "hello")
    api.store.update({**key_of, "status": status}, subresource="status")
    line = await asyncio.wait_for(watching.stdout.readline(), PATIENCE)
    assert line.split() == b"hello http://hello.example.com True".split()


async def test_wait_ends_when_the_condition_holds(api: Api) -> None:
    await api.apply(knative_service())
    waiting = await api.start_kubectl(
        "wait", "ksvc/hello", "--for=condition=Ready", f"--timeout={PATIENCE}s"
    )
    obj = api.store.get(GroupKind("serving.knative.dev", "Service"), "default", "hello")
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    status = {"conditions": conditions, "observedGeneration": 1}
    api.store.update({**obj, "status": status}, subresource="status")
    out, _ = await asyncio.wait_for(waiting.communicate(), PATIENCE)
    assert b"condition met" in out


async def test_wait_for_delete_and_jsonpath(api: Api) -> None:
    await api.apply(config_map(phase="old"))
    deleted = await api.start_kubectl("wait", "cm/one", "--for=delete", f"--timeout={PATIENCE}s")
    changed = await api.start_kubectl(
        "wait", "cm/one", "--for=jsonpath={.data.phase}=new", f"--timeout={PATIENCE}s"
    )
    await api.apply(config_map(phase="new"))
    await asyncio.wait_for(changed.communicate(), PATIENCE)
    assert changed.returncode == 0
    api.store.delete(CONFIG_MAP, "default", "one")
    await asyncio.wait_for(deleted.communicate(), PATIENCE)
    assert deleted.returncode == 0


async def test_get_all_and_wide_and_sorted(api: Api) -> None:
    await api.apply(deployment(), knative_service(), config_map("b"), config_map("a"))
    shown = await api.kubectl("get", "all")
    assert "deployment.apps/web" in shown
    assert "service.serving.knative.dev/hello" in shown
    assert "nginx:1.25" in await api.kubectl("get", "deploy", "-o", "wide")
    names = await api.kubectl("get", "cm", "--sort-by=.metadata.name", "--no-headers")
    assert [line.split()[0] for line in names.splitlines()][:2] == ["a", "b"]
    assert "default" in await api.kubectl("get", "cm", "-A")


async def test_field_validation_is_strict_unless_told_otherwise(api: Api) -> None:
    bad = json.dumps({**config_map(), "spec": {"x": 1}})
    said = await api.refused("apply", "-f", "-", stdin=bad)
    assert 'strict decoding error: unknown field "spec"' in said
    ran = await api.run("kubectl", "apply", "--validate=warn", "-f", "-", stdin=bad)
    assert 'Warning: unknown field "spec"' in ran.err
    await api.kubectl("apply", "--validate=false", "-f", "-", stdin=bad)


async def test_describe_shows_object_and_events(api: Api) -> None:
    from knlocal.control.events import EventRecorder

    await api.apply(deployment())
    obj = api.store.get(DEPLOYMENT, "default", "web")
    EventRecorder(api.store, "test").warning(obj, "Broken", "it does not work")
    shown = await api.kubectl("describe", "deploy", "web")
    assert "StrategyType:           RollingUpdate" in shown
    assert "it does not work" in shown
    assert "deployment/web" in await api.kubectl("get", "events")
    assert "it does not work" in await api.kubectl("events", "--for", "deployment/web")
    assert "Broken" in await api.kubectl("get", "events.events.k8s.io")
    await api.apply(knative_service())
    assert "serving.knative.dev/creator: kubernetes-admin" in await api.kubectl(
        "describe", "ksvc", "hello"
    )


async def test_run_makes_a_pod_and_delete_now_forgets_it(api: Api) -> None:
    await api.kubectl("run", "p", "--image=busybox", "--restart=Never")
    pod = await got(api, "pod", "p")
    assert pod["status"]["phase"] == "Pending"
    assert pod["spec"]["serviceAccountName"] == "default"
    assert "Pending" in await api.kubectl("get", "pod", "p")
    await api.kubectl("delete", "pod", "p", "--force", "--grace-period=0")
    assert "NotFound" in await api.refused("get", "pod", "p")


async def test_status_is_patched_through_its_subresource_only(api: Api) -> None:
    await api.apply(knative_service())
    patch = json.dumps({"status": {"url": "http://x"}, "metadata": {"labels": {"a": "b"}}})
    await api.kubectl("patch", "ksvc", "hello", "--type=merge", "-p", patch)
    obj = await got(api, "ksvc", "hello")
    assert "url" not in obj.get("status", {})
    assert obj["metadata"]["labels"] == {"a": "b"}
    patch = json.dumps({"status": {"url": "http://x"}, "metadata": {"labels": {"c": "d"}}})
    await api.kubectl("patch", "ksvc", "hello", "--subresource=status", "--type=merge", "-p", patch)
    obj = await got(api, "ksvc", "hello")
    assert obj["status"]["url"] == "http://x"
    assert obj["metadata"]["labels"] == {"a": "b"}
    assert obj["metadata"]["generation"] == 1
    applied = {
        "apiVersion": "serving.knative.dev/v1", "kind": "Service",
        "metadata": {"name": "hello"}, "status": {"latestReadyRevisionName": "r"},
    }  # fmt: skip
    await api.kubectl(
        "apply", "--server-side", "--subresource=status", "--field-manager=me", "-f", "-",
        stdin=json.dumps(applied),
    )  # fmt: skip
    obj = await got(api, "ksvc", "hello")
    assert obj["status"]["latestReadyRevisionName"] == "r"
    assert obj["status"]["url"] == "http://x"
    assert obj["spec"]["template"]["spec"]["containers"]


async def test_apply_can_prune_what_left_the_manifest(api: Api) -> None:
    def labelled(name: str) -> dict[str, Any]:
        obj = config_map(name)
        obj["metadata"]["labels"] = {"part": "x"}
        return obj

    words = ("apply", "-l", "part=x", "--prune", "--prune-allowlist=core/v1/ConfigMap", "-f", "-")
    await api.kubectl(*words, stdin=json.dumps(labelled("a")))
    await api.kubectl(*words, stdin=json.dumps(labelled("b")))
    assert api.store.find(CONFIG_MAP, "default", "a") is None
    assert api.store.find(CONFIG_MAP, "default", "b") is not None


async def test_delete_by_label_and_collection(api: Api) -> None:
    for name, app in (("a", "x"), ("b", "x"), ("c", "y")):
        obj = config_map(name)
        obj["metadata"]["labels"] = {"app": app}
        api.store.create(obj)
    await api.kubectl("delete", "cm", "-l", "app=x")
    path = "/api/v1/namespaces/default/configmaps"
    status, answer, _ = await api.call("DELETE", f"{path}?labelSelector=app")
    assert status == 200
    assert [item["metadata"]["name"] for item in answer["items"]] == ["c"]
    assert not [o for o in api.store.list(CONFIG_MAP, "default") if o["metadata"].get("labels")]
