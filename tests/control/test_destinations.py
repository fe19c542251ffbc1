"""Destinations resolve as in knative.dev/pkg/resolver, and dependents hear of changes."""

import pytest

from knlocal.clock import VirtualClock
from knlocal.control.destinations import Address, Destinations, Unresolved
from knlocal.resources.base import Key, Obj, key_of
from knlocal.resources.kinds import Kind, KindRegistry
from knlocal.store.store import Store

OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
ME = Key("example.dev", "Source", "default", "me")


@pytest.fixture
def store() -> Store:
    store = Store(
        KindRegistry(
            [
                Kind("", "v1", "Namespace", "namespaces", OPEN, namespaced=False, is_custom=False),
                Kind("", "v1", "Service", "services", OPEN, is_custom=False),
                Kind("serving.knative.dev", "v1", "Service", "services", OPEN),
            ]
        ),
        VirtualClock(),
    )
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    return store


@pytest.fixture
def destinations(store: Store) -> Destinations:
    return Destinations(store)


def make(store: Store, api_version: str, url: str | None = None) -> Obj:
    obj = store.create(
        {
            "apiVersion": api_version,
            "kind": "Service",
            "metadata": {"name": "target", "namespace": "default"},
        }
    )
    return (store.set_status(key_of(obj), {"address": {"url": url}}) or obj) if url else obj


KSVC = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "target"}


def test_a_reference_resolves_to_the_address_of_the_object(store, destinations) -> None:
    make(store, "serving.knative.dev/v1", "http://target.default.svc.cluster.local")
    found = destinations.resolve({"ref": KSVC}, "default")
    assert found == Address("http://target.default.svc.cluster.local")


def test_a_core_service_resolves_to_its_cluster_local_name(store, destinations) -> None:
    make(store, "v1")
    found = destinations.resolve({"ref": {**KSVC, "apiVersion": "v1"}}, "default")
    assert found.url == "http://target.default.svc.cluster.local"


def test_the_name_carries_the_port_where_the_gateway_could_not_have_port_80(store) -> None:
    make(store, "v1")
    found = Destinations(store, 8081).resolve({"ref": {**KSVC, "apiVersion": "v1"}}, "default")
    assert found.url == "http://target.default.svc.cluster.local:8081"


@pytest.mark.parametrize(
    ("uri", "url"),
    [("/path?x=1", "http://t.svc/path?x=1"), ("path", "http://t.svc/path"), ("", "http://t.svc")],
)
def test_a_uri_beside_a_reference_is_relative_to_it(store, destinations, uri, url) -> None:
    make(store, "serving.knative.dev/v1", "http://t.svc")
    assert destinations.resolve({"ref": KSVC, "uri": uri}, "default").url == url


def test_an_absolute_uri_stands_alone(destinations) -> None:
    assert destinations.resolve({"uri": "http://a.b/c"}, "default").url == "http://a.b/c"


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ({}, "expected at least one"),
        ({"uri": "/relative"}, "URI is not absolute"),
        ({"ref": {**KSVC, "name": "no"}}, 'services.serving.knative.dev "no" not found'),
        ({"ref": {"apiVersion": "x/v1", "kind": "Y", "name": "z"}}, 'no matches for kind "Y"'),
        ({"ref": KSVC}, "address not set"),
    ],
)
def test_what_leads_nowhere_says_why(store, destinations, destination, words) -> None:
    make(store, "serving.knative.dev/v1")
    with pytest.raises(Unresolved, match=words):
        destinations.resolve(destination, "default")


def test_a_dependent_hears_when_the_object_appears_and_moves(store, destinations) -> None:
    heard: list[Key] = []
    with pytest.raises(Unresolved) as missing:
        destinations.resolve({"ref": KSVC}, "default", dependent=ME, notify=heard.append)
    assert missing.value.missing
    made = make(store, "serving.knative.dev/v1", "http://one")
    assert heard == [ME, ME]
    store.modify(
        key_of(made).group_kind,
        "default",
        "target",
        lambda o: o["metadata"].__setitem__("labels", {"a": "b"}),
    )
    assert heard == [ME, ME]
    store.set_status(key_of(made), {"address": {"url": "http://two"}})
    assert heard == [ME, ME, ME]
    destinations.forget(ME)
    store.set_status(key_of(made), {"address": {"url": "http://three"}})
    assert heard == [ME, ME, ME]
