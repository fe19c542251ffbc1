"""Routes: splits, tags, visibility, domains; what is served is what the status says."""

from collections import Counter

import pytest

from knlocal.resources.base import Obj
from knlocal.serving.kinds import INGRESS, K8S_SERVICE, ROUTE, SERVICE, VISIBILITY_LABEL
from tests.serving.world import World, conditions, service

TAGGED = [
    {"latestRevision": True, "percent": 0},
    {"revisionName": "hello-00001", "percent": 100, "tag": "stable"},
    {"latestRevision": True, "percent": 0, "tag": "candidate"},
]


async def two_revisions(world: World) -> None:
    await world.apply(service())
    await world.apply(service(image="demo:2"))


def who(answer: object) -> str:
    """The revision that answered."""
    return str(answer.headers["X-Pod"]).split("-deployment")[0]  # type: ignore[attr-defined]


def host(world: World, name: str, exposure: str = "external") -> bool:
    return world.routes.find(name, exposure) is not None  # type: ignore[arg-type]


async def test_traffic_is_split_by_percent_and_shown_target_by_target(world: World) -> None:
    await two_revisions(world)
    await world.apply(service(image="demo:2", traffic=[
        {"revisionName": "hello-00001", "percent": 50},
        {"latestRevision": True, "percent": 50},
    ]))  # fmt: skip
    assert world.service()["status"]["traffic"] == [
        {"revisionName": "hello-00001", "percent": 50, "latestRevision": False},
        {"revisionName": "hello-00002", "percent": 50, "latestRevision": True},
    ]
    answered = Counter([who(await world.get()) for _ in range(200)])
    assert answered.keys() == {"hello-00001", "hello-00002"}
    assert min(answered.values()) >= 50


async def test_tags_have_urls_and_hosts_of_their_own_until_they_are_removed(world: World) -> None:
    await two_revisions(world)
    await world.apply(service(image="demo:2", traffic=TAGGED))
    assert world.service()["status"]["traffic"] == [
        {"revisionName": "hello-00002", "percent": 0, "latestRevision": True},
        {
            "revisionName": "hello-00001",
            "percent": 100,
            "latestRevision": False,
            "tag": "stable",
            "url": "http://stable-hello.default.localhost",
        },
        {
            "revisionName": "hello-00002",
            "percent": 0,
            "latestRevision": True,
            "tag": "candidate",
            "url": "http://candidate-hello.default.localhost",
        },
    ]
    assert who(await world.get()) == "hello-00001"
    candidate = "http://candidate-hello.default.svc.cluster.local"
    assert who(await world.get(candidate)) == "hello-00002"
    assert host(world, "candidate-hello.default.localhost")
    names = {s["metadata"]["name"] for s in world.store.list(K8S_SERVICE, "default")}
    assert {"hello", "stable-hello", "candidate-hello"} <= names
    await world.apply(service(image="demo:2", traffic=[{"latestRevision": True, "percent": 100}]))
    assert not host(world, "candidate-hello.default.localhost")
    assert not host(world, "candidate-hello.default.svc.cluster.local", "internal")
    names = {s["metadata"]["name"] for s in world.store.list(K8S_SERVICE, "default")}
    assert "candidate-hello" not in names
    assert who(await world.get()) == "hello-00002"


async def test_cluster_local_names_are_for_the_inside_only(world: World) -> None:
    await world.apply(service())
    inside = ("hello.default", "hello.default.svc", "hello.default.svc.cluster.local")
    assert all(host(world, name, "internal") for name in inside)
    assert not any(host(world, name, "external") for name in inside)
    # What people call is reachable from inside as well.
    assert host(world, "hello.default.localhost", "internal")


