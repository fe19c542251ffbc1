"""Service → Configuration → Revision → Route: objects, names, conditions."""

import asyncio

import pytest

from knlocal.control.conditions import find_condition
from knlocal.resources.base import Key, Obj
from knlocal.serving.kinds import (
    CONFIGURATION,
    DEPLOYMENT,
    IMAGE,
    INGRESS,
    K8S_SERVICE,
    POD,
    POD_AUTOSCALER,
    REVISION,
    ROUTE,
    SERVERLESS_SERVICE,
    SERVICE,
)
from knlocal.store.watch import WatchEvent
from tests.serving.world import World, conditions, service

SERVING = "serving.knative.dev"


async def test_a_service_becomes_ready_and_answers(world: World) -> None:
    await world.apply(service())
    assert conditions(world.revision()) == {
        "Active": "True",
        "ContainerHealthy": "True",
        "Ready": "True",
        "ResourcesAvailable": "True",
    }
    assert conditions(world.route()) == {
        "AllTrafficAssigned": "True",
        "CertificateProvisioned": "True TLSNotEnabled",
        "IngressReady": "True",
        "Ready": "True",
    }
    shown = world.service()
    assert conditions(shown) == {
        "ConfigurationsReady": "True",
        "Ready": "True",
        "RoutesReady": "True",
    }
    status = dict(shown["status"])
    del status["conditions"]
    assert status == {
        "observedGeneration": 1,
        "latestCreatedRevisionName": "hello-00001",
        "latestReadyRevisionName": "hello-00001",
        "url": "http://hello.default.localhost",
        "address": {"url": "http://hello.default.svc.cluster.local"},
        "traffic": [{"revisionName": "hello-00001", "percent": 100, "latestRevision": True}],
    }
    answer = await world.get()
    assert (answer.status, answer.body) == (200, b"hello")


async def test_no_ready_condition_is_ever_false_while_all_goes_well(world: World) -> None:
    told: list[str] = []

    def watch(event: WatchEvent) -> None:
        if event.obj["kind"] in ("Service", "Route", "Configuration", "Revision"):
            for condition in (event.obj.get("status") or {}).get("conditions") or ():
                if condition["status"] == "False" and condition.get("severity") != "Info":
                    told.append(f"{event.obj['kind']} {condition}")

    world.store.subscribe(watch)
    await world.apply(service())
    await world.apply(service(image="demo:2"))
    await world.clock.advance(100)
    assert (await world.get()).status == 200
    await world.apply(service(image="demo:3", traffic=[
        {"latestRevision": True, "percent": 50},
        {"revisionName": "hello-00001", "percent": 50, "tag": "old"},
    ]))  # fmt: skip
    await world.clock.advance(100)
    assert conditions(world.service())["Ready"] == "True"
    assert told == []


async def test_ready_always_speaks_of_the_generation_it_was_asked_for(world: World) -> None:
    early: list[Obj] = []

    def watch(event: WatchEvent) -> None:
        obj = event.obj
        if obj["kind"] != "Service" or "status" not in obj:
            return
        status = obj["status"]
        ready = next(c for c in status["conditions"] if c["type"] == "Ready")
        if (
            ready["status"] == "True"
            and status["observedGeneration"] == 2
            and status["latestReadyRevisionName"] != "hello-00002"
        ):
            early.append(obj)

    await world.apply(service())
    world.store.subscribe(watch)
    world.workloads.holding = True
    await world.apply(service(image="demo:2"))
    assert conditions(world.service())["Ready"].startswith("Unknown")
    assert world.service()["status"]["traffic"][0]["revisionName"] == "hello-00001"
    world.workloads.release()
    await world.settled()
    assert conditions(world.service())["Ready"] == "True"
    assert early == []


