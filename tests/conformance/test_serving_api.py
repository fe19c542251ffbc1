"""The Serving API as Knative's test/conformance/api/v1 and test/e2e see it."""

from __future__ import annotations

import re
import urllib.parse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import (
    IMAGE,
    NAMESPACE,
    SERVING,
    Cluster,
    condition,
    name,
    needs_kubectl,
    service,
)

pytestmark = pytest.mark.docker
DOMAINS = f"/apis/serving.knative.dev/v1beta1/namespaces/{NAMESPACE}/domainmappings"


@pytest.fixture(scope="module")
def split(cluster: Cluster) -> dict[str, Any]:
    """A Service with three Revisions, `one`, `two` and the newest."""
    called = name("split")
    cluster.ready_service(service(called, env={"TARGET": "one"}))
    path = f"{SERVING}/services/{called}"
    for target in ("two", "three"):
        retarget(cluster, path, target)
        cluster.ready(path)
    return cluster.get(path)  # type: ignore[no-any-return]


def retarget(cluster: Cluster, path: str, target: str) -> Any:
    def change(it: Any) -> None:
        it["spec"]["template"]["spec"]["containers"][0]["env"] = [
            {"name": "TARGET", "value": target}
        ]

    return cluster.update(path, change)


def test_a_service_makes_its_configuration_route_and_revision(
    cluster: Cluster, hello: dict[str, Any]
) -> None:
    called = hello["metadata"]["name"]
    for kind in ("configurations", "routes"):
        child = cluster.get(f"{SERVING}/{kind}/{called}")
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("Service", called, True)
        assert owner["uid"] == hello["metadata"]["uid"]
        assert child["metadata"]["labels"]["serving.knative.dev/service"] == called
        assert (
            child["metadata"]["annotations"].items()
            >= {
                key: hello["metadata"]["annotations"][key]
                for key in ("serving.knative.dev/creator", "serving.knative.dev/lastModifier")
            }.items()
        )
    revision = cluster.get(f"{SERVING}/revisions/{called}-00001")
    labels = revision["metadata"]["labels"]
    assert labels["serving.knative.dev/serviceUID"] == hello["metadata"]["uid"]
    assert labels["serving.knative.dev/configuration"] == called
    assert labels["serving.knative.dev/service"] == called
    assert labels["serving.knative.dev/configurationGeneration"] == "1"
    assert labels["serving.knative.dev/routingState"] == "active"
    assert revision["metadata"]["annotations"]["serving.knative.dev/routes"] == called
    assert revision["metadata"]["ownerReferences"][0]["kind"] == "Configuration"


def test_status_tells_urls_generations_and_conditions(
    cluster: Cluster, hello: dict[str, Any]
) -> None:
    status, called = hello["status"], hello["metadata"]["name"]
    assert status["url"].startswith(f"http://{called}.{NAMESPACE}.")
    assert status["address"]["url"].startswith(f"http://{called}.{NAMESPACE}.svc.cluster.local")
    assert status["observedGeneration"] == hello["metadata"]["generation"] == 1
    assert (
        status["latestCreatedRevisionName"]
        == status["latestReadyRevisionName"]
        == f"{called}-00001"
    )
    kinds = {c["type"]: c for c in status["conditions"]}
    assert set(kinds) >= {"Ready", "ConfigurationsReady", "RoutesReady"}
    assert all(c["status"] == "True" and c["lastTransitionTime"] for c in kinds.values())
    route = cluster.get(f"{SERVING}/routes/{called}")
    assert {c["type"] for c in route["status"]["conditions"]} >= {
        "Ready", "AllTrafficAssigned", "IngressReady",
    }  # fmt: skip
    assert route["status"]["url"] == status["url"]
    assert status["traffic"] == [
        {"revisionName": f"{called}-00001", "percent": 100, "latestRevision": True}
    ]
    revision = cluster.get(f"{SERVING}/revisions/{called}-00001")
    (container,) = revision["status"]["containerStatuses"]
    assert container["name"] == "user-container"
    assert "@sha256:" in container["imageDigest"]
    assert (revision["status"]["actualReplicas"], revision["status"]["desiredReplicas"]) == (1, 1)