async def test_a_cluster_local_service_has_no_external_host(world: World) -> None:
    await world.apply(service(labels={VISIBILITY_LABEL: "cluster-local"}))
    shown = world.service()
    assert shown["status"]["url"] == "http://hello.default.svc.cluster.local"
    assert conditions(shown)["Ready"] == "True"
    assert not host(world, "hello.default.localhost")
    assert (await world.get()).status == 200

    def publish(obj: Obj) -> None:
        del obj["metadata"]["labels"][VISIBILITY_LABEL]

    await world.change(SERVICE, "hello", publish)
    assert world.service()["status"]["url"] == "http://hello.default.localhost"
    assert host(world, "hello.default.localhost")


async def test_a_label_on_its_placeholder_makes_one_tag_private(world: World) -> None:
    await two_revisions(world)
    await world.apply(service(image="demo:2", traffic=TAGGED))

    def hide(obj: Obj) -> None:
        obj["metadata"]["labels"][VISIBILITY_LABEL] = "cluster-local"

    await world.change(K8S_SERVICE, "stable-hello", hide)
    urls = {t.get("tag"): t.get("url") for t in world.service()["status"]["traffic"]}
    assert urls["stable"] == "http://stable-hello.default.svc.cluster.local"
    assert urls["candidate"] == "http://candidate-hello.default.localhost"
    assert not host(world, "stable-hello.default.localhost")
    assert world.service()["status"]["url"] == "http://hello.default.localhost"
    await world.change(
        K8S_SERVICE, "stable-hello", lambda s: s["metadata"]["labels"].pop(VISIBILITY_LABEL)
    )
    assert host(world, "stable-hello.default.localhost")


async def test_domains_are_chosen_by_labels_and_change_at_once(world: World) -> None:
    await world.apply(service(labels={"app": "prod"}))
    world.configure("config-domain", **{"example.com": "selector:\n  app: prod\n"})
    await world.settled()
    assert world.service()["status"]["url"] == "http://hello.default.example.com"
    assert host(world, "hello.default.example.com")
    assert not host(world, "hello.default.localhost")


@pytest.mark.parametrize(
    ("target", "reason", "message"),
    [
        (
            {"revisionName": "hello-09999", "percent": 100},
            "False RevisionMissing",
            'Revision "hello-09999" referenced in traffic not found.',
        ),
        (
            {"configurationName": "other", "percent": 100, "latestRevision": True},
            "False ConfigurationMissing",
            'Configuration "other" referenced in traffic not found.',
        ),
    ],
)
async def test_a_bad_target_changes_nothing_and_says_why(
    world: World, target: Obj, reason: str, message: str
) -> None:
    await world.apply(service())
    await world.apply(
        {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Route",
            "metadata": {"name": "own", "namespace": "default"},
            "spec": {
                "traffic": [{"configurationName": "hello", "latestRevision": True, "percent": 100}]
            },
        }
    )
    before = world.route("own")["status"]["traffic"]
    await world.change(ROUTE, "own", lambda r: r["spec"].__setitem__("traffic", [target]))
    route = world.route("own")
    assert conditions(route)["AllTrafficAssigned"] == reason
    assert next(c["message"] for c in route["status"]["conditions"] if c["type"] == "Ready") == (
        message
    )
    assert route["status"]["observedGeneration"] == 2
    assert route["status"]["traffic"] == before
    assert (await world.get("http://own.default.svc.cluster.local")).status == 200


async def test_a_host_that_serves_nothing_yet_is_404_and_says_why(world: World) -> None:
    world.digests.missing.add("gone:1")
    await world.apply(service(image="gone:1"))
    for url in ("http://hello.default.localhost", "http://hello.default.svc.cluster.local"):
        answer = await world.get(url)
        assert answer.status == 404
        assert b"default/hello is not ready" in answer.body
        assert b'Unable to fetch image "gone:1"' in answer.body
    await world.apply(service(image="demo:2"))
    assert (await world.get()).status == 200


