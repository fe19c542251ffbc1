"""The HTTP binding: CloudEvents' conformance feature, and the specification's sentences."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from knlocal.events import Event, InvalidEvent, decode, encode, has_event
from knlocal.events.http import decode_batch, decode_header, encode_batch, encode_header

BINARY = {
    "ce-specversion": "1.0",
    "ce-type": "com.example.someevent",
    "ce-id": "1234-1234-1234",
    "ce-source": "/mycontext/subcontext",
}


def parse(text: str) -> tuple[CIMultiDict[str], bytes]:
    """A request as the conformance feature writes it down."""
    head, _, body = text.strip().partition("\n\n")
    headers = CIMultiDict(
        tuple(part.strip() for part in line.split(":", 1)) for line in head.splitlines()[1:]
    )
    return headers, body.encode()


class TestConformanceFeature:
    """`http-protocol-binding.feature` of github.com/cloudevents/conformance (Apache-2.0)."""

    ATTRIBUTES = {
        "id": "1234-1234-1234",
        "specversion": "1.0",
        "type": "com.example.someevent",
        "source": "/mycontext/subcontext",
        "time": "2018-04-05T03:56:24Z",
    }

    @pytest.mark.parametrize(
        "content_type", ["application/json", "application/json; charset=utf-8"]
    )
    def test_binary_content_mode(self, content_type: str) -> None:
        event = decode(
            *parse(f"""
POST /someresource HTTP/1.1
Host: example.com
ce-specversion: 1.0
ce-type: com.example.someevent
ce-time: 2018-04-05T03:56:24Z
ce-id: 1234-1234-1234
ce-source: /mycontext/subcontext
Content-Type: {content_type}
Content-Length: 33

{{
    "message": "Hello World!"
}}""")
        )
        assert event.attributes == {**self.ATTRIBUTES, "datacontenttype": content_type}
        assert json.loads(event.data or b"") == {"message": "Hello World!"}

    @pytest.mark.parametrize(
        "content_type",
        ["application/cloudevents+json", "application/cloudevents+json; charset=utf-8"],
    )
    def test_structured_content_mode(self, content_type: str) -> None:
        event = decode(
            *parse(f"""
POST /someresource HTTP/1.1
Host: example.com
Content-Type: {content_type}
Content-Length: 266

