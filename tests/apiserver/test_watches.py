"""The watch protocol."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from knlocal.resources.base import GroupKind, Obj
from tests.apiserver.conftest import PATIENCE, Api, config_map, event_of

CONFIG_MAP = GroupKind("", "ConfigMap")
PATH = "/api/v1/namespaces/default/configmaps"


def change(api: Api, name: str, **data: str) -> Obj:
    return api.store.modify(CONFIG_MAP, "default", name, lambda o: o.__setitem__("data", data))


def names(event: dict[str, Any]) -> tuple[str, str]:
    return event["type"], event["object"]["metadata"]["name"]


async def test_without_a_version_everything_comes_first_as_added(api: Api) -> None:
    api.store.create(config_map("a"))
    async with await api.stream(f"{PATH}?watch=true&fieldSelector=metadata.name=a") as watch:
        assert watch.headers["Content-Type"] == "application/json"
        assert names(await event_of(watch)) == ("ADDED", "a")
        change(api, "a", x="1")
        assert names(await event_of(watch)) == ("MODIFIED", "a")
        api.store.delete(CONFIG_MAP, "default", "a")
        gone = await event_of(watch)
        assert names(gone) == ("DELETED", "a")
        assert gone["object"]["metadata"]["resourceVersion"] == str(api.store.version)


async def test_from_a_version_missed_changes_are_replayed_in_order(api: Api) -> None:
    version = api.store.version
    api.store.create(config_map("a"))
    change(api, "a", x="1")
    api.store.delete(CONFIG_MAP, "default", "a")
    async with await api.stream(f"{PATH}?watch=1&resourceVersion={version}") as watch:
        assert [(await event_of(watch))["type"] for _ in range(3)] == [
            "ADDED",
            "MODIFIED",
            "DELETED",
        ]


async def test_the_headers_come_at_once_and_the_time_limit_ends_it_cleanly(api: Api) -> None:
    path = f"{PATH}?watch=true&resourceVersion={api.store.version}&timeoutSeconds=1"
    async with await api.stream(path) as watch:
        assert watch.status == 200
        assert await asyncio.wait_for(watch.content.read(), PATIENCE) == b""


async def test_leaving_and_entering_a_selector_is_deleting_and_adding(api: Api) -> None:
    obj = api.store.create(config_map("a"))
    path = f"{PATH}?watch=true&labelSelector=app=x&resourceVersion={api.store.version}"

    def label(**labels: str) -> Obj:
        return api.store.modify(
            CONFIG_MAP, "default", "a", lambda o: o["metadata"].__setitem__("labels", labels)
        )

    async with await api.stream(path) as watch:
        label(app="x")
        assert (await event_of(watch))["type"] == "ADDED"
        label(app="x", more="y")
        assert (await event_of(watch))["type"] == "MODIFIED"
        left = label(app="z")
        event = await event_of(watch)
        assert event["type"] == "DELETED"
        assert event["object"]["metadata"]["labels"] == {"app": "x", "more": "y"}
        version = left["metadata"]["resourceVersion"]
        assert event["object"]["metadata"]["resourceVersion"] == version
    assert obj["metadata"]["name"] == "a"


async def test_a_version_that_is_too_old_or_from_the_future_is_gone(api: Api) -> None:
    for version in (api.store.version + 1000, 999999999999):
        status, answer, _ = await api.call("GET", f"{PATH}?watch=true&resourceVersion={version}")
        assert (status, answer["reason"]) == (410, "Expired")
        assert answer["message"].startswith("too old resource version")


async def test_initial_events_end_with_an_annotated_bookmark(api: Api) -> None:
    api.store.create(config_map("a"))
    query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    query += "&allowWatchBookmarks=true"
    async with await api.stream(f"{PATH}?{query}") as watch:
        events = []
        while not events or events[-1]["type"] != "BOOKMARK":
            events.append(await event_of(watch))
    assert {names(event) for event in events[:-1]} >= {("ADDED", "a")}
    last = events[-1]["object"]
    assert (last["kind"], last["apiVersion"]) == ("ConfigMap", "v1")
    assert last["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert last["metadata"]["resourceVersion"] == str(api.store.version)


@pytest.mark.parametrize(
    "query",
    [
        "sendInitialEvents=true&allowWatchBookmarks=true",
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
        "resourceVersionMatch=NotOlderThan",
    ],
)
async def test_half_a_wish_for_initial_events_is_invalid(api: Api, query: str) -> None:
    status, answer, _ = await api.call("GET", f"{PATH}?watch=true&{query}")
    assert (status, answer["reason"]) == (422, "Invalid")


async def test_a_watched_table_sends_columns_once(api: Api) -> None:
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
    headers = {"Authorization": f"Bearer {api.server.tokens.admin}", "Accept": accept}
    url = f"{api.server.url}{PATH}?watch=true&resourceVersion={api.store.version}"
    async with api.session.get(url, headers=headers) as watch:
        api.store.create(config_map("a"))
        first = await event_of(watch)
        api.store.create(config_map("b"))
        second = await event_of(watch)
    assert first["object"]["kind"] == "Table"
    assert first["object"]["rows"][0]["cells"][0] == "a"
    assert (len(first["object"]["columnDefinitions"]), second["object"]["columnDefinitions"]) == (
        3,
        [],
    )


async def test_a_bookmark_closes_a_watch_that_asked_for_bookmarks(api: Api) -> None:
    version = api.store.version
    path = f"{PATH}?watch=true&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds=1"
    async with await api.stream(path) as watch:
        event = await event_of(watch)
    assert event["type"] == "BOOKMARK"
    assert event["object"]["metadata"]["resourceVersion"] == str(version)


async def test_a_client_that_never_reads_hinders_nobody(api: Api) -> None:
    async with await api.stream(f"{PATH}?watch=true"):
        big = "x" * 200_000
        api.store.create(config_map("big"))
        for number in range(200):
            change(api, "big", text=f"{number}{big}")
        status, answer, _ = await api.call("GET", f"{PATH}/big")
        assert (status, answer["data"]["text"][:4]) == (200, "199x")


async def test_five_hundred_watches_see_the_same_change(api: Api) -> None:
    headers = {"Authorization": f"Bearer {api.server.tokens.admin}"}
    host, port = await api.server.start_plain("127.0.0.1", 0)
    url = f"http://{host}:{port}{PATH}?watch=true&resourceVersion={api.store.version}"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        watches = await asyncio.gather(*(session.get(url) for _ in range(500)))
        api.store.create(config_map("a"))
        events = await asyncio.gather(*(event_of(watch) for watch in watches))
        assert {names(event) for event in events} == {("ADDED", "a")}
        for watch in watches:
            watch.close()
    status, _, _ = await api.call("GET", PATH)
    assert status == 200


async def test_closing_the_server_ends_open_watches(api: Api) -> None:
    async with await api.stream(f"{PATH}?watch=true&resourceVersion={api.store.version}") as watch:
        await asyncio.wait_for(api.server.close(), PATIENCE)
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(watch.content.read(), PATIENCE)


async def test_the_old_watch_path_still_works(api: Api) -> None:
    api.store.create(config_map("a"))
    async with await api.stream("/api/v1/watch/namespaces/default/configmaps/a") as watch:
        assert names(json.loads(json.dumps(await event_of(watch)))) == ("ADDED", "a")


async def test_a_watch_over_a_websocket_sends_a_message_for_each_event(api: Api) -> None:
    api.store.create(config_map("one"))
    headers = {"Authorization": f"Bearer {api.server.tokens.admin}"}
    path = "/api/v1/namespaces/default/configmaps"
    url = f"{api.server.url}{path}?watch=true&fieldSelector=metadata.name!%3Dkube-root-ca.crt"
    async with api.session.ws_connect(url, headers=headers) as socket:
        first = await socket.receive_json(timeout=PATIENCE)
        assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "one")
        api.store.create(config_map("two"))
        second = await socket.receive_json(timeout=PATIENCE)
        assert (second["type"], second["object"]["metadata"]["name"]) == ("ADDED", "two")
    async with api.session.ws_connect(f"{url}&timeoutSeconds=1", headers=headers) as socket:
        kinds = [message.type async for message in socket]  # ends by itself
        assert len(kinds) == 2
