"""The plugin as its users see it: a project per test, real services, events, time in one's hand."""

import asyncio
import time

import pytest
from cloudevents.core.v1.event import CloudEvent

from knlocal.events.sdk import to_sdk

pytestmark = pytest.mark.knlocal(folder="shop", runtime="process")


def trigger(sink, **delivery):
    spec = {
        "broker": "default",
        "filter": {"attributes": {"type": "order.created"}},
        "subscriber": {"uri": sink.url},
    }
    if delivery:
        spec["delivery"] = delivery
    return {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Trigger",
        "metadata": {"name": "to-sink"},
        "spec": spec,
    }


def test_the_services_of_the_project_answer(knlocal) -> None:
    answer = knlocal.service("orders").get("/")
    assert answer.status == 200
    assert answer.text == "hello from orders\n"


async def test_asynchronous_tests_have_twins_of_everything(knlocal) -> None:
    answers = await asyncio.gather(*(knlocal.service("orders").aget("/") for _ in range(5)))
    assert {answer.status for answer in answers} == {200}


def test_events_reach_services_and_sinks_and_are_seen(knlocal, sink) -> None:
    knlocal.apply(trigger(sink))
    sent = knlocal.events.send(type="order.created", data={"id": 1})
    assert sink.expect(type="order.created", data={"id": 1}).id == sent.id
    assert knlocal.events.expect(type="order.created").id == sent.id
    knlocal.events.send(type="order.paid")
    sink.expect_none(type="order.paid")


def test_an_event_of_the_sdk_can_be_sent(knlocal, sink) -> None:
    knlocal.apply(trigger(sink))
    attributes = {"specversion": "1.0", "id": "s1", "type": "order.created", "source": "/sdk"}
    knlocal.events.send(event=CloudEvent(attributes, {"n": 1}))
    assert to_sdk(sink.expect(id="s1", data={"n": 1})).get_source() == "/sdk"


def test_tests_do_not_see_each_others_objects(knlocal, sink) -> None:
    with pytest.raises(Exception, match="not found"):
        knlocal.get("trigger", "to-sink")
    knlocal.apply(trigger(sink))
    assert knlocal.get("trigger", "to-sink")["metadata"]["namespace"] == knlocal.namespace


def test_an_object_that_was_got_can_be_changed_and_applied_again(knlocal, sink) -> None:
    knlocal.apply(trigger(sink))
    other = knlocal.sink()
    changed = knlocal.get("trigger", "to-sink")
    changed["spec"]["subscriber"] = {"uri": other.url}
    assert knlocal.get("trigger", "to-sink")["spec"]["subscriber"] == {"uri": sink.url}
    (applied,) = knlocal.apply(changed)
    assert applied["status"]["subscriberUri"] == other.url
    knlocal.events.send(type="order.created")
    other.expect(type="order.created")
    assert sink.events == []


def test_back_off_takes_no_time(knlocal, sink) -> None:
    knlocal.apply(trigger(sink, retry=5, backoffPolicy="linear", backoffDelay="PT1H"))
    sink.answers(503, 503, 202)
    knlocal.events.send(type="order.created")
    sink.expect(type="order.created")
    knlocal.clock.advance("3h")
    sink.expect(type="order.created")
    sink.expect(type="order.created")
    sink.expect_none(type="order.created")


def test_a_day_of_cron_passes_at_once(knlocal, sink) -> None:
    source = {
        "apiVersion": "sources.knative.dev/v1",
        "kind": "PingSource",
        "metadata": {"name": "hourly"},
        "spec": {
            "schedule": "0 * * * *",
            "contentType": "text/plain",
            "data": "tick",
            "sink": {"uri": sink.url},
        },
    }
    knlocal.apply(source)
    knlocal.clock.advance("24h")
    for _ in range(24):
        sink.expect(type="dev.knative.sources.ping", data="tick")
    sink.expect_none()


def test_idle_services_reach_zero_and_wake(knlocal) -> None:
    def pods():
        return [
            pod
            for pod in knlocal.daemon.store.list(knlocal.POD, knlocal.namespace)
            if not pod["metadata"].get("deletionTimestamp")
        ]

    knlocal.service("orders").get("/")
    assert len(pods()) == 1
    knlocal.clock.advance("3m")
    assert pods() == []
    assert knlocal.service("orders").get("/").status == 200


def test_logs_of_a_service_can_be_read(knlocal) -> None:
    knlocal.service("orders").post("/", headers={"ce-type": "by.hand"}, data="x")
    end = time.monotonic() + 30
    while "got by.hand" not in knlocal.logs("orders"):  # it comes a moment after the answer
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_cannot_become_ready_says_why(knlocal, sink) -> None:
    lost = trigger(sink)
    lost["spec"]["broker"] = "nowhere"
    knlocal.apply(lost, ready=False)
    knlocal.run(knlocal.daemon.settled())  # it has been looked at
    with pytest.raises(
        AssertionError, match=r'BrokerDoesNotExist: Broker "nowhere" does not exist'
    ):
        knlocal.apply(lost, within="0.3s")


def test_a_refused_object_says_why(knlocal, sink) -> None:
    wrong = trigger(sink)
    wrong["spec"]["filter"]["attributes"] = {"TYPE": "x"}
    with pytest.raises(AssertionError, match='invalid key name "TYPE"'):
        knlocal.apply(wrong)


def test_a_failed_expectation_tells_who_on_the_way_did_not_want_the_event(knlocal, sink) -> None:
    picky = trigger(sink)
    picky["spec"]["filter"]["attributes"]["type"] = "order.payed"
    knlocal.apply(picky)
    knlocal.events.send(type="order.paid")
    with pytest.raises(AssertionError, match="no event arrived at all") as caught:
        sink.expect(type="order.payed", within="0.2s")
    assert 'to-sink: not for it: filter.attributes.type: wanted "order.payed"' in str(caught.value)
    frames = [entry.path.name for entry in caught.traceback.filter(caught)]
    assert frames == ["test_plugin.py"]


def test_a_misspelt_service_does_not_pass_for_one_that_answers_404(knlocal) -> None:
    with pytest.raises(AssertionError, match=r"no service 'ordres' .* did you mean 'orders'\?"):
        knlocal.service("ordres").get("/")


def test_words_that_name_nothing_are_answered_with_what_there_is(knlocal) -> None:
    with pytest.raises(AssertionError, match="no kind is called 'ksvcc'; did you mean 'ksvc'"):
        knlocal.get("ksvcc", "orders")
    with pytest.raises(AssertionError, match="no broker 'defualt'.*did you mean 'default'"):
        knlocal.events.send("broker:defualt", type="t")
    with pytest.raises(AssertionError, match="no service 'ordres'.*did you mean 'orders'"):
        knlocal.events.send("service:ordres", type="t")
