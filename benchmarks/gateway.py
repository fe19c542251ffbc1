"""The gateway against nginx in front of the same container, and gRPC through it against direct.

`python -m benchmarks.gateway [rounds]`. Needs Docker, `nginx`, `wrk`, grpcio. The gateway runs in
a process of its own, as in the daemon, with one handler that forwards; so these are the figures of
the door and the way through, without Knative Serving's own work on each request.

Rounds of a second alternate between the two sides, so that a busy machine slows both.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc

from benchmarks._measure import Row, report
from tests.images import build

TITLE = "Gateway, in a process of its own"
NEEDS = ("docker", "nginx", "wrk")
SECONDS = 1
CONNECTIONS = 16
STREAMS = 16
PORTS = {"gateway": 18180, "grpc": 18181, "nginx": 18182, "plain nginx": 18183, "service": 18184}
HOST = "127.0.0.1"


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    for tool in NEEDS:
        if shutil.which(tool) is None:
            print(f"benchmarks.gateway needs {tool}: install it and try again")
            return 2
    title = f"Gateway (median of {rounds} rounds of {SECONDS} s)"
    return report(title, run(rounds), ours="gateway")


def run(rounds: int = 20) -> list[Row]:
    with ExitStack() as stack:
        address = stack.enter_context(container())
        stack.enter_context(process(serve, address, PORTS["gateway"], "http1", 8080))
        stack.enter_context(nginx(address))
        for name in ("gateway", "nginx", "plain nginx"):
            wait_for(PORTS[name])
        rows = [*throughput(rounds), latency(rounds, address)]
        stack.enter_context(process(grpc_service, PORTS["service"]))
        stack.enter_context(process(serve, HOST, PORTS["grpc"], "h2c", PORTS["service"]))
        for name in ("service", "grpc"):
            wait_for(PORTS[name])
        rows.append(unary(max(3, rounds // 2)))
    return rows


def throughput(rounds: int) -> list[Row]:
    """Requests a second on kept connections."""
    sides = {name: PORTS[name] for name in ("gateway", "nginx", "plain nginx")}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, port in sides.items():
            rates[name].append(wrk(f"http://{HOST}:{port}/", CONNECTIONS)[0])
    ours, kept, plain = (statistics.median(rates[name]) for name in sides)
    what = f"{CONNECTIONS} connections, against nginx"
    return [
        Row(f"{what} with `keepalive` to the container", ours, kept, "req/s", at_least=0.35),
        Row(f"{what} with `proxy_pass` alone", ours, plain, "req/s", at_least=0.35),
    ]


def latency(rounds: int, address: str) -> Row:
    """What the gateway adds to the median latency on one connection, against 0.4 ms."""
    added = []
    for _ in range(rounds):
        direct = wrk(f"http://{address}:8080/", 1)[1]
        added.append(wrk(f"http://{HOST}:{PORTS['gateway']}/", 1)[1] - direct)
    median = statistics.median(added)
    return Row("added median latency, one connection, against 0.4 ms", median, 0.4, at_most=1.0)


def unary(rounds: int) -> Row:
    """gRPC unary calls a second, 16 at a time on one connection, between compiled ends."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        rates: dict[str, list[float]] = {"grpc": [], "service": []}
        for _ in range(rounds):
            for name, collected in rates.items():
                collected.append(pool.apply(grpc_calls, (PORTS[name],)))
    return Row(
        f"gRPC unary, {STREAMS} streams, against a direct call",
        statistics.median(rates["grpc"]),
        statistics.median(rates["service"]),
        "calls/s",
        at_least=0.05,
    )


def wrk(url: str, connections: int, host: str = "") -> tuple[float, float]:
    """Requests a second, and the median latency in milliseconds."""
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}", "--latency", url]
        + (["-H", f"Host: {host}"] if host else []),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(f"requests failed:\n{done.stdout}")
    rate = float(re.search(r"Requests/sec:\s*([\d.]+)", done.stdout)[1])  # type: ignore[index]
    found = re.search(r"50%\s*([\d.]+)(us|ms|s)", done.stdout)
    assert found is not None
    return rate, float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]