async def test_everything_is_labelled_and_owned_as_on_a_cluster(world: World) -> None:
    await world.apply(service(labels={"team": "a"}))
    svc, cfg, rev, rt = world.service(), world.configuration(), world.revision(), world.route()
    assert cfg["metadata"]["labels"] == {
        "team": "a",
        f"{SERVING}/service": "hello",
        f"{SERVING}/serviceUID": svc["metadata"]["uid"],
    }
    assert cfg["metadata"]["annotations"][f"{SERVING}/routes"] == "hello"
    assert rt["metadata"]["labels"] == {"team": "a", f"{SERVING}/service": "hello"}
    assert rt["spec"]["traffic"] == [
        {"configurationName": "hello", "latestRevision": True, "percent": 100}
    ]
    assert rev["metadata"]["labels"] == {
        f"{SERVING}/configuration": "hello",
        f"{SERVING}/configurationGeneration": "1",
        f"{SERVING}/configurationUID": cfg["metadata"]["uid"],
        f"{SERVING}/service": "hello",
        f"{SERVING}/serviceUID": svc["metadata"]["uid"],
        f"{SERVING}/routingState": "active",
    }
    annotations = dict(rev["metadata"]["annotations"])
    assert annotations.pop(f"{SERVING}/routingStateModified").endswith("Z")
    assert annotations.pop(f"{SERVING}/creator")
    assert annotations == {f"{SERVING}/routes": "hello"}
    for child, owner in ((cfg, svc), (rt, svc), (rev, cfg), (world.deployment(), rev)):
        (reference,) = child["metadata"]["ownerReferences"]
        assert reference["uid"] == owner["metadata"]["uid"]
        assert (reference["controller"], reference["blockOwnerDeletion"]) == (True, True)
    # The service itself is left as its writer wrote it.
    assert svc["metadata"]["labels"] == {"team": "a"}
    assert "metadata" not in svc["spec"]["template"] or not svc["spec"]["template"]["metadata"]


async def test_labels_and_annotations_follow_the_service_also_when_removed(world: World) -> None:
    await world.apply(service())

    def add(obj: Obj) -> None:
        obj["metadata"].setdefault("labels", {})["l"] = "1"
        obj["metadata"]["annotations"]["a"] = "1"

    def remove(obj: Obj) -> None:
        del obj["metadata"]["labels"]["l"]
        del obj["metadata"]["annotations"]["a"]

    await world.change(SERVICE, "hello", add)
    for child in (world.configuration(), world.route()):
        assert child["metadata"]["labels"]["l"] == "1"
        assert child["metadata"]["annotations"]["a"] == "1"
    await world.change(SERVICE, "hello", remove)
    for child in (world.configuration(), world.route()):
        assert "l" not in child["metadata"]["labels"]
        assert "a" not in child["metadata"]["annotations"]
    shown = world.service()
    assert (shown["metadata"]["generation"], shown["status"]["observedGeneration"]) == (1, 1)
    assert conditions(shown)["Ready"] == "True"
    assert len(world.store.list(REVISION)) == 1


async def test_a_spec_change_makes_generation_two_and_a_second_revision(world: World) -> None:
    await world.apply(service())
    await world.apply(service(image="demo:2"))
    shown = world.service()
    assert (shown["metadata"]["generation"], shown["status"]["observedGeneration"]) == (2, 2)
    assert shown["status"]["latestReadyRevisionName"] == "hello-00002"
    assert shown["status"]["traffic"] == [
        {"revisionName": "hello-00002", "percent": 100, "latestRevision": True}
    ]
    old = world.revision("hello-00001")["metadata"]
    assert old["labels"][f"{SERVING}/routingState"] == "reserve"
    assert f"{SERVING}/routes" not in old["annotations"]


async def test_a_change_of_traffic_alone_makes_no_revision(world: World) -> None:
    await world.apply(service())
    await world.apply(
        service(traffic=[{"revisionName": "hello-00001", "percent": 100, "tag": "t"}])
    )
    assert [r["metadata"]["name"] for r in world.store.list(REVISION)] == ["hello-00001"]
    assert world.service()["metadata"]["generation"] == 2
    assert conditions(world.service())["Ready"] == "True"


