"""knlocal's events and the CloudEvents SDK's mean the same, in memory and on the wire."""

from datetime import UTC, datetime

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from multidict import CIMultiDict

from knlocal.events import Event, InvalidEvent, decode, encode
from knlocal.events.sdk import from_sdk, to_sdk

ATTRIBUTES = {
    "specversion": "1.0",
    "id": "1",
    "type": "order.created",
    "source": "/shop",
    "subject": "tea & cake é",
    "time": datetime(2026, 1, 1, 12, tzinfo=UTC),
    "datacontenttype": "application/json",
    "tenant": "blue",
}


def theirs() -> CloudEvent:
    return CloudEvent(dict(ATTRIBUTES), {"n": 1})


def test_an_event_survives_the_way_there_and_back() -> None:
    there = from_sdk(theirs())
    assert there.attributes["time"] == "2026-01-01T12:00:00Z"
    assert there.data == b'{"n":1}'
    back = to_sdk(there)
    assert back.get_attributes() == ATTRIBUTES
    assert back.get_data() == {"n": 1}


@pytest.mark.parametrize("write", [to_binary, to_structured])
def test_we_read_what_the_sdk_writes(write) -> None:
    message = write(theirs(), JSONFormat())
    read = decode(CIMultiDict(message.headers), message.body)
    assert to_sdk(read).get_attributes() == ATTRIBUTES
    assert to_sdk(read).get_data() == {"n": 1}


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_the_sdk_reads_what_we_write(mode) -> None:
    message = encode(from_sdk(theirs()), mode)
    headers = {name.lower(): value for name, value in message.headers}
    read = from_http_event(HTTPMessage(headers, message.body))
    assert read.get_attributes() == ATTRIBUTES
    assert read.get_data() == {"n": 1}


@pytest.mark.parametrize(
    ("data", "content_type", "carried"),
    [(b"\x00\x01", "application/octet-stream", b"\x00\x01"), ("hi", "text/plain", b"hi")],
)
def test_data_that_is_no_json_is_carried_as_it_is(data, content_type, carried) -> None:
    event = from_sdk(CloudEvent({**ATTRIBUTES, "datacontenttype": content_type}, data))
    assert event.data == carried
    assert to_sdk(event).get_data() == carried


def test_an_invalid_event_is_refused_with_the_reason() -> None:
    class Loose:
        def get_attributes(self):
            return {"specversion": "1.0", "id": "1", "type": "t", "source": "/s", "BAD": "x"}

        def get_data(self):
            return None

    with pytest.raises(InvalidEvent, match="lower-case"):
        from_sdk(Loose())  # type: ignore[arg-type]


def test_our_events_without_data_stay_so() -> None:
    bare = Event({"specversion": "1.0", "id": "1", "type": "t", "source": "/s"})
    assert to_sdk(bare).get_data() is None
