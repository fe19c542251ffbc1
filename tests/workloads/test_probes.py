"""Probes: against real servers, and in a pod."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from knlocal.clock import SystemClock, TravelClock, VirtualClock
from knlocal.runtime.api import ExecResult
from knlocal.workloads.probe_checks import (
    Exec,
    Grpc,
    HttpGet,
    Ports,
    Target,
    TcpSocket,
    ask,
    parse_check,
)
from knlocal.workloads.probes import Prober, Probes, ProbeSpec, Verdicts, Which, parse_probe
from tests.workloads.conftest import LISTENS, Cluster, container_status, is_ready

CLOCK = SystemClock()
#: Seconds for what answers at once.
PATIENCE = 30


def target(
    execute: Callable[[Sequence[str], float], Awaitable[ExecResult]] | None = None, **extra: Any
) -> Target:
    async def nothing(_command: Sequence[str], _seconds: float) -> ExecResult:
        return ExecResult(0, b"")

    return Target("127.0.0.1", lambda port: ("127.0.0.1", port), execute or nothing, **extra)


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[bytes], Awaitable[tuple[int, list[bytes]]]]]:
    """Serve a canned answer; gives the port and what was asked."""
    servers = []

    async def start(answer: bytes) -> tuple[int, list[bytes]]:
        heard: list[bytes] = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        servers.append(server)
        return server.sockets[0].getsockname()[1], heard

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize(("status", "ok"), [(200, True), (302, True), (399, True), (404, False)])
async def test_an_http_probe_passes_from_200_to_399(serve: Any, status: int, ok: bool) -> None:
    port, _ = await serve(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())
    answer = await ask(HttpGet(port), target(), PATIENCE, CLOCK)
    assert answer.ok == ok
    if not ok:
        assert answer.message == f"HTTP probe failed with statuscode: {status}"


async def test_an_http_probe_says_who_it_is_and_sends_the_headers_given(serve: Any) -> None:
    port, heard = await serve(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    check = HttpGet(port, "/ready?deep=1", headers=(("Host", "shop.test"), ("X-Key", "v")))
    assert (await ask(check, target(), PATIENCE, CLOCK)).ok
    head = heard[0].decode()
    assert head.startswith("GET /ready?deep=1 HTTP/1.1\r\n")
    assert "User-Agent: kube-probe/1.32\r\n" in head
    assert "Host: shop.test\r\n" in head
    assert "X-Key: v\r\n" in head


async def test_a_redirect_to_another_host_passes_one_to_the_same_is_followed(serve: Any) -> None:
    away = b"HTTP/1.1 302 X\r\nLocation: http://elsewhere.test/\r\nContent-Length: 0\r\n\r\n"
    port, _ = await serve(away)
    assert (await ask(HttpGet(port), target(), PATIENCE, CLOCK)).ok
    again = b"HTTP/1.1 302 X\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"
    port, heard = await serve(again)
    assert (await ask(HttpGet(port), target(), PATIENCE, CLOCK)).ok
    assert heard[1].startswith(b"GET /again ")


async def test_messages_are_those_of_kubernetes(serve: Any, free_port: Callable[[], int]) -> None:
    closed = free_port()
    answer = await ask(HttpGet(closed, "/x"), target(), PATIENCE, CLOCK)
    assert not answer.reached
    assert answer.message == (
        f'Get "http://127.0.0.1:{closed}/x": dial tcp 127.0.0.1:{closed}: '
        "connect: connection refused"
    )
    answer = await ask(TcpSocket(closed), target(), PATIENCE, CLOCK)
    assert answer.message == f"dial tcp 127.0.0.1:{closed}: connect: connection refused"
    kept: list[Any] = []  # a stream that nobody holds is closed (from Python 3.12 on)
    silent = await asyncio.start_server(lambda *streams: kept.append(streams), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]

    async def expired(check: HttpGet | Grpc) -> str:
        before, clock = len(kept), TravelClock()
        asking = asyncio.create_task(ask(check, target(), 5, clock))
        async with CLOCK.timeout(PATIENCE):
            while len(kept) == before:
                await CLOCK.sleep(0.001)
        await clock.advance(5)
        return (await asking).message

    assert await expired(HttpGet(port)) == (
        f'Get "http://127.0.0.1:{port}/": context deadline exceeded '
        "(Client.Timeout exceeded while awaiting headers)"
    )
    assert (await ask(TcpSocket(port), target(), PATIENCE, CLOCK)).ok
    assert await expired(Grpc(port)) == (
        f'timeout: failed to connect service "127.0.0.1:{port}" within 5s: '
        "context deadline exceeded"
    )
    silent.close()


async def test_being_accepted_by_a_proxy_that_hangs_up_is_no_success() -> None:
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert (await ask(TcpSocket(port), target(), PATIENCE, CLOCK)).ok
    assert not (await ask(TcpSocket(port), target(proxied=True), PATIENCE, CLOCK)).ok
    server.close()


async def test_an_exec_probe_passes_with_exit_code_zero() -> None:
    async def run(command: Sequence[str], _seconds: float) -> ExecResult:
        return ExecResult(0 if command[0] == "true" else 1, b"not well")

    assert (await ask(Exec(("true",)), target(run), PATIENCE, CLOCK)).ok
    answer = await ask(Exec(("false",)), target(run), PATIENCE, CLOCK)
    assert (answer.ok, answer.message) == (False, "not well")


@pytest.fixture
async def grpc_server() -> AsyncIterator[tuple[int, health.aio.HealthServicer]]:
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port, servicer
    await server.stop(0)


async def test_a_grpc_probe_asks_the_health_service(grpc_server: Any) -> None:
    port, servicer = grpc_server
    status = health_pb2.HealthCheckResponse
    await servicer.set("", status.SERVING)
    await servicer.set("shop", status.NOT_SERVING)
    assert (await ask(Grpc(port), target(), PATIENCE, CLOCK)).ok
    answer = await ask(Grpc(port, "shop"), target(), PATIENCE, CLOCK)
    assert answer.message == 'service unhealthy (responded with "NOT_SERVING")'
    answer = await ask(Grpc(port, "unknown"), target(), PATIENCE, CLOCK)
    assert not answer.ok


async def test_a_server_without_the_health_service_is_told_so() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    answer = await ask(Grpc(port), target(), PATIENCE, CLOCK)
    await server.stop(0)
    assert "does not implement the grpc health protocol" in answer.message


async def test_http_on_a_port_named_h2c_speaks_http2() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        connection.initiate_connection()
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    path = dict(event.headers)[":path"]
                    status = "200" if path == "/ok" else "503"
                    connection.send_headers(event.stream_id, [(":status", status)], end_stream=True)
            writer.write(connection.data_to_send())
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert (await ask(HttpGet(port, "/ok", http2=True), target(), PATIENCE, CLOCK)).ok
    answer = await ask(HttpGet(port, "/no", http2=True), target(), PATIENCE, CLOCK)
    assert answer.message == "HTTP probe failed with statuscode: 503"
    server.close()


def test_ports_are_found_by_name_by_number_or_as_the_serving_port() -> None:
    ports = Ports({"web": 9000}, default=8080)
    assert parse_check({"httpGet": {"port": "web"}}, ports) == HttpGet(9000)
    assert parse_check({"tcpSocket": {"port": 0}}, ports) == TcpSocket(8080)
    assert parse_check({"grpc": {"port": 7}}, ports) == Grpc(7)
    assert parse_check({}, ports) == TcpSocket(8080)


# -- verdicts -------------------------------------------------------------------------------------


class Patient:
    """A container that is well or not as the test says; notes what the prober tells."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.well = True
        self.asked = 0
        self.told: list[str] = []

    def probe(self, **numbers: Any) -> ProbeSpec:
        spec = parse_probe({"exec": {"command": ["x"]}, **numbers}, Ports())
        assert spec is not None
        return spec

    def start(self, probes: Probes) -> Prober:
        async def run(_command: Sequence[str], _seconds: float) -> ExecResult:
            self.asked += 1
            return ExecResult(0 if self.well else 1, b"ill")

        def failed(which: Which) -> None:
            self.told.append(f"{which} failed")

        verdicts = Verdicts(
            started=lambda: self.told.append("started"),
            ready=lambda ready: self.told.append("ready" if ready else "unready"),
            failed=failed,
            unhealthy=lambda which, message: None,
        )
        return Prober(probes, target(run), verdicts, self.clock)