async def test_an_unknown_image_fails_the_revision_and_keeps_the_last_good_one(
    world: World,
) -> None:
    await world.apply(service())
    world.digests.missing.add("demo:nope")
    await world.apply(service(image="demo:nope"))
    failed = world.revision("hello-00002")
    assert conditions(failed)["ContainerHealthy"] == "False ContainerMissing"
    ready = next(c for c in failed["status"]["conditions"] if c["type"] == "Ready")
    assert ready["message"].startswith('Unable to fetch image "demo:nope": ')
    assert "not found in registry" in ready["message"]
    shown = world.service()
    assert conditions(shown)["ConfigurationsReady"] == "False RevisionFailed"
    assert shown["status"]["latestReadyRevisionName"] == "hello-00001"
    assert (await world.get()).status == 200
    world.digests.missing.clear()
    await world.clock.advance(5)  # it is asked for again
    assert conditions(world.service())["Ready"] == "True"
    assert world.service()["status"]["latestReadyRevisionName"] == "hello-00002"


async def test_a_new_service_with_an_unknown_image_says_so_in_all_conditions(
    world: World,
) -> None:
    world.digests.missing.add("demo:nope")
    await world.apply(service(image="demo:nope"))
    assert conditions(world.service()) == {
        "ConfigurationsReady": "False RevisionFailed",
        "Ready": "False RevisionMissing",
        "RoutesReady": "False RevisionMissing",
    }
    message = next(
        c["message"] for c in world.route()["status"]["conditions"] if c["type"] == "Ready"
    )
    assert message == 'Configuration "hello" does not have any ready Revision.'


async def test_a_crashing_container_shows_its_exit_code_and_last_words(world: World) -> None:
    world.workloads.crashing = "no database"
    await world.apply(service())
    healthy = next(
        c for c in world.revision()["status"]["conditions"] if c["type"] == "ContainerHealthy"
    )
    assert healthy["status"] == "False"
    assert healthy["reason"] == "ExitCode5"
    assert healthy["message"] == "Container failed with: no database"
    message = next(
        c["message"] for c in world.configuration()["status"]["conditions"] if c["type"] == "Ready"
    )
    assert message == (
        'Revision "hello-00001" failed with message: Container failed with: no database.'
    )


async def test_what_a_pod_waits_for_is_told_while_nothing_is_known(world: World) -> None:
    world.workloads.waiting = ("ErrImagePull", "no such host")
    await world.apply(service())
    ready = find_condition(world.revision())
    assert ready is not None
    assert (ready["status"], ready["reason"]) == ("Unknown", "Deploying")
    assert ready["message"] == "ErrImagePull: no such host"
    world.workloads.release()
    await world.settled()
    assert conditions(world.revision())["Ready"] == "True"


async def test_what_a_pod_waits_for_is_the_reason_once_the_deadline_has_passed(
    world: World,
) -> None:
    world.workloads.waiting = ("ErrImagePull", "no such host")
    world.workloads.stuck = True
    await world.apply(service())
    assert conditions(world.revision())["ResourcesAvailable"] == "False ErrImagePull"
    assert conditions(world.service())["ConfigurationsReady"] == "False RevisionFailed"
    await world.clock.advance(60)
    assert conditions(world.revision())["Ready"] == "False ErrImagePull"


