"""What kn relies on, command by command (see kn.py)."""

from __future__ import annotations

import urllib.parse
from typing import Any

import pytest

from tests.conformance.conftest import IMAGE, NAMESPACE, SERVING, Cluster, condition, name, service
from tests.conformance.kn import DOMAINS, EVENTING, MESSAGING, Kn

pytestmark = pytest.mark.docker


@pytest.fixture
def kn(cluster: Cluster) -> Kn:
    return Kn(cluster)


def set_env(value: str) -> Any:
    def change(it: dict[str, Any]) -> None:
        it["spec"]["template"]["spec"]["containers"][0]["env"] = [
            {"name": "TARGET", "value": value}
        ]

    return change


def test_service_create_update_and_delete(kn: Kn, cluster: Cluster) -> None:
    called = name("kn")
    made = kn.service_create(service(called, env={"TARGET": "kn"}))
    assert cluster.call(made["status"]["url"]).text == "Hello kn!\n"
    new = kn.service_update(called, set_env("again"))
    assert new["status"]["latestReadyRevisionName"] == f"{called}-00002"
    assert cluster.call(made["status"]["url"]).text == "Hello again!\n"
    image = new["spec"]["template"]["spec"]["containers"][0]["image"]
    assert "@sha256:" in image
    same = kn.service_update(
        called,
        lambda it: it["metadata"].get("labels", {}).pop("networking.knative.dev/visibility", 0),
    )
    assert same["metadata"]["generation"] == new["metadata"]["generation"]
    assert kn.service_describe(called) == [100]
    assert kn.revision_list(called) == [f"{called}-00002", f"{called}-00001"]
    kn.service_delete(called, wait=True)
    assert cluster.request("GET", f"{SERVING}/services/{called}")[0] == 404


def test_service_apply_says_whether_anything_changed(kn: Kn) -> None:
    called = name("apply")
    assert kn.service_apply(service(called, env={"TARGET": "a"}))[1]
    assert not kn.service_apply(service(called, env={"TARGET": "a"}))[1]
    got, changed = kn.service_apply(service(called, env={"TARGET": "b"}))
    assert changed
    assert got["status"]["latestReadyRevisionName"] == f"{called}-00002"


def test_apply_lets_go_of_what_left_the_flags_and_keeps_what_others_set(
    kn: Kn, cluster: Cluster
) -> None:
    called = name("letgo")
    kn.service_apply(service(called, env={"TARGET": "a"}, annotations={"example.com/a": "1"}))
    kn.update(
        f"{SERVING}/services/{called}",
        lambda it: it["metadata"].setdefault("labels", {}).update(owner="me"),
    )
    got, changed = kn.service_apply(service(called, env={"TARGET": "a"}))
    assert changed
    assert "annotations" not in got["spec"]["template"].get("metadata", {})
    assert got["metadata"]["labels"]["owner"] == "me"


def test_create_by_force_replaces_all_of_a_service(kn: Kn, cluster: Cluster) -> None:
    called = name("force")
    kn.service_create(service(called, env={"TARGET": "old"}, spec={"timeoutSeconds": 20}))
    got = kn.service_replace(service(called, env={"TARGET": "new"}))
    template = got["spec"]["template"]["spec"]
    assert template["timeoutSeconds"] == 300
    assert cluster.call(got["status"]["url"]).text == "Hello new!\n"
    assert got["metadata"]["annotations"]["serving.knative.dev/creator"] == "kubernetes-admin"


