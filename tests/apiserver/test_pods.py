"""Logs, exec, attach, port-forward and more, with real processes behind the pods."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from kubernetes.stream import portforward, stream

from knlocal.clock import SystemClock
from knlocal.resources.base import GroupKind, Obj
from knlocal.runtime.api import ContainerPlan, ExecStream, LogOptions, PodId, PodPlan
from knlocal.runtime.process import ProcessRuntime
from tests.apiserver.conftest import PATIENCE, Api, needs_kubectl

POD = GroupKind("", "Pod")
PODS = "/api/v1/namespaces/default/pods"

TALKER = """
import sys, time
for word in ("one", "two", "three"):
    print(word, flush=True)
for line in sys.stdin:
    print("heard", line.strip(), flush=True)
time.sleep(60)
"""
ECHO = """
import os, socketserver
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            if len(data) < 100:
                print("heard", data.decode(), flush=True)
            self.request.sendall(data.upper())
socketserver.ThreadingTCPServer.allow_reuse_address = True
server = socketserver.ThreadingTCPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
print("serving", flush=True)
server.serve_forever()
"""


class RuntimePods:
    """What the daemon lends the API, over a bare runtime."""

    def __init__(self, runtime: ProcessRuntime) -> None:
        self.runtime = runtime
        self.plans: dict[str, PodPlan] = {}

    def id_of(self, pod: Obj) -> PodId:
        return self.plans[pod["metadata"]["name"]].id

    def logs(self, pod: Obj, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        return self.runtime.logs(self.id_of(pod), container, options)

    async def exec(
        self, pod: Obj, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecStream:
        return await self.runtime.exec_stream(
            self.id_of(pod), container, command, stdin=stdin, tty=tty
        )

    async def attach(self, pod: Obj, container: str, *, stdin: bool) -> ExecStream:
        return await self.runtime.attach(self.id_of(pod), container, stdin=stdin)

    async def address(self, pod: Obj, port: int) -> tuple[str, int]:
        state = await self.runtime.inspect(self.id_of(pod))
        assert state is not None
        return self.runtime.address(state, port)

    async def stats(self, pod: Obj) -> Mapping[str, tuple[float, int]]:
        return await self.runtime.stats(self.id_of(pod))


@pytest.fixture
async def pods(tmp_path: Path) -> AsyncIterator[RuntimePods]:
    runtime = ProcessRuntime(f"test-{uuid.uuid4().hex[:8]}", SystemClock(), tmp_path / "runtime")
    await runtime.start()
    access = RuntimePods(runtime)
    yield access
    for plan in access.plans.values():
        await runtime.remove(plan.id)
    await runtime.close()


async def run_pod(api: Api, access: RuntimePods, name: str, code: str) -> Obj:
    """A pod with one real process, and the Pod object that shows it."""
    pod = PodId("default", name, uuid.uuid4().hex)
    port = access.runtime.env_port(pod, 8080)
    plan = PodPlan(
        pod,
        [
            ContainerPlan(
                "main", "local", local_command=(sys.executable, "-u", "-c", code),
                local_dir=api.home, env={"PORT": str(port)}, stdin=True,
            )
        ],
        ports=(8080,),
    )  # fmt: skip
    access.plans[name] = plan
    await access.runtime.prepare(plan)
    await access.runtime.start_container(plan, "main")
    shown = {"name": "main", "image": "local", "stdin": True}
    return show_pod(api, name, [shown], running=True)


def show_pod(api: Api, name: str, containers: list[dict[str, Any]], *, running: bool) -> Obj:
    api.store.create({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"nodeName": "here", "containers": containers},
    })  # fmt: skip
    state = {"running": {}} if running else {"waiting": {"reason": "ContainerCreating"}}
    statuses = [
        {"name": c["name"], "image": c["image"], "imageID": "", "ready": running,
         "restartCount": 0, "state": state}
        for c in containers
    ]  # fmt: skip
    status = {"phase": "Running" if running else "Pending", "containerStatuses": statuses}
    return api.store.modify(
        POD, "default", name, lambda o: o.__setitem__("status", status), subresource="status"
    )


@pytest.fixture
async def talker(api: Api, pods: RuntimePods) -> Api:
    await run_pod(api, pods, "talker", TALKER)
    following = api.call("GET", f"{PODS}/talker/log?follow=true&limitBytes=14")
    status, text, _ = await following  # until all three words are there
    assert (status, text) == (200, "one\ntwo\nthree\n")
    return api


# --- logs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocols", "message"),
    [((), b"three\n"), (("base64.binary.k8s.io",), "dGhyZWUK")],
)
async def test_logs_come_over_a_websocket_too(
    talker: Api, protocols: tuple[str, ...], message: object
) -> None:
    headers = {"Authorization": f"Bearer {talker.server.tokens.admin}"}
    url = f"{talker.server.url}{PODS}/talker/log?tailLines=1"
    async with talker.session.ws_connect(url, headers=headers, protocols=protocols) as socket:
        assert [got.data async for got in socket] == [message]


@needs_kubectl
async def test_logs_whole_tail_and_limited(talker: Api) -> None:
    assert await talker.kubectl("logs", "talker") == "one\ntwo\nthree\n"
    assert await talker.kubectl("logs", "talker", "--tail=2") == "two\nthree\n"
    assert await talker.kubectl("logs", "talker", "--limit-bytes=5") == "one\nt"
    assert await talker.kubectl("logs", "talker", "--since=1h") == "one\ntwo\nthree\n"
    assert await talker.kubectl("logs", "-l", "app=talker") == "one\ntwo\nthree\n"
    stamped = await talker.kubectl("logs", "talker", "--timestamps", "--tail=1")
    moment, word = stamped.split()
    assert (moment[:2], moment[-1], word) == ("20", "Z", "three")


@needs_kubectl
async def test_following_ends_when_the_container_ends(api: Api, pods: RuntimePods) -> None:
    await run_pod(api, pods, "short", "print('bye')")
    following = await api.start_kubectl("logs", "-f", "short")
    out, _ = await asyncio.wait_for(following.communicate(), PATIENCE)
    assert out == b"bye\n"


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("container=other", 400, "container other is not valid for pod"),
        ("previous=true", 400, 'previous terminated container "main" in pod "p" not found'),
        ("tailLines=-1", 422, "tailLines: Invalid value: -1"),
        ("limitBytes=0", 422, "limitBytes: Invalid value: 0"),
        ("sinceSeconds=0", 422, "sinceSeconds: Invalid value: 0"),
        ("tailLines=x", 400, "invalid syntax"),
        ("sinceTime=yesterday", 400, "parsing time"),
        ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", 400, "at most one of"),
    ],
)
async def test_log_requests_that_make_no_sense_are_refused(
    api: Api, query: str, status: int, words: str
) -> None:
    show_pod(api, "p", [{"name": "main", "image": "a"}], running=True)
    got, answer, _ = await api.call("GET", f"{PODS}/p/log?{query}")
    assert got == status
    assert words in answer["message"]


async def test_several_containers_need_a_choice_and_waiting_ones_say_so(api: Api) -> None:
    two = [{"name": "a", "image": "a"}, {"name": "b", "image": "b"}]
    show_pod(api, "two", two, running=False)
    status, answer, _ = await api.call("GET", f"{PODS}/two/log")
    assert (status, answer["message"]) == (
        400, "a container name must be specified for pod two, choose one of: [a b]",
    )  # fmt: skip
    status, answer, _ = await api.call("GET", f"{PODS}/two/log?container=b")
    assert (status, answer["message"]) == (
        400, 'container "b" in pod "two" is waiting to start: ContainerCreating',
    )  # fmt: skip
    assert (await api.call("GET", f"{PODS}/nosuch/log"))[0] == 404
    assert (await api.call("POST", f"{PODS}/two/log", {}))[0] == 405


# --- exec ----------------------------------------------------------------------------------------

WEBSOCKETS = [{}, {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false"}]


@needs_kubectl
@pytest.mark.parametrize("environment", WEBSOCKETS, ids=["websocket", "spdy"])
async def test_exec_carries_output_input_and_exit_code(
    talker: Api, environment: dict[str, str]
) -> None:
    ran = await talker.run(
        "kubectl", "exec", "talker", "--", "sh", "-c", "echo out; echo err >&2; exit 7",
        **environment,
    )  # fmt: skip
    assert (ran.code, ran.out) == (7, "out\n")
    assert ran.err.startswith("err\n")
    ran = await talker.run(
        "kubectl", "exec", "-i", "talker", "--", "cat", stdin="x" * 300_000, **environment
    )
    assert (ran.code, len(ran.out)) == (0, 300_000)


@needs_kubectl
async def test_exec_refuses_what_is_not_there(talker: Api) -> None:
    said = await talker.refused("exec", "talker", "-c", "other", "--", "true")
    assert "container other is not valid for pod talker" in said
    assert await talker.refused("exec", "talker", "--", "/no/such/program")
    assert "NotFound" in await talker.refused("exec", "nosuch", "--", "true")
    status, answer, _ = await talker.call("GET", f"{PODS}/talker/exec?command=true&stdout=1")
    assert (status, answer["message"]) == (400, "Upgrade request required")
    status, answer, _ = await talker.call("GET", f"{PODS}/talker/exec?stdout=1")
    assert status == 400
    status, answer, _ = await talker.call("GET", f"{PODS}/talker/exec?command=true")
    assert "at least 1 of stdin, stdout, stderr" in answer["message"]


@needs_kubectl
async def test_files_are_copied_both_ways(talker: Api) -> None:
    (talker.home / "sent").write_text("cargo")
    there = talker.home / "there"
    there.mkdir()
    await talker.kubectl("cp", str(talker.home / "sent"), f"talker:{there}/arrived")
    assert (there / "arrived").read_text() == "cargo"
    await talker.kubectl("cp", f"talker:{there}/arrived", str(talker.home / "back"))
    assert (talker.home / "back").read_text() == "cargo"


async def test_exec_in_a_terminal_has_a_size(talker: Api) -> None:
    """As `kubectl exec -it`: one output channel, resize messages."""
    url = f"{talker.server.url}{PODS}/talker/exec?command=sh&stdin=1&stdout=1&tty=1"
    headers = {"Authorization": f"Bearer {talker.server.tokens.admin}"}
    async with talker.session.ws_connect(
        url, headers=headers, protocols=["v5.channel.k8s.io", "v4.channel.k8s.io"]
    ) as socket:
        assert socket.protocol == "v5.channel.k8s.io"
        await socket.send_bytes(b"\x04" + b'{"Width":91,"Height":37}')
        await socket.send_bytes(b"\x00" + b"stty size; exit 3\n")
        seen: dict[int, bytes] = {}
        async for message in socket:
            channel, data = message.data[0], message.data[1:]
            seen[channel] = seen.get(channel, b"") + data
    assert b"37 91" in seen[1]
    assert b'"ExitCode","message":"3"' in seen[3]


async def test_the_python_client_executes_too(talker: Api) -> None:
    def work() -> tuple[str, int]:
        with talker.client() as client:
            core = kubernetes.client.CoreV1Api(client)
            answer = stream(
                core.connect_get_namespaced_pod_exec, "talker", "default",
                command=["sh", "-c", "read x; echo got $x; exit 4"], stdin=True, stdout=True,
                stderr=True, tty=False, _preload_content=False,
            )  # fmt: skip
            answer.write_stdin("this\n")
            answer.run_forever(timeout=PATIENCE)
            return answer.read_stdout(), answer.returncode

    assert await asyncio.to_thread(work) == ("got this\n", 4)


@needs_kubectl
async def test_attach_shows_what_the_program_prints_from_now_on(
    api: Api, pods: RuntimePods
) -> None:
    pod = await run_pod(api, pods, "echo", ECHO)
    await api.call("GET", f"{PODS}/echo/log?follow=true&limitBytes=8")
    attached = await api.start_kubectl("attach", "-i", "echo")
    assert attached.stdout
    await asyncio.wait_for(attached.stdout.readline(), PATIENCE)  # a word about prompts
    reader, writer = await asyncio.open_connection(*await pods.address(pod, 8080))
    heard = asyncio.ensure_future(attached.stdout.readline())
    async with asyncio.timeout(PATIENCE):
        while not heard.done():  # kubectl does not tell when it is connected
            writer.write(b"hello")
            await reader.readexactly(5)
            await asyncio.wait({heard}, timeout=0.05)
    writer.close()
    assert heard.result() == b"heard hello\n"


# --- port-forward --------------------------------------------------------------------------------


@needs_kubectl
@pytest.mark.parametrize(
    "environment", [{}, {"KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}], ids=["websocket", "spdy"]
)
async def test_port_forward_carries_connections_side_by_side(
    api: Api, pods: RuntimePods, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_pod(api, pods, "echo", ECHO)
    await api.call("GET", f"{PODS}/echo/log?follow=true&limitBytes=8")
    base = Api.environment(api)
    monkeypatch.setattr(Api, "environment", lambda self: {**base, **environment})
    forwarding = await api.start_kubectl("port-forward", "pod/echo", ":8080")
    assert forwarding.stdout
    line = (await asyncio.wait_for(forwarding.stdout.readline(), PATIENCE)).decode()
    assert line.startswith("Forwarding from 127.0.0.1:"), line
    port = int(line.split()[2].rpartition(":")[2])

    async def talk(size: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x" * size)
        assert await asyncio.wait_for(reader.readexactly(size), PATIENCE) == b"X" * size
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(talk(size) for size in (1, 10, 100_000, 1_000_000)))
    await talk(5)


async def test_the_python_client_forwards_ports(api: Api, pods: RuntimePods) -> None:
    await run_pod(api, pods, "echo", ECHO)
    await api.call("GET", f"{PODS}/echo/log?follow=true&limitBytes=8")

    def work() -> bytes:
        with api.client() as client:
            core = kubernetes.client.CoreV1Api(client)
            forward = portforward(
                core.connect_get_namespaced_pod_portforward, "echo", "default", ports="8080"
            )
            connection = forward.socket(8080)
            connection.setblocking(True)
            connection.sendall(b"ping")
            answer = connection.recv(4)
            connection.close()
            return bytes(answer)

    assert await asyncio.to_thread(work) == b"PING"


async def test_port_forward_wants_a_running_pod_and_real_ports(api: Api) -> None:
    show_pod(api, "slow", [{"name": "a", "image": "a"}], running=False)
    status, answer, _ = await api.call("GET", f"{PODS}/slow/portforward?ports=80")
    assert (status, answer["message"]) == (
        400, "unable to forward port because pod is not running. Current status=Pending",
    )  # fmt: skip
    show_pod(api, "fast", [{"name": "a", "image": "a"}], running=True)
    for ports in ("0", "70000", "x"):
        assert (await api.call("GET", f"{PODS}/fast/portforward?ports={ports}"))[0] == 400


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\x80\x03\x00\x01\x00\x00\x00\x02xx",
                                  b"\xff" * 100, b"\x80\x02\x00\x01\x00\x00\x00\x00"])  # fmt: skip
async def test_junk_in_a_tunnel_ends_it_and_nothing_else(api: Api, junk: bytes) -> None:
    show_pod(api, "p", [{"name": "a", "image": "a"}], running=True)
    headers = {"Authorization": f"Bearer {api.server.tokens.admin}"}
    url = f"{api.server.url}{PODS}/p/portforward"
    async with api.session.ws_connect(
        url, headers=headers, protocols=["SPDY/3.1+portforward.k8s.io"]
    ) as socket:
        await socket.send_bytes(junk)
    assert (await api.call("GET", PODS))[0] == 200


# --- eviction and usage --------------------------------------------------------------------------


async def test_eviction_deletes_unless_a_budget_forbids_it(api: Api) -> None:
    show_pod(api, "p", [{"name": "a", "image": "a"}], running=True)
    budget = {
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "p"}}},
    }  # fmt: skip
    made = api.store.create(budget)
    status = {"disruptionsAllowed": 0, "desiredHealthy": 1, "currentHealthy": 1}
    api.store.update({**made, "status": status}, subresource="status")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}
    status, answer, _ = await api.call("POST", f"{PODS}/p/eviction", eviction)
    assert (status, answer["reason"]) == (429, "TooManyRequests")
    said = answer["details"]["causes"][0]["message"]
    assert said == "The disruption budget b needs 1 healthy pods and has 1 currently"
    kind = GroupKind("policy", "PodDisruptionBudget")
    api.store.modify(
        kind, "default", "b", lambda obj: obj["status"].update(disruptionsAllowed=1),
        subresource="status",
    )  # fmt: skip
    status, answer, _ = await api.call("POST", f"{PODS}/p/eviction", eviction)
    assert (status, answer["status"]) == (201, "Success")
    assert api.store.get(POD, "default", "p")["metadata"]["deletionTimestamp"]
    assert api.store.get(kind, "default", "b")["status"]["disruptionsAllowed"] == 0


@needs_kubectl
async def test_top_shows_what_pods_use(talker: Api) -> None:
    shown = await talker.kubectl("top", "pods", "--containers")
    header, row = shown.splitlines()
    assert header.split() == ["POD", "NAME", "CPU(cores)", "MEMORY(bytes)"]
    assert row.split()[:2] == ["talker", "main"]
    assert row.split()[3].endswith("Mi")


# --- proxy ---------------------------------------------------------------------------------------

WEB = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        size = int(self.headers.get("Content-Length", "0"))
        said = f"{self.command} {self.path} {self.rfile.read(size).decode()} "
        said += str(self.headers.get("Authorization"))
        self.send_response(418 if "teapot" in self.path else 200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said.encode())
    do_POST = do_GET
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
print("serving", flush=True)
server.serve_forever()
"""


