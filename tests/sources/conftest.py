"""A house with every source and sink in it, on a virtual clock, and real HTTP sinks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import pytest

from knlocal.clock import VirtualClock
from knlocal.resources import catalog
from knlocal.store.store import Store
from knlocal.testing.loop import LoopThread
from knlocal.testing.sink import Sink
from tests.sources.house import House

START = datetime(2026, 1, 1, 10, 0, 30, tzinfo=UTC)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock(START)


@pytest.fixture
def store(clock: VirtualClock) -> Store:
    store = Store(catalog.registry(), clock)
    for name in ("default", "other", "knative-eventing", "knative-serving"):
        store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return store


@pytest.fixture
async def house(store: Store) -> AsyncIterator[House]:
    house = House(store)
    await house.start()
    yield house
    await house.stop()


@pytest.fixture(scope="module")
def sink_loop() -> Iterator[LoopThread]:
    loop = LoopThread("sinks")
    yield loop
    loop.stop()


@pytest.fixture
def receiver(sink_loop: LoopThread) -> Iterator[Sink]:
    """A real HTTP server that records what arrives."""
    sink = Sink(sink_loop)
    yield sink
    sink.close()


@pytest.fixture
def other_receiver(sink_loop: LoopThread) -> Iterator[Sink]:
    sink = Sink(sink_loop)
    yield sink
    sink.close()
