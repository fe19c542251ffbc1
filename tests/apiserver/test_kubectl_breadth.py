"""kubectl's other sub-commands: generators, kustomize, RBAC, nodes, forms of output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from knlocal.resources.base import GroupKind
from tests.apiserver.conftest import Api, config_map, deployment, needs_kubectl

pytestmark = needs_kubectl


@pytest.mark.parametrize(
    ("command", "resource", "path", "value"),
    [
        ("quota q --hard=pods=1", "quota/q", ".spec.hard.pods", "1"),
        ("pdb b --selector=app=web --min-available=1", "pdb/b", ".spec.minAvailable", "1"),
        ("role r --verb=get,list --resource=pods,ksvc", "role/r", ".rules[1].apiGroups[0]",
         "serving.knative.dev"),
        ("clusterrole c --verb=get --non-resource-url=/metrics", "clusterrole/c",
         ".rules[0].nonResourceURLs[0]", "/metrics"),
        ("rolebinding b --clusterrole=view --serviceaccount=default:sa", "rolebinding/b",
         ".subjects[0].namespace", "default"),
        ("clusterrolebinding b --clusterrole=view --user=joe", "clusterrolebinding/b",
         ".subjects[0].name", "joe"),
        ("secret docker-registry s --docker-server=x --docker-username=u --docker-password=p",
         "secret/s", ".type", "kubernetes.io/dockerconfigjson"),
        ("job j --image=busybox -- echo hi", "job/j", ".spec.template.spec.restartPolicy", "Never"),
        ("priorityclass p --value=5", "priorityclass/p", ".value", "5"),
        ("ingress i --rule=a.example.com/=web:80", "ingress/i", ".spec.rules[0].host",
         "a.example.com"),
        ("service externalname e --external-name=example.com", "service/e", ".spec.type",
         "ExternalName"),
        ("service nodeport n --tcp=80:8080", "service/n", ".spec.ports[0].targetPort", "8080"),
    ],
)  # fmt: skip
async def test_generators_make_what_they_are_for(
    api: Api, command: str, resource: str, path: str, value: str
) -> None:
    assert "created" in await api.kubectl("create", *command.split())
    assert await api.kubectl("get", resource, "-o", f"jsonpath={{{path}}}") == value


async def test_a_folder_is_applied_through_kustomize(api: Api, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "ksvc.yaml").write_text(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: hello}\n"
        "spec: {template: {spec: {containers: [{image: example.com/hello:1}]}}}\n"
    )
    (base / "kustomization.yaml").write_text(
        "resources: [ksvc.yaml]\nnamePrefix: dev-\nlabels: [{pairs: {team: a}}]\n"
        "configMapGenerator: [{name: settings, literals: [x=1]}]\n"
    )
    folder = str(base)
    assert "service.serving.knative.dev/dev-hello created" in await api.kubectl(
        "apply", "-k", folder
    )
    assert (await api.run("kubectl", "diff", "-k", folder)).code == 0
    name = "jsonpath={.items[0].metadata.name}"
    assert await api.kubectl("get", "ksvc", "-l", "team=a", "-o", name) == "dev-hello"
    applied = await api.kubectl("apply", "--server-side", "--force-conflicts", "-k", folder)
    assert applied.count("serverside-applied") == 2
    assert await api.kubectl("delete", "-k", folder)


async def test_rights_are_listed_once_and_asked_for_others(api: Api) -> None:
    rows = (await api.kubectl("auth", "can-i", "--list")).splitlines()
    assert len(rows) == len(set(rows))
    await api.kubectl("create", "role", "r", "--verb=get", "--resource=pods")
    await api.kubectl("create", "rolebinding", "r", "--role=r", "--user=joe")
    assert (await api.kubectl("auth", "can-i", "get", "pods", "--as=joe")).strip() == "yes"
    ran = await api.run("kubectl", "auth", "can-i", "delete", "pods", "--as=joe")
    assert (ran.code, ran.out.strip()) == (1, "no")
    said = await api.refused("get", "ksvc", "--as=joe")
    assert 'User "joe" cannot list resource "services" in API group "serving.knative.dev"' in said
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "r", "namespace": "default"}, "rules": rules}  # fmt: skip
    await api.kubectl("auth", "reconcile", "-f", "-", stdin=json.dumps(role))
    both = await api.kubectl("get", "role", "r", "-o", "jsonpath={.rules[*].resources}")
    assert both == '["pods"] ["secrets"]'


async def test_a_node_is_cordoned_tainted_and_drained(api: Api) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "here"}, "spec": {}}
    api.store.create(node)
    await api.kubectl("cordon", "here")
    assert "SchedulingDisabled" in await api.kubectl("get", "nodes")
    await api.kubectl("uncordon", "here")
    await api.kubectl("taint", "node", "here", "a=b:NoSchedule")
    taints = await api.kubectl("get", "node", "here", "-o", "jsonpath={.spec.taints[0].effect}")
    assert taints == "NoSchedule"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
           "spec": {"nodeName": "here", "containers": [{"name": "a", "image": "a"}]}}  # fmt: skip
    api.store.create(pod)
    said = await api.refused("drain", "here")
    assert "cannot delete Pods that declare no controller" in said
    assert "drained" in await api.kubectl("drain", "here", "--force", "--grace-period=0")
    assert not api.store.list(GroupKind("", "Pod"), "default")


async def test_output_comes_in_every_form(api: Api) -> None:
    await api.apply(config_map("one", a="1"), config_map("two", a="2"), deployment())
    for form, expected in (
        ("name", "configmap/one\nconfigmap/two\n"),
        ("jsonpath={.items[*].data.a}", "1 2"),
        ("go-template={{range .items}}{{.data.a}};{{end}}", "1;2;"),
        ("custom-columns=N:.metadata.name,A:.data.a", "N     A\none   1\ntwo   2\n"),
    ):
        assert await api.kubectl("get", "cm", "one", "two", "-o", form) == expected
    rows = await api.kubectl("get", "cm", "--sort-by=.data.a", "--no-headers", "--chunk-size=1")
    assert [row.split()[0] for row in rows.splitlines()][-2:] == ["one", "two"]
    await api.kubectl("label", "cm", "one", "team=a")
    assert "team=a" in await api.kubectl("get", "cm", "one", "--show-labels")
    assert (await api.kubectl("get", "cm", "-L", "team")).split()[3] == "TEAM"
    assert "web" in await api.kubectl("get", "deploy", "-A", "-o", "wide")


async def test_a_deployment_is_changed_piece_by_piece(api: Api) -> None:
    await api.apply(deployment())
    for command in (
        "env deploy/web A=b", "resources deploy/web --limits=memory=200Mi",
        "serviceaccount deploy/web robot", "image deploy/web main=nginx:2",
    ):  # fmt: skip
        assert "updated" in await api.kubectl("set", *command.split())
    assert "exposed" in await api.kubectl("expose", "deploy/web", "--port=80")
    assert "autoscaled" in await api.kubectl("autoscale", "deploy/web", "--max=3")
    spec = json.loads(await api.kubectl("get", "deploy/web", "-o", "json"))["spec"]["template"]
    (container,) = spec["spec"]["containers"]
    assert container["env"] == [{"name": "A", "value": "b"}]
    assert container["image"] == "nginx:2"
    assert spec["spec"]["serviceAccountName"] == "robot"
    said = await api.refused("scale", "--current-replicas=9", "--replicas=1", "deploy/web")
    assert "Expected replicas to be 9, was 2" in said


async def test_files_hold_lists_and_several_documents(api: Api) -> None:
    text = (
        "apiVersion: v1\nkind: List\nitems:\n"
        "- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n"
        "---\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n"
        "---\napiVersion: v1\nkind: ConfigMapList\nitems:\n"
        "- {apiVersion: v1, kind: ConfigMap, metadata: {name: c}}\n"
    )
    for name in "abc":
        assert f"configmap/{name}" in await api.kubectl("apply", "-f", "-", stdin=text)
    replaced = await api.kubectl("replace", "--force", "-f", "-", stdin=text)
    assert replaced.count("replaced") == 3
    assert "(server dry run)" in await api.kubectl("delete", "cm", "a", "--dry-run=server")
    await api.kubectl("delete", "-f", "-", "--ignore-not-found", stdin=text)
    assert not await api.kubectl("delete", "cm", "a", "--ignore-not-found")


async def test_what_a_knative_service_cannot_do_is_said(api: Api) -> None:
    body = {"apiVersion": "serving.knative.dev/v1", "kind": "Service",
            "metadata": {"name": "x", "namespace": "default"},
            "spec": {"template": {"spec": {"containers": [{"image": "hi/a:1"}]}}}}  # fmt: skip
    await api.apply(body)
    assert "could not find" in await api.refused("scale", "ksvc/x", "--replicas=2")
    assert "strategic" in await api.refused("patch", "ksvc/x", "-p", "{}")
    unknown = {**body, "spec": {"templat": {}}}
    said = await api.refused("replace", "-f", "-", stdin=json.dumps(unknown))
    assert 'unknown field "spec.templat"' in said
    nowhere = {**body, "apiVersion": "foo/v1"}
    said = await api.refused("create", "-f", "-", stdin=json.dumps(nowhere))
    assert 'no matches for kind "Service" in version "foo/v1"' in said


@pytest.mark.parametrize(
    ("schedule", "fits"),
    [("*/5 * * * *", True), ("@hourly", True), ("0 9 * * mon-fri", True),
     ("*/5****", False), ("61 * * * *", False), ("* * * * * *", False),
     ("TZ=UTC * * * * *", False)],
)  # fmt: skip
async def test_a_schedule_is_checked(api: Api, schedule: str, fits: bool) -> None:
    ran = await api.run("kubectl", "create", "cronjob", "c", "--image=a", f"--schedule={schedule}")
    assert (ran.code == 0) == fits, ran
    assert fits or "spec.schedule: Invalid value" in ran.err


async def test_tokens_are_made_for_an_audience_and_a_time(api: Api) -> None:
    await api.kubectl("create", "sa", "robot")
    token = await api.kubectl("create", "token", "robot", "--duration=10m", "--audience=here")
    assert token.count(".") == 2
    assert "10 minutes" in await api.refused("create", "token", "robot", "--duration=10s")