@pytest.fixture
async def proxied(api: Api, pods: RuntimePods) -> Api:
    await run_pod(api, pods, "web", WEB)
    await api.call("GET", f"{PODS}/web/log?follow=true&limitBytes=7")  # it serves
    about = {"name": "web", "namespace": "default"}
    api.store.create({
        "apiVersion": "v1", "kind": "Service", "metadata": about,
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080},
                           {"name": "none", "port": 81}]},
    })  # fmt: skip
    target = {"kind": "Pod", "name": "web", "namespace": "default"}
    api.store.create({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": about,
        "subsets": [{"addresses": [{"ip": "127.0.0.1", "targetRef": target}],
                     "ports": [{"name": "http", "port": 8080}]}],
    })  # fmt: skip
    return api


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("pods/web:8080/proxy/", 200, "GET /  None"),
        ("pods/http:web:8080/proxy/a%20b/c/?x=1&y", 200, "GET /a%20b/c/?x=1&y  None"),
        ("pods/web:8080/proxy/teapot", 418, "GET /teapot  None"),
        ("services/web:80/proxy/proxy/x", 200, "GET /proxy/x  None"),
        ("services/web:http/proxy/", 200, "GET /  None"),
    ],
)
async def test_the_proxy_subresource_reaches_pods_and_services(
    proxied: Api, path: str, status: int, said: str
) -> None:
    got, text, _ = await proxied.call("GET", f"/api/v1/namespaces/default/{path}")
    assert (got, text) == (status, said)  # without the API's own token