def test_a_template_gets_the_defaults_of_knative(cluster: Cluster, hello: dict[str, Any]) -> None:
    spec = hello["spec"]["template"]["spec"]
    assert spec == {
        "containerConcurrency": 0, "enableServiceLinks": False, "timeoutSeconds": 300,
        "containers": [{
            "name": "user-container", "image": IMAGE, "resources": {},
            "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 0}},
        }],
    }  # fmt: skip
    assert hello["spec"]["traffic"] == [{"latestRevision": True, "percent": 100}]
    assert hello["metadata"].get("labels", {}) == {}
    assert set(hello["metadata"]["annotations"]) == {
        "serving.knative.dev/creator", "serving.knative.dev/lastModifier",
    }  # fmt: skip


def test_a_template_becomes_a_revision_as_it_is(cluster: Cluster) -> None:
    called = name("copied")
    body = service(called, env={"TARGET": "copy"}, spec={"timeoutSeconds": 77})
    body["spec"]["template"]["metadata"] = {"labels": {"a": "b"}, "annotations": {"c": "d"}}
    made = cluster.ready_service(body)
    revision = cluster.get(f"{SERVING}/revisions/{called}-00001")
    assert revision["spec"] == made["spec"]["template"]["spec"]
    assert revision["spec"]["timeoutSeconds"] == 77
    assert revision["metadata"]["labels"]["a"] == "b"
    assert revision["metadata"]["annotations"]["c"] == "d"
    for kind in ("configurations", "routes"):
        child = cluster.get(f"{SERVING}/{kind}/{called}")["metadata"]
        assert "a" not in child["labels"]
        assert "c" not in child["annotations"]


def test_an_update_makes_a_revision_and_moves_the_traffic(cluster: Cluster) -> None:
    called = name("update")
    first = cluster.ready_service(service(called, env={"TARGET": "one"}))
    path = f"{SERVING}/services/{called}"
    answer = retarget(cluster, path, "two")
    assert answer["metadata"]["generation"] == 2
    second = cluster.ready(path)
    assert second["status"]["latestReadyRevisionName"] == f"{called}-00002"
    assert cluster.call(first["status"]["url"]).text == "Hello two!\n"
    labels = cluster.get(f"{SERVING}/revisions/{called}-00001")["metadata"]["labels"]
    assert labels["serving.knative.dev/routingState"] == "reserve"


def test_labels_and_annotations_reach_what_the_service_owns(
    cluster: Cluster, split: dict[str, Any]
) -> None:
    called = split["metadata"]["name"]
    path = f"{SERVING}/services/{called}"

    def add(it: Any) -> None:
        it["metadata"].setdefault("labels", {})["team"] = "blue"
        it["metadata"].setdefault("annotations", {})["note"] = "mine"

    cluster.update(path, add)
    for kind in ("configurations", "routes"):
        cluster.until(
            lambda kind=kind: cluster.get(f"{SERVING}/{kind}/{called}")["metadata"]["labels"].get(
                "team"
            ) == "blue"
        )  # fmt: skip
        assert (
            cluster.get(f"{SERVING}/{kind}/{called}")["metadata"]["annotations"]["note"] == "mine"
        )
    revisions = cluster.get(
        f"{SERVING}/revisions?labelSelector=serving.knative.dev%2Fservice={called}"
    )
    assert len(revisions["items"]) == 3
    assert [r for r in revisions["items"] if "team" in r["metadata"]["labels"]] == []
    assert [r for r in revisions["items"] if "note" in r["metadata"].get("annotations", {})] == []

    def remove(it: Any) -> None:
        del it["metadata"]["labels"]["team"]
        del it["metadata"]["annotations"]["note"]

    cluster.update(path, remove)
    for kind in ("configurations", "routes"):
        cluster.until(
            lambda kind=kind: (
                "team" not in cluster.get(f"{SERVING}/{kind}/{called}")["metadata"]["labels"]
            )
        )
        assert "note" not in cluster.get(f"{SERVING}/{kind}/{called}")["metadata"]["annotations"]