@pytest.fixture
def patient() -> Patient:
    return Patient(VirtualClock())


async def test_readiness_is_lost_after_failure_threshold_periods(patient: Patient) -> None:
    prober = patient.start(Probes(readiness=patient.probe(periodSeconds=5, failureThreshold=3)))
    await patient.clock.advance(0)
    assert patient.told == ["started", "ready"]
    patient.well = False
    await patient.clock.advance(10)
    assert patient.told == ["started", "ready"]
    await patient.clock.advance(5)
    assert patient.told[-1] == "unready"
    patient.well = True
    await patient.clock.advance(5)
    assert patient.told[-1] == "ready"
    await prober.stop()


async def test_a_startup_probe_gates_the_others(patient: Patient) -> None:
    patient.well = False
    prober = patient.start(
        Probes(
            startup=patient.probe(periodSeconds=10, failureThreshold=30),
            liveness=patient.probe(periodSeconds=1, failureThreshold=1),
        )
    )
    await patient.clock.advance(100)
    assert patient.told == []
    patient.well = True
    await patient.clock.advance(10)
    assert patient.told == ["started", "ready"]
    patient.well = False
    await patient.clock.advance(1)
    assert patient.told[-1] == "Liveness failed"
    await prober.stop()


async def test_a_startup_probe_that_never_passes_fails(patient: Patient) -> None:
    patient.well = False
    prober = patient.start(Probes(startup=patient.probe(periodSeconds=10, failureThreshold=3)))
    await patient.clock.advance(19)
    assert patient.told == []
    await patient.clock.advance(2)
    assert patient.told == ["Startup failed"]
    await prober.stop()


