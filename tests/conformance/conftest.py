"""One daemon on Docker for the whole folder, and the ways real clients reach it."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

IMAGE = "knlocal-test/conformance:1"
NAMESPACE = "serving-tests"
PATIENCE = 60.0
#: What Knative ships switched off and its own e2e suite switches on.
FEATURES: dict[str, str | None] = {
    "kubernetes.podspec-init-containers": "enabled",
    "kubernetes.podspec-persistent-volume-claim": "enabled",
    "kubernetes.podspec-persistent-volume-write": "enabled",
    "kubernetes.podspec-securitycontext": "enabled",
    "multi-container-probing": "enabled",
}
SERVING = f"/apis/serving.knative.dev/v1/namespaces/{NAMESPACE}"
needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed"
)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Cluster:
    """A project that is up, seen through its kubeconfig and its gateway only."""

    folder: Path
    api: str = ""
    token: str = ""
    trust: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    def knlocal(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "knlocal", "-C", str(self.folder), *arguments],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    @property
    def kubeconfig(self) -> Path:
        return self.folder / ".knlocal" / "kubeconfig"

    def connect(self) -> None:
        config = yaml.safe_load(self.kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.api, self.token = cluster["server"], user["token"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.trust = ssl.create_default_context(cadata=authority)

    # -- the API ----------------------------------------------------------------------------------

    def connection(self, timeout: float = PATIENCE) -> http.client.HTTPSConnection:
        parts = urllib.parse.urlsplit(self.api)
        assert parts.hostname
        return http.client.HTTPSConnection(
            parts.hostname, parts.port, context=self.trust, timeout=timeout
        )

    def request(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> tuple[int, Any]:
        """One request to the API, as any client sends it: status and parsed answer."""
        connection = self.connection()
        connection.request(
            method, path, json.dumps(body) if body is not None else None,
            {"Authorization": f"Bearer {self.token}", "Accept": "application/json",
             "Content-Type": kind},
        )  # fmt: skip
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        parsed = (answer.getheader("Content-Type") or "").startswith("application/json")
        return answer.status, json.loads(text) if parsed else text.decode()

    def must(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        status, answer = self.request(method, path, body, kind)
        assert status < 300, f"{method} {path}: {status} {answer}"
        return answer

    def refused(self, method: str, path: str, body: Any, status: int = 400) -> str:
        """The message of a refusal."""
        got, answer = self.request(method, path, body)
        assert got == status, answer
        assert answer["kind"] == "Status"
        return str(answer["message"])

    def get(self, path: str) -> Any:
        return self.must("GET", path)

    def watch(self, path: str, timeout: float = PATIENCE) -> Iterator[dict[str, Any]]:
        connection = self.connection(timeout)
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
        answer = connection.getresponse()
        try:
            assert answer.status == 200, answer.read()
            while line := answer.readline():
                yield json.loads(line)
        finally:
            connection.close()

    def kubectl(self, *arguments: str, feed: Any = None, code: int = 0) -> str:
        if feed is not None and not isinstance(feed, str):
            feed = json.dumps(feed)
        done = subprocess.run(
            ["kubectl", "--kubeconfig", str(self.kubeconfig), "-n", NAMESPACE, *arguments],
            input=feed, capture_output=True, text=True, timeout=PATIENCE,
            env={**os.environ, "HOME": str(self.folder)},
        )  # fmt: skip
        assert done.returncode == code, f"{arguments}: {done.stdout}\n{done.stderr}"
        return str(done.stdout if code == 0 else done.stderr)

    # -- objects ----------------------------------------------------------------------------------

    def create_service(self, body: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = self.must("POST", f"{SERVING}/services", body)
        return made

    def ready_service(self, body: dict[str, Any]) -> dict[str, Any]:
        self.create_service(body)
        return self.ready(f"{SERVING}/services/{body['metadata']['name']}")

    def ready(self, path: str, status: str = "True", kind: str = "Ready") -> dict[str, Any]:
        """The object once it is there and its condition, for its newest generation, is as asked."""

        def look() -> Any:
            code, got = self.request("GET", path)
            if code == 404:
                return None
            assert code == 200, got
            seen = got.get("status", {}).get("observedGeneration") == got["metadata"]["generation"]
            return got if seen and condition(got, kind).get("status") == status else None

        return self.until(
            look, lambda: json.dumps(self.request("GET", path)[1].get("status"), indent=1)
        )  # type: ignore[no-any-return]

    def update(self, path: str, change: Callable[[Any], object]) -> dict[str, Any]:
        """GET and PUT, tried again when another writer was faster, as every client does."""
        while True:
            got = self.get(path)
            change(got)
            status, answer = self.request("PUT", path, got)
            if status != 409:
                assert status == 200, answer
                return answer  # type: ignore[no-any-return]

    def configure(self, called: str, values: dict[str, str | None]) -> None:
        """Merge values into one of Knative Serving's ConfigMaps; None takes one out."""
        path = f"/api/v1/namespaces/knative-serving/configmaps/{called}"
        self.must("PATCH", path, {"data": values}, "application/merge-patch+json")

    def until(self, look: Callable[[], Any], why: Callable[[], object] = lambda: "") -> Any:
        end = time.monotonic() + PATIENCE
        while not (found := look()):
            assert time.monotonic() < end, f"not within {PATIENCE:g} s: {why()}"
            time.sleep(0.1)
        return found

    def pods(self, service: str) -> list[dict[str, Any]]:
        selector = urllib.parse.quote(f"serving.knative.dev/service={service}")
        path = f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={selector}"
        return self.get(path)["items"]  # type: ignore[no-any-return]

    # -- the gateway ------------------------------------------------------------------------------

    def call(
        self, url: str, path: str = "/", *, method: str = "GET", body: Any = None,
        headers: dict[str, str] | None = None, timeout: float = PATIENCE,
        door: tuple[str, int] | None = None,
    ) -> Answer:  # fmt: skip
        """A request to a URL that an object's status shows: straight to loopback, Host as shown."""
        parts = urllib.parse.urlsplit(url)
        to = door or ("127.0.0.1", parts.port or 80)
        connection = http.client.HTTPConnection(*to, timeout=timeout)
        try:
            whole = (parts.path.rstrip("/") + path) or "/"
            connection.request(method, whole, body, {"Host": parts.netloc, **(headers or {})})
            got = connection.getresponse()
            return Answer(got.status, dict(got.getheaders()), got.read())
        finally:
            connection.close()

    def inside(self) -> tuple[str, int]:
        """Where the gateway listens for containers."""
        card = json.loads((self.folder / ".knlocal" / "daemon.json").read_text())
        host, port = card["internal"].rsplit(":", 1)
        return host, int(port)

    def info(self, service: dict[str, Any], **more: Any) -> Any:
        answer = self.call(service["status"]["url"], "/info", **more)
        assert answer.status == 200, answer.text
        return answer.json()


