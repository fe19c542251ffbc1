"""The path of a request: queues, balancing, retries, timeouts, probes, draining, logs, metrics."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from knlocal.clock import SystemClock
from knlocal.serving.activator.protocol import detect
from knlocal.serving.kinds import POD, REVISION
from tests.serving.world import World, service

Program = Callable[[str, dict[str, str]], Awaitable[tuple[int, str]]]


async def start(count: int, world: World, **headers: str) -> list[asyncio.Task[object]]:
    """`count` requests under way; returns when each has come as far as it can."""
    tasks: list[asyncio.Task[object]] = [
        asyncio.create_task(world.get(**headers)) for _ in range(count)
    ]
    backend = world.serving.activator.revision("default", "hello-00001")
    throttler = backend.throttler

    def stuck() -> bool:
        arrived = sum(server.active for server in world.workloads.servers.values())
        return arrived + throttler.waiting + sum(t.done() for t in tasks) >= count

    while not stuck():  # noqa: ASYNC110 (each turn of the loop is the event)
        await asyncio.sleep(0)
    return tasks


def gate() -> tuple[asyncio.Event, Program]:
    """A program that answers when the event is set."""
    opened = asyncio.Event()

    async def answer(_path: str, _headers: dict[str, str]) -> tuple[int, str]:
        await opened.wait()
        return 200, "done"

    return opened, answer


async def test_container_concurrency_is_never_exceeded_and_nothing_is_lost(world: World) -> None:
    opened, world.workloads.answer = gate()
    await world.apply(
        service(
            spec={"containerConcurrency": 2},
            annotations={
                "autoscaling.knative.dev/min-scale": "3",
                "autoscaling.knative.dev/max-scale": "3",
            },
        )
    )
    tasks = await start(20, world)
    servers = world.workloads.servers.values()
    assert [server.active for server in servers] == [2, 2, 2]
    opened.set()
    assert {task.result().status for task in await finished(tasks)} == {200}  # type: ignore[attr-defined]
    assert max(server.most_active for server in servers) == 2


async def finished(tasks: list[asyncio.Task[object]]) -> list[asyncio.Task[object]]:
    await asyncio.gather(*tasks, return_exceptions=True)
    return tasks


async def test_a_full_queue_turns_requests_away(world: World) -> None:
    opened, world.workloads.answer = gate()
    await world.apply(
        service(
            spec={"containerConcurrency": 1},
            annotations={
                "autoscaling.knative.dev/max-scale": "1",
                "autoscaling.knative.dev/target-burst-capacity": "0",
            },
        )
    )
    await world.clock.advance(4)  # the activator leaves the path: queue-proxy's short queue counts
    tasks = await start(15, world)
    opened.set()
    results = [task.result() for task in await finished(tasks)]
    statuses = Counter(r.status for r in results)  # type: ignore[attr-defined]
    assert statuses == {200: 11, 503: 4}
    refused = [r.body for r in results if r.status == 503]  # type: ignore[attr-defined]
    assert set(refused) == {b"pending request queue full\n"}


async def test_unlimited_pods_share_the_load(world: World) -> None:
    opened, world.workloads.answer = gate()
    await world.apply(service(annotations={"autoscaling.knative.dev/min-scale": "3"}))
    tasks = await start(60, world)
    loads = [server.active for server in world.workloads.servers.values()]
    assert sum(loads) == 60
    assert min(loads) >= 15
    opened.set()
    await finished(tasks)


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        ({"timeoutSeconds": 10}, 10),
        ({"timeoutSeconds": 20, "responseStartTimeoutSeconds": 5}, 5),
        ({"timeoutSeconds": 20, "idleTimeoutSeconds": 7}, 7),
    ],
)
async def test_waiting_for_a_pod_ends_with_504_at_the_first_timeout(
    world: World, limits: dict[str, int], seconds: int
) -> None:
    world.configure("config-autoscaler", allow_zero_initial_scale="true")
    await world.apply(
        service(spec=limits, annotations={"autoscaling.knative.dev/initial-scale": "0"})
    )
    world.workloads.holding = True
    (task,) = await start(1, world)
    await world.clock.advance(seconds - 0.5)
    assert not task.done()
    await world.clock.advance(1)
    answer = await task
    assert (answer.status, answer.body) == (504, b"activator request timeout")  # type: ignore[attr-defined]


async def test_the_time_spent_waiting_counts_towards_the_timeout(world: World) -> None:
    _opened, world.workloads.answer = gate()
    world.configure("config-autoscaler", allow_zero_initial_scale="true")
    await world.apply(
        service(
            spec={"timeoutSeconds": 10},
            annotations={"autoscaling.knative.dev/initial-scale": "0"},
        )
    )
    world.workloads.holding = True
    (task,) = await start(1, world)
    await world.clock.advance(6)
    world.workloads.release()
    servers = world.workloads.servers
    while not any(server.active for server in servers.values()):  # noqa: ASYNC110
        await asyncio.sleep(0)
    await world.clock.advance(4.5)
    answer = await task
    assert (answer.status, answer.body) == (504, b"request timeout")  # type: ignore[attr-defined]


async def test_waiting_requests_hear_at_once_that_the_container_dies(world: World) -> None:
    world.configure("config-autoscaler", allow_zero_initial_scale="true")
    await world.apply(service(annotations={"autoscaling.knative.dev/initial-scale": "0"}))
    world.workloads.crashing = "no database"
    answer = await world.get()
    assert (answer.status, answer.body) == (503, b"Container failed with: no database\n")


async def test_requests_wait_while_a_container_that_died_runs_again(world: World) -> None:
    world.configure("config-autoscaler", allow_zero_initial_scale="true")
    await world.apply(service(annotations={"autoscaling.knative.dev/initial-scale": "0"}))
    world.workloads.crashing, world.workloads.runs_again = "no database", True
    (task,) = await start(1, world)
    await world.settled()
    assert not task.done()
    world.workloads.release()
    answer = await task
    assert answer.status == 200  # type: ignore[attr-defined]


async def test_a_pod_that_refuses_connections_is_passed_over(world: World) -> None:
    await world.apply(service(annotations={"autoscaling.knative.dev/min-scale": "2"}))
    dead, alive = world.workloads.servers.values()
    await dead.stop()
    answers = [await world.get() for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    assert {answer.headers["X-Pod"] for answer in answers} == {alive.name}


async def test_when_every_pod_refuses_the_answer_is_502_in_the_end(world: World) -> None:
    await world.apply(service())
    (dead,) = world.workloads.servers.values()
    await dead.stop()
    task = asyncio.create_task(world.get())
    while not task.done():
        await asyncio.sleep(0)
        await world.clock.advance(0.1)
    answer = await task
    assert answer.status == 502
    assert b"connection refused" in answer.body


async def test_a_deleted_pod_gets_no_new_requests_and_ends_its_old_ones(world: World) -> None:
    opened, world.workloads.answer = gate()
    await world.apply(service())
    tasks = await start(3, world)
    (pod,) = world.store.list(POD)
    drained = asyncio.create_task(world.serving.drain(pod))
    await world.settled()
    assert not drained.done()
    more = await start(4, world)  # there is no other pod yet
    (server,) = world.workloads.servers.values()
    assert server.active == 3
    opened.set()
    await finished(tasks)
    await drained
    assert not any(task.done() for task in more)
    world.store.delete(POD, "default", pod["metadata"]["name"], grace_seconds=0)
    assert {task.result().status for task in await finished(more)} == {200}  # type: ignore[attr-defined]


async def test_requests_of_a_deleted_revision_are_still_waited_for(world: World) -> None:
    opened, world.workloads.answer = gate()
    await world.apply(service())
    tasks = await start(2, world)
    (pod,) = world.store.list(POD)
    world.store.delete(REVISION, "default", "hello-00001")
    assert world.serving.activator.in_flight(pod) == 2
    opened.set()
    await finished(tasks)
    await world.serving.drain(pod)


async def test_a_client_that_leaves_gives_its_place_away(world: World) -> None:
    opened, world.workloads.answer = gate()
    await world.apply(
        service(
            spec={"containerConcurrency": 1},
            annotations={"autoscaling.knative.dev/max-scale": "1"},
        )
    )
    first, second, third = await start(3, world)
    second.cancel()
    await finished([second])
    opened.set()
    await finished([first, third])
    backend = world.serving.activator.revision("default", "hello-00001")
    assert third.result().status == 200  # type: ignore[attr-defined]
    assert backend.statistics.concurrency == 0
    assert [pod.in_flight for pod in backend.throttler.pods] == [0]


@pytest.mark.parametrize(
    ("headers", "status", "body"),
    [
        ({"K_Network_Probe": "activator"}, 200, b"activator"),
        ({"K_Network_Probe": "queue"}, 200, b"queue"),
        ({"K_Network_Probe": "probe", "K_Network_Hash": "abc"}, 200, b""),
        ({"K_Network_Probe": "probe"}, 400, None),
        ({"K_Network_Probe": "what"}, 400, None),
        ({"User_Agent": "kube-probe/1.30"}, 200, b""),
    ],
)
async def test_probes_are_answered_and_are_no_traffic(
    world: World, headers: dict[str, str], status: int, body: bytes | None
) -> None:
    await world.apply(service())
    answer = await world.get(**headers)
    assert answer.status == status
    assert body is None or answer.body == body
    if "K_Network_Hash" in headers:
        assert answer.headers["K-Network-Hash"] == "abc"
    (server,) = world.workloads.servers.values()
    assert server.requests == []
    assert "revision_request_count{" not in world.serving.render_metrics()


async def test_headers_of_knatives_own_components_stay_outside(world: World) -> None:
    await world.apply(service())
    await world.get(Knative_Serving_Revision="x", Knative_Serving_Namespace="y", X_Mine="z")
    (server,) = world.workloads.servers.values()
    (_, headers) = server.requests[-1]
    assert headers["x-mine"] == "z"
    assert not {"knative-serving-revision", "knative-serving-namespace"} & headers.keys()
    assert headers["x-request-id"]
    assert "for=" in headers["forwarded"]
    assert headers["host"] == "hello.default.svc.cluster.local"


async def test_a_revision_answers_under_its_own_name_inside(world: World) -> None:
    await world.apply(service())
    await world.apply(service(image="demo:2"))
    answer = await world.get("http://hello-00001.default.svc.cluster.local")
    assert answer.headers["X-Pod"].startswith("hello-00001-")


async def test_requests_are_measured_under_knatives_names(world: World) -> None:
    await world.apply(service())
    for _ in range(3):
        await world.get()
    text = world.serving.render_metrics()
    labels = (
        'namespace_name="default",service_name="hello",configuration_name="hello",'
        'revision_name="hello-00001",response_code="200",response_code_class="2xx"'
    )
    assert f"revision_request_count{{{labels}}} 3" in text
    assert f'revision_request_latencies_bucket{{{labels},le="+Inf"}} 3' in text
    assert f"revision_request_latencies_count{{{labels}}} 3" in text
    assert "autoscaler_actual_pods{" in text


async def test_the_request_log_follows_its_template(world: World) -> None:
    await world.apply(service())
    world.configure(
        "config-observability",
        **{
            "logging.enable-request-log": "true",
            "logging.request-log-template": (
                "{{.Request.Method}} {{js .Request.RequestURI}} {{.Response.Code}} "
                '{{.Revision.Name}} {{.Revision.PodName}} {{.Request.Header.Get "x-mine"}} '
                '{{.Request.URL.Path}} {{.Request.URL}} {{.Request.URL.Query.Get "b"}} '
                '{{.Request.FormValue "b"}} {{.Request.ProtoMajor}}.{{.Request.ProtoMinor}}'
            ),
        },
    )
    await world.get("http://hello.default.svc.cluster.local/a?b=1", X_Mine="me")
    await world.get(User_Agent="kube-probe/1.30")
    (pod,) = world.store.list(POD)
    (line,) = world.serving.request_log.lines(pod["metadata"]["uid"])
    assert line.text == (
        f"GET /a?b\\u003D1 200 hello-00001 {pod['metadata']['name']} me /a /a?b=1 1 1 1.1"
    )


async def test_readiness_probes_are_logged_when_that_is_asked_for(world: World) -> None:
    await world.apply(service())
    template = "{{.Request.UserAgent}} {{.Request.RequestURI}} {{.Response.Code}}"
    on = {
        "logging.enable-request-log": "true",
        "logging.request-log-template": template + " {{.Revision.Name}}",
    }
    world.configure("config-observability", **on)
    (pod,) = world.store.list(POD)

    def logged() -> list[str]:
        world.serving.probed(pod, "user-container", "Readiness", True, 0.001)
        world.serving.probed(pod, "user-container", "Liveness", True, 0.001)
        world.serving.probed(pod, "user-container", "Readiness", False, 0.001)
        return [line.text for line in world.serving.request_log.lines(pod["metadata"]["uid"])]

    assert logged() == []
    world.configure("config-observability", **{"logging.enable-probe-request-log": "true"})
    assert logged() == [
        "kube-probe/1.32 / 200 hello-00001",
        "kube-probe/1.32 / 503 hello-00001",
    ]


async def test_pods_whose_address_is_known_late_are_used_as_soon_as_it_is() -> None:
    async with World() as world:
        world.keep_pods = True
        await world.apply(service())
    again = World(before=world)
    again.workloads.unreachable = True
    async with again:
        asking = asyncio.create_task(again.get())
        await again.settled()
        assert not asking.done()
        again.workloads.unreachable = False
        await again.clock.advance(0.2)
        assert (await asking).status == 200
        assert again.autoscaler()["status"]["actualScale"] == 1
        assert again.workloads.made == 0


@pytest.mark.parametrize(
    ("greeting", "protocol"),
    [
        (bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)), "h2c"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "http1"),
        (b"", "http1"),
    ],
)
async def test_a_program_is_asked_whether_it_speaks_http2(greeting: bytes, protocol: str) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readexactly(24)).startswith(b"PRI * HTTP/2.0")
        writer.write(greeting)
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert await detect("127.0.0.1", port, SystemClock()) == protocol
    server.close()
    await server.wait_closed()
    assert await detect("127.0.0.1", port, SystemClock()) == "http1"


async def test_detection_comes_before_the_first_request(world: World) -> None:
    world.configure("config-features", **{"autodetect-http2": "enabled"})
    await world.apply(service())
    assert (await world.get()).status == 200
    (server,) = world.workloads.servers.values()
    assert [path for path, _ in server.requests] == ["*", "/"]  # the preface, then the request