async def test_period_zero_asks_often_until_ready_and_then_every_ten_seconds(
    patient: Patient,
) -> None:
    patient.well = False
    prober = patient.start(Probes(readiness=patient.probe()))
    await patient.clock.advance(2)
    assert patient.asked >= 9
    patient.well = True
    await patient.clock.advance(1)
    assert patient.told[-1] == "ready"
    asked = patient.asked
    await patient.clock.advance(30)
    assert patient.asked == asked + 3
    await prober.stop()


async def test_the_initial_delay_is_waited_for(patient: Patient) -> None:
    prober = patient.start(Probes(readiness=patient.probe(periodSeconds=1, initialDelaySeconds=7)))
    await patient.clock.advance(6.9)
    assert patient.asked == 0
    await patient.clock.advance(0.2)
    assert patient.told[-1] == "ready"
    await prober.stop()


# -- in a pod -------------------------------------------------------------------------------------


async def test_a_failed_liveness_probe_restarts_that_container_only(cluster: Cluster) -> None:
    probe = {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1,
             "failureThreshold": 1, "timeoutSeconds": 20}  # fmt: skip
    ports = [{"name": "http", "containerPort": 8080}]
    sick = cluster.container("app", livenessProbe=probe, startupProbe=LISTENS, ports=ports)
    other = cluster.container("other", "import time; time.sleep(600)", ports=[])
    cluster.create(cluster.pod("web", containers=[sick, other], terminationGracePeriodSeconds=2))
    await cluster.running("web")
    await cluster.get("web", "/break")
    pod = await cluster.pod_where(
        "web", lambda p: container_status(p)["restartCount"] == 1 and is_ready(p)
    )
    assert container_status(pod, "other")["restartCount"] == 0
    [event] = cluster.events("Unhealthy")
    assert event["message"] == "Liveness probe failed: HTTP probe failed with statuscode: 503"
    messages = [e["message"] for e in cluster.events("Killing")]
    assert messages == ["Container app failed liveness probe, will be restarted"]


async def test_a_pod_stops_being_ready_when_its_readiness_fails(cluster: Cluster) -> None:
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1,
             "failureThreshold": 1}  # fmt: skip
    cluster.create(cluster.pod("web", containers=[cluster.container("app", readinessProbe=probe)]))
    await cluster.running("web")
    await cluster.get("web", "/break")
    pod = await cluster.pod_where("web", lambda p: not is_ready(p))
    assert container_status(pod)["restartCount"] == 0
    await cluster.get("web", "/mend")
    await cluster.running("web")


async def test_an_exec_probe_runs_in_the_container(cluster: Cluster) -> None:
    probe = {"exec": {"command": ["sh", "-c", 'test "$HOSTNAME" = web']}, "periodSeconds": 1}
    cluster.create(cluster.pod("web", containers=[cluster.container("app", readinessProbe=probe)]))
    await cluster.running("web")
