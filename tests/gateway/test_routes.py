from __future__ import annotations

import pytest

from knlocal.gateway.http import Request
from knlocal.gateway.routes import Route, RouteTable


async def one(request: Request) -> None: ...
async def two(request: Request) -> None: ...


@pytest.mark.parametrize(
    "host", ["shop.example", "SHOP.example", "shop.example.", "shop.example:8080", " shop.example"]
)
def test_a_host_is_found_in_any_spelling(host: str) -> None:
    routes = RouteTable()
    routes.put("a", {"Shop.Example": Route(one)})
    found = routes.find(host, "external")
    assert found is not None
    assert found.handler is one


def test_an_ipv6_host_keeps_its_colons() -> None:
    routes = RouteTable()
    routes.put("a", {"[::1]": Route(one)})
    assert routes.find("[::1]:8080", "external") is not None


def test_a_host_is_only_found_where_it_is_exposed() -> None:
    routes = RouteTable()
    routes.put("a", {"shop.default.svc.cluster.local": Route(one, frozenset({"internal"}))})
    assert routes.find("shop.default.svc.cluster.local", "external") is None
    assert routes.find("shop.default.svc.cluster.local", "internal") is not None


def test_an_owner_replaces_its_whole_set() -> None:
    routes = RouteTable()
    routes.put("a", {"x.test": Route(one), "y.test": Route(one)})
    routes.put("a", {"y.test": Route(two), "z.test": Route(two)})
    assert routes.hosts("external") == ["y.test", "z.test"]
    found = routes.find("y.test", "external")
    assert found is not None
    assert found.handler is two


def test_the_first_owner_of_a_host_keeps_it_and_the_conflict_is_reported() -> None:
    routes = RouteTable()
    assert routes.put("first", {"x.test": Route(one)}) == []
    conflicts = routes.put("second", {"x.test": Route(two), "y.test": Route(two)})
    found = routes.find("x.test", "external")
    assert found is not None
    assert found.handler is one
    assert {(c.host, c.owner, c.holder) for c in conflicts} == {("x.test", "second", "first")}
    assert set(routes.conflicts) == set(conflicts)
    assert "already served for first" in str(conflicts[0])
    assert routes.owner_of("x.test", "external") == "first"


def test_a_waiting_owner_gets_the_host_when_the_holder_lets_go() -> None:
    routes = RouteTable()
    routes.put("first", {"x.test": Route(one)})
    routes.put("second", {"x.test": Route(two)})
    routes.remove("first")
    found = routes.find("x.test", "external")
    assert found is not None
    assert found.handler is two
    assert routes.conflicts == []


def test_an_update_by_the_holder_does_not_lose_the_host_to_a_waiting_owner() -> None:
    routes = RouteTable()
    routes.put("first", {"x.test": Route(one)})
    routes.put("second", {"x.test": Route(two)})
    routes.put("first", {"x.test": Route(one), "y.test": Route(one)})
    assert routes.owner_of("x.test", "external") == "first"


def test_listeners_hear_of_every_change() -> None:
    routes = RouteTable()
    heard: list[list[str]] = []
    routes.subscribe(lambda: heard.append(routes.hosts("external")))
    routes.put("a", {"x.test": Route(one)})
    routes.remove("a")
    assert heard == [["x.test"], []]


def test_similar_hosts_are_offered_best_first_among_thousands() -> None:
    routes = RouteTable()
    hosts = [f"service-{number}.default.localhost" for number in range(3000)]
    routes.put("a", {host: Route(one) for host in [*hosts, "orders.default.localhost"]})
    assert routes.similar("order.default.localhost", "external")[0] == "orders.default.localhost"
    assert routes.similar("orders.defualt.localhost", "external")[0] == "orders.default.localhost"
