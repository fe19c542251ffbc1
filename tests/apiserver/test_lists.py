"""Lists: selectors, pages, tables, forms."""

from __future__ import annotations

from typing import Any

import pytest

from knlocal.store.store import CONFIG_MAP
from tests.apiserver.conftest import Api, config_map

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}


@pytest.fixture
def filled(api: Api) -> Api:
    for name, labels in (
        ("a", {"app": "x", "tier": "front"}), ("b", {"app": "x"}), ("c", {"app": "y"}), ("d", {}),
    ):  # fmt: skip
        obj = config_map(name)
        obj["metadata"]["labels"] = labels
        api.store.create(obj)
    return api


def names(answer: dict[str, Any]) -> list[str]:
    return [
        item["metadata"]["name"]
        for item in answer["items"]
        if item["metadata"]["name"] != "kube-root-ca.crt"
    ]


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("app=x", ["a", "b"]), ("app==y", ["c"]), ("app!=x", ["c", "d"]), ("app", ["a", "b", "c"]),
        ("!app", ["d"]), ("app in (x,y)", ["a", "b", "c"]), ("app notin (x)", ["c", "d"]),
        ("app=x,tier=front", ["a"]), ("app=x,!tier", ["b"]), ("", ["a", "b", "c", "d"]),
    ],
)  # fmt: skip
async def test_label_selectors_choose(filled: Api, selector: str, found: list[str]) -> None:
    _, answer, _ = await filled.call("GET", f"{CONFIG_MAPS}?labelSelector={selector}")
    assert names(answer) == found


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{CONFIG_MAPS}?fieldSelector=metadata.name=b", 200),
        ("/api/v1/configmaps?fieldSelector=metadata.name==b,metadata.namespace=default", 200),
        (f"{CONFIG_MAPS}?fieldSelector=data.a=1", 400),
        (f"{CONFIG_MAPS}?labelSelector=app%20in%20(", 400),
        (f"{CONFIG_MAPS}?limit=many", 400),
        (f"{CONFIG_MAPS}?continue=nonsense", 400),
        (f"{CONFIG_MAPS}?resourceVersion=new", 400),
    ],
)
async def test_field_selectors_choose_and_nonsense_is_refused(
    filled: Api, path: str, status: int
) -> None:
    got, answer, _ = await filled.call("GET", path)
    assert got == status
    if status == 200:
        assert names(answer) == ["b"]
    else:
        assert answer["reason"] == "BadRequest"


async def test_items_say_what_they_are_and_empty_lists_are_lists(filled: Api) -> None:
    _, answer, response = await filled.call("GET", CONFIG_MAPS)
    assert (answer["kind"], answer["apiVersion"]) == ("ConfigMapList", "v1")
    assert {(item["kind"], item["apiVersion"]) for item in answer["items"]} == {("ConfigMap", "v1")}
    assert answer["metadata"]["resourceVersion"] == str(filled.store.version)
    assert response.headers["Content-Type"] == "application/json"
    _, empty, _ = await filled.call("GET", "/apis/serving.knative.dev/v1/services")
    assert (empty["kind"], empty["items"]) == ("ServiceList", [])


async def test_pages_cover_everything_once_from_one_version(filled: Api) -> None:
    seen: list[str] = []
    versions = set()
    token = ""
    while True:
        path = f"{CONFIG_MAPS}?limit=2&continue={token}"
        _, page, _ = await filled.call("GET", path)
        assert len(page["items"]) <= 2
        seen += [item["metadata"]["name"] for item in page["items"]]
        versions.add(page["metadata"]["resourceVersion"])
        token = page["metadata"].get("continue", "")
        filled.store.create(config_map(f"a{len(seen)}"))  # behind the page: not seen again
        if not token:
            break
    assert seen == sorted({"a", "b", "c", "d", "kube-root-ca.crt"})
    assert len(versions) == 1


async def test_a_list_from_the_future_is_a_timeout(filled: Api) -> None:
    status, answer, _ = await filled.call("GET", f"{CONFIG_MAPS}?resourceVersion=99999999")
    assert (status, answer["reason"]) == (504, "Timeout")
    assert answer["message"].startswith("Too large resource version")


async def test_a_table_has_columns_and_rows_with_metadata(filled: Api) -> None:
    _, table, _ = await filled.call("GET", CONFIG_MAPS, headers=TABLE)
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert [c["name"] for c in table["columnDefinitions"]] == ["Name", "Data", "Age"]
    row = table["rows"][0]
    assert row["cells"][:2] == ["a", 1]
    assert row["object"]["kind"] == "PartialObjectMetadata"
    assert row["object"]["metadata"]["name"] == "a"


@pytest.mark.parametrize(
    ("include", "kind"),
    [("None", None), ("Object", "ConfigMap"), ("Metadata", "PartialObjectMetadata")],
)
async def test_rows_carry_what_is_asked_for(filled: Api, include: str, kind: str | None) -> None:
    _, table, _ = await filled.call("GET", f"{CONFIG_MAPS}?includeObject={include}", headers=TABLE)
    assert (table["rows"][0].get("object") or {}).get("kind") == kind