def test_traffic_is_split_pinned_tagged_and_rolled_back(
    cluster: Cluster, split: dict[str, Any]
) -> None:
    called, path = split["metadata"]["name"], f"{SERVING}/services/{split['metadata']['name']}"
    wanted = [
        {"revisionName": f"{called}-00001", "percent": 50, "tag": "old"},
        {"revisionName": f"{called}-00002", "percent": 50},
        {"latestRevision": True, "percent": 0, "tag": "latest"},
    ]
    cluster.update(path, lambda it: it["spec"].update(traffic=wanted))
    got = cluster.ready(path)
    shown = got["status"]["traffic"]
    fields = ("revisionName", "percent", "latestRevision", "tag")
    assert [tuple(map(target.get, fields)) for target in shown] == [
        (f"{called}-00001", 50, False, "old"), (f"{called}-00002", 50, False, None),
        (f"{called}-00003", 0, True, "latest"),
    ]  # fmt: skip
    urls = {t["tag"]: t["url"] for t in shown if "tag" in t}
    assert urls["old"].startswith(f"http://old-{called}.{NAMESPACE}.")
    assert cluster.call(urls["old"]).text == "Hello one!\n"
    assert cluster.call(urls["latest"]).text == "Hello three!\n"
    with ThreadPoolExecutor(8) as many:
        bodies = Counter(many.map(lambda _: cluster.call(got["status"]["url"]).text, range(200)))
    assert set(bodies) == {"Hello one!\n", "Hello two!\n"}
    assert min(bodies.values()) >= 50
    labels = cluster.get(f"{SERVING}/revisions/{called}-00001")["metadata"]["labels"]
    assert labels["serving.knative.dev/routingState"] == "active"
    back = [{"revisionName": f"{called}-00001", "percent": 100}]
    cluster.update(path, lambda it: it["spec"].update(traffic=back))
    got = cluster.ready(path)
    assert {cluster.call(got["status"]["url"]).text for _ in range(20)} == {"Hello one!\n"}
    assert cluster.call(urls["old"]).status == 404
    cluster.update(
        path, lambda it: it["spec"].update(traffic=[{"latestRevision": True, "percent": 100}])
    )
    cluster.ready(path)


def test_a_route_to_nothing_says_what_is_missing(cluster: Cluster, split: dict[str, Any]) -> None:
    called, path = split["metadata"]["name"], f"{SERVING}/routes"
    body = {
        "apiVersion": "serving.knative.dev/v1", "kind": "Route",
        "metadata": {"name": name("lost"), "namespace": NAMESPACE},
        "spec": {"traffic": [{"revisionName": f"{called}-00099", "percent": 100}]},
    }  # fmt: skip
    cluster.must("POST", path, body)
    got = cluster.ready(f"{path}/{body['metadata']['name']}", "False")  # type: ignore[index]
    assert condition(got)["reason"] == "RevisionMissing"
    assert (
        f'Revision "{called}-00099" referenced in traffic not found.' == condition(got)["message"]
    )