async def test_images_become_digests_in_the_pods(world: World) -> None:
    digest = f"index.docker.io/demo@sha256:{'a' * 64}"
    await world.apply(service())
    assert world.revision()["status"]["containerStatuses"] == [
        {"name": "user-container", "imageDigest": digest}
    ]
    user, queue = world.deployment()["spec"]["template"]["spec"]["containers"]
    assert user["image"] == digest
    assert queue["name"] == "queue-proxy"
    fixed = f"example.com/some@sha256:{'b' * 64}"
    await world.apply(service("fixed", image=fixed))
    statuses = world.revision("fixed-00001")["status"]["containerStatuses"]
    assert statuses == [{"name": "user-container", "imageDigest": fixed}]
    await world.apply(service("local", image="dev.local/some:1"))
    statuses = world.revision("local-00001")["status"]["containerStatuses"]
    assert statuses == [{"name": "user-container"}]
    pod = world.deployment("local-00001")["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "dev.local/some:1"


async def test_pods_get_ports_names_and_probes_filled_in(world: World) -> None:
    container = {
        "image": "demo:1",
        "ports": [{"containerPort": 8801}],
        "livenessProbe": {"httpGet": {"path": "/live"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8077}},
    }
    spec = {"containers": [container], "timeoutSeconds": 45, "containerConcurrency": 7}
    await world.apply(service(spec=spec))
    deployment = world.deployment()
    pod = deployment["spec"]["template"]["spec"]
    user = pod["containers"][0]
    env = {e["name"]: e.get("value") for e in user["env"]}
    assert env == {
        "PORT": "8801",
        "K_SERVICE": "hello",
        "K_CONFIGURATION": "hello",
        "K_REVISION": "hello-00001",
    }
    assert [(p["name"], p["containerPort"]) for p in user["ports"]] == [("user-port", 8801)]
    assert user["livenessProbe"]["httpGet"]["port"] == 8801
    assert user["readinessProbe"]["httpGet"]["port"] == 8077
    assert user["terminationMessagePolicy"] == "FallbackToLogsOnError"
    assert pod["terminationGracePeriodSeconds"] == 45
    assert deployment["metadata"]["annotations"]["knlocal.dev/standby"] == "stop"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels["app"] == labels["serving.knative.dev/revision"] == "hello-00001"
    assert "serving.knative.dev/routingState" not in labels
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["kubectl.kubernetes.io/default-container"] == "user-container"


async def test_the_idle_mode_comes_from_the_template_or_the_project(world: World) -> None:
    world.store.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "knlocal-config", "namespace": "knative-serving"},
            "data": {"idle": "freeze"},
        }
    )
    await world.apply(service())
    await world.apply(service("own", annotations={"knlocal.dev/idle": "stop"}))
    key = "knlocal.dev/standby"
    assert world.deployment()["metadata"]["annotations"][key] == "freeze"
    assert world.deployment("own-00001")["metadata"]["annotations"][key] == "stop"


# -- names that users choose ----------------------------------------------------------------------


async def test_a_rollback_by_name_goes_back_to_the_old_revision(world: World) -> None:
    first = service(template={"name": "hello-first"})
    await world.apply(first)
    await world.apply(service(image="demo:2", template={"name": "hello-second"}))
    assert world.service()["status"]["latestReadyRevisionName"] == "hello-second"
    await world.apply(first)
    status = world.service()["status"]
    assert status["latestCreatedRevisionName"] == "hello-first"
    assert status["latestReadyRevisionName"] == "hello-first"
    assert status["traffic"][0]["revisionName"] == "hello-first"
    assert conditions(world.service())["Ready"] == "True"


async def test_a_name_taken_by_another_revision_moves_no_traffic(world: World) -> None:
    await world.apply(service(template={"name": "hello-first"}))
    await world.apply(service(image="demo:2", template={"name": "hello-second"}))

    def back_with_another_spec(obj: Obj) -> None:
        obj["spec"]["template"]["metadata"]["name"] = "hello-first"

    await world.change(SERVICE, "hello", back_with_another_spec)
    shown = world.service()
    assert conditions(shown)["RoutesReady"] == "False RevisionNameTaken"
    assert conditions(shown)["ConfigurationsReady"] == "False RevisionFailed"
    assert world.route()["status"]["traffic"][0]["revisionName"] == "hello-second"


