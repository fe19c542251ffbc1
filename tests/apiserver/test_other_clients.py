"""Other people's clients, unmodified: kr8s, lightkube, kubernetes_asyncio, and an operator of kopf.

Each is skipped where it is not installed; the `dev` extra has them all.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from knlocal.resources.base import GroupKind, Obj
from knlocal.resources.status import NotFound
from knlocal.store.store import Store
from tests.apiserver.conftest import PATIENCE, Api, config_map, deployment, eventually
from tests.apiserver.conftest import knative_service as knative_json
from tests.apiserver.test_custom_resources import CRDS, crd, tab
from tests.apiserver.test_pods import pods, talker  # noqa: F401  (fixtures)

KSVC = GroupKind("serving.knative.dev", "Service")


def in_time(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Clients wait for ever: the test does not."""

    @functools.wraps(test)
    async def limited(*arguments: Any, **named: Any) -> None:
        async with asyncio.timeout(2 * PATIENCE):
            await test(*arguments, **named)

    return limited


def make_ready(store: Store, name: str) -> None:
    """What Serving would write."""
    generation = store.get(KSVC, "default", name)["metadata"]["generation"]
    status = {
        "observedGeneration": generation, "url": f"http://{name}.default.localhost",
        "conditions": [{"type": "Ready", "status": "True"}],
    }  # fmt: skip
    store.modify(
        KSVC, "default", name, lambda obj: obj.__setitem__("status", status), subresource="status"
    )


def gone(store: Store, kind: GroupKind, name: str) -> bool:
    return store.find(kind, "default", name) is None


# --- kr8s ----------------------------------------------------------------------------------------


@in_time
async def test_kr8s_creates_waits_patches_and_deletes(api: Api) -> None:
    kr8s = pytest.importorskip("kr8s")
    from kr8s.asyncio.objects import new_class

    client = await kr8s.asyncio.api(kubeconfig=str(api.kubeconfig))
    assert (await client.version())["major"] == "1"
    assert await client.whoami() == "kubernetes-admin"
    assert "ksvc" in {
        name for r in await client.api_resources() for name in r.get("shortNames", ())
    }
    service_class = new_class(
        kind="Service", version="serving.knative.dev/v1", namespaced=True, asyncio=True
    )
    service = await service_class(knative_json(), api=client)
    await service.create()
    waiting = asyncio.create_task(service.wait("condition=Ready", timeout=PATIENCE))
    make_ready(api.store, "hello")
    await waiting
    await service.refresh()
    assert service.status.url == "http://hello.default.localhost"
    await service.label({"team": "a"})
    await service.patch([{"op": "add", "path": "/metadata/labels/b", "value": "2"}], type="json")
    assert dict(service.labels) == {"team": "a", "b": "2"}
    found = [s.name async for s in client.get("ksvc", namespace="default", label_selector="b=2")]
    assert found == ["hello"]
    await service.delete(propagation_policy="Foreground")
    await service.wait("delete", timeout=PATIENCE)
    assert not await service.exists()


@in_time
async def test_kr8s_scales_and_watches(api: Api) -> None:
    kr8s = pytest.importorskip("kr8s")
    from kr8s.asyncio.objects import Deployment

    client = await kr8s.asyncio.api(kubeconfig=str(api.kubeconfig))
    web = await Deployment(deployment(), api=client)
    await web.create()
    await web.scale(5)
    assert web.replicas == 5
    async for event, seen in client.watch("configmaps", namespace="default"):
        if event == "ADDED" and seen.name == "one":
            break
        if not api.store.find(GroupKind("", "ConfigMap"), "default", "one"):
            api.store.create(config_map())


@pytest.mark.usefixtures("talker")
@in_time
async def test_kr8s_reads_logs_and_executes(api: Api) -> None:
    kr8s = pytest.importorskip("kr8s")
    from kr8s.asyncio.objects import Pod

    client = await kr8s.asyncio.api(kubeconfig=str(api.kubeconfig))
    ready = [{"type": type_, "status": "True"} for type_ in ("Ready", "ContainersReady")]
    api.store.modify(
        GroupKind("", "Pod"), "default", "talker",
        lambda obj: obj["status"].__setitem__("conditions", ready), subresource="status",
    )  # fmt: skip
    pod = await Pod.get("talker", namespace="default", api=client)
    assert [line async for line in pod.logs(tail_lines=2)] == ["two", "three"]
    done = await pod.exec(["sh", "-c", "echo said; echo wrong >&2; exit 3"], check=False)
    assert (done.stdout, done.stderr, done.returncode) == (b"said\n", b"wrong\n", 3)


