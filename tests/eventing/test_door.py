"""The doors over real sockets: methods, paths, sizes, what is no event (E19, E49, E82)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

import pytest
from multidict import CIMultiDict

from knlocal.clock import SystemClock
from knlocal.eventing.engines import MemoryEngine
from knlocal.eventing.ingress import MAX_EVENT
from knlocal.gateway import Gateway, HttpClient, Response, Route
from tests.eventing.plane import BROKERS, Plane, Reply, subscription, trigger

BROKER_HOST = "127.0.0.1"
EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-type": "t", "ce-source": "/s"}


class Door(NamedTuple):
    plane: Plane
    client: HttpClient
    url: str

    async def ask(
        self, method: str, path: str, headers: Iterable[tuple[str, str]] = (), body: bytes = b"",
        host: str = BROKERS,
    ) -> Response:  # fmt: skip
        """As a client that only knows the address: the host is in the header."""
        url = f"http://{host}{path}"
        return await self.client.request(method, self.url + path, [("X-Host", url), *headers], body)

    async def post(self, path: str, body: bytes = b"", **changes: str | None) -> Response:
        headers = {**EVENT, **{k.replace("_", "-"): v for k, v in changes.items()}}
        return await self.ask("POST", path, [(k, v) for k, v in headers.items() if v], body)


@pytest.fixture(params=["at once", "with a task"])
async def door(request: pytest.FixtureRequest) -> AsyncIterator[Door]:
    clock = SystemClock()
    plane = Plane(clock, MemoryEngine())
    await plane.start()
    # One listener for the brokers' host under the address that the test connects to.
    at_once = request.param == "at once"
    route = plane.ingress.route if at_once else Route(plane.ingress)
    plane.routes.put("door", {"127.0.0.1": route})
    gateway = Gateway(plane.routes, clock)
    address = await gateway.listen("127.0.0.1", 0, "external")
    client = HttpClient(None, clock)
    yield Door(plane, client, f"http://127.0.0.1:{address.port}")
    await client.close()
    await gateway.close()
    await plane.stop()


async def test_options_say_what_is_allowed(door: Door) -> None:
    await door.plane.broker("b")
    answer = await door.ask("OPTIONS", "/default/b")
    assert answer.status == 200
    assert answer.headers["Allow"] == "POST, OPTIONS"
    assert answer.headers["WebHook-Allowed-Origin"] == "*"
    assert answer.headers["WebHook-Allowed-Rate"] == "*"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_other_methods_are_not_allowed(door: Door, method: str) -> None:
    answer = await door.ask(method, "/default/b")
    assert (answer.status, answer.headers["Allow"]) == (405, "POST, OPTIONS")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/default/b", 202),
        ("/default/b/", 202),
        ("/default/nope", 404),
        ("/other/b", 404),
        ("/default", 400),
        ("/default/b/c", 400),
    ],
)
async def test_the_path_names_the_broker(door: Door, path: str, status: int) -> None:
    await door.plane.broker("b")
    assert (await door.post(path)).status == status


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ce_specversion": None}, "not a CloudEvent"),
        ({"ce_specversion": "0.1"}, 'unknown value "0.1"'),
        ({"ce_id": None}, "id: REQUIRED"),
        ({"ce_time": "now"}, "time: MUST be a timestamp"),
        ({"content_type": "application/cloudevents+json"}, "the body is no JSON"),
        ({"content_type": "application/cloudevents+xml"}, "not supported"),
    ],
)
async def test_what_is_no_event_is_refused_with_the_reason(
    door: Door, changes: dict[str, str | None], says: str
) -> None:
    await door.plane.broker("b")
    answer = await door.post("/default/b", **changes)
    assert answer.status == 400
    assert says in answer.body.decode()


async def test_a_mebibyte_passes_and_too_much_does_not(door: Door) -> None:
    one = door.plane.recorder("one")
    await door.plane.broker("b", trigger("t", one))
    assert (await door.post("/default/b", b"x" * (1 << 20))).status == 202
    answer = await door.post("/default/b", b"x" * (MAX_EVENT + 1), ce_id="big")
    assert answer.status == 413
    await door.plane.settled()
    assert [len(event.data or b"") for event in one.events] == [1 << 20]
    [entry] = door.plane.journal.explain("big")
    assert entry["refused"].startswith("413: larger than")


async def test_a_batch_is_taken_event_by_event(door: Door) -> None:
    one = door.plane.recorder("one")
    await door.plane.broker("b", trigger("t", one))
    batch = [{"specversion": "1.0", "id": str(n), "type": "t", "source": "/s"} for n in range(3)]
    headers = [("Content-Type", "application/cloudevents-batch+json")]
    answer = await door.ask("POST", "/default/b", headers, json.dumps(batch).encode())
    assert answer.status == 202
    await door.plane.settled()
    assert one.ids == ["0", "1", "2"]
    broken = json.dumps([batch[0], {"id": "x"}]).encode()
    answer = await door.ask("POST", "/default/b", headers, broken)
    assert (answer.status, one.ids) == (400, ["0", "1", "2"])


async def test_long_replies_arrive_whole(door: Door) -> None:
    one, two = door.plane.recorder("one"), door.plane.recorder("two")
    headers = {**EVENT, "ce-id": "r", "ce-type": "re", "content-type": "text/plain"}
    one.answer(Reply(200, tuple(headers.items()), b"y" * 100_000))
    url = f"http://{BROKERS}/default/b"
    wanted = [{"filters": [{"exact": {"type": type_}}]} for type_ in ("t", "re")]
    await door.plane.broker(
        "b", trigger("t", one, filter=wanted[0], reply=url), trigger("u", two, filter=wanted[1])
    )
    await door.post("/default/b")
    await door.plane.settled()
    assert [len(event.data or b"") for event in two.events] == [100_000]


async def test_a_channel_has_one_path(door: Door) -> None:
    one = door.plane.recorder("one")
    exchange = await door.plane.channel("c", subscription("s", one))
    from knlocal.eventing.ingress import ChannelIngress

    door.plane.routes.put("door", {"127.0.0.1": Route(ChannelIngress(exchange))})
    statuses = {
        "post": (await door.post("/")).status,
        "path": (await door.post("/x")).status,
        "get": (await door.ask("GET", "/")).status,
        "options": (await door.ask("OPTIONS", "/")).status,
        "malformed": (await door.post("/", ce_source=None)).status,
    }
    assert statuses == {"post": 202, "path": 400, "get": 405, "options": 200, "malformed": 400}


async def test_prefixed_headers_pass_through_a_channel(door: Door) -> None:
    one = door.plane.recorder("one")
    await door.plane.channel("c", subscription("s", one))
    url = "http://c-kn-channel.default.svc.cluster.local"
    await door.plane.post(url, Knative_Test="x", Other="y")
    await door.plane.settled()
    assert one.headers[0]["knative-test"] == "x"
    assert "other" not in one.headers[0]
    assert isinstance(one.headers[0], CIMultiDict)