def test_every_flag_of_service_create_is_taken(kn: Kn, cluster: Cluster) -> None:
    """--scale-*, --concurrency-*, --autoscale-window, --env*, --mount, --volume, --probe-*, --user,
    --security-context, --request, --limit, --port, --cmd, --arg, --service-account, --timeout,
    --revision-name, --label*, --annotation*, --tag, as kn writes them into the Service."""
    called = name("flags")
    core = f"/api/v1/namespaces/{NAMESPACE}"
    about = {"name": called}
    cluster.must("POST", f"{core}/configmaps", {"metadata": about, "data": {"A": "1", "f": "text"}})
    cluster.must("POST", f"{core}/secrets", {"metadata": about, "stringData": {"S": "2"}})
    cluster.must("POST", f"{core}/serviceaccounts", {"metadata": about})
    body = service(
        called,
        container={
            "name": "app", "command": ["python3"], "args": ["/server.py"],
            "ports": [{"name": "http1", "containerPort": 8080}],
            "env": [{"name": "TARGET", "value": "flags"},
                    {"name": "FROM",
                     "valueFrom": {"configMapKeyRef": {"name": called, "key": "A"}}},
                    {"name": "ALSO", "valueFrom": {"secretKeyRef": {"name": called, "key": "S"}}}],
            "envFrom": [{"configMapRef": {"name": called}}, {"secretRef": {"name": called}}],
            "volumeMounts": [{"name": "cm", "mountPath": "/config", "readOnly": True},
                             {"name": "empty", "mountPath": "/scratch"}],
            "resources": {"requests": {"memory": "20Mi", "cpu": "20m"},
                          "limits": {"memory": "200Mi"}},
            "readinessProbe": {"httpGet": {"path": "/", "port": 8080, "host": ""},
                               "periodSeconds": 2, "timeoutSeconds": 1},
            "livenessProbe": {"tcpSocket": {"port": 8080, "host": ""}},
            "securityContext": {"runAsUser": 1000, "allowPrivilegeEscalation": False,
                                "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
                                "seccompProfile": {"type": "RuntimeDefault"}},
        },
        spec={
            "containerConcurrency": 20, "timeoutSeconds": 30, "serviceAccountName": called,
            "volumes": [{"name": "cm", "configMap": {"name": called}},
                        {"name": "empty", "emptyDir": {"sizeLimit": "10Mi"}}],
        },
        annotations={
            f"autoscaling.knative.dev/{key}": value
            for key, value in {
                "min-scale": "1", "max-scale": "3", "initial-scale": "1", "activation-scale": "2",
                "target": "10", "target-utilization-percentage": "70", "window": "20s",
                "metric": "concurrency", "class": "kpa.autoscaling.knative.dev",
            }.items()
        },
    )  # fmt: skip
    body["spec"]["template"]["metadata"] |= {"name": f"{called}-first", "labels": {"rev": "1"}}
    body["spec"]["traffic"] = [{"latestRevision": True, "percent": 100, "tag": "blue"}]
    body["metadata"] |= {
        "labels": {"svc": "1", "networking.knative.dev/visibility": "cluster-local"},
        "annotations": {"example.com/note": "hi"},
    }
    got = kn.service_create(body)
    assert got["status"]["url"] == f"http://{called}.{NAMESPACE}.svc.cluster.local"
    (target,) = got["status"]["traffic"]
    assert (target["revisionName"], target["tag"]) == (f"{called}-first", "blue")
    shown = kn.describe(f"{SERVING}/revisions/{called}-first")
    assert shown["metadata"]["labels"]["rev"] == "1"
    assert cluster.call(got["status"]["url"], door=cluster.inside()).text == "Hello flags!\n"
    kn.service_delete(called, wait=True)


def test_lists_and_descriptions_have_every_column(kn: Kn, cluster: Cluster) -> None:
    called = name("columns")
    kn.service_create(service(called, env={"TARGET": "kn"}))
    kn.service_traffic(
        called,
        [{"revisionName": f"{called}-00001", "percent": 0, "tag": "stable",
          "latestRevision": False},
         {"latestRevision": True, "percent": 100, "tag": "newest"}],
    )  # fmt: skip
    url = cluster.get(f"{SERVING}/services/{called}")["status"]["url"]
    assert kn.service_list()[called] == [url, f"{called}-00001", "3 OK / 3", "True"]
    assert kn.route_list()[called] == [url, "True"]
    targets = kn.route_describe(called)["Targets"]
    assert [t[:3] for t in targets] == [
        (0, f"{called}-00001", "stable"), (100, f"{called}-00001", "newest"),
    ]  # fmt: skip
    assert targets[0][3] == url.replace("//", "//stable-")
    shown = kn.revision_describe(f"{called}-00001")
    assert shown | {"Image": "", "Replicas": ""} == {
        "Image": "", "Replicas": "", "Env": "TARGET=kn", "Generation": "1", "Latest": "True",
        "Traffic": "100", "Tags": "stable,newest",
    }  # fmt: skip
    assert shown["Image"].startswith(IMAGE)
    kn.service_delete_all(called)
    assert called not in kn.service_list()