async def test_a_cluster_local_route_tells_outsiders_nothing(world: World) -> None:
    world.workloads.holding = True
    await world.apply(service(labels={VISIBILITY_LABEL: "cluster-local"}))
    assert not host(world, "hello.default.localhost")
    assert not host(world, "hello.default.svc.cluster.local")
    answer = await world.get()
    assert (answer.status, b"is waiting for a Revision" in answer.body) == (404, True)


async def test_a_route_recovers_when_its_missing_target_appears(world: World) -> None:
    await world.apply(
        {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Route",
            "metadata": {"name": "own", "namespace": "default"},
            "spec": {
                "traffic": [{"configurationName": "late", "latestRevision": True, "percent": 100}]
            },
        }
    )
    assert conditions(world.route("own"))["Ready"] == "False ConfigurationMissing"
    await world.apply(
        {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Configuration",
            "metadata": {"name": "late", "namespace": "default"},
            "spec": {"template": {"spec": {"containers": [{"image": "demo:1"}]}}},
        }
    )
    assert conditions(world.route("own"))["Ready"] == "True"
    assert (await world.get("http://own.default.svc.cluster.local")).status == 200
    assert world.revision("late-00001")["metadata"]["annotations"][
        "serving.knative.dev/routes"] == "own"  # fmt: skip


async def test_a_service_may_not_send_traffic_to_another_services_revision(world: World) -> None:
    await world.apply(service())
    await world.apply(service("other"))
    others = [{"revisionName": "hello-00001", "percent": 100}]
    await world.change(SERVICE, "other", lambda s: s["spec"].__setitem__("traffic", others))
    assert conditions(world.service("other"))["RoutesReady"] == "False RevisionNotOwned"


async def test_a_placeholder_name_taken_by_somebody_else_is_said(world: World) -> None:
    world.store.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "hello", "namespace": "default"},
            "spec": {"type": "ClusterIP", "ports": [{"port": 80}]},
        }
    )
    await world.apply(service())
    assert conditions(world.route())["IngressReady"] == "False NotOwned"
    assert not host(world, "hello.default.localhost")


async def test_a_route_serves_again_after_a_restart_even_with_a_bad_target() -> None:
    own = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Route",
        "metadata": {"name": "own", "namespace": "default"},
        "spec": {"traffic": [{"revisionName": "hello-00001", "percent": 100, "tag": "t"}]},
    }
    url = "http://own.default.svc.cluster.local"
    async with World() as world:
        world.keep_pods = True
        await two_revisions(world)
        await world.apply(own)
        wrong = [{"revisionName": "gone-00001", "percent": 100}]
        await world.change(ROUTE, "own", lambda r: r["spec"].__setitem__("traffic", wrong))
        assert who(await world.get(url)) == "hello-00001"
    async with World(before=world) as again:
        assert conditions(again.service())["Ready"] == "True"
        assert who(await again.get()) == "hello-00002"
        assert conditions(again.route("own"))["Ready"] == "False RevisionMissing"
        assert who(await again.get(url)) == "hello-00001"
        assert who(await again.get("http://t-own.default.svc.cluster.local")) == "hello-00001"


async def test_the_ingress_shows_hosts_and_splits(world: World) -> None:
    await two_revisions(world)
    await world.apply(service(image="demo:2", traffic=TAGGED))
    ingress = world.store.get(INGRESS, "default", "hello")
    assert conditions(ingress)["Ready"] == "True"
    rules = {
        (rule["visibility"], rule["hosts"][-1]): [
            (split["serviceName"], split["percent"])
            for path in rule["http"]["paths"]
            for split in path["splits"]
        ]
        for rule in ingress["spec"]["rules"]
    }
    assert rules["ExternalIP", "hello.default.localhost"] == [("hello-00001", 100)]
    assert rules["ExternalIP", "stable-hello.default.localhost"] == [("hello-00001", 100)]


