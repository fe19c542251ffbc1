"""The Kubernetes API alone: lists, watches, writes, against the limits that issue 3 sets.

`python -m benchmarks.api`. Needs nothing but Python (and kubectl for the last row). The server runs
in this process with TLS and a state file, as in the daemon; no controllers run.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks._measure import Row, median_ms, now, report
from knlocal.apiserver.kubeconfig import write_kubeconfig
from knlocal.apiserver.server import ApiServer
from knlocal.clock import SystemClock
from knlocal.control.namespaces import admit_namespace
from knlocal.resources.catalog import registry
from knlocal.store.store import Store

TITLE = "The Kubernetes API alone"
NEEDS = ()
OBJECTS = 1000
WATCHES = 500
SERVICES = "/apis/serving.knative.dev/v1/namespaces/default/services"
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
MERGE = {"Content-Type": "application/merge-patch+json"}


class Bench:
    """A server with a thousand services, and a client."""

    def __init__(self, api: ApiServer, store: Store, session: aiohttp.ClientSession, home: Path):
        self.api, self.store, self.session, self.home = api, store, session, home

    def url(self, path: str) -> str:
        return self.api.url + path

    async def create(self, name: str) -> float:
        began = now()
        async with self.session.post(self.url(SERVICES), json=service(name)) as response:
            assert response.status == 201, await response.text()
        return now() - began

    async def read(self, path: str, headers: dict[str, str] | None = None) -> float:
        began = now()
        async with self.session.get(self.url(path), headers=headers) as response:
            assert response.status == 200
            await response.read()
        return now() - began

    async def change(self, name: str, number: int) -> None:
        body = json.dumps({"metadata": {"annotations": {"number": str(number)}}})
        async with self.session.patch(
            self.url(f"{SERVICES}/{name}"), data=body, headers=MERGE
        ) as response:
            assert response.status == 200

    @asynccontextmanager
    async def watching(self, count: int) -> AsyncIterator[list[aiohttp.ClientResponse]]:
        url = self.url(f"{SERVICES}?watch=true&resourceVersion={self.store.version}")
        watches = await asyncio.gather(*(self.session.get(url) for _ in range(count)))
        yield list(watches)
        for watch in watches:
            watch.close()

    async def seen_by(self, watches: list[aiohttp.ClientResponse], number: int) -> float:
        """Seconds from just before a change until every watch has told it."""
        began = now()
        await self.change("service-0", number)
        await asyncio.gather(*(watch.content.readline() for watch in watches))
        return now() - began

    async def kubectl(self, *words: str) -> float:
        env = {**os.environ, "KUBECONFIG": str(self.home / "kubeconfig"), "HOME": str(self.home)}
        began = now()
        process = await asyncio.create_subprocess_exec(
            "kubectl", *words, env=env, stdout=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == 0
        return now() - began


def service(name: str) -> dict[str, Any]:
    container = {
        "image": "example.com/hello:1",
        "env": [{"name": "TARGET", "value": "World"}],
        "ports": [{"containerPort": 8080}],
    }
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "bench"}},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }


@asynccontextmanager
async def bench(home: Path) -> AsyncIterator[Bench]:
    store = Store(registry(), SystemClock(), home / "state.sqlite")
    store.admission.append(admit_namespace)
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    api = ApiServer(store, home / "api")
    await api.start()
    write_kubeconfig(home / "kubeconfig", api.kubeconfig())
    trust = ssl.create_default_context(cadata=api.authority.pem.decode())
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=trust, limit=0),
        headers={"Authorization": f"Bearer {api.tokens.admin}"},
    ) as session:
        yield Bench(api, store, session, home)
    await api.close()
    store.close()


async def measure(home: Path) -> list[Row]:
    async with bench(home) as it:
        created = [await it.create(f"service-{number}") for number in range(OBJECTS)]
        rows = [
            Row("create one service", sorted(created)[OBJECTS // 2] * 1000, 20, at_most=1),
            Row(f"list {OBJECTS}", await median_ms(lambda: it.read(SERVICES)), 150, at_most=1),
            Row(
                f"list {OBJECTS} as a table",
                await median_ms(lambda: it.read(SERVICES, TABLE)), 150, at_most=1,
            ),
            Row(
                "get one", await median_ms(lambda: it.read(f"{SERVICES}/service-1")), 20, at_most=1
            ),
        ]  # fmt: skip
        numbers = iter(range(10_000))
        async with it.watching(1) as watches:
            seen = await median_ms(lambda: it.seen_by(watches, next(numbers)), 100)
            rows.append(Row("a change, until a watch has it", seen, 20, at_most=1))
        async with it.watching(WATCHES) as watches:
            seen = await median_ms(lambda: it.seen_by(watches, next(numbers)))
            rows.append(Row(f"the same for {WATCHES} watches, the last one", seen, 1000, at_most=1))
        if shutil.which("kubectl"):
            listed = await median_ms(lambda: it.kubectl("get", "ksvc"), 5)
            rows.append(Row(f"kubectl get ksvc ({OBJECTS})", listed, 1000, at_most=1))
        return rows


def run(times: int = 20) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure(Path(folder)))


if __name__ == "__main__":
    sys.exit(report(TITLE, run(), theirs="limit"))
