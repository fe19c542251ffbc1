"""One probe, asked once: HTTP(S), TCP, exec or gRPC, with the kubelet's rules and messages.

Sources: k8s.io/kubernetes pkg/probe/{http,tcp,exec,grpc}; knative.dev/serving
pkg/queue/health/probe.go for HTTP/2 on ports named h2c.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

from knlocal.clock import Clock
from knlocal.runtime.api import ExecResult
from knlocal.workloads.h2_request import Http2Failure, http2_request

USER_AGENT = "kube-probe/1.32"
_LONGEST_HEAD = 64 * 1024
_MOST_REDIRECTS = 10
_SERVING = 1
_HEALTH_STATES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a probe found. `reached` is False when nobody listens yet."""

    ok: bool
    message: str = ""
    reached: bool = True


@dataclass(frozen=True, slots=True)
class Target:
    """Where the probed container is."""

    ip: str
    """The pod's own address, for messages and the Host header."""
    address: Callable[[int], tuple[str, int]]
    """Where the daemon reaches a port of the pod."""
    execute: Callable[[Sequence[str], float], Awaitable[ExecResult]]
    """Runs a command in the container; seconds of patience."""
    proxied: bool = False
    """A proxy of the engine answers for the port: being accepted does not mean much."""


@dataclass(frozen=True, slots=True)
class HttpGet:
    port: int
    path: str = "/"
    scheme: str = "HTTP"
    host: str = ""
    headers: Sequence[tuple[str, str]] = ()
    http2: bool = False


@dataclass(frozen=True, slots=True)
class TcpSocket:
    port: int
    host: str = ""


@dataclass(frozen=True, slots=True)
class Exec:
    command: Sequence[str]


@dataclass(frozen=True, slots=True)
class Grpc:
    port: int
    service: str = ""


Check = HttpGet | TcpSocket | Exec | Grpc


async def ask(check: Check, target: Target, timeout: float, clock: Clock) -> Answer:
    """The answer within `timeout` seconds; never raises for what the container does."""
    try:
        async with clock.timeout(timeout):
            if isinstance(check, HttpGet):
                return await _http(check, target)
            if isinstance(check, TcpSocket):
                return await _tcp(check, target, clock)
            if isinstance(check, Grpc):
                return await _grpc(check, target)
            return await _exec(check, target, timeout)
    except TimeoutError:
        return Answer(False, _too_late(check, target, timeout))
    except ConnectionRefusedError:
        return Answer(False, _refused(check, target), reached=False)
    except (OSError, asyncio.IncompleteReadError, ValueError, Http2Failure) as error:
        return Answer(False, _broken(check, target, error))


# -- HTTP -----------------------------------------------------------------------------------------


async def _http(check: HttpGet, target: Target) -> Answer:
    path = check.path
    for _ in range(_MOST_REDIRECTS + 1):
        if check.http2:
            status, location = await _http2_get(check, target, path)
        else:
            status, location = await _http1_get(check, target, path)
        if not (300 <= status < 400 and location):
            break
        onward = urlsplit(urljoin(_url(check, target, path), location))
        if onward.hostname != (check.host or target.ip):
            return Answer(True, "Probe terminated redirects")
        path = onward.path + (f"?{onward.query}" if onward.query else "")
    if 200 <= status < 400:
        return Answer(True)
    return Answer(False, f"HTTP probe failed with statuscode: {status}")


async def _http1_get(check: HttpGet, target: Target, path: str) -> tuple[int, str]:
    host, port = _where(check.host, check.port, target)
    security = _no_verification() if check.scheme == "HTTPS" else None
    reader, writer = await asyncio.open_connection(host, port, ssl=security, limit=_LONGEST_HEAD)
    try:
        writer.write(_head(check, target, path))
        await writer.drain()
        line = await reader.readline()
        if not line:
            raise ConnectionResetError("EOF")
        words = line.split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            raise ValueError(f"malformed HTTP response {line[:40]!r}")
        status, location = int(words[1]), ""
        if 300 <= status < 400:
            location = await _location(reader)
        return status, location
    finally:
        writer.close()


async def _location(reader: asyncio.StreamReader) -> str:
    while (line := await reader.readline()).strip():
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"location":
            return value.strip().decode(errors="replace")
    return ""


def _head(check: HttpGet, target: Target, path: str) -> bytes:
    headers = {"host": f"{check.host or target.ip}:{check.port}"}
    headers |= {"user-agent": USER_AGENT, "accept": "*/*"}
    for name, value in check.headers:
        headers[name.lower()] = value
    if not headers.get("accept"):
        headers.pop("accept")
    names = {"host": "Host", "user-agent": "User-Agent", "accept": "Accept"}
    names |= {name.lower(): name for name, _ in check.headers}
    lines = [f"GET {path} HTTP/1.1", *(f"{names[k]}: {v}" for k, v in headers.items())]
    return ("\r\n".join([*lines, "Connection: close", "", ""])).encode("latin-1", "replace")


async def _http2_get(check: HttpGet, target: Target, path: str) -> tuple[int, str]:
    headers = {"user-agent": USER_AGENT} | {n.lower(): v for n, v in check.headers}
    authority = headers.pop("host", f"{check.host or target.ip}:{check.port}")
    found = await http2_request(
        _where(check.host, check.port, target), "GET", authority, path, headers
    )
    return found.status, found.headers.get("location", "")


def _no_verification() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _url(check: HttpGet, target: Target, path: str) -> str:
    return f"{check.scheme.lower()}://{check.host or target.ip}:{check.port}{path}"


# -- TCP, exec, gRPC ------------------------------------------------------------------------------


