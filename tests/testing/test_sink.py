"""The sink is a real subscriber: it records, it answers as told, and its failures explain."""

import http.client
import re
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from knlocal.events import Event, encode
from knlocal.testing.loop import LoopThread
from knlocal.testing.matching import seconds
from knlocal.testing.sink import Answer, Sink


@pytest.fixture(scope="module")
def loop():
    loop = LoopThread()
    yield loop
    loop.stop()


@pytest.fixture
def sink(loop):
    sink = Sink(loop)
    yield sink
    sink.close()


def event(type_: str = "order.created", data: bytes = b'{"id": 7, "lines": [1]}') -> Event:
    attributes = {
        "specversion": "1.0", "id": "e1", "type": type_, "source": "/shop",
        "datacontenttype": "application/json",
    }  # fmt: skip
    return Event(attributes, data)


def post(url: str, body: Event) -> int:
    message = encode(body)
    try:
        with urlopen(Request(url, message.body, dict(message.headers)), timeout=30) as answer:
            return answer.status
    except HTTPError as error:
        return error.code


def test_it_records_what_arrives_and_accepts_it(sink) -> None:
    assert post(sink.url + "path?x=1", event()) == 202
    (received,) = sink.requests
    assert received.method == "POST"
    assert received.path == "/path?x=1"
    assert received.event == event()


def test_expect_finds_an_event_by_attributes_patterns_and_data(sink) -> None:
    post(sink.url, event())
    found = sink.expect(
        type="order.created", source=re.compile("^/sh"), data={"id": lambda value: value > 5}
    )
    assert found.id == "e1"


def test_an_event_satisfies_one_expectation_only(sink) -> None:
    post(sink.url, event())
    sink.expect(type="order.created")
    sink.expect_none(type="order.created", within="20ms")


def test_a_failing_expectation_says_what_did_arrive_and_how_it_differs(sink) -> None:
    post(sink.url, event("order.paid"))
    with pytest.raises(AssertionError) as failed:
        sink.expect(type="order.created", within="20ms")
    assert "no event with type='order.created' within 0.02 s" in str(failed.value)
    assert "order.paid e1 from /shop: type is 'order.paid', wanted 'order.created'" in str(
        failed.value
    )


def test_an_unexpected_event_fails_expect_none(sink) -> None:
    post(sink.url, event())
    with pytest.raises(AssertionError, match=r"order\.created e1 arrived"):
        sink.expect_none(within="20ms")


def test_answers_follow_the_programme_and_the_last_one_stays(sink) -> None:
    sink.answers(503, 404, 202)
    assert [post(sink.url, event()) for _ in range(4)] == [503, 404, 202, 202]


def test_it_replies_with_an_event(sink) -> None:
    sink.answers(event("order.accepted"))
    message = encode(event())
    request = Request(sink.url, message.body, dict(message.headers))
    with urlopen(request, timeout=30) as answer:
        assert answer.status == 200
        assert answer.headers["ce-type"] == "order.accepted"


def test_it_can_be_slow(sink) -> None:
    sink.answers(Answer(202, delay="60s"))
    with pytest.raises(TimeoutError):
        urlopen(Request(sink.url, b"x", method="POST"), timeout=0.2)


@pytest.mark.parametrize("close", ["half", "reset"])
def test_it_can_break_off(sink, close) -> None:
    sink.answers(Answer(close=close))
    connection = http.client.HTTPConnection(sink.url.split("/")[2], timeout=30)
    connection.request("POST", "/", b"x")
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        connection.getresponse().read()
    connection.close()


@pytest.mark.parametrize(
    ("text", "value"), [("5s", 5), ("250ms", 0.25), ("1m30s", 90), ("24h", 86400), (2, 2)]
)
def test_durations_read_as_written(text, value) -> None:
    assert seconds(text) == pytest.approx(value)


def test_a_duration_that_is_none_says_what_to_write() -> None:
    with pytest.raises(ValueError, match="is no duration; write"):
        seconds("5 parsecs")
