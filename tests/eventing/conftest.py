"""A store that knows eventing's kinds and a few of Kubernetes', on a virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from knlocal.clock import VirtualClock
from knlocal.resources import catalog
from knlocal.resources.base import Obj
from knlocal.store.store import Store
from tests.eventing.house import House

NAMESPACES = ("default", "other", "knative-eventing", "knative-serving")


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def store(clock: VirtualClock) -> Store:
    store = Store(catalog.registry(), clock)
    for name in NAMESPACES:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        store.create(namespace)
    return store


@pytest.fixture
def create(store: Store) -> Callable[..., Obj]:
    """create("eventing.knative.dev/v1", "Broker", "b", {spec}, annotations={…})"""

    def make(
        api_version: str, kind: str, name: str, spec: Any = None, namespace: str = "default",
        **metadata: Any,
    ) -> Obj:  # fmt: skip
        obj: Obj = {
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace, **metadata},
        }
        if spec is not None:
            obj["spec"] = spec
        return store.create(obj)

    return make


@pytest.fixture
async def house(store: Store, tmp_path: Path) -> AsyncIterator[House]:
    house = House(store, tmp_path / "events.db")
    await house.start()
    yield house
    await house.stop()