async def test_the_tag_header_chooses_a_tag_when_the_feature_is_on(world: World) -> None:
    await two_revisions(world)
    await world.apply(service(image="demo:2", traffic=TAGGED))
    assert who(await world.get(Knative_Serving_Tag="candidate")) == "hello-00001"
    world.configure("config-features", tag_header_based_routing="enabled")
    await world.settled()
    assert who(await world.get(Knative_Serving_Tag="candidate")) == "hello-00002"
    assert who(await world.get(Knative_Serving_Tag="unknown")) == "hello-00001"
    await world.get()
    (server,) = [s for s in world.workloads.servers.values() if s.name.startswith("hello-00001")]
    assert server.requests[-1][1]["knative-serving-default-route"] == "true"
    await world.get("http://stable-hello.default.svc.cluster.local")
    assert server.requests[-1][1]["knative-serving-tag"] == "stable"
    ingress = world.store.get(INGRESS, "default", "hello")
    shown = [
        [(path.get("headers"), path["appendHeaders"]) for path in rule["http"]["paths"]]
        for rule in ingress["spec"]["rules"]
        if rule["visibility"] == "ExternalIP"
    ]
    tag = "Knative-Serving-Tag"
    assert shown == [
        [
            ({tag: {"exact": "candidate"}}, {tag: "candidate"}),
            ({tag: {"exact": "stable"}}, {tag: "stable"}),
            (None, {"Knative-Serving-Default-Route": "true"}),
        ],
        [(None, {tag: "candidate"})],
        [(None, {tag: "stable"})],
    ]


# -- gradual rollout ------------------------------------------------------------------------------


async def test_a_new_revision_takes_over_gradually(world: World) -> None:
    first = service()
    first["metadata"]["annotations"] = {"serving.knative.dev/rollout-duration": "100s"}
    await world.apply(first)
    await world.apply(service(image="demo:2"))
    assert conditions(world.service())["RoutesReady"] == "Unknown RolloutInProgress"

    def split() -> dict[str, int]:
        return {t["revisionName"]: t["percent"] for t in world.service()["status"]["traffic"]}

    assert split() == {"hello-00001": 99, "hello-00002": 1}
    await world.clock.advance(50)
    half = split()
    assert 40 <= half["hello-00002"] <= 60
    assert sum(half.values()) == 100
    await world.clock.advance(55)
    assert split() == {"hello-00002": 100}
    assert conditions(world.service())["Ready"] == "True"


async def test_a_revision_in_a_rollout_stays_active_until_it_has_no_share(world: World) -> None:
    first = service()
    first["metadata"]["annotations"] = {"serving.knative.dev/rollout-duration": "100s"}
    await world.apply(first)
    await world.apply(service(image="demo:2"))
    state = "serving.knative.dev/routingState"
    assert world.revision("hello-00001")["metadata"]["labels"][state] == "active"
    await world.clock.advance(110)
    assert world.revision("hello-00001")["metadata"]["labels"][state] == "reserve"


async def test_deleting_a_route_frees_its_revisions(world: World) -> None:
    await world.apply(
        {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Configuration",
            "metadata": {"name": "cfg", "namespace": "default"},
            "spec": {"template": {"spec": {"containers": [{"image": "demo:1"}]}}},
        }
    )
    assert world.revision("cfg-00001")["metadata"]["labels"][
        "serving.knative.dev/routingState"] == "pending"  # fmt: skip
    await world.apply(
        {
            "apiVersion": "serving.knative.dev/v1",
            "kind": "Route",
            "metadata": {"name": "rt", "namespace": "default"},
            "spec": {
                "traffic": [{"configurationName": "cfg", "latestRevision": True, "percent": 100}]
            },
        }
    )
    assert world.configuration("cfg")["metadata"]["annotations"]["serving.knative.dev/routes"] == (
        "rt"
    )
    world.store.delete(ROUTE, "default", "rt")
    await world.settled()
    marks = world.revision("cfg-00001")["metadata"]
    assert marks["labels"]["serving.knative.dev/routingState"] == "reserve"
    assert "serving.knative.dev/routes" not in marks["annotations"]
    assert not host(world, "rt.default.localhost")
