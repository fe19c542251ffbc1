"""The doors beside plain requests: request logs of the queue-proxy, metrics, TLS by domain."""

import json
import shutil
import socket
import ssl
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from knlocal.cli.client import Client

pytestmark = pytest.mark.knlocal(folder="shop", runtime="process")
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is missing")
TEMPLATE = '{"url": "{{js .Request.RequestURI}}", "code": {{.Response.Code}}}'


def patch_config(knlocal, name: str, **data: str) -> None:
    client = Client(knlocal.kubeconfig)
    client.request(
        "PATCH",
        f"/api/v1/namespaces/knative-serving/configmaps/{name}",
        {"data": data},
        content_type="application/merge-patch+json",
    )
    client.close()


def pod_of(knlocal, service: str) -> str:
    pods = knlocal.daemon.store.list(knlocal.POD, knlocal.namespace)
    return next(
        pod["metadata"]["name"]
        for pod in pods
        if pod["metadata"]["labels"]["serving.knative.dev/service"] == service
    )


def kubectl(knlocal, *arguments: str) -> str:
    command = ["kubectl", "--kubeconfig", str(knlocal.kubeconfig), "-n", knlocal.namespace]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_kubectl
def test_request_logs_are_the_logs_of_the_queue_proxy(knlocal) -> None:
    patch_config(
        knlocal, "config-observability",
        **{"logging.enable-request-log": "true", "logging.request-log-template": TEMPLATE},
    )  # fmt: skip
    knlocal.service("orders").get("/logged?x=1")
    lines = kubectl(knlocal, "logs", pod_of(knlocal, "orders"), "-c", "queue-proxy").splitlines()
    assert {"url": "/logged?x=1", "code": 200} in [json.loads(line) for line in lines]


@needs_kubectl
def test_metrics_count_requests_under_knatives_names(knlocal) -> None:
    knlocal.service("orders").get("/")
    text = kubectl(knlocal, "get", "--raw", "/metrics")
    assert "# TYPE" in text
    counted = [line for line in text.splitlines() if "request_count" in line]
    assert any(f'namespace_name="{knlocal.namespace}"' in line for line in counted)


def certificate(domain: str) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domain)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(domain)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def test_a_domain_with_a_certificate_of_its_own_is_served_over_tls(knlocal) -> None:
    domain = f"shop-{knlocal.namespace}.example.com"
    public, private = certificate(domain)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "shop-tls"},
        "stringData": {"tls.crt": public, "tls.key": private},
    }
    mapping = {
        "apiVersion": "serving.knative.dev/v1beta1",
        "kind": "DomainMapping",
        "metadata": {"name": domain},
        "spec": {
            "ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "orders"},
            "tls": {"secretName": "shop-tls"},
        },
    }
    knlocal.apply(secret, mapping)
    assert knlocal.get("domainmapping", domain)["status"]["url"].startswith(f"https://{domain}")
    context = ssl.create_default_context(cadata=public)
    with (
        socket.create_connection(("127.0.0.1", knlocal.daemon.tls_port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=domain) as secure,
    ):
        secure.sendall(f"GET / HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := secure.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"hello from orders\n")
