"""Events from a door to subscribers: order, retries, replies, dead letters, back-pressure; the same
for every engine."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from knlocal.clock import VirtualClock
from knlocal.eventing.engines import DurableEngine, Engine, Limits, MemoryEngine
from knlocal.eventing.exchange import MAX_THROUGH
from knlocal.events import Event
from tests.eventing.plane import Plane, Reply, broker_url, channel_url, subscription, trigger

MakeEngine = Callable[..., Engine]


@pytest.fixture(params=["memory", "durable"])
def make_engine(request: pytest.FixtureRequest, tmp_path: Path) -> MakeEngine:
    def make(**limits: int) -> Engine:
        if request.param == "memory":
            return MemoryEngine(Limits(**limits))
        return DurableEngine(tmp_path / "events.db", Limits(**limits))

    return make


@pytest.fixture
async def plane(clock: VirtualClock, make_engine: MakeEngine) -> AsyncIterator[Plane]:
    plane = Plane(clock, make_engine())
    await plane.start()
    yield plane
    await plane.stop()


def reply_event(event_id: str = "r1", **headers: str) -> Reply:
    attributes = {"ce-specversion": "1.0", "ce-id": event_id, "ce-type": "re", "ce-source": "/r"}
    return Reply(200, tuple({**attributes, **headers}.items()), b"answer")


# -- fan-out and filters -----------------------------------------------------------------------


async def test_each_matching_trigger_gets_the_event_once(plane: Plane) -> None:
    one, two = plane.recorder("one"), plane.recorder("two")
    await plane.broker(
        "b",
        trigger("all", one),
        trigger("typed", two, filter={"filter": {"attributes": {"type": "t"}}}),
        trigger("other", two, filter={"filter": {"attributes": {"type": "x"}}}),
        trigger("same-sink", two, filter={"filters": [{"prefix": {"source": "/"}}]}),
    )
    assert (await plane.post(broker_url("b"), body=b"hello")).status == 202
    await plane.settled()
    assert (one.ids, two.ids) == (["1"], ["1", "1"])
    assert one.events[0].data == b"hello"


async def test_a_delivery_carries_the_contracts_headers(plane: Plane) -> None:
    one = plane.recorder("one")
    await plane.broker("b", trigger("t", one.url.rstrip("/") + "/path?q=a%20b"))
    await plane.post(
        broker_url("b"), ce_knativebrokerttl="9", x_request_id="r", knative_foo="k",
        x_b3_traceid="b",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", x_secret="s",
        authorization="a", content_type="text/plain", ce_ext="v", body=b"x",
    )  # fmt: skip
    await plane.settled()
    headers, [event] = one.headers[0], one.events
    assert one.targets == ["/path?q=a%20b"]
    assert (headers["prefer"], headers["kn-namespace"]) == ("reply", "default")
    assert (headers["x-request-id"], headers["knative-foo"]) == ("r", "k")
    assert "traceparent" in headers
    assert "x-secret" not in headers
    assert "authorization" not in headers
    assert "knativebrokerttl" not in event.attributes
    assert event.attributes["knativearrivaltime"] == "2026-01-01T00:00:00Z"
    assert (event.attributes["ext"], headers["content-type"]) == ("v", "text/plain")


async def test_the_mode_is_kept_unless_a_format_is_asked_for(plane: Plane) -> None:
    kept, json, binary = (plane.recorder(name) for name in ("kept", "json", "binary"))
    await plane.broker(
        "b", trigger("k", kept), trigger("j", json, mode="structured"),
        trigger("b", binary, mode="binary"),
    )  # fmt: skip
    await plane.post(broker_url("b"))
    body = b'{"specversion":"0.3","id":"2","type":"t","source":"/s","data":{"a":1}}'
    headers = [("content-type", "application/cloudevents+json")]
    await plane.client.request("POST", broker_url("b"), headers, body)
    await plane.settled()
    assert [e.mode for e in kept.events] == ["binary", "structured"]
    assert [e.mode for e in json.events] == ["structured", "structured"]
    assert [e.mode for e in binary.events] == ["binary", "binary"]
    assert kept.events[1].attributes["specversion"] == "0.3"
    assert binary.events[1].data == b'{"a":1}'


# -- order, fairness, parallelism --------------------------------------------------------------


async def test_a_subscriber_gets_events_in_order(plane: Plane) -> None:
    one = plane.recorder("one")
    await plane.channel("c", subscription("s", one))
    for n in range(100):
        await plane.post(channel_url("c"), str(n))
    await plane.settled(20_000)
    assert one.ids == [str(n) for n in range(100)]
    assert one.most == 1


async def test_a_retried_event_holds_its_place(plane: Plane, clock: VirtualClock) -> None:
    one = plane.recorder("one")
    one.answer(500, 202)
    policy = {"retry": 1, "backoff_policy": "exponential", "backoff_delay": 1.0}
    await plane.channel("c", subscription("s", one, **policy))
    for n in "123":
        await plane.post(channel_url("c"), n)
    await clock.advance(0.9)
    assert one.ids == ["1"]
    await clock.advance(0.2)
    assert one.ids == ["1", "1", "2", "3"]


async def test_a_slow_subscriber_delays_nobody(plane: Plane) -> None:
    slow, quick = plane.recorder("slow"), plane.recorder("quick")
    slow.gate.clear()
    await plane.channel("c", subscription("slow", slow), subscription("quick", quick))
    for n in range(50):
        await plane.post(channel_url("c"), str(n))
    await plane.settled(5000)
    assert len(quick.ids) == 50
    assert len(slow.ids) == 1
    slow.gate.set()
    await plane.settled(20_000)
    assert slow.ids == quick.ids


async def test_without_order_deliveries_run_side_by_side(plane: Plane) -> None:
    one = plane.recorder("one")
    one.gate.clear()
    await plane.channel("c", subscription("s", one, parallel=8))
    for n in range(20):
        await plane.post(channel_url("c"), str(n))
    await plane.settled(500)
    assert one.running == 8
    one.gate.set()
    await plane.settled(20_000)
    assert sorted(map(int, one.ids)) == list(range(20))
    assert one.most == 8


# -- failure --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [404, 408, 409, 429, 500, 503])
async def test_these_answers_are_retried_with_back_off(
    plane: Plane, clock: VirtualClock, status: int
) -> None:
    one = plane.recorder("one")
    one.answer(status, status, status, 202)
    policy = {"retry": 3, "backoff_policy": "exponential", "backoff_delay": 1.0}
    await plane.channel("c", subscription("s", one, **policy))
    await plane.post(channel_url("c"))
    seen = []
    for _ in range(8):
        await clock.advance(1.0)
        seen.append(len(one.ids))
    assert seen == [2, 2, 3, 3, 3, 3, 4, 4]


@pytest.mark.parametrize("status", [400, 401, 413, 301])
async def test_other_answers_are_final(plane: Plane, clock: VirtualClock, status: int) -> None:
    one, dead = plane.recorder("one"), plane.recorder("dead")
    one.answer(status)
    await plane.channel("c", subscription("s", one, retry=5, dead_letter=dead))
    await plane.post(channel_url("c"))
    await clock.advance(60)
    assert (len(one.ids), len(dead.ids)) == (1, 1)


async def test_retry_after_is_waited_for(plane: Plane, clock: VirtualClock) -> None:
    one = plane.recorder("one")
    one.answer(Reply(429, (("Retry-After", "30"),)), 202)
    await plane.channel("c", subscription("s", one, retry=1, retry_after_max=20.0))
    await plane.post(channel_url("c"))
    await clock.advance(19)
    assert len(one.ids) == 1
    await clock.advance(2)
    assert len(one.ids) == 2


async def test_an_attempt_that_takes_too_long_is_given_up(
    plane: Plane, clock: VirtualClock
) -> None:
    one, dead = plane.recorder("one"), plane.recorder("dead")
    one.gate.clear()
    await plane.channel("c", subscription("s", one, retry=1, timeout=2.0, dead_letter=dead))
    await plane.post(channel_url("c"))
    await clock.advance(3)
    assert len(one.ids) == 2
    await clock.advance(3)
    [event] = dead.events
    assert event.attributes["knativeerrorcode"] == "500"
    data = base64.b64decode(event.attributes["knativeerrordata"])
    assert data.startswith(b"dispatch error: ")


async def test_a_dead_letter_says_what_happened(plane: Plane) -> None:
    one, dead = plane.recorder("one"), plane.recorder("dead")
    one.answer(Reply(400, (), b"no such order"))
    target = "http://one.default.svc.cluster.local/orders?token=secret"
    await plane.broker("b", trigger("t", target, dead_letter=dead))
    await plane.post(broker_url("b"), body=b"payload", ce_ext="kept")
    await plane.settled()
    [event] = dead.events
    assert event.attributes["knativeerrordest"] == "http://one.default.svc.cluster.local/orders"
    assert event.attributes["knativeerrorcode"] == "400"
    assert base64.b64decode(event.attributes["knativeerrordata"]) == b"no such order"
    assert (event.data, event.id, event.attributes["ext"]) == (b"payload", "1", "kept")


async def test_long_error_data_is_cut_at_1024_characters(plane: Plane) -> None:
    one, dead = plane.recorder("one"), plane.recorder("dead")
    one.answer(Reply(400, (), b"x" * 5000))
    await plane.broker("b", trigger("t", one, dead_letter=dead))
    await plane.post(broker_url("b"))
    await plane.settled()
    assert len(dead.events[0].attributes["knativeerrordata"]) == 1024


async def test_the_dead_letter_sink_is_retried_too(plane: Plane, clock: VirtualClock) -> None:
    one, dead = plane.recorder("one"), plane.recorder("dead")
    one.answer(400)
    dead.answer(503, 202)
    policy = {"retry": 1, "backoff_policy": "exponential", "backoff_delay": 1.0}
    await plane.channel("c", subscription("s", one, dead_letter=dead, **policy))
    await plane.post(channel_url("c"))
    await clock.advance(2)
    assert len(dead.ids) == 2


async def test_nobody_listening_is_an_error_like_others(plane: Plane, clock: VirtualClock) -> None:
    dead = plane.recorder("dead")
    gone = "http://gone.default.svc.cluster.local"
    await plane.channel("c", subscription("s", gone, retry=2, dead_letter=dead))
    await plane.post(channel_url("c"))
    await clock.advance(1)
    assert dead.events[0].attributes["knativeerrorcode"] == "500"
    [entry] = plane.journal.explain("1")
    attempts = entry["subscribers"][0]["attempts"]
    assert [a["status"] for a in attempts] == [0, 0, 0, 202]


async def test_a_sink_that_moves_gets_what_waits(plane: Plane, clock: VirtualClock) -> None:
    old, new = plane.recorder("old"), plane.recorder("new")
    old.answer(503)
    policy = {"retry": 9, "backoff_policy": "exponential", "backoff_delay": 60.0}
    await plane.channel("c", subscription("s", old, **policy))
    await plane.post(channel_url("c"), "1")
    await plane.post(channel_url("c"), "2")
    await clock.advance(1)
    await plane.channel("c", subscription("s", new, **policy))
    await plane.settled()
    assert (old.ids, new.ids) == (["1"], ["1", "2"])


async def test_events_wait_for_a_sink_that_does_not_exist_yet(plane: Plane) -> None:
    await plane.channel("c", subscription("s", unresolved='services "x" not found'))
    assert (await plane.post(channel_url("c"), "1")).status == 202
    await plane.post(channel_url("c"), "2")
    await plane.settled(50)
    [entry] = plane.journal.explain("1")
    assert 'no address yet: services "x" not found' in entry["subscribers"][0]["waiting"]
    one = plane.recorder("one")
    await plane.channel("c", subscription("s", one))
    await plane.settled()
    assert one.ids == ["1", "2"]


# -- replies ---------------------------------------------------------------------------------------


async def test_a_reply_reenters_the_broker(plane: Plane) -> None:
    one, two = plane.recorder("one"), plane.recorder("two")
    one.answer(reply_event())
    await plane.broker(
        "b",
        trigger(
            "ask", one, filter={"filter": {"attributes": {"type": "t"}}}, reply=broker_url("b")
        ),
        trigger("answers", two, filter={"filter": {"attributes": {"type": "re"}}}),
    )
    await plane.post(broker_url("b"))
    await plane.settled()
    assert (one.ids, two.ids) == (["1"], ["r1"])
    assert two.events[0].data == b"answer"


async def test_a_loop_of_replies_ends(plane: Plane) -> None:
    one, dead = plane.recorder("one"), plane.recorder("dead")
    one.answer(reply_event())
    await plane.broker("b", trigger("t", one, reply=broker_url("b"), dead_letter=dead))
    await plane.post(broker_url("b"), ce_knativebrokerttl="5")
    await plane.settled(5000)
    assert len(one.ids) == 4
    assert "too often" in base64.b64decode(dead.events[0].attributes["knativeerrordata"]).decode()


async def test_a_used_up_hop_count_is_refused_at_the_door(plane: Plane) -> None:
    await plane.broker("b")
    for ttl, status in (("1", 400), ("0", 400), ("-3", 400), ("2", 202), ("x", 202)):
        answer = await plane.post(broker_url("b"), ce_knativebrokerttl=ttl)
        assert (ttl, answer.status) == (ttl, status)


async def test_a_channels_reply_goes_where_the_subscription_says(plane: Plane) -> None:
    one, two = plane.recorder("one"), plane.recorder("two")
    one.answer(reply_event())
    await plane.channel("c", subscription("s", one, reply=two), subscription("n", one))
    await plane.post(channel_url("c"))
    await plane.settled()
    assert (two.ids, one.ids) == (["r1"], ["1", "1"])
    assert "prefer" not in two.headers[0]


async def test_a_reply_goes_on_with_the_headers_that_it_came_in(plane: Plane) -> None:
    one, two = plane.recorder("one"), plane.recorder("two")
    answered = {"knative-answered": "a", "x-request-id": "its-own", "x-secret": "s"}
    one.answer(reply_event(**answered))
    await plane.channel("c", subscription("s", one, reply=two))
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await plane.post(
        channel_url("c"), knative_asked="q", x_request_id="the-event's", traceparent=trace
    )
    await plane.settled()
    headers = two.headers[0]
    assert (headers["knative-answered"], headers["x-request-id"]) == ("a", "its-own")
    assert headers["traceparent"] == trace
    assert "knative-asked" not in headers
    assert "x-secret" not in headers


async def test_channels_that_lead_to_each_other_do_not_go_on_for_ever(plane: Plane) -> None:
    one, dead = plane.recorder("one"), plane.recorder("dead")
    await plane.channel("a", subscription("ab", channel_url("b")), subscription("s", one))
    await plane.channel("b", subscription("ba", channel_url("a"), dead_letter=dead))
    assert (await plane.post(channel_url("a"))).status == 202
    await plane.settled(100_000)
    assert len(one.ids) == MAX_THROUGH / 2
    assert dead.ids == ["1"]


async def test_without_a_subscriber_the_event_itself_is_the_reply(plane: Plane) -> None:
    two = plane.recorder("two")
    await plane.channel("c", subscription("s", reply=two))
    await plane.post(channel_url("c"))
    await plane.settled()
    assert two.ids == ["1"]


async def test_a_reply_nobody_takes_dead_letters_the_original(plane: Plane) -> None:
    one, two, dead = (plane.recorder(name) for name in ("one", "two", "dead"))
    one.answer(reply_event())
    two.answer(400)
    await plane.channel("c", subscription("s", one, reply=two, dead_letter=dead))
    await plane.post(channel_url("c"))
    await plane.settled()
    [event] = dead.events
    assert (event.id, event.attributes["knativeerrordest"]) == ("1", two.url)


@pytest.mark.parametrize(("refusals", "lost"), [(1, False), (2, False), (3, True)])
async def test_a_reply_that_is_not_taken_has_the_event_delivered_again(
    plane: Plane, refusals: int, lost: bool
) -> None:
    one, two, dead = (plane.recorder(name) for name in ("one", "two", "dead"))
    one.answer(reply_event())
    two.answer(*[503] * refusals, 202)
    await plane.channel("c", subscription("s", one, reply=two, dead_letter=dead, retry=2))
    await plane.post(channel_url("c"))
    await plane.settled()
    times = min(refusals + 1, 3)
    assert (one.ids, two.ids) == (["1"] * times, ["r1"] * times)
    assert dead.ids == ["1"] * lost


@pytest.mark.parametrize(
    ("answer", "strict", "fails"),
    [
        (Reply(200, (), b"done"), True, True),
        (Reply(200, (), b"done"), False, False),
        (Reply(200, (), b""), True, False),
        (Reply(204), True, False),
        (Reply(200, (("ce-specversion", "1.0"),), b"half"), True, True),
        (Reply(200, (("ce-specversion", "1.0"),), b"half"), False, True),
        (Reply(200, (("content-type", "application/cloudevents+json"),), b"{"), True, True),
    ],
)
async def test_half_a_reply_is_a_failure(
    plane: Plane, answer: Reply, strict: bool, fails: bool
) -> None:
    one, dead = plane.recorder("one"), plane.recorder("dead")
    one.answer(answer)
    make = trigger if strict else subscription
    await plane.channel("c", make("s", one, reply=plane.recorder("two"), dead_letter=dead))
    await plane.post(channel_url("c"))
    await plane.settled()
    assert len(dead.ids) == fails
    if fails:
        assert dead.events[0].attributes["knativeerrorcode"] == "502"


async def test_the_event_in_an_answer_of_202_is_no_reply(plane: Plane) -> None:
    one, two = plane.recorder("one"), plane.recorder("two")
    one.answer(reply_event()._replace(status=202))
    await plane.broker("b", trigger("t", one, reply=two))
    await plane.post(broker_url("b"))
    await plane.settled()
    assert two.ids == []


# -- bounds ---------------------------------------------------------------------------------------


async def test_a_full_queue_is_told_at_the_door(
    clock: VirtualClock, make_engine: MakeEngine
) -> None:
    plane = Plane(clock, make_engine(messages=5))
    await plane.start()
    slow, other = plane.recorder("slow"), plane.recorder("other")
    slow.gate.clear()
    await plane.channel("c", subscription("slow", slow), subscription("other", other))
    statuses = [(await plane.post(channel_url("c"), str(n))).status for n in range(7)]
    refused = await plane.post(channel_url("c"), "again")
    assert statuses == [202] * 5 + [429] * 2
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    slow.gate.set()
    await plane.settled(5000)
    # All or nothing: an event that was refused went to nobody.
    assert slow.ids == other.ids == ["0", "1", "2", "3", "4"]
    assert (await plane.post(channel_url("c"), "later")).status == 202
    await plane.stop()


async def test_memory_is_bounded(clock: VirtualClock) -> None:
    engine = MemoryEngine(Limits(memory=100_000))
    plane = Plane(clock, engine)
    await plane.start()
    slow = plane.recorder("slow")
    slow.gate.clear()
    await plane.channel("c", subscription("s", slow), subscription("s2", slow))
    statuses = {(await plane.post(channel_url("c"), body=b"x" * 20_000)).status for _ in range(9)}
    assert statuses == {202, 429}
    slow.gate.set()
    await plane.settled(5000)
    assert engine.used == 0
    await plane.stop()


async def test_a_removed_subscription_gets_nothing_more(plane: Plane) -> None:
    one, two = plane.recorder("one"), plane.recorder("two")
    one.gate.clear()
    await plane.channel("c", subscription("s", one), subscription("s2", two))
    for n in "123":
        await plane.post(channel_url("c"), n)
    await plane.settled(200)
    await plane.channel("c", subscription("s2", two))
    one.gate.set()
    await plane.post(channel_url("c"), "4")
    await plane.settled()
    assert (one.ids, two.ids) == (["1"], ["1", "2", "3", "4"])


# -- chains ----------------------------------------------------------------------------------------


async def test_channels_can_be_chained(plane: Plane) -> None:
    first, last = plane.recorder("first"), plane.recorder("last")
    first.answer(reply_event())
    await plane.channel("b", subscription("s2", last))
    await plane.channel("a", subscription("s1", first, reply=channel_url("b")))
    await plane.post(channel_url("a"))
    await plane.settled()
    assert last.ids == ["r1"]


async def test_a_channel_in_front_of_a_broker_leaves_the_event_as_it_was(plane: Plane) -> None:
    one, two = plane.recorder("one"), plane.recorder("two")
    await plane.broker("b", trigger("t", one))
    await plane.channel("c", subscription("s", broker_url("b")), subscription("s2", two))
    await plane.post(channel_url("c"))
    await plane.settled()
    assert "knativearrivaltime" in one.events[0].attributes
    assert "knativearrivaltime" not in two.events[0].attributes


# -- the trail -------------------------------------------------------------------------------------


async def test_the_trail_tells_everything(plane: Plane, clock: VirtualClock) -> None:
    one, two, dead = (plane.recorder(name) for name in ("one", "two", "dead"))
    one.answer(reply_event())
    two.answer(Reply(500, (), b"oops"), 500)
    await plane.broker(
        "b",
        trigger("ask", one, filter={"filter": {"attributes": {"type": "t"}}},
                reply=broker_url("b")),
        trigger("fails", two, filter={"filter": {"attributes": {"type": "re"}}}, retry=1,
                dead_letter=dead),
    )  # fmt: skip
    await plane.post(broker_url("b"))
    await plane.settled()
    [entry] = plane.journal.explain("1")
    ask, fails = entry["subscribers"]
    assert entry["door"]["label"] == "Broker default/b"
    assert (ask["outcome"], ask["attempts"][0]["status"]) == ("delivered", 200)
    assert fails["refused"] == {
        "clause": "filter.attributes.type", "wanted": '"re"', "found": "t",
        "text": 'filter.attributes.type: wanted "re", the event has "t"',
    }  # fmt: skip
    [child] = ask["reply"]["trails"]
    assert (child["event"]["id"], child["via"]) == ("r1", "trigger default/ask")
    failed = child["subscribers"][1]
    assert [(a["status"], a["response"]) for a in failed["attempts"]] == [
        (500, "oops"), (500, ""), (202, ""),
    ]  # fmt: skip
    assert failed["outcome"] == "dead-lettered"
    assert failed["dead_letter"]["to"] == dead.url


async def test_an_event_that_waits_says_why(plane: Plane, clock: VirtualClock) -> None:
    one = plane.recorder("one")
    one.answer(503)
    await plane.channel(
        "c", subscription("s", one, retry=3, backoff_policy="linear", backoff_delay=5)
    )
    for n in "12":
        await plane.post(channel_url("c"), n)
    await clock.advance(1)
    [first], [second] = plane.journal.explain("1"), plane.journal.explain("2")
    assert first["subscribers"][0]["waiting"].startswith("retry 2 of 3, 5 s after 503 from ")
    assert (
        "in the queue (2 events), behind one that is: retry 2"
        in second["subscribers"][0]["waiting"]
    )


async def test_a_refused_event_has_a_trail(plane: Plane) -> None:
    await plane.broker("b")
    answer = await plane.post(broker_url("b"), "bad", ce_time="yesterday")
    assert answer.status == 400
    [entry] = plane.journal.explain("bad")
    assert entry["refused"] == "400: time: MUST be a timestamp (RFC 3339)"


async def test_cancelled_waiters_do_not_disturb_others(plane: Plane) -> None:
    """A sender that leaves in the middle of accepting takes nobody else's event with it."""
    one = plane.recorder("one")
    exchange = await plane.channel("c", subscription("s", one))
    event = {"specversion": "1.0", "type": "t", "source": "/s"}
    posts = [
        asyncio.ensure_future(exchange.accept(Event({**event, "id": str(n)}))) for n in range(10)
    ]
    await asyncio.sleep(0)
    posts[3].cancel()
    await asyncio.gather(*posts, return_exceptions=True)
    await plane.settled()
    assert set(one.ids) >= {str(n) for n in range(10) if n != 3}


async def test_senders_that_outrun_a_quick_subscriber_are_held_a_little(
    plane: Plane, clock: VirtualClock
) -> None:
    one = plane.recorder("one")
    exchange = await plane.channel("c", subscription("s", one))
    await plane.post(channel_url("c"), "first")
    await plane.settled()
    event = {"specversion": "1.0", "type": "t", "source": "/s"}
    posts = [
        asyncio.ensure_future(exchange.accept(Event({**event, "id": str(n)}))) for n in range(200)
    ]
    one.gate.clear()
    await plane.settled(50)
    assert not all(post.done() for post in posts)
    # The subscriber hangs: after a moment without any delivery nobody waits for it any longer.
    await clock.advance(0.2)
    assert all(post.done() for post in posts)
    one.gate.set()
    await plane.settled(20_000)
    assert len(one.ids) == 201