def test_everything_can_be_listed_for_completion(kn: Kn) -> None:
    beta = f"/apis/eventing.knative.dev/v1beta2/namespaces/{NAMESPACE}"
    sources = f"/apis/sources.knative.dev/v1/namespaces/{NAMESPACE}"
    for path in (
        f"{SERVING}/services", f"{SERVING}/revisions", f"{SERVING}/routes", DOMAINS,
        f"{EVENTING}/brokers", f"{EVENTING}/triggers", f"{beta}/eventtypes",
        f"{MESSAGING}/channels", f"{MESSAGING}/subscriptions",
        f"{sources}/pingsources", f"{sources}/apiserversources", f"{sources}/sinkbindings",
        f"{sources}/containersources", "/apis/serving.knative.dev/v1/services",
    ):  # fmt: skip
        kn.listed(path)


def test_traffic_tags_prune_and_revision_delete(kn: Kn) -> None:
    called = name("traffic")
    kn.service_create(service(called, env={"TARGET": "one"}))
    for value in ("two", "three"):
        kn.service_update(called, set_env(value))
    got = kn.service_traffic(
        called,
        [{"revisionName": f"{called}-00002", "percent": 0, "tag": "stable",
          "latestRevision": False},
         {"latestRevision": True, "percent": 100}],
    )  # fmt: skip
    shown = [(t["percent"], t["latestRevision"], t.get("tag")) for t in got["status"]["traffic"]]
    assert shown == [(0, False, "stable"), (100, True, None)]
    assert kn.revision_prune(called) == [f"{called}-00001"]
    assert kn.revision_list(called) == [f"{called}-00003", f"{called}-00002"]
    kn.revision_delete(f"{called}-00003", wait=True)  # a live Service makes it again


def test_export_and_import_keep_old_revisions(kn: Kn, cluster: Cluster) -> None:
    called = name("export")
    kn.service_create(service(called, env={"TARGET": "one"}))
    kn.service_update(called, set_env("two"))
    kn.service_traffic(
        called,
        [{"revisionName": f"{called}-00001", "percent": 50, "latestRevision": False},
         {"latestRevision": True, "percent": 50}],
    )  # fmt: skip
    exported, revisions = kn.service_export(called)
    (old,) = revisions
    assert old["metadata"]["annotations"] == {
        "client.knative.dev/user-image": IMAGE, "serving.knative.dev/routes": called,
    }  # fmt: skip
    assert old["metadata"]["labels"] == {
        "serving.knative.dev/configuration": called,
        "serving.knative.dev/configurationGeneration": "1",
        "serving.knative.dev/routingState": "active", "serving.knative.dev/service": called,
    }  # fmt: skip
    assert set(exported["metadata"]) == {"name"}
    kn.service_delete(called, wait=True)
    cluster.until(lambda: not kn.revisions_of(called))
    exported["spec"]["template"].setdefault("metadata", {})["name"] = f"{called}-00002"
    got = kn.service_import(exported, revisions)
    bodies = {cluster.call(got["status"]["url"]).text for _ in range(60)}
    assert bodies == {"Hello one!\n", "Hello two!\n"}


def test_an_export_of_an_image_is_just_its_defaults(kn: Kn, hello: dict[str, Any]) -> None:
    exported, revisions = kn.service_export(hello["metadata"]["name"])
    assert revisions == []
    assert exported["spec"]["template"]["spec"] == {
        "containerConcurrency": 0, "enableServiceLinks": False, "timeoutSeconds": 300,
        "containers": [{
            "name": "user-container", "image": IMAGE, "resources": {},
            "readinessProbe": {"successThreshold": 1, "tcpSocket": {"port": 0}},
        }],
    }  # fmt: skip


def test_a_watch_from_an_old_version_replays_what_was_missed(kn: Kn, cluster: Cluster) -> None:
    """kn starts a closed watch again from the same version; ADDED events do not count there."""
    called = name("replay")
    made = cluster.create_service(service(called))
    kn.wait_for_service(called)
    version = made["metadata"]["resourceVersion"]
    query = f"fieldSelector=metadata.name%3D{called}&resourceVersion={version}&watch=true"
    kinds = []
    for event in cluster.watch(f"{SERVING}/services?{query}&timeoutSeconds=20", 20):
        kinds.append(event["type"])
        if condition(event["object"]).get("status") == "True":
            break
    assert set(kinds) == {"MODIFIED"}


