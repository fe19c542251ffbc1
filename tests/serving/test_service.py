"""Service → Configuration → Revision → Route, and requests on the way back."""

from tests.serving.world import World, conditions, service


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