def condition(obj: dict[str, Any], kind: str = "Ready") -> dict[str, Any]:
    for found in obj.get("status", {}).get("conditions", []):
        if found["type"] == kind:
            return dict(found)
    return {}


def name(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:6]}"


def service(
    called: str,
    *,
    container: dict[str, Any] | None = None,
    spec: dict[str, Any] | None = None,
    annotations: dict[str, str] | None = None,
    env: dict[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A Service of the test image; `container` and `spec` are merged into the template."""
    first: dict[str, Any] = {"image": IMAGE, **(container or {})}
    if env:
        first["env"] = [{"name": key, "value": value} for key, value in env.items()]
    template: dict[str, Any] = {"spec": {"containers": [first], **(spec or {})}}
    if annotations:
        template["metadata"] = {"annotations": annotations}
    return {
        "apiVersion": "serving.knative.dev/v1", "kind": "Service",
        "metadata": {"name": called, "namespace": NAMESPACE},
        "spec": {"template": template, **more},
    }  # fmt: skip


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    from tests.images.build import ensure

    ensure("conformance")
    folder = tmp_path_factory.mktemp("conformance")
    (folder / "knlocal.toml").write_text(
        f'[project]\nname = "conformance-{uuid.uuid4().hex[:8]}"\nruntime = "docker"\n'
        "[gateway]\nport = 0\ntls_port = 0\n"
    )
    made = Cluster(folder)
    try:
        made.knlocal("up", "-d")
        made.connect()
        made.must("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        made.configure("config-features", FEATURES)
        made.configure("config-autoscaler", {"scale-to-zero-grace-period": "6s"})
        yield made
    finally:
        made.knlocal("down")


@pytest.fixture(scope="package")
def hello(cluster: Cluster) -> dict[str, Any]:
    """A ready Service with nothing set, for tests that only look."""
    return cluster.ready_service(
        service(name("hello"), annotations={"autoscaling.knative.dev/min-scale": "1"})
    )


class Inbox:
    """A subscriber outside of the cluster: keeps what it gets, answers as told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        inbox = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                headers = {key.lower(): value for key, value in self.headers.items()}
                inbox.got.append((headers, body))
                status, more, said = inbox.answers.pop(0) if inbox.answers else (202, {}, b"")
                self.send_response(status)
                for key, value in {**more, "Content-Length": str(len(said))}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def types(self) -> list[str]:
        return [headers.get("ce-type", "") for headers, _ in self.got]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def inboxes() -> Iterator[Callable[[], Inbox]]:
    made: list[Inbox] = []

    def make() -> Inbox:
        made.append(Inbox())
        return made[-1]

    yield make
    for inbox in made:
        inbox.close()
