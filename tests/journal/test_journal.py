"""The journal: bounded, found again, followed live, saved, recorded and replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from knlocal.clock import VirtualClock
from knlocal.events import Event
from knlocal.journal import (
    Door,
    Journal,
    Recording,
    Selection,
    Step,
    Trail,
    read_recording,
    replay,
)
from knlocal.journal.journal import PATIENCE_SECONDS
from knlocal.journal.recording import RecordingError

DOOR = Door("Broker", "default", "b", "http://broker/default/b")


class Subscriber:
    def __init__(self, name: str, refusal: str = "") -> None:
        self.name = name
        self._refusal = refusal

    def refusal(self, attributes: Mapping[str, Any]) -> Any:
        return self._refusal or None

    def waiting(self, trail: Trail) -> str:
        return "because"


def event(event_id: str, type_: str = "t", data: bytes | None = b"{}") -> Event:
    attributes = {"specversion": "1.0", "id": event_id, "type": type_, "source": "/s",
                  "datacontenttype": "application/json"}  # fmt: skip
    return Event(attributes, data)


def come(journal: Journal, event_id: str, **more: Any) -> Trail:
    one = Subscriber("trigger default/t")
    return journal.open(DOOR, event(event_id, **more), [one], [one])


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def journal(clock: VirtualClock, tmp_path: Path) -> Any:
    journal = Journal(clock, tmp_path / "journal.db")
    await journal.start()
    yield journal
    await journal.stop()


def delivered(journal: Journal, trail: Trail, status: int = 202) -> None:
    now = journal.clock.now()
    journal.step(trail, Step("delivered", "trigger default/t", now, "http://s/", status, 0.004))


async def test_a_trail_tells_its_story(journal: Journal) -> None:
    yes, no = Subscriber("trigger default/yes"), Subscriber("trigger default/no", "not my type")
    trail = journal.open(DOOR, event("1", data=b'{"a":1}'), [yes, no], [yes])
    [entry] = journal.explain("1")
    assert entry["event"]["data"] == {"a": 1}
    assert entry["door"]["label"] == "Broker default/b"
    assert entry["subscribers"][0] == {
        "name": "trigger default/yes", "outcome": "waiting", "waiting": "because",
    }  # fmt: skip
    assert entry["subscribers"][1]["refused"]["text"] == "not my type"
    assert trail.pending
    now = journal.clock.now()
    journal.step(trail, Step("attempt", yes.name, now, "http://s/", 503, 0.25, "busy"))
    journal.step(trail, Step("delivered", yes.name, now, "http://s/", 202, 0.5))
    subscriber = journal.explain("1")[0]["subscribers"][0]
    assert subscriber["outcome"] == "delivered"
    assert [(a["status"], a["milliseconds"], a["response"]) for a in subscriber["attempts"]] == [
        (503, 250.0, "busy"), (202, 500.0, ""),
    ]  # fmt: skip
    assert not trail.pending


async def test_what_was_never_seen_has_no_trail(journal: Journal) -> None:
    assert journal.explain("nope") == []


async def test_replies_are_shown_below_what_they_answer(journal: Journal) -> None:
    trail = come(journal, "1")
    name = "trigger default/t"
    journal.step(trail, Step("reply", name, journal.clock.now(), DOOR.url, 202, 0, "r"))
    journal.open(DOOR, event("r"), [], [], parent=trail, via=name)
    [entry] = journal.explain("1")
    assert entry["subscribers"][0]["reply"]["trails"][0]["event"]["id"] == "r"


async def test_a_reply_with_the_id_of_its_question_is_no_endless_story(journal: Journal) -> None:
    trail = come(journal, "1")
    name = "trigger default/t"
    journal.step(trail, Step("reply", name, journal.clock.now(), DOOR.url, 202, 0, "1"))
    child = journal.open(DOOR, event("1"), [], [], parent=trail, via=name)
    assert [entry["seq"] for entry in journal.explain("1")] == [trail.seq, child.seq]


def test_memory_is_bounded_by_count_and_bytes(clock: VirtualClock) -> None:
    by_count = Journal(clock, max_trails=100)
    for n in range(1000):
        come(by_count, str(n))
    assert [len(by_count.find(str(n))) for n in (0, 899, 900, 999)] == [0, 0, 1, 1]
    by_bytes = Journal(clock, max_bytes=1_000_000)
    for n in range(30):
        come(by_bytes, str(n), data=b"x" * 100_000)
    assert len(by_bytes.recent(limit=1000)) == 9


async def test_trails_are_saved_and_read_back(clock: VirtualClock, tmp_path: Path) -> None:
    first = Journal(clock, tmp_path / "j.db")
    await first.start()
    delivered(first, come(first, "1"))
    come(first, "2")
    await first.stop()
    second = Journal(clock, tmp_path / "j.db")
    await second.start()
    assert second.explain("1")[0]["subscribers"][0]["outcome"] == "delivered"
    assert come(second, "3").seq == 3
    assert [entry["event"]["id"] for entry in second.recent()] == ["1", "2", "3"]
    await second.stop()


async def test_saving_goes_on_in_the_background(journal: Journal, clock: VirtualClock) -> None:
    trail = come(journal, "1")
    await clock.advance(1)
    delivered(journal, trail)
    assert trail.saved == 0
    await journal.flush()
    assert trail.saved == 1


async def test_the_file_is_bounded(clock: VirtualClock, tmp_path: Path) -> None:
    journal = Journal(clock, tmp_path / "j.db", max_saved=50, max_trails=10, save_batch=20)
    await journal.start()
    for n in range(200):
        come(journal, str(n))
        await journal.flush()
    assert len(journal.recent(limit=1000)) == 50
    await journal.stop()


async def test_under_a_flood_old_trails_go_unsaved_and_are_counted(
    clock: VirtualClock, tmp_path: Path
) -> None:
    journal = Journal(clock, tmp_path / "j.db", max_trails=10)
    await journal.start()
    for n in range(25):
        come(journal, str(n))
    assert journal.unsaved == 15
    await journal.stop()


async def test_a_damaged_file_is_set_aside(clock: VirtualClock, tmp_path: Path) -> None:
    (tmp_path / "j.db").write_bytes(b"this is no database" * 1000)
    journal = Journal(clock, tmp_path / "j.db")
    come(journal, "1")
    await journal.stop()
    assert (tmp_path / "j.damaged").exists()


@pytest.mark.parametrize(
    ("selection", "ids"),
    [
        (Selection(), ["a", "b", "c", "d"]),
        (Selection(id="b"), ["b"]),
        (Selection(type="order.*"), ["a", "b"]),
        (Selection(type="order.*", id="c"), []),
        (Selection(source="/s"), ["a", "b", "c", "d"]),
        (Selection(source="/x*"), []),
        (Selection(attributes={"id": "[ab]"}), ["a", "b"]),
        (Selection(attributes={"missing": "x"}), []),
        (Selection(door="b"), ["a", "b", "c", "d"]),
        (Selection(door="Broker default/b"), ["a", "b", "c", "d"]),
        (Selection(door="default/other"), []),
        (Selection(failed=True), ["c", "d"]),
    ],
)
@pytest.mark.parametrize("where", ["memory", "disk"])
async def test_selections(
    clock: VirtualClock, tmp_path: Path, selection: Selection, ids: list[str], where: str
) -> None:
    journal = Journal(clock, tmp_path / "j.db")
    await journal.start()
    for event_id, type_ in (("a", "order.created"), ("b", "order.paid"), ("c", "x")):
        trail = come(journal, event_id, type_=type_)
        kind: Any = "dropped" if event_id == "c" else "delivered"
        journal.step(trail, Step(kind, "trigger default/t", clock.now(), detail="gone"))
    journal.open(DOOR, event("d"), [], [], refused="429: full")
    if where == "disk":
        await journal.stop()
        journal = Journal(clock, tmp_path / "j.db")
    assert [entry["event"]["id"] for entry in journal.recent(selection)] == ids
    await journal.stop()


async def test_a_selection_of_time_and_the_newest_ones(
    journal: Journal, clock: VirtualClock
) -> None:
    start = clock.now()
    for n in range(10):
        come(journal, str(n))
        await clock.advance(1)
    selection = Selection(since=start + timedelta(seconds=2), until=start + timedelta(seconds=5))
    assert [e["event"]["id"] for e in journal.recent(selection)] == ["2", "3", "4", "5"]
    assert [e["event"]["id"] for e in journal.recent(limit=3)] == ["7", "8", "9"]


async def test_a_tail_sees_events_as_they_come(journal: Journal) -> None:
    tail = journal.tail(Selection(type="wanted"))
    trail = come(journal, "1", type_="wanted")
    come(journal, "2", type_="other")
    come(journal, "3", type_="wanted")
    delivered(journal, trail)
    assert [(await anext(tail))["event"]["id"] for _ in range(2)] == ["1", "3"]
    tail.close()


async def test_a_tail_of_outcomes_sees_events_when_they_have_been_dealt_with(
    journal: Journal,
) -> None:
    with journal.tail(outcomes=True) as tail:
        first, second = come(journal, "1"), come(journal, "2")
        delivered(journal, second)
        delivered(journal, first)
        seen = [await anext(tail) for _ in range(2)]
    assert [(e["event"]["id"], e["subscribers"][0]["outcome"]) for e in seen] == [
        ("2", "delivered"),
        ("1", "delivered"),
    ]


async def test_a_tail_of_outcomes_shows_what_takes_long_before_and_after(
    journal: Journal, clock: VirtualClock
) -> None:
    with journal.tail(outcomes=True) as tail:
        trail = come(journal, "1")
        await clock.advance(PATIENCE_SECONDS)
        assert (await anext(tail))["subscribers"][0]["outcome"] == "waiting"
        delivered(journal, trail)
        assert (await anext(tail))["subscribers"][0]["outcome"] == "delivered"


async def test_a_tail_of_failures_shows_what_fails_while_it_is_read(
    journal: Journal, clock: VirtualClock
) -> None:
    with journal.tail(Selection(failed=True), outcomes=True) as tail:
        delivered(journal, come(journal, "1"))
        trail = come(journal, "2")
        journal.step(trail, Step("dropped", "trigger default/t", clock.now(), detail="gone"))
        assert (await anext(tail))["event"]["id"] == "2"


async def test_nobody_listens_after_a_tail_is_closed(journal: Journal, clock: VirtualClock) -> None:
    with journal.tail(outcomes=True) as tail:
        come(journal, "1")
    come(journal, "2")
    await clock.advance(PATIENCE_SECONDS)
    with pytest.raises(StopAsyncIteration):
        await anext(tail)


async def test_a_slow_reader_is_told_what_it_missed(journal: Journal) -> None:
    tail = journal.tail(backlog=3)
    for n in range(10):
        come(journal, str(n))
    entry = await anext(tail)
    assert (entry["event"]["id"], entry["missed"]) == ("7", 7)
    tail.close()


async def test_a_closed_tail_ends(journal: Journal) -> None:
    tail = journal.tail()
    reading = asyncio.ensure_future(anext(tail))
    await asyncio.sleep(0)
    tail.close()
    with pytest.raises(StopAsyncIteration):
        await reading


async def test_a_recording_is_replayed(
    journal: Journal, clock: VirtualClock, tmp_path: Path
) -> None:
    recording = Recording(tmp_path / "events.jsonl")
    for n in range(3):
        come(journal, str(n), data=b'{"n":%d}' % n)
        await clock.advance(2)
    for entry in journal.recent():
        recording.add(entry)
    recording.close()
    events = read_recording(tmp_path / "events.jsonl")
    assert [(one.door_url, one.event.id, one.event.data) for one in events] == [
        (DOOR.url, str(n), b'{"n":%d}' % n) for n in range(3)
    ]
    sent: list[tuple[float, str, str]] = []

    async def send(event: Event, url: str) -> int:
        sent.append((clock.monotonic(), event.id, url))
        return 202

    replaying = asyncio.ensure_future(replay(events, send, clock, to="http://x", keep_pace=True))
    await clock.advance(10)
    answers = await replaying
    start = sent[0][0]
    assert [(at - start, event_id, url) for at, event_id, url in sent] == [
        (0, "0", "http://x"), (2, "1", "http://x"), (4, "2", "http://x"),
    ]  # fmt: skip
    assert [status for _, status in answers] == [202] * 3
    await replay(events[:1], send, clock)
    assert sent[-1][2] == DOOR.url


def test_plain_events_in_a_file_can_be_replayed_too(tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    path.write_text('{"specversion":"1.0","id":"1","type":"t","source":"/s"}\n\n')
    assert [one.event.id for one in read_recording(path)] == ["1"]


@pytest.mark.parametrize("line", ["no json", "{}", '{"specversion":"1.0"}', '{"door": 1}'])
def test_a_file_that_is_no_recording_is_told_with_the_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"specversion":"1.0","id":"1","type":"t","source":"/s"}\n' + line)
    with pytest.raises(RecordingError, match="line 2"):
        read_recording(path)
