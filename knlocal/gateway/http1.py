"""HTTP/1 heads and bodies as bytes: strict for requests (RFC 9112), forgiving for answers.

Whatever two readers could understand differently is refused, because a gateway that guesses is how
requests are smuggled: both Content-Length and Transfer-Encoding, folded lines, bare line feeds,
spaces before a colon, control bytes.

Python's own string methods do the work, so that all of the rules are here; a head that was seen
before costs one look-up, which is less than any parser's callbacks (benchmarks/README.md).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from collections.abc import Set as AbstractSet
from functools import lru_cache
from http import HTTPStatus
from typing import Final, Literal, NamedTuple

from multidict import CIMultiDict

MAX_REQUEST_LINE: Final = 32 * 1024
MAX_HEAD: Final = 64 * 1024
"""Envoy's order of magnitude (60 KiB); larger ones are answered 431 (414 for the request line)."""
_REMEMBERED: Final = 1024
"""Bytes of a head up to which its meaning is remembered."""
CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2

CONTENT_LENGTH: Final = "content-length"
TRANSFER_ENCODING: Final = "transfer-encoding"
CONNECTION: Final = "connection"
HOST: Final = "host"
EXPECT: Final = "expect"
UPGRADE: Final = "upgrade"
DATE: Final = "date"

HOP_BY_HOP: Final = frozenset(
    {
        CONNECTION,
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        TRANSFER_ENCODING,
        UPGRADE,
        "http2-settings",
    }
)
"""RFC 9110 7.6.1. "Trailer" is not among them: peers ignore trailers that were not announced."""

REASONS: Final = {status.value: status.phrase for status in HTTPStatus}

_SPECIAL: Final = HOP_BY_HOP | {CONTENT_LENGTH, HOST, EXPECT, DATE}