def test_a_configuration_and_a_route_do_without_a_service(cluster: Cluster) -> None:
    called = name("alone")
    template = service(called)["spec"]["template"]
    about = {"apiVersion": "serving.knative.dev/v1", "metadata": {"name": called}}
    cluster.must(
        "POST", f"{SERVING}/configurations",
        {**about, "kind": "Configuration", "spec": {"template": template}},
    )  # fmt: skip
    got = cluster.ready(f"{SERVING}/configurations/{called}")
    assert got["status"]["latestReadyRevisionName"] == f"{called}-00001"
    traffic = [{"configurationName": called, "percent": 100}]
    cluster.must(
        "POST", f"{SERVING}/routes", {**about, "kind": "Route", "spec": {"traffic": traffic}}
    )
    route = cluster.ready(f"{SERVING}/routes/{called}")
    assert cluster.call(route["status"]["url"]).status == 200
    cluster.must("DELETE", f"{SERVING}/routes/{called}")
    cluster.until(lambda: cluster.call(route["status"]["url"]).status == 404)


def test_revisions_can_be_named_by_the_user(cluster: Cluster) -> None:
    called = name("byo")
    body = service(called)
    body["spec"]["template"]["metadata"] = {"name": f"{called}-mine"}
    got = cluster.ready_service(body)
    assert got["status"]["latestReadyRevisionName"] == f"{called}-mine"
    path = f"{SERVING}/services/{called}"
    changed = cluster.get(path)
    changed["spec"]["template"]["spec"]["timeoutSeconds"] = 7
    said = cluster.refused("PUT", path, changed)
    assert (
        "Saw the following changes without a name change (-old +new): spec.template.metadata.name"
        in said
    )


def test_a_revision_cannot_be_changed(cluster: Cluster, hello: dict[str, Any]) -> None:
    path = f"{SERVING}/revisions/{hello['metadata']['name']}-00001"
    changed = cluster.get(path)
    changed["spec"]["timeoutSeconds"] = 7
    assert "Immutable fields changed (-old +new)" in cluster.refused("PUT", path, changed)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"containerConcurrency": -1},
         "expected 0 <= -1 <= 1000: spec.template.spec.containerConcurrency"),
        ({"timeoutSeconds": -1}, "expected 0 <= -1 <= 600: spec.template.spec.timeoutSeconds"),
        ({"timeoutSeconds": 601}, "expected 0 <= 601 <= 600: spec.template.spec.timeoutSeconds"),
        ({"containers": []}, "missing field(s): spec.template.spec.containers"),
        ({"containers": [{"image": IMAGE, "ports": [{"containerPort": 1}, {"containerPort": 2}]}]},
         "more than one container port is set"),
        ({"containers": [{"image": IMAGE, "env": [{"value": "x"}]}]},
         "missing field(s): spec.template.spec.containers[0].env[0].name"),
        ({"containers": [{"image": IMAGE, "lifecycle": {}}]},
         "must not set the field(s): spec.template.spec.containers[0].lifecycle"),
        ({"containers": [{"image": IMAGE, "volumeMounts": [{"name": "x", "mountPath": "/x"}]}]},
         "no matching volume: spec.template.spec.containers[0].volumeMounts[0].name"),
        ({"containers": [{"image": ""}]}, "spec.template.spec.containers[0].image"),
        ({"containers": [{"image": IMAGE, "ports": [{"hostPort": 80}]}]},
         "must not set the field(s): spec.template.spec.containers[0].ports.hostPort"),
        ({"containers": [{"image": IMAGE, "stdin": True}]},
         "must not set the field(s): spec.template.spec.containers[0].stdin"),
    ],
    ids=lambda it: next(iter(it)) if isinstance(it, dict) else "",
)  # fmt: skip
def test_what_knative_refuses_is_refused_in_its_words(
    cluster: Cluster, change: dict[str, Any], said: str
) -> None:
    body = service(name("bad"))
    body["spec"]["template"]["spec"].update(change)
    message = cluster.refused("POST", f"{SERVING}/services", body)
    assert message.startswith('admission webhook "validation.webhook.serving.knative.dev" denied')
    assert said in message


@pytest.mark.parametrize("port", ["grpc", "http", "http2", "x"])
def test_a_port_name_that_is_no_transport_is_refused(cluster: Cluster, port: str) -> None:
    body = service(name("bad"), container={"ports": [{"name": port, "containerPort": 8080}]})
    said = cluster.refused("POST", f"{SERVING}/services", body)
    assert f"Port name {port} is not allowed: spec.template.spec.containers[0].ports" in said
    assert "Name must be empty, or one of: 'h2c', 'http1'" in said


