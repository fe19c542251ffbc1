"""Tables become the objects that YAML would make."""

import json
from pathlib import Path
from typing import Any

import pytest

from knlocal.project import config, objects
from knlocal.project.errors import ProjectError
from knlocal.project.objects import Origin


def made(text: str, root: Path = Path(), **kwargs: Any) -> list[dict[str, Any]]:
    settings = config.parse(text, root=root)
    return [manifest.obj for manifest in objects.manifests(settings, **kwargs)]


def test_a_service_table_becomes_a_knative_service(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("A=file\nB=file")
    (service,) = made(
        """
        [services.orders]
        image = "acme/orders:1"
        env_file = "a.env"
        env = { A = "table" }
        port = 9000
        protocol = "h2c"
        timeout = "1m"
        memory = "256Mi"
        readiness = { path = "/ready" }
        scale = { min = 1, max = 4, concurrency = 10, target = 0.5, window = 60, idle = "freeze" }
        traffic = [
          { revision = "latest", percent = 90 },
          { revision = "orders-00001", percent = 10, tag = "stable" },
        ]
        """,
        tmp_path,
    )
    assert service == {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "orders", "namespace": "default"},
        "spec": {
            "template": {
                "metadata": {
                    "annotations": {
                        "autoscaling.knative.dev/min-scale": "1",
                        "autoscaling.knative.dev/max-scale": "4",
                        "autoscaling.knative.dev/target": "0.5",
                        "autoscaling.knative.dev/window": "60s",
                        "knlocal.dev/idle": "freeze",
                    }
                },
                "spec": {
                    "containers": [
                        {
                            "image": "acme/orders:1",
                            "env": [
                                {"name": "A", "value": "table"},
                                {"name": "B", "value": "file"},
                            ],
                            "ports": [{"name": "h2c", "containerPort": 9000}],
                            "resources": {"limits": {"memory": "256Mi"}},
                            "readinessProbe": {"httpGet": {"path": "/ready"}},
                        }
                    ],
                    "containerConcurrency": 10,
                    "timeoutSeconds": 60,
                },
            },
            "traffic": [
                {"latestRevision": True, "percent": 90},
                {
                    "revisionName": "orders-00001",
                    "latestRevision": False,
                    "percent": 10,
                    "tag": "stable",
                },
            ],
        },
    }


def test_further_containers_and_volumes_stand_in_the_same_pod() -> None:
    (service,) = made(
        """
        [services.web]
        image = "web:1"
        volumes = [{ path = "/data", empty = true }]
        [services.web.containers.side]
        image = "side:1"
        volumes = [{ path = "/etc/side", configmap = "side" }]
        [services.web.init.prepare]
        image = "prepare:1"
        """
    )
    spec = service["spec"]["template"]["spec"]
    assert [c.get("name") for c in spec["containers"]] == ["user-container", "side"]
    assert "ports" in spec["containers"][0]
    assert spec["initContainers"] == [{"name": "prepare", "image": "prepare:1"}]
    names = {volume["name"] for volume in spec["volumes"]}
    mounts = {m["name"] for c in spec["containers"] for m in c["volumeMounts"]}
    assert names == mounts


def test_a_built_source_gives_image_annotations_and_env() -> None:
    run = {"command": ["x"], "dir": "/y"}
    origin = Origin("dev.local/shop/hello:1", run=run, env={"A": "1", "B": "1"})
    (service,) = made(
        '[services.hello]\nsource = "./hello"\nenv = { B = "2" }', origins={("hello", ""): origin}
    )
    template = service["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert container["image"] == "dev.local/shop/hello:1"
    assert {e["name"]: e["value"] for e in container["env"]} == {"A": "1", "B": "2"}
    assert json.loads(template["metadata"]["annotations"]["knlocal.dev/run"]) == run


@pytest.mark.parametrize(
    ("sink", "destination"),
    [
        ("audit", {"ref": ("serving.knative.dev/v1", "Service", "audit")}),
        ("broker:default", {"ref": ("eventing.knative.dev/v1", "Broker", "default")}),
        ("channel:a", {"ref": ("messaging.knative.dev/v1", "Channel", "a")}),
        ("svc:db/x/y", {"ref": ("v1", "Service", "db"), "uri": "/x/y"}),
        ("http://localhost:9/x", {"uri": "http://localhost:9/x"}),
    ],
)
def test_sinks_become_destinations(sink: str, destination: dict[str, Any]) -> None:
    (trigger,) = made(f'[triggers.t]\nsink = "{sink}"')
    ref = destination.get("ref")
    if ref:
        destination["ref"] = dict(zip(("apiVersion", "kind", "name"), ref, strict=True))
    assert trigger["spec"]["subscriber"] == destination


def test_a_sink_of_no_known_kind_is_refused() -> None:
    with pytest.raises(ProjectError, match=r"(?s)\[triggers.t sink\].*did you mean 'broker'"):
        made('[triggers.t]\nsink = "borker:default"')


def test_eventing_tables_become_objects_with_delivery() -> None:
    broker, sequence, trigger, ping = made(
        """
        [brokers.default]
        class = "durable"
        [triggers.created]
        filter = { type = "order.created" }
        sink = "audit"
        retry = 5
        delay = "500ms"
        backoff = "linear"
        dead_letter = "http://localhost:9999/dead"
        [sequences.flow]
        steps = ["a", { sink = "b", retry = 1 }]
        reply = "broker:default"
        [sources.tick]
        kind = "ping"
        schedule = "*/5 * * * *"
        data = "{}"
        sink = "broker:default"
        """
    )
    assert broker["metadata"]["annotations"] == {"eventing.knative.dev/broker.class": "Durable"}
    assert trigger["spec"]["filter"] == {"attributes": {"type": "order.created"}}
    assert trigger["spec"]["delivery"] == {
        "retry": 5,
        "backoffPolicy": "linear",
        "backoffDelay": "PT0.5S",
        "deadLetterSink": {"uri": "http://localhost:9999/dead"},
    }
    assert [step["ref"]["name"] for step in sequence["spec"]["steps"]] == ["a", "b"]
    assert ping["kind"] == "PingSource"
    assert ping["spec"]["schedule"] == "*/5 * * * *"


def test_settings_become_knatives_own_config_maps() -> None:
    serving, eventing = made(
        '[settings.autoscaler]\nstable-window = "6s"\n'
        '[settings.eventing-features]\nkreference-mapping = "enabled"'
    )
    assert serving["metadata"] == {"name": "config-autoscaler", "namespace": "knative-serving"}
    assert eventing["metadata"] == {"name": "config-features", "namespace": "knative-eventing"}
