from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knlocal.gateway.chunked import ChunkedDecoder
from knlocal.gateway.http1 import (
    BadMessage,
    RequestHead,
    _parse_request,
    check_unfinished_head,
    encode_head,
    parse_request_head,
    parse_response_head,
    split_host,
)

PIECES = st.lists(st.binary(min_size=1, max_size=50), max_size=8)
CUTS = st.lists(st.integers(min_value=0, max_value=600), max_size=12)
NOISE = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from(
            [
                b"GET ",
                b"/",
                b" HTTP/1.1",
                b"\r\n",
                b"\n",
                b"\r",
                b"Host: a",
                b":",
                b" ",
                b"\x00",
                b"Content-Length: 5",
                b"Transfer-Encoding: chunked",
                b"0",
                b"5\r\nabcde\r\n",
            ]
        ),
    ),
    max_size=20,
).map(b"".join)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(position, len(data)) for position in at), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(PIECES, CUTS, st.booleans())
def test_a_chunked_body_is_the_same_however_it_arrives(
    pieces: list[bytes], at: list[int], trailers: bool
) -> None:
    end = b"0\r\nX-Sum: 1\r\n\r\n" if trailers else b"0\r\n\r\n"
    wire = b"".join(b"%x;a=b\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end + b"NEXT"
    decoder = ChunkedDecoder()
    body, rest = b"", b""
    for part in cut(wire, at):
        if decoder.done:
            rest += part
        else:
            body += b"".join(decoder.feed(part))
    assert decoder.done
    assert body == b"".join(pieces)
    assert decoder.rest + rest == b"NEXT"
    assert (decoder.trailers is not None) == trailers


@given(NOISE)
def test_noise_is_parsed_or_refused_but_never_anything_else(noise: bytes) -> None:
    refusals: list[BadMessage] = []
    for attempt in (
        lambda: parse_request_head(noise),
        lambda: check_unfinished_head(noise),
        lambda: parse_response_head(noise, "GET"),
        lambda: ChunkedDecoder().feed(noise),
    ):
        try:
            attempt()
        except BadMessage as bad:
            refusals.append(bad)
    assert all(bad.status >= 400 and str(bad) for bad in refusals)


@given(NOISE)
def test_an_accepted_head_can_be_sent_on_and_means_the_same(noise: bytes) -> None:
    try:
        head = parse_request_head(b"GET / HTTP/1.1\r\nHost: a\r\n" + noise)
    except BadMessage:
        return
    lines = ["GET / HTTP/1.1", *(f"{name}: {value}" for name, value in head.headers.items())]
    again = parse_request_head(encode_head(lines)[:-4])
    assert list(again.headers.items()) == list(head.headers.items())
    assert again.length == head.length


VALUES = st.one_of(
    st.sampled_from(
        ["", " ", "a", " a", "a ", "a\t", "a: b", "5", "5, 5", "5, 6", "chunked", "x\r"]
    ),
    st.text(max_size=8),
)


@given(st.lists(st.tuples(st.sampled_from(["ce-id", "Ce-Type", "X", "X "]), VALUES), max_size=4),
       VALUES, st.sampled_from([": ", ":", " : "]), st.booleans())  # fmt: skip
def test_a_head_whose_names_are_known_means_what_it_would_anew(
    fields: list[tuple[str, str]], length: str, colon: str, early: bool
) -> None:
    def head(fields: list[tuple[str, str]], length: str, colon: str) -> bytes:
        lines = [f"{name}{colon}{value}" for name, value in fields]
        lines.insert(0 if early else len(lines), f"Content-Length{colon}{length}")
        text = "\r\n".join(["POST /a/b?c HTTP/1.1", "Host: a", *lines])
        return text.encode("utf-8", "surrogatepass")

    def meaning(parse: Callable[[bytes], RequestHead], data: bytes) -> object:
        try:
            return parse(data)
        except BadMessage as bad:
            return str(bad)

    meaning(parse_request_head, head([(name.strip(), "v") for name, _ in fields], "1", ": "))
    data = head(fields, length, colon)
    assert meaning(parse_request_head, data) == meaning(_parse_request, data)


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("App.Example", "app.example"),
        ("app.example:8080", "app.example"),
        ("app.example.:80", "app.example"),
        ("app.example:", "app.example"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:8080", "[::1]"),
        ("[FE80::1%25eth0]", "[fe80::1%25eth0]"),
        ("under_score.example", "under_score.example"),
        ("", None),
        (":80", None),
        ("a b", None),
        ("a/b", None),
        ("a@b", None),
        ("[::1", None),
        ("a:123456", None),
        ("ä.example", None),
    ],
)
def test_the_host_of_an_authority(authority: str, host: str | None) -> None:
    assert split_host(authority) == host


def test_a_remembered_head_is_not_changed_by_its_users() -> None:
    first = parse_request_head(b"GET / HTTP/1.1\r\nHost: a")
    copy = first.headers.copy()
    copy["X-Mine"] = "1"
    assert "X-Mine" not in parse_request_head(b"GET / HTTP/1.1\r\nHost: a").headers