def test_traffic_that_does_not_add_up_is_refused(cluster: Cluster) -> None:
    body = service(name("bad"), traffic=[{"latestRevision": True, "percent": 99}])
    said = cluster.refused("POST", f"{SERVING}/services", body)
    assert "Traffic targets sum to 99, want 100: spec.traffic" in said


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"revisionName": "x", "latestRevision": True}, "spec.traffic[0].latestRevision"),
        (
            {"revisionName": "x", "url": "http://x"},
            "must not set the field(s): spec.traffic[0].url",
        ),
        ({"percent": 101}, "spec.traffic[0].percent"),
        (
            {"latestRevision": False},
            'may not set revisionName "" when latestRevision is false',
        ),
        ({"tag": "No_Name"}, "not a DNS 1035 label"),
    ],
    ids=["latest", "url", "percent", "neither", "tag"],
)
def test_what_a_traffic_target_may_not_say_is_refused(
    cluster: Cluster, target: dict[str, Any], said: str
) -> None:
    body = service(name("bad"), traffic=[{"percent": 100, **target}])
    assert said in cluster.refused("POST", f"{SERVING}/services", body)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/dev", 'mountPath "/dev" is a reserved path'),
        ("/opt/../dev", 'mountPath "/dev" is a reserved path'),
        ("relative", "invalid value: relative"),
    ],
)
def test_volumes_stay_away_from_what_the_contract_keeps(
    cluster: Cluster, path: str, said: str
) -> None:
    said_at = f"{said}: spec.template.spec.containers[0].volumeMounts[0].mountPath"
    body = with_volume({"emptyDir": {}}, path)
    assert said_at in cluster.refused("POST", f"{SERVING}/services", body)


