"""Ingresses that people make themselves lead to Services, by host, path, header and share."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from knlocal.gateway import Exposure
from knlocal.resources.base import Obj
from knlocal.serving.kinds import INGRESS, INGRESS_CLASS
from knlocal.serving.user_ingress import spec_hash
from tests.serving.world import World, conditions, service

KOURIER = "kourier.ingress.networking.knative.dev"
HOST = "mine.example.com"


def split(name: str, **more: Any) -> Obj:
    return {"serviceName": name, "serviceNamespace": "default", "servicePort": 80, **more}


def ingress(*paths: Obj, visibility: str = "ExternalIP", **more: Any) -> Obj:
    rule = {"hosts": [HOST], "visibility": visibility, "http": {"paths": list(paths)}}
    return {
        "apiVersion": "networking.internal.knative.dev/v1alpha1",
        "kind": "Ingress",
        "metadata": {
            "name": "mine", "namespace": "default", "annotations": {INGRESS_CLASS: KOURIER},
        },
        "spec": {"rules": [rule], **more},
    }  # fmt: skip


async def seen(world: World, path: str = "", **headers: str) -> tuple[int, dict[str, str]]:
    """The status of a request, and the headers that the program got."""
    answer = await world.get(f"http://{HOST}{path}", **headers)
    name = next((value for key, value in answer.headers.items() if key.lower() == "x-pod"), "")
    servers = {server.name: server for server in world.workloads.servers.values()}
    return answer.status, servers[name].requests[-1][1] if name else {}


def served(world: World) -> list[str]:
    """The doors at which the host is answered."""
    doors: list[Exposure] = ["external", "internal"]
    return [door for door in doors if world.routes.find(HOST, door)]


async def test_paths_and_headers_choose_the_service_and_headers_are_set(world: World) -> None:
    await world.apply(service())
    await world.apply(service("other"))
    made = await world.apply(
        ingress(
            {"splits": [split("hello", appendHeaders={"Which": "hello"})]},
            {"path": "/foo", "splits": [split("other")], "appendHeaders": {"Which": "foo"}},
            {
                "headers": {"Knative-Serving-Tag": {"exact": "t"}},
                "appendHeaders": {"Which": "tag"},
                "splits": [split("other")],
            },
        )
    )
    assert conditions(world.store.get(INGRESS, "default", "mine")) == {
        "LoadBalancerReady": "True", "NetworkConfigured": "True", "Ready": "True",
    }  # fmt: skip
    for path, tag, which in (("", "", "hello"), ("/foo/x", "", "foo"), ("", "t", "tag")):
        status, headers = await seen(world, path, Which="bogus", Knative_Serving_Tag=tag)
        assert (status, headers["which"], headers["host"]) == (200, which, HOST)
    world.store.delete(INGRESS, "default", made["metadata"]["name"])
    await world.settled()
    assert not served(world)


async def test_shares_are_kept_and_the_host_may_be_rewritten(world: World) -> None:
    await world.apply(service())
    splits = [
        split("hello", percent=0, appendHeaders={"Which": "none"}),
        split("hello", percent=100, appendHeaders={"Which": "all"}),
    ]
    inner = "hello.default.svc.cluster.local"
    await world.apply(ingress({"rewriteHost": inner, "splits": splits}))
    for _ in range(10):
        status, headers = await seen(world)
        assert (status, headers["which"], headers["host"]) == (200, "all", inner)


async def test_another_class_and_private_rules_are_not_for_people(world: World) -> None:
    await world.apply(service())
    foreign = ingress({"splits": [split("hello")]})
    foreign["metadata"]["annotations"] = {INGRESS_CLASS: "incorrect"}
    made = await world.apply(foreign)
    assert world.store.get(INGRESS, "default", "mine") == made
    assert not served(world)
    world.store.delete(INGRESS, "default", "mine")
    await world.apply(ingress({"splits": [split("hello")]}, visibility="ClusterLocal"))
    assert served(world) == ["internal"]


async def test_a_host_that_is_served_already_stays_where_it_is(world: World) -> None:
    await world.apply(service())
    wanted = ingress({"splits": [split("hello")]})
    wanted["spec"]["rules"][0]["hosts"] = ["hello.default.svc.cluster.local"]
    await world.apply(wanted)
    found = conditions(world.store.get(INGRESS, "default", "mine"))
    assert found["NetworkConfigured"] == "False HostInUse"


async def test_probes_are_told_which_version_is_served(world: World) -> None:
    await world.apply(service())
    made = await world.apply(ingress({"splits": [split("hello")]}))
    spec = (
        '{"rules":[{"hosts":["mine.example.com"],"visibility":"ExternalIP","http":{"paths":['
        '{"splits":[{"serviceNamespace":"default","serviceName":"hello","servicePort":80,'
        '"percent":100}]}]}}],"httpOption":"Enabled"}'
    )
    assert spec_hash(made) == hashlib.sha256(f"{spec}defaultmine".encode()).hexdigest()


@pytest.mark.parametrize("change", [{"httpOption": "Redirected"}, {"tls": []}])
def test_the_hash_changes_with_the_spec(change: Obj) -> None:
    before = ingress({"splits": [split("hello")]})
    assert spec_hash(before) != spec_hash({**before, "spec": before["spec"] | change})
