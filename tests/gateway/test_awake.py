"""Staying awake: for a number of turns of the loop after the last message, and no longer."""

from __future__ import annotations

import asyncio

from knlocal.gateway import awake as module
from knlocal.gateway.awake import TURNS, Awake, awake


class Turns(asyncio.SelectorEventLoop):
    """Counts what it is given to do at once."""

    given = 0

    def call_soon(self, callback, *args, context=None):  # type: ignore[no-untyped-def]
        self.given += 1
        return super().call_soon(callback, *args, context=context)


def turn(loop: asyncio.AbstractEventLoop) -> None:
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_it_looks_for_an_answer_a_number_of_times_and_then_sleeps() -> None:
    loop = Turns()
    try:
        Awake(loop).keep()
        for _ in range(TURNS + 5):
            turn(loop)
        assert loop.given - (TURNS + 5) == TURNS
    finally:
        loop.close()


def test_each_message_has_it_look_as_often_again_and_never_twice_in_a_turn() -> None:
    loop = Turns()
    try:
        keeper = Awake(loop)
        keeper.keep()
        for _ in range(10):
            turn(loop)
        keeper.keep()
        keeper.keep()
        for _ in range(TURNS + 5):
            turn(loop)
        assert loop.given - (10 + TURNS + 5) == 10 + TURNS
    finally:
        loop.close()


def test_on_a_single_core_it_sleeps_so_that_others_can_answer() -> None:
    loop = Turns()
    try:
        module._Asleep(loop).keep()
        turn(loop)
        assert loop.given == 1
    finally:
        loop.close()


async def test_everybody_on_a_loop_shares_one() -> None:
    assert awake() is awake()