@pytest.mark.parametrize(
    "volume",
    [
        {"secret": {"secretName": "x", "optional": True}},
        {"configMap": {"name": "x", "optional": True}},
        {"projected": {"sources": [{"secret": {"name": "x", "optional": True}}]}},
    ],
    ids=["secret", "configMap", "projected"],
)
def test_volumes_of_objects_are_mounted_read_only(cluster: Cluster, volume: dict[str, Any]) -> None:
    made = cluster.create_service(with_volume(volume, "/x"))
    (mount,) = made["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert mount["readOnly"] is True
    cluster.must("DELETE", f"{SERVING}/services/{made['metadata']['name']}")


def with_volume(volume: dict[str, Any], path: str) -> dict[str, Any]:
    mounts = [{"name": "v", "mountPath": path}]
    return service(
        name("mounts"),
        container={"volumeMounts": mounts},
        spec={"volumes": [{"name": "v", **volume}]},
    )


def test_a_generated_name_is_completed(cluster: Cluster) -> None:
    body = service("x")
    body["metadata"] = {"generateName": "generated-", "namespace": NAMESPACE}
    made = cluster.create_service(body)
    assert re.fullmatch(r"generated-[a-z0-9]{5}", made["metadata"]["name"])
    cluster.must("DELETE", f"{SERVING}/services/{made['metadata']['name']}")


def test_visibility_follows_the_label(cluster: Cluster, hello: dict[str, Any]) -> None:
    body = service(name("private"))
    body["metadata"]["labels"] = {"networking.knative.dev/visibility": "cluster-local"}
    made = cluster.ready_service(body)
    url, path = made["status"]["url"], f"{SERVING}/services/{made['metadata']['name']}"
    host = f"{made['metadata']['name']}.{NAMESPACE}"
    public = urllib.parse.urlsplit(hello["status"]["url"]).netloc.split(NAMESPACE)[1]
    assert url.startswith(f"http://{host}.svc.cluster.local")
    assert cluster.call(f"http://{host}{public}").status == 404
    assert cluster.call(url, door=cluster.inside()).text == "Hello World!\n"
    cluster.update(path, lambda it: it["metadata"].pop("labels"))
    cluster.until(lambda: ".svc" not in cluster.get(path)["status"]["url"])
    cluster.until(lambda: cluster.call(f"http://{host}{public}").status == 200)


def test_deleting_a_service_removes_all_it_owns(cluster: Cluster) -> None:
    made = cluster.ready_service(service(name("gone")))
    called = made["metadata"]["name"]
    cluster.must("DELETE", f"{SERVING}/services/{called}")
    for path in (f"services/{called}", f"configurations/{called}", f"routes/{called}",
                 f"revisions/{called}-00001"):  # fmt: skip
        cluster.until(lambda path=path: cluster.request("GET", f"{SERVING}/{path}")[0] == 404)
    cluster.until(lambda: cluster.call(made["status"]["url"]).status == 404)
    cluster.until(lambda: not cluster.pods(called))


def test_revisions_nobody_needs_are_collected(cluster: Cluster) -> None:
    eager = {
        "retain-since-create-time": "disabled", "retain-since-last-active-time": "disabled",
        "min-non-active-revisions": "0", "max-non-active-revisions": "0",
    }  # fmt: skip
    cluster.configure("config-gc", dict(eager))
    try:
        called = name("collect")
        cluster.ready_service(service(called, env={"TARGET": "one"}))
        retarget(cluster, f"{SERVING}/services/{called}", "two")
        cluster.ready(f"{SERVING}/services/{called}")
        cluster.until(
            lambda: cluster.request("GET", f"{SERVING}/revisions/{called}-00001")[0] == 404
        )
        assert cluster.get(f"{SERVING}/revisions/{called}-00002")
    finally:
        cluster.configure("config-gc", dict.fromkeys(eager))


def test_a_domain_is_mapped_to_a_service(cluster: Cluster, hello: dict[str, Any]) -> None:
    domain = f"{name('www')}.example.com"
    ref = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "name": hello["metadata"]["name"],
    }
    body = {
        "apiVersion": "serving.knative.dev/v1beta1", "kind": "DomainMapping",
        "metadata": {"name": domain, "namespace": NAMESPACE}, "spec": {"ref": ref},
    }  # fmt: skip
    cluster.must("POST", DOMAINS, body)
    got = cluster.ready(f"{DOMAINS}/{domain}")
    assert urllib.parse.urlsplit(got["status"]["url"]).hostname == domain
    port = urllib.parse.urlsplit(hello["status"]["url"]).port
    told = cluster.call(f"http://{domain}:{port}", "/info").json()
    assert told["request"]["host"].split(":")[0] == domain
    cluster.must("DELETE", f"{DOMAINS}/{domain}")
    cluster.until(lambda: cluster.call(f"http://{domain}:{port}").status == 404)


def test_events_tell_what_happened(cluster: Cluster, hello: dict[str, Any]) -> None:
    called = hello["metadata"]["name"]
    query = urllib.parse.quote(f"involvedObject.name={called},involvedObject.kind=Service")
    events = cluster.get(f"/api/v1/namespaces/{NAMESPACE}/events?fieldSelector={query}")["items"]
    assert any(e["reason"] == "Created" and e["type"] == "Normal" for e in events)


def test_patches_of_each_kind_are_taken(cluster: Cluster, split: dict[str, Any]) -> None:
    path = f"{SERVING}/services/{split['metadata']['name']}"
    merged = cluster.must(
        "PATCH", path, {"metadata": {"annotations": {"a": "1"}}}, "application/merge-patch+json"
    )
    assert merged["metadata"]["annotations"]["a"] == "1"
    patch = [{"op": "remove", "path": "/metadata/annotations/a"}]
    patched = cluster.must("PATCH", path, patch, "application/json-patch+json")
    assert "a" not in patched["metadata"]["annotations"]
    status, answer = cluster.request(
        "PATCH", path, {"spec": {}}, "application/strategic-merge-patch+json"
    )
    assert (status, answer["reason"]) == (415, "UnsupportedMediaType")