async def test_the_proxy_passes_bodies_and_adds_a_missing_slash(proxied: Api) -> None:
    got, text, _ = await proxied.call("POST", f"{PODS}/web:8080/proxy/in", {"a": 1})
    assert (got, text) == (200, 'POST /in {"a": 1} None')
    got, text, response = await proxied.call("GET", f"{PODS}/web:8080/proxy?x=1")
    assert (got, text) == (200, "GET /?x=1  None")
    assert [moved.status for moved in response.history] == [301]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("pods/nosuch/proxy/", 404, 'pods "nosuch" not found'),
        ("pods/web:nosuch/proxy/", 400, 'no port named "nosuch"'),
        ("pods/ftp:web:80/proxy/", 400, "[http:|https:]name[:port]"),
        ("services/web/proxy/", 503, 'no service port "" found for service "web"'),
        ("services/web:81/proxy/", 503, 'no endpoints available for service "web:81"'),
        ("services/web:9/proxy/", 503, 'no service port "9" found'),
    ],
)
async def test_a_proxy_to_nowhere_is_a_status(
    proxied: Api, path: str, status: int, words: str
) -> None:
    got, answer, _ = await proxied.call("GET", f"/api/v1/namespaces/default/{path}")
    assert got == status, answer
    assert words in answer["message"]


@needs_kubectl
async def test_what_cannot_be_done_to_a_pod_is_said_and_crashes_no_client(talker: Api) -> None:
    said = await talker.refused("debug", "talker", "--image=busybox", "--", "ls")
    assert "ephemeral containers are disabled for this cluster" in said
    assert "kubectl debug POD --copy-to" in said