# -- what is not ours, and what goes --------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "condition"), [("Configuration", "ConfigurationsReady"), ("Route", "RoutesReady")]
)
async def test_somebody_elses_object_of_the_same_name_is_not_taken_over(
    world: World, kind: str, condition: str
) -> None:
    spec: Obj = {"template": {"spec": {"containers": [{"image": "demo:1"}]}}}
    if kind == "Route":
        spec = {"traffic": [{"configurationName": "other", "percent": 100}]}
    await world.apply(
        {
            "apiVersion": "serving.knative.dev/v1",
            "kind": kind,
            "metadata": {"name": "hello", "namespace": "default"},
            "spec": spec,
        }
    )
    await world.apply(service())
    assert conditions(world.service())[condition] == "False NotOwned"


async def test_deleting_a_service_leaves_nothing(world: World) -> None:
    await world.apply(service())
    world.store.delete(SERVICE, "default", "hello", propagation="Background")
    await world.clock.advance(1)
    kinds = (
        CONFIGURATION, ROUTE, REVISION, DEPLOYMENT, POD, POD_AUTOSCALER, SERVERLESS_SERVICE,
        IMAGE, INGRESS,
    )  # fmt: skip
    assert {str(kind): world.store.list(kind) for kind in kinds} == {
        str(kind): [] for kind in kinds
    }
    assert world.store.list(K8S_SERVICE, "default") == []
    assert world.routes.hosts("external") == []
    assert world.routes.hosts("internal") == []


async def test_deleting_the_latest_revision_of_a_live_service_makes_it_again(
    world: World,
) -> None:
    await world.apply(service())
    uid = world.revision()["metadata"]["uid"]
    world.store.delete(REVISION, "default", "hello-00001", propagation="Background")
    await world.clock.advance(1)
    assert world.revision()["metadata"]["uid"] != uid
    assert conditions(world.service())["Ready"] == "True"
    assert (await world.get()).status == 200


def imported_revision(world: World, name: str, generation: str) -> Obj:
    """As `kn service import` makes it."""
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": {
                "serving.knative.dev/configuration": "hello",
                "serving.knative.dev/configurationGeneration": generation,
                "serving.knative.dev/service": "hello",
            },
            "ownerReferences": [
                {
                    "apiVersion": "serving.knative.dev/v1",
                    "kind": "Configuration",
                    "name": "hello",
                    "uid": world.configuration()["metadata"]["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {"containers": [{"image": "demo:0"}]},
    }


async def test_an_imported_revision_can_take_traffic(world: World) -> None:
    await world.apply(service())
    world.store.create(imported_revision(world, "hello-imported", "7"))
    await world.settled()
    await world.apply(service(traffic=[
        {"latestRevision": True, "percent": 0}, {"revisionName": "hello-imported", "percent": 100},
    ]))  # fmt: skip
    assert conditions(world.service())["Ready"] == "True"
    assert world.service()["status"]["latestReadyRevisionName"] == "hello-00001"
    answer = await world.get()
    assert answer.headers["X-Pod"].startswith("hello-imported-deployment")


async def test_an_imported_revision_of_the_same_generation_is_not_the_latest(world: World) -> None:
    new = service()
    new["spec"]["template"].setdefault("metadata", {})["name"] = "hello-00002"
    world.store.create(new)
    while world.store.find(CONFIGURATION, "default", "hello") is None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    world.store.create(imported_revision(world, "hello-00001", "1"))
    await world.settled()
    assert world.service()["status"]["latestReadyRevisionName"] == "hello-00002"
    assert conditions(world.service())["Ready"] == "True"


async def test_a_service_of_a_thousand_words_keeps_names_short_enough(world: World) -> None:
    name = "a" * 63
    await world.apply(service(name))
    revision = world.service(name)["status"]["latestReadyRevisionName"]
    assert len(revision) == 63
    assert revision.endswith("-00001")
    keys = [
        Key(*DEPLOYMENT, "default", d["metadata"]["name"]) for d in world.store.list(DEPLOYMENT)
    ]
    assert len(keys[0].name) == 63