def test_a_stale_write_is_a_conflict(cluster: Cluster, split: dict[str, Any]) -> None:
    path = f"{SERVING}/services/{split['metadata']['name']}"
    stale = cluster.get(path)
    stale["metadata"]["resourceVersion"] = "1"
    message = cluster.refused("PUT", path, stale, 409)
    assert "the object has been modified" in message


def test_the_python_client_reads_writes_and_watches(
    cluster: Cluster, hello: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # where it leaves certificates
    kubernetes = pytest.importorskip("kubernetes")
    config = kubernetes.config.new_client_from_config(str(cluster.kubeconfig))
    objects = kubernetes.client.CustomObjectsApi(config)
    where = ("serving.knative.dev", "v1", NAMESPACE, "services")
    called = name("python")
    objects.create_namespaced_custom_object(*where, service(called))
    watch = kubernetes.watch.Watch()
    for event in watch.stream(
        objects.list_namespaced_custom_object, *where,
        field_selector=f"metadata.name={called}", timeout_seconds=60,
    ):  # fmt: skip
        if condition(event["object"]).get("status") == "True":
            watch.stop()
    got = objects.get_namespaced_custom_object(*where, called)
    assert cluster.call(got["status"]["url"]).status == 200
    pods = kubernetes.client.CoreV1Api(config).list_namespaced_pod(
        NAMESPACE, label_selector=f"serving.knative.dev/service={called}"
    )
    assert pods.items[0].status.phase == "Running"
    objects.delete_namespaced_custom_object(*where, called)


@needs_kubectl
def test_kubectl_does_what_the_tutorials_do(cluster: Cluster) -> None:
    called = name("kubectl")
    assert cluster.kubectl("apply", "-f", "-", feed=service(called)) == (
        f"service.serving.knative.dev/{called} created\n"
    )
    cluster.kubectl("wait", "--for=condition=Ready", f"ksvc/{called}", "--timeout=60s")
    table = cluster.kubectl("get", "ksvc", called).splitlines()
    assert table[0].split() == [
        "NAME", "URL", "LATESTCREATED", "LATESTREADY", "READY", "REASON",
    ]  # fmt: skip
    assert table[1].split()[2:] == [f"{called}-00001", f"{called}-00001", "True"]
    for short in (
        "rt",
        "cfg",
        "config",
        "rev",
        "configurations",
        "revisions",
        "routes",
        "kservice",
    ):
        assert called in cluster.kubectl("get", short), short
    assert called in cluster.kubectl("get", "knative,pods,deployments,services")
    url = cluster.kubectl("get", "ksvc", called, "-o", "jsonpath={.status.url}")
    assert cluster.call(url).status == 200
    pod = cluster.kubectl(
        "get", "pods", "-o", "name", "-l", f"serving.knative.dev/service={called}"
    )
    assert "to stdout" in cluster.kubectl("logs", pod.strip(), "-c", "user-container")
    said = cluster.kubectl("exec", pod.strip(), "-c", "user-container", "--", "id", "-u")
    assert said == "65532\n"
    assert "Ready" in cluster.kubectl("describe", "ksvc", called)
    assert "containerConcurrency" in cluster.kubectl("explain", "ksvc.spec.template.spec")
    cluster.kubectl("annotate", "ksvc", called, "a=b")
    cluster.kubectl(
        "patch", "ksvc", called, "--type=merge", "-p", '{"metadata":{"labels":{"x":"y"}}}'
    )
    assert f'service.serving.knative.dev "{called}" deleted' in cluster.kubectl(
        "delete", "ksvc", called
    )
    assert "not found" in cluster.kubectl("get", "ksvc", called, code=1)
