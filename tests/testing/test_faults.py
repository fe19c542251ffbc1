"""Faults strike the edge they are put on, as often as told, reproducibly."""

import pytest

from tests.testing.test_plugin import trigger

pytestmark = pytest.mark.knlocal(folder="shop", runtime="process")


@pytest.fixture
def bound(knlocal, sink):
    knlocal.apply(trigger(sink, retry=3))
    return knlocal.faults.trigger("to-sink")


def ids(sink) -> list[str]:
    return [event.id for event in sink.events]


def send(knlocal, *numbers: int) -> None:
    for number in numbers:
        knlocal.events.send(type="order.created", id=str(number))


def test_a_failing_delivery_is_retried(knlocal, sink, bound) -> None:
    fault = bound.fail(503, times=2)
    send(knlocal, 1)
    sink.expect(id="1")
    assert fault.hit == 2
    assert ids(sink) == ["1"]


def test_a_dropped_event_is_lost_and_the_next_is_not(knlocal, sink, bound) -> None:
    bound.drop(times=1)
    send(knlocal, 1, 2)
    sink.expect(id="2")
    assert ids(sink) == ["2"]


def test_a_duplicated_event_comes_twice(knlocal, sink, bound) -> None:
    bound.duplicate(times=1)
    send(knlocal, 1, 2)
    sink.expect(id="2")
    assert ids(sink) == ["1", "1", "2"]


def test_reordered_events_change_places(knlocal, sink, bound) -> None:
    bound.reorder(times=1)
    send(knlocal, 1, 2, 3)
    sink.expect(id="3")
    assert ids(sink) == ["2", "1", "3"]


def test_a_delay_is_a_delay_of_knlocals_clock(knlocal, sink, bound) -> None:
    bound.delay("1h", times=1)
    send(knlocal, 1)
    sink.expect_none(id="1", within="0.1s")
    knlocal.clock.advance("1h")
    sink.expect(id="1")


def test_a_share_hits_the_same_events_for_the_same_seed(knlocal, sink, bound) -> None:
    hits = []
    for _ in range(2):
        sink.clear()
        knlocal.faults.clear()
        knlocal.faults._dice.seed(7)
        knlocal.faults.trigger("to-sink").drop(share=0.5)
        send(knlocal, *range(20))
        knlocal.run(knlocal.daemon.settled())
        knlocal.faults.clear()
        send(knlocal, 99)
        sink.expect(id="99")
        hits.append(ids(sink))
    assert hits[0] == hits[1]
    assert 2 < len(hits[0]) < 20


def test_requests_to_a_service_can_fail(knlocal) -> None:
    knlocal.faults.service("orders").fail(500, times=1)
    service = knlocal.service("orders")
    assert service.get("/").status == 500
    assert service.get("/").status == 200


def test_a_killed_pod_is_replaced_and_requests_go_on(knlocal) -> None:
    service = knlocal.service("orders")
    assert service.get("/").status == 200
    assert knlocal.faults.kill_pod("orders") == 1
    assert service.get("/").status == 200


def test_a_recording_is_written_once_and_compared_afterwards(
    knlocal, sink, bound, tmp_path
) -> None:
    golden = knlocal.golden(tmp_path / "orders.jsonl")
    knlocal.events.send(type="order.created", data={"id": 1, "where": knlocal.namespace})
    golden.check()
    assert knlocal.namespace not in golden.path.read_text()
    again = knlocal.golden(tmp_path / "orders.jsonl")
    again.check()
    knlocal.events.send(type="order.created", data={"id": 2})
    with pytest.raises(AssertionError, match=r'(?s)differ from the recording.*\+.*"id": 2'):
        again.check()


def test_a_recording_can_be_replayed(knlocal, sink, bound, tmp_path) -> None:
    knlocal.events.send(type="order.created", data={"id": 1})
    sink.expect(type="order.created")
    golden = knlocal.golden(tmp_path / "orders.jsonl")
    golden.check()
    golden.replay()
    sink.expect(type="order.created", data={"id": 1})


@pytest.mark.parametrize("kind", ["service", "trigger", "subscription"])
def test_a_fault_on_what_there_is_not_is_refused(knlocal, kind) -> None:
    with pytest.raises(AssertionError, match=f"no {kind} 'nobody' in this project; there"):
        getattr(knlocal.faults, kind)("nobody")


def test_a_misspelt_trigger_is_answered_with_the_right_one(knlocal, bound) -> None:
    with pytest.raises(AssertionError, match="no trigger 'to-snik'.*did you mean 'to-sink'"):
        knlocal.faults.trigger("to-snik")


def test_pods_of_no_service_cannot_be_killed(knlocal) -> None:
    with pytest.raises(AssertionError, match="no service 'nobody'"):
        knlocal.faults.kill_pod("nobody")
