"""Requests on their way to a container: protocols, headers, timeouts, concurrency, logs."""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import subprocess
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conformance.conftest import NAMESPACE, Cluster, name, service

pytestmark = pytest.mark.docker
SCALED = {"autoscaling.knative.dev/min-scale": "1"}


def headers_of(told: Any) -> dict[str, str]:
    return {key.lower(): value for key, value in told["request"]["headers"]}


def test_method_path_query_and_body_arrive_as_sent(cluster: Cluster, hello: dict[str, Any]) -> None:
    told = cluster.info(hello)
    assert told["request"]["path"] == "/info"
    url = hello["status"]["url"]
    assert cluster.call(url, "/info?a=%20b&a=c+d").json()["request"]["path"] == "/info?a=%20b&a=c+d"
    body = os.urandom(3 << 20)
    assert cluster.call(url, "/echo", method="POST", body=body).body == body
    chunks = [b"one", b"two", b"three"]
    assert cluster.call(url, "/echo", method="POST", body=iter(chunks)).body == b"onetwothree"


def test_the_host_is_the_one_that_was_asked_for(cluster: Cluster, hello: dict[str, Any]) -> None:
    host = urllib.parse.urlsplit(hello["status"]["url"]).netloc
    assert cluster.info(hello)["request"]["host"] == host


def test_forwarding_headers_tell_the_way(cluster: Cluster, hello: dict[str, Any]) -> None:
    got = headers_of(cluster.info(hello, headers={"X-Forwarded-For": "1.2.3.4"}))
    hops = [hop.strip() for hop in got["x-forwarded-for"].split(",")]
    assert hops[0] == "1.2.3.4"
    assert all(re.fullmatch(r"[0-9a-fA-F.:]+", hop) for hop in hops)
    assert re.fullmatch("https?", got["x-forwarded-proto"])
    pair = r'[!#$%&\'*+.^_`|~\w-]+=([!#$%&\'*+.^_`|~\w-]+|"[^"]*")'
    for element in got["forwarded"].split(","):
        for part in element.split(";"):
            assert re.fullmatch(pair, part.strip()), got["forwarded"]
    assert "for=1.2.3.4" in got["forwarded"]


def test_trace_headers_go_through(cluster: Cluster, hello: dict[str, Any]) -> None:
    sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    got = headers_of(cluster.info(hello, headers={"traceparent": sent, "tracestate": "a=b"}))
    assert re.fullmatch(r"00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-01", got["traceparent"])
    assert got["tracestate"] == "a=b"


def test_headers_of_the_platform_stay_inside(cluster: Cluster, hello: dict[str, Any]) -> None:
    got = headers_of(cluster.info(hello, headers={"Te": "gzip", "Keep-Alive": "5", "X-Mine": "1"}))
    assert got["x-mine"] == "1"
    inner = {"knative-serving-revision", "knative-serving-namespace", "k-network-hash",
             "k-proxy-request", "k-network-probe", "keep-alive", "user-agent"}  # fmt: skip
    assert inner & set(got) == set()


def test_http2_reaches_the_gateway_on_the_same_port(
    cluster: Cluster, hello: dict[str, Any]
) -> None:
    """With prior knowledge: settings of the gateway come back instead of an HTTP/1.1 answer."""
    port = urllib.parse.urlsplit(hello["status"]["url"]).port or 80
    with socket.create_connection(("127.0.0.1", port), timeout=10) as talk:
        talk.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        head = talk.recv(9, socket.MSG_WAITALL)
    assert head[3] == 4  # SETTINGS


@pytest.mark.parametrize(("port", "version"), [("h2c", "HTTP/2.0"), ("http1", "HTTP/1.1")])
def test_the_port_name_chooses_the_protocol_to_the_container(
    cluster: Cluster, port: str, version: str
) -> None:
    made = cluster.ready_service(service(name("proto"), container={"ports": [{"name": port}]}))
    answer = cluster.call(made["status"]["url"], "/info")
    assert answer.status == 200
    assert version in (answer.text if port == "h2c" else answer.json()["request"]["version"])


