"""Everything that can be sent wrong gets the right Status, and the server goes on."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apiserver.conftest import Api, config_map, deployment, knative_service
from tests.apiserver.test_custom_resources import crd

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
SERVICES = "/apis/serving.knative.dev/v1/namespaces/default/services"
PROTOBUF = "application/vnd.kubernetes.protobuf"


@pytest.mark.parametrize(
    ("body", "media", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"null", "application/json", 400),
        (b'"text"', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"a: [", "application/yaml", 400),
        (b"a: &x [*x]", "application/yaml", 400),
        (b"- 1", "application/yaml", 400),
        (b"\x00", "application/yaml", 400),
        (b"", PROTOBUF, 400),
        (b"not protobuf", PROTOBUF, 400),
        (b"k8s\x00", PROTOBUF, 400),
        (b"k8s\x00\xff\xff\xff\xff", PROTOBUF, 400),
        (b"k8s\x00\x0a\x05\x0a\x01x\x12\x00", PROTOBUF, 400),
        (b"{}", "text/plain", 415),
        (b"{}", "application/cbor", 415),
        (b"<a/>", "application/xml", 415),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(
    api: Api, body: bytes, media: str, status: int
) -> None:
    got, answer, _ = await api.call("POST", CONFIG_MAPS, body, media=media)
    assert got == status, answer
    assert answer["kind"] == "Status"
    assert answer["reason"] == ("BadRequest" if status == 400 else "UnsupportedMediaType")
    assert (await api.call("GET", CONFIG_MAPS))[0] == 200


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"kind": "Secret"}, 400, "does not match the expected kind"),
        ({"apiVersion": "v2"}, 400, "does not match the expected API version"),
        ({"metadata": {"name": "a", "namespace": "other"}}, 400, "namespace of the provided"),
        ({"metadata": {"name": "Not_A_Name"}}, 422, "a lowercase RFC 1123 subdomain must consist"),
        ({"metadata": {"name": "x" * 300}}, 422, "must be no more than 253"),
        ({"metadata": {}}, 422, "name or generateName is required"),
        ({"metadata": "text"}, 400, "metadata"),
        ({"metadata": {"name": "a", "labels": {"a": "b c"}}}, 422, "a valid label must be"),
        (
            {"metadata": {"name": "a", "labels": {"a": 1}}},
            400,
            "number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        ({"metadata": {"name": "a", "resourceVersion": "5"}}, 400, "resourceVersion should not"),
        (
            {"data": {"a": 1}},
            400,
            ("ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal "
            "number into Go struct field ConfigMap.data of type string"),
        ),
        ({"data": {"a b": "1"}}, 422, "a valid config key must consist"),
        (
            {"data": []},
            400,
            "cannot unmarshal array into Go struct field ConfigMap.data of type map",
        ),
        ({"binaryData": {"a": "%%%"}}, 422, "base64"),
    ],
)  # fmt: skip
async def test_an_object_that_makes_no_sense_is_refused_in_kubernetes_words(
    api: Api, changes: dict[str, Any], status: int, words: str
) -> None:
    obj = config_map("a") | changes
    got, answer, _ = await api.call("POST", CONFIG_MAPS, obj)
    assert got == status, answer
    assert words in answer["message"]
    if status == 422:
        assert answer["details"]["causes"][0]["field"]


@pytest.mark.parametrize(
    ("path", "change", "message", "field"),
    [
        ("containers", [], "Required value", "spec.template.spec.containers"),
        ("containers", [{"name": "UPPER", "image": "a"}], "a lowercase RFC 1123 label",
         "spec.template.spec.containers[0].name"),
        ("containers", [{"name": "a"}], "Required value", "spec.template.spec.containers[0].image"),
        ("containers", [{"name": "a", "image": "a"}, {"name": "a", "image": "b"}],
         'Duplicate value: "a"', "spec.template.spec.containers[1].name"),
        ("containers", [{"name": "a", "image": "a", "volumeMounts": [
            {"name": "v", "mountPath": "/v"}]}], 'Not found: "v"',
         "spec.template.spec.containers[0].volumeMounts[0].name"),
        ("containers", [{"name": "a", "image": "a", "ports": [{"containerPort": 70000}]}],
         "must be between 1 and 65535, inclusive",
         "spec.template.spec.containers[0].ports[0].containerPort"),
        ("restartPolicy", "Never", 'Unsupported value: "Never": supported values: "Always"',
         "spec.template.spec.restartPolicy"),
    ],
)  # fmt: skip
async def test_a_pod_template_is_checked_field_by_field(
    api: Api, path: str, change: Any, message: str, field: str
) -> None:
    obj = deployment()
    obj["spec"]["template"]["spec"][path] = change
    status, answer, _ = await api.call("POST", "/apis/apps/v1/namespaces/default/deployments", obj)
    assert status == 422
    causes = {cause["field"]: cause["message"] for cause in answer["details"]["causes"]}
    assert message in causes[field]


async def test_a_selector_must_match_and_stay(api: Api) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments"
    wrong = deployment(selector={"matchLabels": {"app": "other"}})
    status, answer, _ = await api.call("POST", path, wrong)
    assert status == 422
    assert "`selector` does not match template `labels`" in answer["message"]
    await api.call("POST", path, deployment())
    status, answer, _ = await api.call("PUT", f"{path}/web", wrong)
    assert status == 422
    assert "field is immutable" in answer["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", f"{CONFIG_MAPS}/nosuch", 404, "NotFound"),
        ("DELETE", f"{CONFIG_MAPS}/nosuch", 404, "NotFound"),
        ("POST", "/api/v1/namespaces/nosuch/configmaps", 404, "NotFound"),
        ("POST", "/api/v1/configmaps", 405, "MethodNotAllowed"),
        ("POST", f"{CONFIG_MAPS}/a", 405, "MethodNotAllowed"),
        ("PUT", CONFIG_MAPS, 405, "MethodNotAllowed"),
        ("DELETE", "/api/v1/configmaps", 405, "MethodNotAllowed"),
        ("OPTIONS", CONFIG_MAPS, 405, "MethodNotAllowed"),
        ("GET", f"{CONFIG_MAPS}/a/nosuch", 404, "NotFound"),
        ("GET", "/apis/authorization.k8s.io/v1/subjectaccessreviews", 405, "MethodNotAllowed"),
    ],
)
async def test_wrong_places_and_verbs_have_their_status(
    api: Api, method: str, path: str, status: int, reason: str
) -> None:
    body = config_map("a") if method in ("POST", "PUT") else None
    if body and "nosuch" in path:
        body["metadata"]["namespace"] = "nosuch"
    got, answer, _ = await api.call(method, path, body)
    assert (got, answer["reason"]) == (status, reason)


async def test_not_found_is_worded_as_clients_match_it(api: Api) -> None:
    _, answer, _ = await api.call("GET", f"{SERVICES}/x")
    assert answer == {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": 'services.serving.knative.dev "x" not found', "reason": "NotFound",
        "details": {"name": "x", "group": "serving.knative.dev", "kind": "services"}, "code": 404,
    }  # fmt: skip


async def test_stale_and_foreign_updates_conflict(api: Api) -> None:
    _, first, _ = await api.call("POST", CONFIG_MAPS, config_map("a"))
    _, second, _ = await api.call("PUT", f"{CONFIG_MAPS}/a", first | {"data": {"x": "1"}})
    status, answer, _ = await api.call("PUT", f"{CONFIG_MAPS}/a", first | {"data": {"x": "2"}})
    assert (status, answer["reason"]) == (409, "Conflict")
    assert answer["message"] == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; please '
        "apply your changes to the latest version and try again"
    )
    foreign = {**second, "metadata": {**second["metadata"], "uid": "other"}}
    assert (await api.call("PUT", f"{CONFIG_MAPS}/a", foreign))[0] == 409
    status, answer, _ = await api.call("POST", CONFIG_MAPS, config_map("a"))
    assert (status, answer["reason"]) == (409, "AlreadyExists")
    assert answer["message"] == 'configmaps "a" already exists'
    status, answer, _ = await api.call("PUT", f"{CONFIG_MAPS}/b", second)
    assert status == 400
    assert "the name of the object (a) does not match the name on the URL (b)" in answer["message"]


async def test_an_unchanged_put_changes_nothing(api: Api) -> None:
    _, first, _ = await api.call("POST", SERVICES, knative_service())
    version = api.store.version
    status, again, _ = await api.call("PUT", f"{SERVICES}/hello", first)
    assert (status, again) == (200, first)
    assert api.store.version == version


@pytest.mark.parametrize(
    ("media", "patch", "status", "reason"),
    [
        ("application/json-patch+json", [{"op": "remove", "path": "/data/nosuch"}], 422, "Invalid"),
        ("application/json-patch+json", [{"op": "replace", "path": "/x/y", "value": 1}], 422,
         "Invalid"),
        ("application/json-patch+json", [{"op": "add", "path": "/x/y", "value": 1}], 422,
         "Invalid"),
        ("application/json-patch+json", [{"op": "test", "path": "/data/a", "value": "2"}], 422,
         "Invalid"),
        ("application/json-patch+json", [{"op": "jump", "path": "/data"}], 400, "BadRequest"),
        ("application/json-patch+json", {"op": "add"}, 400, "BadRequest"),
        ("application/json-patch+json", b"{", 400, "BadRequest"),
        ("application/merge-patch+json", [], 400, "BadRequest"),
        ("application/merge-patch+json", {"metadata": {"name": "other"}}, 400, "BadRequest"),
        ("application/merge-patch+json", {"kind": "Secret"}, 400, "BadRequest"),
        ("application/merge-patch+json", {"data": {"a": 1}}, 422, "Invalid"),
        ("application/merge-patch+json", {"metadata": {"resourceVersion": "1"}}, 409, "Conflict"),
        ("application/strategic-merge-patch+json", {"$patch": "jump"}, 400, "BadRequest"),
        ("application/apply-patch+yaml", {"apiVersion": "v1", "kind": "ConfigMap"}, 422, "Invalid"),
        ("application/json", {"data": {}}, 415, "UnsupportedMediaType"),
        ("text/plain", b"x", 415, "UnsupportedMediaType"),
    ],
)  # fmt: skip
async def test_a_patch_that_does_not_apply_changes_nothing(
    api: Api, media: str, patch: Any, status: int, reason: str
) -> None:
    await api.call("POST", CONFIG_MAPS, config_map("a", a="1"))
    version = api.store.version
    got, answer, _ = await api.call("PATCH", f"{CONFIG_MAPS}/a", patch, media=media)
    assert (got, answer["reason"]) == (status, reason), answer
    assert api.store.version == version


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in an object, as a path of keys and indexes."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


@pytest.mark.parametrize(
    ("path", "obj"),
    [
        ("/apis/apps/v1/namespaces/default/deployments", deployment()),
        (SERVICES, knative_service()),
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd()),
        ("/apis/authorization.k8s.io/v1/subjectaccessreviews",
         {"spec": {"user": "joe", "groups": ["a"], "extra": {"a": ["b"]},
                   "resourceAttributes": {"verb": "get", "resource": "pods"}}}),
        ("/api/v1/namespaces/default/serviceaccounts/default/token",
         {"spec": {"audiences": ["a"], "expirationSeconds": 600}}),
    ],
)  # fmt: skip
async def test_whatever_stands_anywhere_the_answer_is_no_internal_error(
    api: Api, path: str, obj: dict[str, Any]
) -> None:
    for place in places(obj):
        for value in (None, "x", -1, [None], {"a": {"b": [{}]}}):
            body = copy.deepcopy(obj)
            holder: Any = body
            for step in place[:-1]:
                holder = holder[step]
            holder[place[-1]] = value
            status, answer, _ = await api.call("POST", f"{path}?dryRun=All", body)
            assert status < 500, (place, value, answer)


async def test_objects_of_two_megabytes_pass_and_larger_bodies_do_not(api: Api) -> None:
    annotation = config_map("a")
    annotation["metadata"]["annotations"] = {"a": "x" * 300_000}
    status, answer, _ = await api.call("POST", CONFIG_MAPS, annotation)
    assert (status, answer["details"]["causes"][0]["reason"]) == (422, "FieldValueTooLong")
    status, answer, _ = await api.call("POST", CONFIG_MAPS, config_map("a", a="x" * 2_000_000))
    assert status == 422
    assert "may not be more than 1048576 bytes" in answer["message"]
    service = knative_service()
    service["spec"]["template"]["spec"]["containers"][0]["env"] = [
        {"name": "BIG", "value": "x" * 2_000_000}
    ]
    assert (await api.call("POST", SERVICES, service))[0] == 201
    status, answer, _ = await api.call("POST", CONFIG_MAPS, b" " * (3 * 1024 * 1024 + 1))
    assert (status, answer["reason"]) == (413, "RequestEntityTooLarge")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("dryRun=All", 201), ("dryRun=Some", 422), ("fieldValidation=Maybe", 422),
        ("fieldValidation=Strict&fieldManager=me&pretty=true&timeout=5s", 201),
    ],
)  # fmt: skip
async def test_write_options_are_checked(api: Api, query: str, status: int) -> None:
    got, answer, _ = await api.call("POST", f"{CONFIG_MAPS}?{query}", config_map("a"))
    assert got == status
    if status == 422:
        assert "supported values" in answer["message"]


@pytest.mark.parametrize("mode", ["Strict", "Warn", "Ignore"])
async def test_unknown_and_repeated_fields_follow_field_validation(api: Api, mode: str) -> None:
    body = json.dumps(config_map("a"))[:-1] + ', "spec": {}, "data": {"b": "2", "b": "3"}}'
    status, answer, response = await api.call(
        "POST", f"{CONFIG_MAPS}?fieldValidation={mode}", body.encode(), media="application/json"
    )
    warnings = response.headers.getall("Warning", [])
    if mode == "Strict":
        assert status == 400
        assert (
            'strict decoding error: duplicate field "data", duplicate field "data.b"'
            in (answer["message"])
        )
    else:
        assert (status, answer["data"]) == (201, {"b": "3"})
    if mode == "Warn":
        assert '299 - "unknown field \\"spec\\""' in warnings
        assert '299 - "duplicate field \\"data.b\\""' in warnings
    else:
        assert warnings == []


async def test_deletion_options_are_checked(api: Api) -> None:
    await api.call("POST", CONFIG_MAPS, config_map("a"))
    path = f"{CONFIG_MAPS}/a"
    for body, status in (
        ({"propagationPolicy": "Sideways"}, 400),
        ({"preconditions": {"uid": "other"}}, 409),
        ({"preconditions": {"resourceVersion": "1"}}, 409),
        ({"kind": "DeleteOptions", "apiVersion": "serving.knative.dev/v1", "dryRun": ["All"]}, 200),
        ({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"}, 200),
        ({}, 404),
    ):  # fmt: skip
        got, answer, _ = await api.call("DELETE", path, body)
        assert got == status, answer
    assert (await api.call("DELETE", path, b"{", media="application/json"))[0] == 400


async def test_null_and_empty_noise_counts_as_absent(api: Api) -> None:
    obj = knative_service()
    obj["metadata"] |= {"creationTimestamp": None, "uid": "mine", "generation": 7}
    obj["status"] = {}
    template = obj["spec"]["template"]
    template["metadata"] = {"creationTimestamp": None}
    template["spec"]["containers"][0] |= {"name": "", "resources": {}}
    status, answer, _ = await api.call("POST", SERVICES, obj)
    assert status == 201, answer
    assert answer["metadata"]["generation"] == 1
    assert answer["metadata"]["uid"] != "mine"


async def test_chunked_bodies_are_read_and_compressed_ones_too(api: Api) -> None:
    async def pieces():
        text = json.dumps(config_map("a")).encode()
        for at in range(0, len(text), 10):
            yield text[at : at + 10]

    headers = {"Authorization": f"Bearer {api.server.tokens.admin}",
               "Content-Type": "application/json"}  # fmt: skip
    url = api.server.url + CONFIG_MAPS
    async with api.session.post(url, data=pieces(), headers=headers) as response:
        assert response.status == 201
    packed = gzip.compress(json.dumps(config_map("b")).encode())
    headers["Content-Encoding"] = "gzip"
    async with api.session.post(url, data=packed, headers=headers) as response:
        assert response.status == 201