# --- lightkube -----------------------------------------------------------------------------------


@in_time
async def test_lightkube_applies_patches_lists_and_watches(api: Api) -> None:
    lightkube = pytest.importorskip("lightkube")
    from lightkube.core.exceptions import ApiError
    from lightkube.generic_resource import (
        async_load_in_cluster_generic_resources,
        get_generic_resource,
    )
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.apps_v1 import Deployment
    from lightkube.resources.core_v1 import ConfigMap
    from lightkube.types import PatchType

    config = lightkube.KubeConfig.from_file(str(api.kubeconfig))
    client = lightkube.AsyncClient(config=config, field_manager="light", namespace="default")
    await async_load_in_cluster_generic_resources(client)
    service_class = get_generic_resource("serving.knative.dev/v1", "Service")
    assert service_class, "found through the CRDs"
    body = knative_json()
    wanted = service_class(metadata=ObjectMeta(name="hello"), spec=body["spec"])
    await client.apply(wanted)
    waiting = asyncio.create_task(client.wait(service_class, "hello", for_conditions=["Ready"]))
    make_ready(api.store, "hello")
    assert (await waiting).status["url"]

    about = ObjectMeta(name="one", labels={"a": "b"})
    one = await client.create(ConfigMap(metadata=about, data={"a": "1"}))
    one.data["b"] = "2"
    assert (await client.replace(one)).data == {"a": "1", "b": "2"}
    change: list[dict[str, str]] = [{"op": "remove", "path": "/data/a"}]
    assert (await client.patch(ConfigMap, "one", change, patch_type=PatchType.JSON)).data == {
        "b": "2"
    }
    mine = ConfigMap(metadata=ObjectMeta(name="one"), data={"b": "9"})
    with pytest.raises(ApiError) as refused:
        await client.apply(mine, field_manager="other")
    assert refused.value.status.code == 409
    assert (await client.apply(mine, field_manager="other", force=True)).data == {"b": "9"}
    found = [
        c.metadata.name
        async for c in client.list(ConfigMap, labels={"a": ["b", "c"]}, chunk_size=1)
    ]
    assert found == ["one"]
    async for event, seen in client.watch(ConfigMap, fields={"metadata.name": "one"}):
        assert (event, seen.data) == ("ADDED", {"b": "9"})
        break

    await client.create(Deployment.from_dict(deployment()))
    scale = await client.get(Deployment.Scale, "web")
    assert scale.spec.replicas == 2
    await client.delete(Deployment, "web")
    with pytest.raises(ApiError) as missing:
        await client.get(Deployment, "web")
    assert (missing.value.status.code, missing.value.status.reason) == (404, "NotFound")
    await client.close()


# --- kubernetes_asyncio --------------------------------------------------------------------------


@in_time
async def test_kubernetes_asyncio_finds_kinds_watches_and_applies(api: Api) -> None:
    pytest.importorskip("kubernetes_asyncio")
    from kubernetes_asyncio import client, config, dynamic, watch

    configuration = client.Configuration()
    await config.load_kube_config(str(api.kubeconfig), client_configuration=configuration)
    async with client.ApiClient(configuration) as connection:
        found = await dynamic.DynamicClient(connection)
        services = await found.resources.get(api_version="serving.knative.dev/v1", kind="Service")
        await services.create(body=knative_json(), namespace="default")
        make_ready(api.store, "hello")
        custom = client.CustomObjectsApi(connection)
        place = ("serving.knative.dev", "v1", "default", "services")
        listing = watch.Watch().stream(
            custom.list_namespaced_custom_object, *place, field_selector="metadata.name=hello"
        )
        async with listing as events:
            async for event in events:
                assert event["object"]["status"]["url"]
                break
        applied = await services.server_side_apply(
            body={**knative_json(), "metadata": {"name": "hello", "labels": {"a": "b"}}},
            namespace="default", field_manager="async", force_conflicts=True,
        )  # fmt: skip
        assert applied.metadata.labels.to_dict() == {"a": "b"}
        merged = await custom.patch_namespaced_custom_object(
            *place, "hello", {"metadata": {"labels": {"c": "d"}}},
            _content_type="application/merge-patch+json",
        )  # fmt: skip
        assert merged["metadata"]["labels"] == {"a": "b", "c": "d"}
        status = await custom.get_namespaced_custom_object_status(*place, "hello")
        assert status["status"]["observedGeneration"] == 1
        await services.delete(name="hello", namespace="default")
    assert gone(api.store, KSVC, "hello")