def open_websocket(url: str) -> socket.socket:
    parts = urllib.parse.urlsplit(url)
    talk = socket.create_connection(("127.0.0.1", parts.port or 80), timeout=30)
    key = base64.b64encode(os.urandom(16)).decode()
    talk.sendall(
        f"GET /ws HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        got = talk.recv(1)
        assert got, head
        head += got
    assert b" 101 " in head, head
    return talk


def test_connections_can_be_upgraded(cluster: Cluster, hello: dict[str, Any]) -> None:
    with open_websocket(hello["status"]["url"]) as talk:
        for text in (b"one", b"two"):
            talk.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
            assert talk.recv(2 + len(text), socket.MSG_WAITALL) == bytes([0x81, len(text)]) + text


@pytest.fixture(scope="module")
def hurried(cluster: Cluster) -> dict[str, Any]:
    return cluster.ready_service(
        service(name("timeout"), spec={"timeoutSeconds": 3}, annotations=SCALED)
    )


def test_a_request_that_takes_too_long_is_answered_504(
    cluster: Cluster, hurried: dict[str, Any]
) -> None:
    url = hurried["status"]["url"]
    late = cluster.call(url, "/sleep?ms=6000")
    assert (late.status, late.text.strip()) == (504, "request timeout")
    assert cluster.call(url, "/sleep?ms=100").text == "Slept for 100 milliseconds"


def test_a_response_that_takes_too_long_ends_cleanly(
    cluster: Cluster, hurried: dict[str, Any]
) -> None:
    cut = cluster.call(hurried["status"]["url"], "/sleep?ms=0&after=6000")
    assert cut.status == 200
    assert cut.text.startswith("first")
    assert "Slept" not in cut.text


def test_an_idle_or_slow_start_is_answered_504(cluster: Cluster) -> None:
    spec = {"timeoutSeconds": 10, "responseStartTimeoutSeconds": 2}
    made = cluster.ready_service(service(name("start"), spec=spec))
    assert cluster.call(made["status"]["url"], "/sleep?ms=5000").status == 504
    slow = cluster.call(made["status"]["url"], "/sleep?ms=0&after=3000")
    assert (slow.status, slow.text) == (200, "firstSlept for 3000 milliseconds")


def test_silence_is_ended_for_requests_and_websockets(cluster: Cluster) -> None:
    """Knative's TestRevisionTimeout and TestWebSocketWithTimeout: the idle time-out."""
    spec = {"timeoutSeconds": 20, "idleTimeoutSeconds": 2}
    made = cluster.ready_service(service(name("idle"), spec=spec))
    assert cluster.call(made["status"]["url"], "/sleep?ms=4000").status == 504
    assert cluster.call(made["status"]["url"], "/sleep?ms=0&after=1000").text.startswith("first")
    with open_websocket(made["status"]["url"]) as talk:
        talk.sendall(b"\x81\x82\0\0\0\0hi")
        assert talk.recv(4, socket.MSG_WAITALL) == b"\x81\x02hi"
        assert talk.recv(100) == b""  # nothing for two seconds: closed


def test_container_concurrency_is_a_hard_limit(cluster: Cluster) -> None:
    made = cluster.ready_service(
        service(name("single"), spec={"containerConcurrency": 1},
                annotations={"autoscaling.knative.dev/max-scale": "2"})
    )  # fmt: skip
    with ThreadPoolExecutor(5) as many:
        got = list(
            many.map(
                lambda _: cluster.call(made["status"]["url"], "/busy?ms=100").status, range(30)
            )
        )
    assert set(got) == {200}


def test_output_of_the_container_is_its_log(cluster: Cluster, hello: dict[str, Any]) -> None:
    (pod,) = cluster.pods(hello["metadata"]["name"])
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}/log"

    def said() -> set[str]:
        return set(cluster.get(f"{path}?container=user-container").splitlines())

    cluster.until(lambda: {"to stdout", "to stderr"} <= said())
    assert cluster.get(f"{path}?container=user-container&tailLines=1").count("\n") == 1
    assert isinstance(cluster.get(f"{path}?container=queue-proxy"), str)


