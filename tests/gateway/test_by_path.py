"""Cluster-local names in the paths of URLs, for local processes."""

from __future__ import annotations

import pytest

from knlocal.clock import SystemClock
from knlocal.gateway import Gateway, HttpClient, Request, Route, RouteTable
from knlocal.gateway.by_path import ByPath, by_path
from knlocal.gateway.routes import INSIDE

NAME = "hello.default.svc.cluster.local"


@pytest.mark.parametrize(
    ("url", "local"),
    [
        (f"http://{NAME}", f"http://127.0.0.1:81/-/{NAME}"),
        (f"http://{NAME}:8081/a/b?c=1", f"http://127.0.0.1:81/-/{NAME}:8081/a/b?c=1"),
        (f"http://{NAME}?c=1", f"http://127.0.0.1:81/-/{NAME}/?c=1"),
        ("http://hello.default.svc/x", "http://127.0.0.1:81/-/hello.default.svc/x"),
        ("http://example.test/x", "http://example.test/x"),
        (f"https://{NAME}/x", f"https://{NAME}/x"),
        (f"see http://{NAME}", f"see http://{NAME}"),
        ("", ""),
    ],
)
def test_urls_of_cluster_local_names_lead_through_the_gateway(url: str, local: str) -> None:
    assert by_path(url, "127.0.0.1", 81) == local


@pytest.mark.parametrize(
    ("path", "headers", "status", "said"),
    [
        (f"/-/{NAME}/a%20b?c=1", {}, 200, f"{NAME} /a%20b?c=1 {NAME}"),
        (f"/-/{NAME}:90/x", {}, 200, f"{NAME} /x {NAME}:90"),
        (f"/-/{NAME}", {}, 200, f"{NAME} / {NAME}"),
        (f"/-/{NAME}?c=/d", {}, 200, f"{NAME} /?c=/d {NAME}"),
        ("/-/other.default.svc.cluster.local/", {}, 404, "no service answers"),
        ("/-/example.test/", {}, 404, "the path must be"),
        ("/", {}, 404, "the path must be"),
        (f"/-/{NAME}/", {"Origin": "https://evil.test"}, 403, "not for browsers"),
    ],
)
async def test_the_gateway_answers_such_paths_as_the_name_itself(
    path: str, headers: dict[str, str], status: int, said: str
) -> None:
    async def handler(request: Request) -> None:
        await request.respond(200, (), f"{request.host} {request.target} {request.headers['Host']}")

    clock, routes = SystemClock(), RouteTable()
    routes.put("test", {NAME: Route(handler, INSIDE)})
    routes.put("by-path", {"127.0.0.1": Route(ByPath(routes), INSIDE)})
    gateway = Gateway(routes, clock)
    client = HttpClient(None, clock)
    try:
        address = await gateway.listen("127.0.0.1", 0, "internal")
        answer = await client.request(
            "GET", f"http://127.0.0.1:{address.port}{path}", headers.items()
        )
    finally:
        await client.close()
        await gateway.close(0)
    assert answer.status == status
    assert said in answer.body.decode()
