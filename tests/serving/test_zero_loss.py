"""Whatever is changed while requests come, not one of them fails (behaviour C9)."""

import asyncio
import random

import pytest

from knlocal.serving.kinds import CONFIG_MAP, POD, SERVICE
from tests.serving.world import World, conditions, service


@pytest.mark.parametrize("seed", range(6))
async def test_no_request_fails_whatever_happens(world: World, seed: int) -> None:
    dice = random.Random(seed)

    async def sometimes_slow(_path: str, _headers: dict[str, str]) -> tuple[int, str]:
        for _ in range(dice.randrange(30)):
            await asyncio.sleep(0)
        return 200, "ok"

    world.workloads.answer = sometimes_slow
    await world.apply(service(spec={"containerConcurrency": dice.choice([0, 1, 10])}))
    asked: list[asyncio.Task[object]] = []
    for _ in range(40):
        asked += [asyncio.create_task(world.get()) for _ in range(dice.randrange(6))]
        await change(world, dice)
        await world.clock.advance(dice.choice([0, 0.3, 2, 20, 100]))
    await world.clock.advance(5)
    statuses = {answer.status for answer in await asyncio.gather(*asked)}  # type: ignore[attr-defined]
    assert statuses == {200}
    assert conditions(world.service())["Ready"] == "True"
    in_flight = [backend.statistics.concurrency for backend in world.serving.activator]
    assert set(in_flight) == {0}


async def change(world: World, dice: random.Random) -> None:
    """Something that people or machines do."""
    latest = world.service()["status"]["latestReadyRevisionName"]
    match dice.randrange(7):
        case 0:
            wanted = f"demo:{dice.randrange(1000)}"
            await world.apply(service(image=wanted))
        case 1:
            percent = dice.randrange(101)
            split = [
                {"latestRevision": True, "percent": percent},
                {"revisionName": latest, "percent": 100 - percent, "tag": "old"},
            ]
            await world.change(SERVICE, "hello", lambda s: s["spec"].__setitem__("traffic", split))
        case 2:
            world.workloads.holding = True
            await world.clock.advance(dice.choice([0, 1]))
            world.workloads.release()
        case 3:
            for pod in world.store.list(POD)[:1]:
                await world.workloads.end(pod)
        case 4:
            delay = dice.choice(["0s", "10s"])
            world.store.modify(
                CONFIG_MAP, "knative-serving", "config-autoscaler",
                lambda c: c["data"].__setitem__("scale-down-delay", delay),
            )  # fmt: skip
        case 5:
            label = {"x": str(dice.random())}
            await world.change(SERVICE, "hello", lambda s: s["metadata"].update(labels=label))
        case _:
            pass