@contextmanager
def container() -> Iterator[str]:
    """A compiled server in a container; its address."""
    image = build.ensure("httpd")["httpd"]
    name = f"knlocal-bench-{uuid.uuid4().hex[:8]}"
    subprocess.run(["docker", "run", "-d", "--name", name, image], check=True, capture_output=True)
    try:
        inspect = ["docker", "inspect", "-f", "{{.NetworkSettings.IPAddress}}", name]
        found = subprocess.run(inspect, check=True, capture_output=True, text=True)
        address = found.stdout.strip()
        wait_for(8080, address)
        yield address
    finally:
        subprocess.run(["docker", "rm", "-f", name], check=False, capture_output=True)


@contextmanager
def nginx(address: str) -> Iterator[None]:
    """One worker, as the gateway is one process; with and without kept upstream connections."""
    with tempfile.TemporaryDirectory() as folder:
        paths = "\n".join(
            f"{kind}_temp_path {folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = Path(folder, "nginx.conf")
        config.write_text(
            f"""
            worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/errors;
            events {{ worker_connections 1024; }}
            http {{
              access_log off; {paths}
              upstream kept {{ server {address}:8080; keepalive 64; }}
              server {{
                listen {HOST}:{PORTS["nginx"]};
                location / {{
                  proxy_pass http://kept; proxy_http_version 1.1; proxy_set_header Connection "";
                }}
              }}
              server {{
                listen {HOST}:{PORTS["plain nginx"]};
                location / {{ proxy_pass http://{address}:8080; }}
              }}
            }}
            """
        )
        running = subprocess.Popen(["nginx", "-c", str(config)], stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            running.terminate()
            running.wait(10)


@contextmanager
def process(target: Callable[..., None], *args: Any) -> Iterator[None]:
    running = multiprocessing.get_context("spawn").Process(target=target, args=args, daemon=True)
    running.start()
    try:
        yield
    finally:
        running.terminate()
        running.join(10)


def wait_for(port: int, host: str = HOST, deadline: float = 20.0) -> None:
    import socket

    until = time.monotonic() + deadline
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


# The other processes


def serve(address: str, port: int, protocol: Any, upstream_port: int) -> None:
    import uvloop

    from knlocal.clock import SystemClock
    from knlocal.gateway import Endpoint, Gateway, Pool, Request, Route, RouteTable, Timeouts
    from knlocal.gateway.forward import forward

    async def run() -> None:
        clock = SystemClock()
        pool = Pool(clock)
        endpoint = Endpoint(address, upstream_port, protocol)
        timeouts = Timeouts(total=300)

        async def handler(request: Request) -> None:
            await forward(request, endpoint, pool=pool, clock=clock, timeouts=timeouts)

        routes = RouteTable()
        # As many other services as a large project has.
        routes.put(
            "others", {f"service-{n}.default.localhost": Route(handler) for n in range(1000)}
        )
        routes.put("benchmark", {HOST: Route(handler)})
        await Gateway(routes, clock).listen(HOST, port, "external")
        await asyncio.Event().wait()

    uvloop.run(run())


class _Echo(grpc.GenericRpcHandler):
    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)


def grpc_service(port: int) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(STREAMS))
    server.add_generic_rpc_handlers((_Echo(),))
    server.add_insecure_port(f"{HOST}:{port}")
    server.start()
    server.wait_for_termination()


def grpc_calls(port: int) -> float:
    """Calls a second with `STREAMS` always under way."""
    with grpc.insecure_channel(f"{HOST}:{port}") as channel:
        call = channel.unary_unary("/bench.Echo/Unary")
        call(b"warm", timeout=10)
        end = time.monotonic() + SECONDS
        counts = [0] * STREAMS
        done = threading.Barrier(STREAMS + 1)

        def caller(number: int) -> None:
            while time.monotonic() < end:
                call(b"hello", timeout=10)
                counts[number] += 1
            done.wait(30)

        for number in range(STREAMS):
            threading.Thread(target=caller, args=(number,), daemon=True).start()
        done.wait(30)
        return sum(counts) / SECONDS


if __name__ == "__main__":
    sys.exit(main())