def test_services_reach_each_other_by_their_names(cluster: Cluster, hello: dict[str, Any]) -> None:
    caller = cluster.ready_service(service(name("caller")))
    called, local = hello["metadata"]["name"], hello["status"]["address"]["url"]
    assert local.startswith(f"http://{called}.{NAMESPACE}.svc.cluster.local")
    port = urllib.parse.urlsplit(local).port
    for suffix in (".svc.cluster.local", ".svc", ""):
        host = f"{called}.{NAMESPACE}{suffix}" + (f":{port}" if port else "")
        answer = cluster.call(caller["status"]["url"], f"/call?url=http://{host}/")
        assert (answer.status, answer.text) == (200, "Hello World!\n"), host


def test_the_address_of_the_gateway_is_good_for_people_and_pods(
    cluster: Cluster, hello: dict[str, Any]
) -> None:
    """Knative's TestCallToPublicService."""
    gateway = cluster.get("/api/v1/namespaces/kourier-system/services/kourier")
    (ingress,) = gateway["status"]["loadBalancer"]["ingress"]
    (port,) = [p["nodePort"] for p in gateway["spec"]["ports"] if p["port"] == 80]
    if ingress["ip"].startswith("127."):
        pytest.skip("port 80 at the bridge's address is somebody else's")
    public = urllib.parse.urlsplit(hello["status"]["url"]).netloc
    private = urllib.parse.urlsplit(hello["status"]["address"]["url"]).netloc
    door = (ingress["ip"], port)
    assert cluster.call(f"http://{public}", door=door).text == "Hello World!\n"
    assert cluster.call(f"http://{private}", door=door).status == 404
    caller = cluster.ready_service(service(name("caller")))
    ask = f"/call?url=http://{ingress['ip']}:{port}/&host={public}"
    assert cluster.call(caller["status"]["url"], ask).text == "Hello World!\n"


def test_unknown_hosts_are_404(cluster: Cluster, hello: dict[str, Any]) -> None:
    port = urllib.parse.urlsplit(hello["status"]["url"]).port
    assert cluster.call(f"http://nobody.{NAMESPACE}.localhost:{port}").status == 404
    inside = f"{hello['metadata']['name']}.{NAMESPACE}.svc.cluster.local:{port}"
    assert cluster.call(f"http://{inside}").status == 404


def test_request_logs_follow_their_template(cluster: Cluster) -> None:
    template = (
        '{"url": "{{js .Request.RequestURI}}", "status": {{.Response.Code}}, '
        '"revision": "{{.Revision.Name}}", "by": "{{js .Request.UserAgent}}"}'
    )
    on: dict[str, str | None] = {
        "logging.enable-request-log": "true",
        "logging.enable-probe-request-log": "true",
        "logging.request-log-template": template,
    }
    cluster.configure("config-observability", on)
    try:
        made = cluster.ready_service(service(name("logged"), annotations=SCALED))
        called = made["metadata"]["name"]
        url, me = made["status"]["url"], {"User-Agent": "me"}
        assert cluster.call(url, "/info?logged", headers=me).status == 200
        (pod,) = cluster.pods(called)
        log = (f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}/log"
               "?container=queue-proxy")  # fmt: skip
        for path, by in (("/info?logged", "me"), ("/", "kube-probe/")):
            line = f'{{"url": "{path}", "status": 200, "revision": "{called}-00001", "by": "{by}'
            cluster.until(lambda line=line: line in cluster.get(log), lambda: cluster.get(log))
    finally:
        cluster.configure("config-observability", dict.fromkeys(on))


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_reaches_a_service_at_its_url(cluster: Cluster, hello: dict[str, Any]) -> None:
    url = hello["status"]["url"]
    done = subprocess.run(
        ["curl", "-s", "--http2-prior-knowledge", url], capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "Hello World!\n", done.stderr