_USUAL: Final = {HOST, CONTENT_LENGTH, DATE}

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_REQUEST_LINE = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([^\x00-\x20\x7f]+) (HTTP/\d\.\d)")
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) +(\d{3})(?: +([^\r\n]*)| *)")
_HOST = re.compile(
    r"(\[[0-9A-Fa-f:.]+(?:%25[\w.~-]+)?\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::(\d{0,5}))?"
)
_ABSOLUTE = re.compile(r"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
BARE_LF = re.compile(rb"(?<!\r)\n")
_ANSWER_END = re.compile(rb"\r?\n\r?\n")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_DIGITS = re.compile(r"\d{1,18}", re.ASCII)
# All that may stand in a head: the rest (control bytes) must vanish when these are deleted.
_ALLOWED = bytes(b for b in range(256) if b in (9, 10, 13) or (b >= 32 and b != 127))
# What a name means here: itself in lower case when it is special, else "". Names in it proved to be
# tokens before, and a look-up is cheaper than a match. Bounded.
_MEANINGS: dict[str, str] = {}
_STATUS_LINES: dict[str, tuple[int, str, bool]] = {}
_HOSTS: dict[str, str] = {}

Pairs = list[tuple[str, str]]
Version = Literal["HTTP/1.0", "HTTP/1.1", "HTTP/2"]


class BadMessage(Exception):
    """What was received is not acceptable HTTP. `status` is the answer to the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class RequestHead(NamedTuple):
    method: str
    target: str
    """Origin form, or "*"."""
    version: Version
    names: tuple[str, ...]
    values: tuple[str, ...]
    """The fields as they came."""
    authority: str
    host: str
    length: int
    """Bytes of body; CHUNKED."""
    keep_alive: bool
    upgrade: str
    expects_continue: bool
    absolute: bool
    """The target came in absolute form: the client takes us for its proxy."""
    made: list[CIMultiDict[str]]
    """`headers`, once somebody wanted them."""

    @property
    def headers(self) -> CIMultiDict[str]:
        """Shared: not to be changed."""
        if not self.made:
            self.made.append(CIMultiDict(zip(self.names, self.values, strict=True)))
        return self.made[0]


class ResponseHead(NamedTuple):
    status: int
    reason: str
    headers: Pairs
    """End-to-end headers only, as the upstream spelled them. Shared: not to be changed."""
    length: int
    """Bytes of body; CHUNKED; UNTIL_CLOSE."""
    keep_alive: bool
    upgrade: str = ""
    raw: bytes = b""
    """The head as it came, with its empty line, when nobody needs to change anything in it."""


def check_unfinished_head(buffer: bytes) -> None:
    """Refuse what can no longer become a good request head, however it goes on."""
    if len(buffer) > MAX_REQUEST_LINE and b"\n" not in buffer[:MAX_REQUEST_LINE]:
        raise BadMessage(414, f"the request line is longer than {MAX_REQUEST_LINE} bytes")
    if len(buffer) > MAX_HEAD:
        raise BadMessage(431, f"the request headers are larger than {MAX_HEAD} bytes")
    if BARE_LF.search(buffer):
        raise BadMessage(400, "a line ends without a carriage return")


def parse_request_head(head: bytes) -> RequestHead:
    """`head` is everything before the empty line, without its CRLFCRLF. The result may be shared:
    copy its headers before changing them."""
    if len(head) > MAX_REQUEST_LINE:
        check_unfinished_head(head)
    elif head.startswith(b"POST"):
        # Rarely twice the same, but mostly with the same names.
        return _parse_known(head) or _parse_request(head)
    elif len(head) <= _REMEMBERED:
        return _remembered_request(head)
    return _parse_request(head)


class _Shape(NamedTuple):
    """What the names of a head's fields say: where the two special ones are that change nothing."""

    host: int
    length: int


#: By the names of the fields, as spelled. Bounded. Only for heads of HTTP/1.1 without other special
#: fields, whose names proved to be good.
_SHAPES: dict[tuple[str, ...], _Shape] = {}
#: Request lines of HTTP/1.1 in origin form that proved to be good: method and target.
_REQUEST_LINES: dict[str, tuple[str, str]] = {}
_TABS: Final = bytes(b for b in _ALLOWED if b != 9)


def _parse_known(head: bytes) -> RequestHead | None:
    """A head that differs from one parsed before only in values; None when it may be anything else.

    Whatever could be understood differently is left to `_parse_request`: names are compared up to
    ": ", values have no spaces around them, and there are no control bytes.
    """
    lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    start = _REQUEST_LINES.get(lines[0])
    if start is None or head.translate(None, _TABS) or b":  " in head or b" \r" in head:
        return None
    breaks = len(lines) - 1
    if not breaks or head.count(b"\n") != breaks or head.count(b"\r") != breaks:
        return None
    names, _, values = zip(*[line.partition(": ") for line in lines[1:]], strict=True)
    shape = _SHAPES.get(names)
    if shape is None or head[-1] == 32:
        return None
    authority = values[shape.host]
    host = _HOSTS.get(authority)
    if host is None:
        return None
    length = 0
    if shape.length >= 0:
        told = values[shape.length]
        if not _DIGITS.fullmatch(told):
            return None
        length = int(told)
    method, target = start
    return RequestHead(
        method, target, "HTTP/1.1", names, values, authority, host, length,
        True, "", False, False, [],
    )  # fmt: skip


def _remember_shape(head: RequestHead, line: str, special: AbstractSet[str]) -> None:
    if head.version != "HTTP/1.1" or head.absolute or not special <= _USUAL:
        return
    lower = [name.lower() for name in head.names]
    if lower.count(CONTENT_LENGTH) > 1 or head.target[0] != "/":
        return
    for known in (_SHAPES, _REQUEST_LINES):
        if len(known) >= 512:
            known.clear()
    length = lower.index(CONTENT_LENGTH) if CONTENT_LENGTH in lower else -1
    _SHAPES[head.names] = _Shape(lower.index(HOST), length)
    _REQUEST_LINES[line] = head.method, head.target


def _parse_request(head: bytes) -> RequestHead:
    lines = lines_of(head)
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise BadMessage(400, "malformed request line")
    method, target, spoken = match.groups()
    version: Version = "HTTP/1.1"
    if spoken != version:
        if spoken[5] != "1":
            raise BadMessage(505, f"{spoken} is not spoken here; HTTP/1.1 and HTTP/2 are")
        if spoken == "HTTP/1.0":
            version = "HTTP/1.0"
    pairs, special = fields_of(lines, 1)
    keep_alive = version == "HTTP/1.1"
    authority = host = upgrade = ""
    length = 0
    expects_continue = absolute = False
    if CONNECTION in special:
        options = tokens(special[CONNECTION])
        keep_alive = "close" not in options and (keep_alive or "keep-alive" in options)
        if UPGRADE in options:
            upgrade = special.get(UPGRADE, "")
    if HOST in special:
        authority = special[HOST]
        host = _HOSTS.get(authority) or _checked_host(authority)
    elif version == "HTTP/1.1":
        raise BadMessage(400, "the Host header is missing")
    if target[0] != "/":
        target, authority, host, absolute = _other_form(method, target, authority, host)
    if TRANSFER_ENCODING in special:
        _check_transfer_encoding(special, version)
        length = CHUNKED
    elif CONTENT_LENGTH in special:
        length = _content_length(special[CONTENT_LENGTH], pairs, 400)
    if EXPECT in special:
        expects_continue = special[EXPECT].lower() == "100-continue" and version == "HTTP/1.1"
    found = RequestHead(
        method, target, version, *_split(pairs), authority, host, length,
        keep_alive, upgrade, expects_continue, absolute, [],
    )  # fmt: skip
    if method == "POST" and len(head) <= _REMEMBERED:
        _remember_shape(found, lines[0], special.keys())
    return found


def _split(pairs: Pairs) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple([name for name, _ in pairs]), tuple([value for _, value in pairs])


def parse_response_head(data: bytes, method: str) -> tuple[ResponseHead, bytes] | None:
    """The head at the start of `data` and what follows it; None when it is not complete yet."""
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        end = _ANSWER_END.search(data)
        if end is None:
            if len(data) > 4 * MAX_HEAD:
                raise BadMessage(502, "the response headers are too large")
            return None
        head, rest = data[: end.start()], data[end.end() :]
    if len(head) <= _REMEMBERED:
        return _remembered_response(head, method), rest
    return _parse_response(head, method), rest


def _parse_response(head: bytes, method: str) -> ResponseHead:
    try:
        lines = lines_of(head)
        pairs, special = fields_of(lines, 1)
        tidied = False
    except BadMessage:
        # Folded lines and bare line feeds are known from old servers, and harmless in an answer.
        tidied = True
        lines = lines_of(_FOLD.sub(b" ", head).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
        pairs, special = fields_of(lines, 1)
    status, reason, keep_alive = _STATUS_LINES.get(lines[0]) or _status_line(lines[0])
    upgrade = ""
    dropped: Collection[str] = HOP_BY_HOP
    if CONNECTION in special:
        options = tokens(special[CONNECTION])
        keep_alive = "close" not in options and (keep_alive or "keep-alive" in options)
        dropped = HOP_BY_HOP | options
    if method == "HEAD" or status < 200 or status == 204 or status == 304:
        length = 0
    elif TRANSFER_ENCODING in special:
        length = CHUNKED
        if special[TRANSFER_ENCODING].lower() != "chunked":
            raise BadMessage(502, f"unknown Transfer-Encoding {special[TRANSFER_ENCODING]!r:.40}")
        if CONTENT_LENGTH in special:
            # Whoever sends both may be smuggling: believe neither for the next answer.
            keep_alive = False
            dropped = {*dropped, CONTENT_LENGTH}
    elif CONTENT_LENGTH in special:
        length = _content_length(special[CONTENT_LENGTH], pairs, 502)
    else:
        length = UNTIL_CLOSE
        keep_alive = False
    if UPGRADE in special:
        upgrade = special[UPGRADE]
    raw = b""
    if len(special) > (CONTENT_LENGTH in special) + (DATE in special):
        pairs = [pair for pair in pairs if pair[0].lower() not in dropped]
    elif not tidied and DATE in special and length > 0 and head.startswith(b"HTTP/1.1"):
        raw = head + b"\r\n\r\n"
    return ResponseHead(status, reason, pairs, length, keep_alive, upgrade, raw)


# Clients and servers mostly repeat the same few heads (a Date changes once a second), and parsing
# is most of what a short request costs here. Long heads are rarely repeated, and would take memory.
_remembered_request = lru_cache(maxsize=512)(_parse_request)
_remembered_response = lru_cache(maxsize=512)(_parse_response)


def tokens(value: str) -> set[str]:
    """The members of a comma-separated list, lower case."""
    return {part.strip().lower() for part in value.split(",")}


def split_host(authority: str) -> str | None:
    """The lower-case host of "host:port", without a trailing dot; None when it is malformed."""
    match = _HOST.fullmatch(authority)
    if match is None:
        return None
    return match[1].lower().removesuffix(".")


def encode_head(lines: list[str]) -> bytes:
    """Bytes of a head from its lines (each without CRLF), with the empty line."""
    text = "\r\n".join(lines) + "\r\n\r\n"
    if text.count("\n") != len(lines) + 1 or text.count("\r") != len(lines) + 1:
        raise ValueError("a header contains a line break")
    return text.encode("utf-8", "surrogateescape")


def lines_of(head: bytes) -> list[str]:
    lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    breaks = len(lines) - 1
    if head.translate(None, _ALLOWED):
        raise BadMessage(400, "a header contains control bytes")
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks:
        raise BadMessage(400, "a header contains a bare CR or LF")
    return lines


def fields_of(lines: list[str], first: int) -> tuple[Pairs, dict[str, str]]:
    """The header lines from `first` on as pairs, and the special ones by lower-case name (several
    of one name joined by commas)."""
    pairs = []
    special: dict[str, str] = {}
    for line in lines[first:] if first else lines:
        name, colon, value = line.partition(":")
        meaning = _MEANINGS.get(name)
        if meaning is None:
            meaning = _meaning(name)
        if not colon:
            raise BadMessage(400, f"header line without a colon: {name[:60]!r}")
        value = value.strip(" \t")
        pairs.append((name, value))
        if meaning:
            if meaning in special:
                if meaning == HOST:
                    raise BadMessage(400, "more than one Host header")
                value = f"{special[meaning]}, {value}"
            special[meaning] = value
    return pairs, special


def _meaning(name: str) -> str:
    if name[:1] in (" ", "\t"):
        raise BadMessage(400, "folded header lines are not accepted")
    if not _TOKEN.fullmatch(name):
        raise BadMessage(400, f"malformed header name: {name[:60]!r}")
    lower = name.lower()
    meaning = lower if lower in _SPECIAL else ""
    if len(_MEANINGS) < 2048 and len(name) < 64:
        _MEANINGS[name] = meaning
    return meaning


def _checked_host(authority: str) -> str:
    host = split_host(authority)
    if host is None:
        raise BadMessage(400, f"malformed Host header: {authority[:100]!r}")
    if len(_HOSTS) >= 2048:
        _HOSTS.clear()
    _HOSTS[authority] = host
    return host


def _status_line(line: str) -> tuple[int, str, bool]:
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise BadMessage(502, "malformed status line")
    found = int(match[2]), match[3] or "", match[1] == "1"
    if len(_STATUS_LINES) < 256:
        _STATUS_LINES[line] = found
    return found


def _other_form(method: str, target: str, authority: str, host: str) -> tuple[str, str, str, bool]:
    """Absolute form (RFC 9112 3.2.2: its authority replaces Host) and "*"."""
    if target == "*" and method == "OPTIONS":
        return target, authority, host, False
    match = _ABSOLUTE.fullmatch(target)
    if match is not None:
        named = split_host(match[2])
        if named is None:
            raise BadMessage(400, f"malformed authority in the target: {match[2][:100]!r}")
        rest = match[3].partition("#")[0]
        return rest if rest.startswith("/") else "/" + rest, match[2], named, True
    if method == "CONNECT":
        raise BadMessage(405, "CONNECT is not offered here: use the plain http:// address")
    raise BadMessage(400, "malformed request target")


def _check_transfer_encoding(special: dict[str, str], version: str) -> None:
    if CONTENT_LENGTH in special:
        raise BadMessage(400, "both Content-Length and Transfer-Encoding are present")
    if version == "HTTP/1.0":
        raise BadMessage(400, "Transfer-Encoding is not part of HTTP/1.0")
    if special[TRANSFER_ENCODING].lower() != "chunked":
        raise BadMessage(501, "the only Transfer-Encoding known here is chunked")


def _content_length(value: str, pairs: Pairs, status: int) -> int:
    if "," in value:
        distinct = {part.strip() for part in value.split(",")}
        if len(distinct) != 1:
            raise BadMessage(status, "Content-Length headers differ")
        value = distinct.pop()
        pairs[:] = [pair for pair in pairs if pair[0].lower() != CONTENT_LENGTH]
        pairs.append(("Content-Length", value))
    if not _DIGITS.fullmatch(value):
        raise BadMessage(status, f"malformed Content-Length {value[:40]!r}")
    return int(value)