def test_a_wait_can_begin_before_the_service(kn: Kn, cluster: Cluster) -> None:
    called = name("early")
    events = cluster.watch(
        f"{SERVING}/services?fieldSelector=metadata.name%3D{called}&timeoutSeconds=60&watch=true"
    )
    cluster.create_service(service(called))
    assert next(events)["type"] == "ADDED"
    assert any(condition(e["object"]).get("status") == "True" for e in events)


def test_a_service_that_exists_is_not_created_twice(
    cluster: Cluster, hello: dict[str, Any]
) -> None:
    called = hello["metadata"]["name"]
    said = cluster.refused("POST", f"{SERVING}/services", service(called), 409)
    assert said == f'services.serving.knative.dev "{called}" already exists'


def test_list_by_name_and_nothing_to_list(cluster: Cluster, hello: dict[str, Any]) -> None:
    query = urllib.parse.quote(f"metadata.name={hello['metadata']['name']}")
    found = cluster.get(f"{SERVING}/services?fieldSelector={query}")
    assert [item["metadata"]["name"] for item in found["items"]] == [hello["metadata"]["name"]]
    assert cluster.get(f"{SERVING}/services?fieldSelector=metadata.name%3Dnone")["items"] == []


def test_domain_create_update_and_delete(kn: Kn, cluster: Cluster, hello: dict[str, Any]) -> None:
    domain = f"{name('kn')}.example.org"
    kn.domain_create(domain, hello["metadata"]["name"])
    cluster.ready(f"{DOMAINS}/{domain}")
    kn.update(f"{DOMAINS}/{domain}", lambda it: it["spec"].update(tls={"secretName": "cert"}))
    cluster.until(
        lambda: cluster.get(f"{DOMAINS}/{domain}")["status"]["url"].startswith(f"https://{domain}"),
        lambda: cluster.get(f"{DOMAINS}/{domain}"),
    )
    assert kn.describe(f"{DOMAINS}/{domain}")["spec"]["ref"]["kind"] == "Service"
    kn.delete(DOMAINS, domain)


def test_broker_trigger_and_eventtype(kn: Kn, cluster: Cluster, hello: dict[str, Any]) -> None:
    called = name("kn")
    kn.create(EVENTING, "Broker", "eventing.knative.dev/v1", called, {})
    cluster.ready(f"{EVENTING}/brokers/{called}")
    kn.update(
        f"{EVENTING}/brokers/{called}",
        lambda it: it["spec"].update(delivery={"retry": 5, "backoffPolicy": "linear",
                                               "backoffDelay": "PT5S", "timeout": "PT10S"}),
    )  # fmt: skip
    sink = kn.sink(f"{SERVING}/services/{hello['metadata']['name']}")
    kn.create(EVENTING, "Trigger", "eventing.knative.dev/v1", called,
              {"broker": called, "filter": {"attributes": {"type": "a"}},
               "subscriber": sink})  # fmt: skip
    trigger = cluster.ready(f"{EVENTING}/triggers/{called}")
    assert trigger["status"]["subscriberUri"] == hello["status"]["address"]["url"]
    assert kn.describe(f"{EVENTING}/triggers/{called}")["spec"]["broker"] == called
    assert kn.describe(f"{EVENTING}/brokers/{called}")["status"]["address"]["url"]
    kn.update(f"{EVENTING}/triggers/{called}", lambda it: it["spec"].update(filter={}))
    other = kn.create(EVENTING, "Broker", "eventing.knative.dev/v1", f"{called}-odd", {},
                      annotations={"eventing.knative.dev/broker.class": "Strange"})  # fmt: skip
    assert other["metadata"]["annotations"]["eventing.knative.dev/broker.class"] == "Strange"
    types = f"/apis/eventing.knative.dev/v1beta2/namespaces/{NAMESPACE}"
    kn.create(types, "EventType", "eventing.knative.dev/v1beta2", called,
              {"type": "dev.kn", "broker": called})  # fmt: skip
    got = cluster.until(lambda: cluster.get(f"{types}/eventtypes/{called}"))
    assert got["spec"]["type"] == "dev.kn"
    kn.delete(f"{EVENTING}/triggers", called)
    kn.delete(f"{EVENTING}/brokers", called, wait=True)
    for left in ("brokers", "triggers"):
        assert cluster.request("GET", f"{EVENTING}/{left}/{called}")[0] == 404