{{
    "specversion": "1.0",
    "type": "com.example.someevent",
    "time": "2018-04-05T03:56:24Z",
    "id": "1234-1234-1234",
    "source": "/mycontext/subcontext",
    "datacontenttype": "application/json",
    "data": {{
        "message": "Hello World!"
    }}
}}""")
        )
        assert event.attributes == {**self.ATTRIBUTES, "datacontenttype": "application/json"}
        assert json.loads(event.data or b"") == {"message": "Hello World!"}


def structured(**document: Any) -> tuple[CIMultiDict[str], bytes]:
    base = {"specversion": "1.0", "type": "t", "id": "i", "source": "/s"}
    headers = CIMultiDict({"Content-Type": "application/cloudevents+json"})
    return headers, json.dumps({**base, **document}).encode()


def binary(**headers: str) -> CIMultiDict[str]:
    extra = {name.replace("_", "-"): value for name, value in headers.items()}
    return CIMultiDict({**BINARY, **extra})


def test_extensions_keep_their_type_through_structured_mode() -> None:
    event = decode(*structured(flag=True, number=-5, text="x", unset=None))
    assert event.attributes["flag"] is True
    assert event.attributes["number"] == -5
    assert "unset" not in event.attributes
    sent = json.loads(encode(event).body)
    assert (sent["flag"], sent["number"], sent["text"]) == (True, -5, "x")


def test_extensions_become_canonical_strings_in_binary_mode() -> None:
    message = encode(decode(*structured(flag=True, number=-5)), "binary")
    headers = CIMultiDict(message.headers)
    assert (headers["ce-flag"], headers["ce-number"]) == ("true", "-5")


@pytest.mark.parametrize(
    ("document", "body", "content_type"),
    [
        ({"data": {"a": [1, 2.5, None]}}, b'{"a":[1,2.5,null]}', "application/json"),
        ({"data": "text"}, b'"text"', "application/json"),
        ({"data": None}, b"null", "application/json"),
        ({"data": 12345678901234567890123}, b"12345678901234567890123", "application/json"),
        ({"data": "<x/>", "datacontenttype": "application/xml"}, b"<x/>", "application/xml"),
        ({"data": "p", "datacontenttype": "application/a+json"}, b'"p"', "application/a+json"),
        ({"data_base64": "AP8="}, b"\x00\xff", None),
        ({"data_base64": "AP8=", "datacontenttype": "a/b"}, b"\x00\xff", "a/b"),
        ({}, b"", None),
    ],
)
def test_structured_data_becomes_the_body_in_binary_mode(
    document: dict[str, Any], body: bytes, content_type: str | None
) -> None:
    message = encode(decode(*structured(**document)), "binary")
    assert (message.body, CIMultiDict(message.headers).get("content-type")) == (body, content_type)


@pytest.mark.parametrize(
    "document",
    [
        {"data": {"a": [1, 2.5, None]}, "datacontenttype": "application/json"},
        {"data": "<x/>", "datacontenttype": "application/xml"},
        {"data_base64": "AP8="},
        {"data": 12345678901234567890123, "datacontenttype": "application/json"},
        {},
    ],
)
def test_structured_mode_survives_a_hop_unchanged(document: dict[str, Any]) -> None:
    headers, body = structured(**document)
    assert json.loads(encode(decode(headers, body)).body) == json.loads(body)


@pytest.mark.parametrize(
    ("content_type", "body", "member"),
    [
        ("application/json", b'{"a": 1}', {"data": {"a": 1}}),
        ("application/json", b"{no json", {"data_base64": "e25vIGpzb24="}),
        ("text/plain", "é".encode(), {"data": "é"}),
        ("text/plain", b"\xff", {"data_base64": "/w=="}),
        ("application/octet-stream", b"\x00", {"data_base64": "AA=="}),
        (None, b"x", {"data_base64": "eA=="}),
    ],
)
def test_a_binary_body_becomes_data_in_structured_mode(
    content_type: str | None, body: bytes, member: dict[str, Any]
) -> None:
    headers = binary(**({"content_type": content_type} if content_type else {}))
    sent = json.loads(encode(decode(headers, body), "structured").body)
    assert {k: v for k, v in sent.items() if k.startswith("data") and k[4:5] != "c"} == member


def test_version_0_3_is_carried_unchanged() -> None:
    event = decode(*structured(specversion="0.3", schemaurl="/schema", data="x"))
    assert event.attributes["specversion"] == "0.3"
    assert CIMultiDict(encode(event, "binary").headers)["ce-schemaurl"] == "/schema"
    base64 = decode(*structured(specversion="0.3", datacontentencoding="base64", data="AP8="))
    assert base64.data == b"\x00\xff"
    assert json.loads(encode(base64).body)["datacontentencoding"] == "base64"


@pytest.mark.parametrize(
    ("sent", "means"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%e2%82%ac", "€"),
        ("%41b", "Ab"),
        ('"quoted \\"text\\" %20"', 'quoted "text"  '),
        ("100%25", "100%"),
        ('"', '"'),
    ],
)
def test_header_values_are_unquoted_and_percent_decoded(sent: str, means: str) -> None:
    assert decode_header(sent) == means


def test_escapes_in_a_header_go_on_as_they_came() -> None:
    sent = {"ce-subject": "Euro%20%e2%82%ac", "ce-ext": "%41b", "ce-source": "/a%2Fb"}
    event = decode(CIMultiDict({**BINARY, **sent}), b"")
    assert event.attributes["subject"] == "Euro €"
    assert (event.attributes["ext"], event.attributes["source"]) == ("Ab", "/a/b")
    changed = event.with_attributes({"subject": "€", "other": "a b"})
    passed_on = CIMultiDict(encode(changed, "binary").headers)
    assert (passed_on["ce-ext"], passed_on["ce-source"]) == ("%41b", "/a%2Fb")
    assert (passed_on["ce-subject"], passed_on["ce-other"]) == ("%E2%82%AC", "a%20b")
    assert json.loads(encode(event, "structured").body)["subject"] == "Euro €"


def test_a_uri_that_is_sent_as_it_is_keeps_its_escapes() -> None:
    event = decode(CIMultiDict({**BINARY, "ce-source": "/caf%C3%A9/a%20b"}), b"")
    assert event.source == "/caf%C3%A9/a%20b"
    assert CIMultiDict(encode(event, "binary").headers)["ce-source"] == "/caf%C3%A9/a%20b"


def test_header_values_are_percent_encoded() -> None:
    assert encode_header('Euro € "😀"%') == "Euro%20%E2%82%AC%20%22%F0%9F%98%80%22%25"
    assert encode_header("plain!#$&'()*+,-./:;<=>?@[\\]^_`{|}~") == (
        "plain!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
    )


@given(st.text(min_size=1))
def test_any_text_survives_a_header(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    assert decode_header(encode_header(text)) == text


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        (binary(ce_id=""), "id: MUST be a non-empty string"),
        (binary(ce_specversion="2.0"), 'specversion: unknown value "2.0"'),
        (binary(ce_time="yesterday"), "time: MUST be a timestamp (RFC 3339)"),
        (binary(ce_time="2018-02-30T00:00:00Z"), "time: MUST be a timestamp (RFC 3339)"),
        (binary(ce_source="a b"), "source: MUST be a URI-reference"),
        (binary(ce_source="%zz"), "source: MUST be a URI-reference"),
        (binary(ce_dataschema="/relative"), "dataschema: MUST be an absolute URI"),
        (binary(ce_subject=""), "subject: MUST be a non-empty string"),
        (binary(**{"ce-my_ext": "x"}), '"my-ext": names MUST consist'),
        (binary(ce_data="x"), "data: MUST NOT be used"),
        (binary(ce_ext="%C0%A0"), "ext: "),
        (binary(ce_ext="a%0Ab"), "ext: MUST NOT contain control characters"),
        (binary(ce_datacontenttype="a/b"), "ce-datacontenttype MUST NOT be present"),
        (binary(content_type=";"), "datacontenttype: MUST be a media type"),
        (CIMultiDict({"ce-specversion": "1.0"}), "id: REQUIRED, and missing; source: REQUIRED"),
        (CIMultiDict({"content-type": "application/json"}), "not a CloudEvent"),
        (CIMultiDict({"content-type": "application/cloudevents+avro"}), "is not supported"),
        (CIMultiDict({"content-type": "application/cloudevents-batch+json"}), "a batch"),
    ],
)
def test_an_invalid_binary_event_is_refused_with_the_reason(
    headers: CIMultiDict[str], says: str
) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode(headers, b"")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"id": None}, "id: REQUIRED, and missing"),
        ({"id": 5}, "id: MUST be a string"),
        ({"ext": 1.5}, "ext: MUST be a string, a boolean or an integer"),
        ({"ext": {"a": 1}}, "ext: MUST be a string, a boolean or an integer"),
        ({"ext": 2**31}, "ext: integers MUST fit into 32 bits"),
        ({"Ext": "x"}, '"Ext": names MUST consist'),
        ({"data": 1, "data_base64": "AA=="}, "MUST NOT both be present"),
        ({"data_base64": "%"}, "data_base64: MUST be a base64 string"),
        ({"specversion": "0.3", "datacontentencoding": "gzip"}, "only base64"),
    ],
)
def test_an_invalid_structured_event_is_refused_with_the_reason(
    document: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode(*structured(**document))
    assert says in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000])
def test_a_structured_body_must_be_a_json_object(body: bytes) -> None:
    with pytest.raises(InvalidEvent, match="JSON"):
        decode(CIMultiDict({"Content-Type": "application/cloudevents+json"}), body)


@pytest.mark.parametrize(
    "time", ["2018-04-05T17:31:00Z", "2018-04-05t17:31:00.123456789z", "2016-12-31T23:59:60+02:00"]
)
def test_rfc_3339_times_pass(time: str) -> None:
    assert decode(binary(ce_time=time), b"").attributes["time"] == time


def test_batches_are_read_and_written() -> None:
    events = [decode(*structured(id=str(n), data=n)) for n in range(3)]
    message = encode_batch(events)
    assert decode_batch(CIMultiDict(message.headers), message.body) == events
    assert decode_batch(binary(), b"x")[0].data == b"x"
    with pytest.raises(InvalidEvent, match="event 1 of the batch: id: REQUIRED"):
        decode_batch(
            CIMultiDict(message.headers),
            b'[%s, {"specversion": "1.0"}]' % message.body[1:-1].split(b",{")[0],
        )


def test_what_carries_an_event_is_told_by_its_headers() -> None:
    assert has_event(CIMultiDict({"Ce-Specversion": "1.0"}))
    assert has_event(CIMultiDict({"Content-Type": "application/cloudevents+json"}))
    assert not has_event(CIMultiDict({"Content-Type": "application/json"}))


SDK_EVENT = CloudEvent(
    {"id": "i", "source": "/s p€".replace(" ", "%20"), "type": "t", "subject": 'a "b" 100% €',
     "datacontenttype": "application/json", "ext": "v"},
    {"x": 1},
)  # fmt: skip


@pytest.mark.parametrize("write", [to_binary, to_structured])
@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_the_cloudevents_sdk_agrees(write: Any, mode: Any) -> None:
    """An independent implementation reads what we write, and we read what it writes."""
    message = write(SDK_EVENT, JSONFormat())
    event = decode(CIMultiDict(message.headers), message.body)
    again = encode(event, mode)
    headers = {name.lower(): value for name, value in again.headers}
    read = from_http(HTTPMessage(headers, again.body), JSONFormat())
    before, after = SDK_EVENT.get_attributes(), read.get_attributes()
    assert {**after, "time": 0} == {**before, "time": 0}
    assert read.get_data() == {"x": 1}


def test_a_copy_with_other_attributes_leaves_the_event_alone() -> None:
    event = Event({"id": "1", "ext": "a"}, b"x")
    copy = event.with_attributes({"ext": None, "other": 1})
    assert copy.attributes == {"id": "1", "other": 1}
    assert event.attributes == {"id": "1", "ext": "a"}
