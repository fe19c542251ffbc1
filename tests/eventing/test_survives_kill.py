"""The durable class: a daemon killed a hundred times under load loses nothing it accepted."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from knlocal.clock import SystemClock
from knlocal.gateway import Gateway, HttpClient, Request, Route, RouteTable
from knlocal.gateway.client import HttpClientError

KILLS = 100
SENDERS = 4
DEADLINE = 300.0


class Senders:
    """Post events one after the other, each until it is accepted; some thereby more than once."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._next = 0
        self.accepted: set[str] = set()
        #: Events that were sent again because nobody knew whether they had arrived.
        self.again: set[str] = set()
        self.stopping = False

    async def run(self) -> None:
        client = HttpClient(None, SystemClock())
        while not self.stopping:
            self._next += 1
            await self._send(client, str(self._next))
        await client.close()

    async def _send(self, client: HttpClient, event_id: str) -> None:
        headers = {"ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s", "ce-id": event_id}
        while True:
            try:
                answer = await client.request("POST", self._url, headers.items(), b"x", 5)
            except HttpClientError:
                self.again.add(event_id)
                await asyncio.sleep(0.002)
                continue
            if answer.status == 202:
                self.accepted.add(event_id)
                return


async def test_nothing_accepted_is_lost(tmp_path: Path, free_port: Callable[[], int]) -> None:
    received: Counter[str] = Counter()

    async def sink(request: Request) -> None:
        await request.read(1 << 20)
        received[request.headers["ce-id"]] += 1
        await request.respond(202)

    routes = RouteTable()
    routes.put("sink", {"127.0.0.1": Route(sink)})
    gateway = Gateway(routes, SystemClock())
    address = await gateway.listen("127.0.0.1", 0, "external")
    port = free_port()
    nursery = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.eventing.mortal",
        str(port), str(tmp_path / "events.db"), f"http://127.0.0.1:{address.port}/",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert nursery.stdin is not None
    assert nursery.stdout is not None

    async def tell(word: str, answer: str) -> None:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        nursery.stdin.write(f"{word}\n".encode())
        assert (await nursery.stdout.readline()).decode().strip() == answer

    senders = Senders(f"http://127.0.0.1:{port}/default/b")
    chance = random.Random(4711)
    async with asyncio.timeout(DEADLINE):
        await tell("live", "up")
        working = [asyncio.ensure_future(senders.run()) for _ in range(SENDERS)]
        for _ in range(KILLS):
            # When it dies is a matter of chance, in the middle of whatever it is doing; but however
            # slow the machine, it has lived.
            enough = len(senders.accepted) + chance.randrange(2, 12)
            while len(senders.accepted) < enough:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await asyncio.sleep(chance.uniform(0, 0.02))
            await tell("kill", "dead")
            await tell("live", "up")
        senders.stopping = True
        await asyncio.gather(*working)
        await tell("end", "dead")
    nursery.stdin.close()
    await nursery.wait()
    await gateway.close()

    assert len(senders.accepted) > KILLS
    assert senders.accepted - received.keys() == set()
    # Twice comes only what its sender sent again, or what was being delivered at a kill.
    duplicates = {event_id for event_id, times in received.items() if times > 1}
    assert len(duplicates - senders.again) <= KILLS
