"""Virtual time moves only when told to; deadlines work on both clocks."""

import asyncio

import pytest

from knlocal.clock import Clock, SystemClock, TravelClock, VirtualClock


async def test_timers_fire_in_order_at_their_own_moments() -> None:
    clock = VirtualClock()
    seen: list[tuple[str, float]] = []
    clock.call_later(10, lambda: seen.append(("late", clock.monotonic())))
    clock.call_later(5, lambda: seen.append(("early", clock.monotonic())))
    clock.call_later(5, lambda: clock.call_later(2, lambda: seen.append(("child", 7.0))))
    await clock.advance(10)
    assert seen == [("early", 5.0), ("child", 7.0), ("late", 10.0)]
    assert clock.monotonic() == 10


async def test_a_sleeper_wakes_when_time_is_advanced_past_it() -> None:
    clock = VirtualClock()
    sleeper = asyncio.create_task(clock.sleep(3600))
    await clock.advance(3599)
    assert not sleeper.done()
    await clock.advance(1)
    assert sleeper.done()


async def test_a_cancelled_timer_stays_silent() -> None:
    clock = VirtualClock()
    seen: list[int] = []
    clock.call_later(1, seen.append, 1).cancel()
    await clock.advance(2)
    assert seen == []


@pytest.mark.parametrize(
    "clock",
    [SystemClock(), VirtualClock(), TravelClock()],
    ids=["system", "virtual", "travel"],
)
async def test_a_deadline_turns_waiting_into_timeout_error(clock: Clock) -> None:
    async def wait() -> None:
        async with clock.timeout(0.01):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    if type(clock) is VirtualClock:
        await clock.advance(0.01)
    with pytest.raises(TimeoutError):
        await task


async def test_a_cancellation_from_outside_is_not_mistaken_for_the_deadline() -> None:
    clock = VirtualClock()

    async def wait() -> None:
        async with clock.timeout(10):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_no_deadline_means_none() -> None:
    async with SystemClock().timeout(None):
        await asyncio.sleep(0)


async def test_a_travelling_clock_flows_and_jumps() -> None:
    clock = TravelClock()
    seen: list[str] = []
    clock.call_later(0.01, seen.append, "flowed")
    clock.call_later(3600, seen.append, "jumped")
    clock.call_later(7200, seen.append, "later")
    await clock.sleep(0.02)
    assert seen == ["flowed"]
    before = clock.now()
    await clock.advance(3600)
    assert seen == ["flowed", "jumped"]
    assert (clock.now() - before).total_seconds() >= 3600
    await clock.sleep(0.01)