@pytest.mark.usefixtures("talker")
@in_time
async def test_kubernetes_asyncio_executes_over_a_websocket(api: Api) -> None:
    pytest.importorskip("kubernetes_asyncio")
    from kubernetes_asyncio import client, config
    from kubernetes_asyncio.stream import WsApiClient

    configuration = client.Configuration()
    await config.load_kube_config(str(api.kubeconfig), client_configuration=configuration)
    async with WsApiClient(configuration) as connection:
        said = await client.CoreV1Api(connection).connect_get_namespaced_pod_exec(
            "talker", "default", command=["echo", "hi"], container="main", stderr=True,
            stdin=False, stdout=True, tty=False,
        )  # fmt: skip
    assert said == "hi\n"


# --- kopf ----------------------------------------------------------------------------------------


@in_time
async def test_a_kopf_operator_handles_services_and_resources_of_its_own(api: Api) -> None:
    kopf = pytest.importorskip("kopf")
    registry, stop, happened = kopf.OperatorRegistry(), asyncio.Event(), asyncio.Queue[Any]()
    await api.call("POST", CRDS, crd())

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> Any:
        return kopf.ConnectionInfo(
            server=api.server.url, token=api.server.tokens.admin,
            ca_data=api.server.authority.pem,
        )  # fmt: skip

    @kopf.on.startup(registry=registry)
    def configure(settings: Any, **_: Any) -> None:
        settings.persistence.finalizer = "tests.example.com/finalizer"
        settings.posting.level = logging.INFO

    @kopf.on.create(KSVC.group, "v1", "services", registry=registry)
    def created(name: str, body: Any, patch: Any, **_: Any) -> None:
        patch.metadata.annotations["tests.example.com/seen"] = "yes"
        kopf.info(body, reason="Seen", message=f"{name} was seen")
        happened.put_nowait(("created", name))

    @kopf.on.update(KSVC.group, "v1", "services", registry=registry)
    def updated(diff: Any, **_: Any) -> None:
        changed = [".".join(path) for _, path, _, _ in diff if path[0] == "spec"]
        if changed:  # the operator's own annotation is a change, too
            happened.put_nowait(("updated", changed))

    @kopf.on.delete(KSVC.group, "v1", "services", registry=registry)
    def deleted(name: str, **_: Any) -> None:
        happened.put_nowait(("deleted", name))

    @kopf.on.create("stable.example.com", "v1", "crontabs", registry=registry)
    def counted(patch: Any, **_: Any) -> None:
        patch.status["replicas"] = 3
        happened.put_nowait(("counted", ""))

    async def next_event() -> Any:
        return await asyncio.wait_for(happened.get(), PATIENCE)

    operator = asyncio.create_task(
        kopf.operator(registry=registry, standalone=True, namespaces=["default"], stop_flag=stop)
    )
    try:
        await api.call("POST", SERVICES, knative_json())
        assert await next_event() == ("created", "hello")
        seen = await eventually(api.store, lambda: annotated(api.store))
        assert seen["metadata"]["finalizers"] == ["tests.example.com/finalizer"]
        events = GroupKind("", "Event")
        await eventually(
            api.store, lambda: any(e["reason"] == "Seen" for e in api.store.list(events, "default"))
        )
        api.store.modify(
            KSVC, "default", "hello",
            lambda obj: obj["spec"]["template"]["spec"].__setitem__("timeoutSeconds", 20),
        )  # fmt: skip
        assert await next_event() == ("updated", ["spec.template.spec.timeoutSeconds"])
        await api.call("POST", TABS, tab())
        assert (await next_event())[0] == "counted"
        kind = GroupKind("stable.example.com", "CronTab")
        await eventually(
            api.store,
            lambda: api.store.get(kind, "default", "mine").get("status") == {"replicas": 3},
        )
        await api.call("DELETE", f"{SERVICES}/hello")
        assert await next_event() == ("deleted", "hello")
        await eventually(api.store, lambda: gone(api.store, KSVC, "hello"))
    finally:
        stop.set()
        await asyncio.wait_for(operator, PATIENCE)


SERVICES = "/apis/serving.knative.dev/v1/namespaces/default/services"
TABS = "/apis/stable.example.com/v1/namespaces/default/crontabs"


def annotated(store: Store) -> Obj | None:
    try:
        obj = store.get(KSVC, "default", "hello")
    except NotFound:
        return None
    seen = "tests.example.com/seen" in json.dumps(obj["metadata"].get("annotations") or {})
    return obj if seen and obj["metadata"].get("finalizers") else None
