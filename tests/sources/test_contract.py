"""What the base class gives to every source, shown with the one that docs/sources.md builds."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import orjson
import pytest

from knlocal.control.controller import Controller
from knlocal.resources import catalog
from knlocal.resources.status import StatusError
from knlocal.sources.emit import Emitter
from knlocal.store.store import Store
from knlocal.testing.sink import Sink
from tests.sources.house import VERSIONS, House, to

PAGE = Path(__file__).parents[2] / "docs" / "sources.md"


@pytest.fixture
async def page(house: House, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page's Python defines, at work in the house."""
    found: dict[str, Any] = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block.replace("from __future__", "#"), str(PAGE), "exec"), found)
    await house.manager.stop()
    emitter = Emitter(house.client, house.clock, house.journal)
    controller: Controller = found["HeartbeatSourceController"](
        house.store, house.destinations, emitter
    )
    house.manager.add(controller)
    await house.manager.start()
    monkeypatch.setitem(VERSIONS, "HeartbeatSource", "sources.example.org/v1")
    return found


async def test_the_source_of_the_page_works(
    house: House, page: dict[str, Any], receiver: Sink
) -> None:
    await house.addressable("there", receiver.url)
    spec = {"sink": to("there"), "label": "a", "ceOverrides": {"extensions": {"team": "blue"}}}
    await house.apply("HeartbeatSource", "heart", spec)
    await house.until(lambda: len(receiver.events) >= 2)
    first, second = receiver.events[:2]
    assert first.type == "org.example.heartbeat"
    assert first.attributes["team"] == "blue"
    assert orjson.loads(second.data or b"") == {"beat": 1, "label": "a"}
    assert house.condition("HeartbeatSource", "heart")[0] == "True"
    assert house.status("HeartbeatSource", "heart")["ceAttributes"][0]["source"] == "/hearts/heart"
    assert len(house.list("EventType")) == 1
    with pytest.raises(StatusError, match=r"spec\.sink\.uri"):
        await house.apply("HeartbeatSource", "bad", {"sink": {"uri": "nowhere"}})


async def test_it_goes_on_where_it_was_when_its_sink_moves(
    house: House, page: dict[str, Any], receiver: Sink, other_receiver: Sink
) -> None:
    await house.addressable("there", receiver.url)
    await house.apply("HeartbeatSource", "heart", {"sink": to("there")})
    await house.until(lambda: len(receiver.events) >= 2)
    await house.addressable("there", other_receiver.url)
    await house.until(lambda: other_receiver.events)
    assert orjson.loads(other_receiver.events[0].data or b"")["beat"] >= 2


async def test_a_source_that_fails_says_why_and_is_started_again(
    house: House, page: dict[str, Any], receiver: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    produce = page["HeartbeatSourceController"].produce

    async def broken(self: Any, obj: Any, send: Any) -> None:
        raise ValueError("no heart")

    monkeypatch.setattr(page["HeartbeatSourceController"], "produce", broken)
    await house.apply("HeartbeatSource", "heart", {"sink": {"uri": receiver.url}})
    state, reason, message = house.condition("HeartbeatSource", "heart", "Deployed")
    assert (state, reason, message) == ("False", "Failed", "ValueError: no heart")
    monkeypatch.setattr(page["HeartbeatSourceController"], "produce", produce)
    await house.clock.advance(3)
    assert house.condition("HeartbeatSource", "heart")[0] == "True"
    await house.received(receiver, 1)
    await house.delete("HeartbeatSource", "heart")
    count = len(receiver.requests)
    await house.clock.advance(10)
    assert len(receiver.requests) == count


def test_packages_bring_their_sources_as_entry_points(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good = EntryPoint("ping", "knlocal.sources.ping:PingSourceController", "knlocal.sources")
    bad = EntryPoint("gone", "knlocal_no_such_package:X", "knlocal.sources")
    monkeypatch.setattr("knlocal.sources.feature.entry_points", lambda group: [bad, good])
    controllers = House(store).sources.controllers
    assert [type(one).__name__ for one in controllers].count("PingSourceController") == 2
    assert "the source gone (knlocal_no_such_package:X) does not load" in caplog.text


def test_clients_find_all_kinds_of_sources_by_their_label() -> None:
    kinds = [kind for kind in catalog.registry() if kind.storage]
    sources = {k.kind for k in kinds if k.crd_labels.get("duck.knative.dev/source") == "true"}
    assert sources == {
        "PingSource", "ApiServerSource", "ContainerSource", "SinkBinding", "IntegrationSource",
    }  # fmt: skip
    for kind in kinds:
        if kind.kind in sources:
            assert kind.crd_labels["eventing.knative.dev/source"] == "true"
            assert [column.name for column in kind.columns][-3:] == ["Age", "Ready", "Reason"]
            assert "Sink" in [column.name for column in kind.columns]