async def test_a_table_of_knative_has_its_printer_columns(api: Api) -> None:
    _, table, _ = await api.call("GET", "/apis/serving.knative.dev/v1/services", headers=TABLE)
    assert [c["name"] for c in table["columnDefinitions"]] == [
        "Name", "URL", "LatestCreated", "LatestReady", "Ready", "Reason",
    ]  # fmt: skip


async def test_metadata_alone_can_be_asked_for(filled: Api) -> None:
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    _, answer, _ = await filled.call("GET", CONFIG_MAPS, headers={"Accept": accept})
    assert answer["kind"] == "PartialObjectMetadataList"
    assert "data" not in answer["items"][0]
    one = accept.replace("List", "")
    _, answer, _ = await filled.call("GET", f"{CONFIG_MAPS}/a", headers={"Accept": one})
    assert answer["kind"] == "PartialObjectMetadata"
    assert set(answer) == {"kind", "apiVersion", "metadata"}


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("*/*", 200), ("application/yaml", 200), ("application/vnd.kubernetes.protobuf", 200),
        ("application/vnd.kubernetes.protobuf,application/json", 200), ("image/png", 406),
        ("application/cbor", 406), ("application/json;as=Nothing", 406),
    ],
)  # fmt: skip
async def test_only_known_forms_are_served(filled: Api, accept: str, status: int) -> None:
    got, answer, _ = await filled.call("GET", f"{CONFIG_MAPS}/a", headers={"Accept": accept})
    assert got == status
    if status == 406:
        assert answer["reason"] == "NotAcceptable"


async def test_yaml_is_served_when_asked_for(filled: Api) -> None:
    _, answer, response = await filled.call(
        "GET", f"{CONFIG_MAPS}/a", headers={"Accept": "application/yaml"}
    )
    assert response.headers["Content-Type"].startswith("application/yaml")
    assert "kind: ConfigMap" in answer


async def test_a_list_of_an_exact_version_shows_what_there_was(filled: Api) -> None:
    before = filled.store.version
    filled.store.create(config_map("later"))
    filled.store.modify(CONFIG_MAP, "default", "a", lambda obj: obj.update(data={"new": "yes"}))
    filled.store.delete(CONFIG_MAP, "default", "b")
    path = f"{CONFIG_MAPS}?resourceVersion={before}&resourceVersionMatch=Exact"
    status, answer, _ = await filled.call("GET", path)
    assert (status, names(answer)) == (200, ["a", "b", "c", "d"])
    assert answer["metadata"]["resourceVersion"] == str(before)
    assert "new" not in next(o for o in answer["items"] if o["metadata"]["name"] == "a")["data"]
    _, chosen, _ = await filled.call("GET", f"{path}&labelSelector=app%3Dx")
    assert names(chosen) == ["a", "b"]


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("resourceVersionMatch=Exact", 422, "forbidden unless resourceVersion is provided"),
        ("resourceVersion=0&resourceVersionMatch=Exact", 422, 'forbidden for resourceVersion "0"'),
        ("resourceVersion=1&resourceVersionMatch=Newest", 422, 'Unsupported value: "Newest"'),
        ("resourceVersion=5&resourceVersionMatch=Exact&continue=x", 422, "when continue is"),
        ("sendInitialEvents=true", 422, "sendInitialEvents is forbidden for list"),
        ("resourceVersion=x", 400, "invalid syntax"),
        ("continue=nonsense", 400, "continue key is not valid"),
        ("resourceVersion=99999999&resourceVersionMatch=Exact", 504, "Too large resource version"),
    ],
)
async def test_list_options_that_make_no_sense_are_refused(
    filled: Api, query: str, status: int, words: str
) -> None:
    got, answer, _ = await filled.call("GET", f"{CONFIG_MAPS}?{query}")
    assert (got, words in answer["message"]) == (status, True), answer


async def test_versions_too_long_ago_are_gone_and_lists_go_on_with_a_new_token(
    filled: Api,
) -> None:
    before = filled.store.version
    _, page, _ = await filled.call("GET", f"{CONFIG_MAPS}?limit=2")
    filled.store.create(config_map("later"))
    filled.store._history.begins = filled.store.version
    exact = f"{CONFIG_MAPS}?resourceVersion={before}&resourceVersionMatch=Exact"
    status, answer, _ = await filled.call("GET", exact)
    assert (status, answer["reason"]) == (410, "Expired")
    token = page["metadata"]["continue"]
    status, answer, _ = await filled.call("GET", f"{CONFIG_MAPS}?limit=2&continue={token}")
    assert (status, answer["reason"]) == (410, "Expired")
    again = answer["metadata"]["continue"]
    _, rest, _ = await filled.call("GET", f"{CONFIG_MAPS}?continue={again}")
    assert names(page) + names(rest) == ["a", "b", "c", "d", "later"]
