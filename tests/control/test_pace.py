"""The pace of controllers: others get their turn."""

from __future__ import annotations

import asyncio
import itertools
import time

from knlocal.control.pace import BUDGET, GENEROSITY, Pace, Urgency, pace


def spend(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def test_long_work_is_spread_over_turns_of_the_loop_in_order() -> None:
    turns, done, own = 0, [], Pace()

    async def work(number: int) -> None:
        await own.turn()
        spend(2 * BUDGET)
        done.append((number, turns))

    tasks = [asyncio.create_task(work(number)) for number in range(5)]
    while not all(task.done() for task in tasks):
        turns += 1
        await asyncio.sleep(0)
    assert [number for number, _ in done] == [0, 1, 2, 3, 4]
    at = [turn for _, turn in done]
    assert all(later > earlier for earlier, later in itertools.pairwise(at))


async def test_quick_work_goes_on_within_one_turn() -> None:
    own = Pace()
    waits = await asyncio.wait_for(asyncio.gather(*(own.turn() for _ in range(3))), 1)
    assert waits == [None] * 3


async def test_work_that_is_cancelled_while_it_waits_does_not_hold_up_others() -> None:
    own = Pace()
    done = []

    async def work(number: int) -> None:
        await own.turn()
        spend(2 * BUDGET)
        done.append(number)

    tasks = [asyncio.create_task(work(number)) for number in range(4)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert done == [0, 2, 3]


async def test_each_loop_has_one_pace() -> None:
    assert pace() is pace()


async def test_of_what_has_to_wait_the_more_urgent_begins_first() -> None:
    own, done = Pace(), []

    async def work(urgency: Urgency) -> None:
        await own.turn(urgency)
        spend(2 * BUDGET)
        done.append(urgency)

    first = asyncio.create_task(work(Urgency.REST))  # uses up the turn in which it begins
    waiting = [Urgency.REST, Urgency.TRAFFIC, Urgency.PODS, Urgency.TRAFFIC]
    await asyncio.gather(first, *(work(urgency) for urgency in waiting))
    assert done[1:] == sorted(waiting)


async def test_a_flood_of_urgent_work_does_not_hold_up_the_rest_for_good() -> None:
    own, done = Pace(), []

    async def work(urgency: Urgency) -> None:
        await own.turn(urgency)
        spend(2 * BUDGET)
        done.append(urgency)

    flood = [Urgency.PODS] * (3 * GENEROSITY)
    await asyncio.gather(work(Urgency.PODS), work(Urgency.REST), *map(work, flood))
    assert done.index(Urgency.REST) <= GENEROSITY