async def _tcp(check: TcpSocket, target: Target, clock: Clock) -> Answer:
    host, port = _where(check.host, check.port, target)
    reader, writer = await asyncio.open_connection(host, port)
    try:
        if target.proxied and await _hung_up(reader, clock):
            raise ConnectionRefusedError
    finally:
        writer.close()
    return Answer(True)


async def _hung_up(reader: asyncio.StreamReader, clock: Clock) -> bool:
    """The engine's proxy accepts at once and hangs up when nobody listens behind it."""
    try:
        async with clock.timeout(0.02):
            return not await reader.read(1)
    except TimeoutError:
        return False
    except OSError:
        return True


async def _exec(check: Exec, target: Target, timeout: float) -> Answer:
    result = await target.execute(check.command, timeout)
    text = result.output[: 10 * 1024].decode(errors="replace")
    return Answer(result.exit_code == 0, text)


async def _grpc(check: Grpc, target: Target) -> Answer:
    service = check.service.encode()
    message = b"\x0a" + _varint(len(service)) + service if service else b""
    found = await http2_request(
        target.address(check.port),
        "POST",
        f"{target.ip}:{check.port}",
        "/grpc.health.v1.Health/Check",
        {"content-type": "application/grpc", "te": "trailers", "user-agent": USER_AGENT},
        b"\x00" + len(message).to_bytes(4, "big") + message,
    )
    code = found.headers.get("grpc-status", "0" if found.body else "2")
    if code == "12":
        return Answer(
            False,
            "error: this server does not implement the grpc health protocol "
            f"(grpc.health.v1.Health): {found.headers.get('grpc-message', '')}",
        )
    if found.status != 200 or code != "0":
        why = found.headers.get("grpc-message", f"HTTP status {found.status}")
        return Answer(False, f"error: health rpc probe failed: rpc error: code = {code} {why}")
    state = _health_state(found.body)
    if state == _SERVING:
        return Answer(True, "service healthy")
    word = _HEALTH_STATES.get(state, str(state))
    return Answer(False, f'service unhealthy (responded with "{word}")')


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _health_state(body: bytes) -> int:
    """`status` of a framed HealthCheckResponse; absent means 0 (UNKNOWN)."""
    message = body[5 : 5 + int.from_bytes(body[1:5], "big")]
    return message[1] if len(message) >= 2 and message[0] == 0x08 else 0


# -- messages -------------------------------------------------------------------------------------


def _where(host: str, port: int, target: Target) -> tuple[str, int]:
    return (host, port) if host and host != target.ip else target.address(port)


def _prefix(check: Check, target: Target) -> str:
    if isinstance(check, HttpGet):
        return f'Get "{_url(check, target, check.path)}": '
    return ""


def _dialled(check: Check, target: Target) -> str:
    if isinstance(check, Exec):
        return ""
    host = getattr(check, "host", "") or target.ip
    return f"{host}:{check.port}"


def _refused(check: Check, target: Target) -> str:
    if isinstance(check, Grpc):
        return f'timeout: failed to connect service "{_dialled(check, target)}": connection refused'
    where = _dialled(check, target)
    return f"{_prefix(check, target)}dial tcp {where}: connect: connection refused"


def _too_late(check: Check, target: Target, timeout: float) -> str:
    where = _dialled(check, target)
    if isinstance(check, HttpGet):
        return (
            f"{_prefix(check, target)}context deadline exceeded "
            "(Client.Timeout exceeded while awaiting headers)"
        )
    if isinstance(check, TcpSocket):
        return f"dial tcp {where}: i/o timeout"
    if isinstance(check, Grpc):
        return (
            f'timeout: failed to connect service "{where}" within {timeout:g}s: '
            "context deadline exceeded"
        )
    return f'command "{" ".join(check.command)}" timed out'


def _broken(check: Check, target: Target, error: BaseException) -> str:
    if isinstance(error, asyncio.IncompleteReadError):
        return f"{_prefix(check, target)}EOF"
    what = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"{_prefix(check, target)}{what}"


# -- from the pod's spec --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ports:
    """How a probe's port is found: by number, by name, or the serving port for none."""

    named: Mapping[str, int] = field(default_factory=dict)
    default: int = 0
    http2: frozenset[int] = frozenset()

    def find(self, port: object) -> int:
        if isinstance(port, str) and not port.isdigit():
            return self.named.get(port, 0) or self.default
        return int(str(port or 0)) or self.default


def parse_check(probe: Mapping[str, object], ports: Ports) -> Check | None:
    """The handler of a probe; None when it has none that can be asked."""

    def section(name: str) -> Mapping[str, object] | None:
        value = probe.get(name)
        return value if isinstance(value, Mapping) else None

    if (http := section("httpGet")) is not None:
        port = ports.find(http.get("port"))
        path = str(http.get("path") or "/")
        headers = http.get("httpHeaders")
        return HttpGet(
            port=port,
            path=path if path.startswith("/") else f"/{path}",
            scheme=str(http.get("scheme") or "HTTP").upper(),
            host=str(http.get("host") or ""),
            headers=tuple(
                (str(h.get("name")), str(h.get("value") or ""))
                for h in (headers if isinstance(headers, list) else ())
            ),
            http2=port in ports.http2,
        )
    if (grpc := section("grpc")) is not None:
        return Grpc(ports.find(grpc.get("port")), str(grpc.get("service") or ""))
    if (execute := section("exec")) is not None:
        command = execute.get("command")
        return Exec(tuple(map(str, command)) if isinstance(command, list) else ())
    if (tcp := section("tcpSocket")) is not None:
        return TcpSocket(ports.find(tcp.get("port")), str(tcp.get("host") or ""))
    return TcpSocket(ports.default) if ports.default else None