def test_an_injected_broker_comes_with_its_trigger(
    kn: Kn, cluster: Cluster, hello: dict[str, Any]
) -> None:
    called = name("inject")
    sink = kn.sink(f"{SERVING}/services/{hello['metadata']['name']}")
    kn.create(EVENTING, "Trigger", "eventing.knative.dev/v1", called,
              {"broker": "default", "subscriber": sink, "filter": {}},
              annotations={"eventing.knative.dev/injection": "enabled"})  # fmt: skip
    cluster.ready(f"{EVENTING}/triggers/{called}")
    cluster.ready(f"{EVENTING}/brokers/default")


def test_channel_and_subscription(kn: Kn, cluster: Cluster, hello: dict[str, Any]) -> None:
    called, version = name("kn"), "messaging.knative.dev/v1"
    made = kn.create(MESSAGING, "Channel", version, called, {})
    assert made["spec"]["channelTemplate"]["kind"] == "InMemoryChannel"
    beta = {"channelTemplate": {"apiVersion": "messaging.knative.dev/v1beta1",
                                "kind": "InMemoryChannel"}}  # fmt: skip
    kn.create(MESSAGING, "Channel", version, f"{called}-beta", beta)
    sink = kn.sink(f"{SERVING}/services/{hello['metadata']['name']}")
    ref = {"apiVersion": version, "kind": "Channel", "name": called}
    kn.create(MESSAGING, "Subscription", version, called, {"channel": ref, "subscriber": sink})
    cluster.ready(f"{MESSAGING}/subscriptions/{called}")
    assert kn.describe(f"{MESSAGING}/channels/{called}")["status"]["address"]["url"]
    assert kn.describe(f"{MESSAGING}/subscriptions/{called}")["spec"]["subscriber"] == sink
    assert "InMemoryChannel" in kn.channel_types()


def test_sources_of_each_type(kn: Kn, cluster: Cluster, hello: dict[str, Any]) -> None:
    called = name("kn")
    sink = kn.sink(f"{SERVING}/services/{hello['metadata']['name']}")
    types = kn.source_types()
    assert {"PingSource", "ApiServerSource", "SinkBinding", "ContainerSource"} <= set(types)
    beta = f"/apis/sources.knative.dev/v1beta2/namespaces/{NAMESPACE}"
    stable = f"/apis/sources.knative.dev/v1/namespaces/{NAMESPACE}"
    v1 = "sources.knative.dev/v1"
    kn.create(beta, "PingSource", "sources.knative.dev/v1beta2", called,
              {"schedule": "* * * * */1", "data": "hi", "sink": sink})  # fmt: skip
    cluster.ready(f"{stable}/pingsources/{called}")
    kn.update(f"{beta}/pingsources/{called}", lambda it: it["spec"].update(schedule="*/2 * * * *"))
    kn.create(stable, "ApiServerSource", v1, called,
              {"resources": [{"apiVersion": "v1", "kind": "Event"}], "mode": "Reference",
               "serviceAccountName": "absent", "sink": sink})  # fmt: skip
    kn.create(stable, "SinkBinding", v1, called,
              {"subject": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "absent"},
               "sink": sink})  # fmt: skip
    kn.create(stable, "ContainerSource", v1, called,
              {"template": {"spec": {"containers": [{"image": IMAGE}]}}, "sink": sink})  # fmt: skip
    listed = {item["kind"] for item in kn.source_list()}
    assert listed >= {"PingSource", "ApiServerSource", "SinkBinding", "ContainerSource"}
    for plural in ("pingsources", "apiserversources", "sinkbindings", "containersources"):
        kn.delete(f"{stable}/{plural}", called)


def test_a_missing_sink_has_the_message_kn_prints(cluster: Cluster) -> None:
    got, answer = cluster.request("GET", f"{SERVING}/services/absent")
    assert (got, answer["reason"]) == (404, "NotFound")
    assert answer["message"] == 'services.serving.knative.dev "absent" not found'


def test_secret_create(cluster: Cluster) -> None:
    path = f"/api/v1/namespaces/{NAMESPACE}/secrets"
    called = name("kn")
    made = cluster.must("POST", path, {"metadata": {"name": called}, "stringData": {"a": "b"}})
    assert (made["data"], made["type"], "stringData" in made) == ({"a": "Yg=="}, "Opaque", False)
