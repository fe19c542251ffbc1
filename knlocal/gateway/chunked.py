"""Bodies in chunks (RFC 9112 7.1), strictly: where two readers could disagree there is no body."""

from __future__ import annotations

import re
from typing import Final

from multidict import CIMultiDict

from knlocal.gateway.http1 import BARE_LF, DATE, MAX_HEAD, BadMessage, fields_of, lines_of

MAX_CHUNK_LINE: Final = 4 * 1024
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")


class ChunkedDecoder:
    """Takes bytes of a chunked body, gives back its data; `done` once the trailers are in."""

    __slots__ = ("_buffer", "_left", "_state", "done", "rest", "trailers")

    def __init__(self) -> None:
        self._buffer = b""
        self._state = "size"
        self._left = 0
        self.done = False
        self.rest = b""
        """What follows the body, once `done`."""
        self.trailers: CIMultiDict[str] | None = None

    def feed(self, data: bytes) -> list[bytes]:
        """Raises BadMessage (400) when the framing is broken."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        pieces = []
        position = 0
        while True:
            if self._state == "data":
                piece = data[position : position + self._left]
                if piece:
                    pieces.append(piece)
                    position += len(piece)
                    self._left -= len(piece)
                if self._left:
                    return pieces
                self._state = "end"
            if self._state == "end":
                if len(data) - position < 2:
                    self._buffer = data[position:]
                    return pieces
                if data[position : position + 2] != b"\r\n":
                    raise BadMessage(400, "a chunk is longer than its size says")
                position += 2
                self._state = "size"
            if self._state == "size":
                end = data.find(b"\r\n", position)
                if end < 0 or end - position > MAX_CHUNK_LINE:
                    return self._wait(data[position:], pieces)
                match = _CHUNK_LINE.fullmatch(data, position, end)
                if match is None:
                    raise BadMessage(400, "malformed chunk size")
                self._left = int(match[1], 16)
                position = end + 2
                self._state = "data" if self._left else "trailers"
            if self._state == "trailers":
                self._trailers(data[position:])
                return pieces

    def _wait(self, line: bytes, pieces: list[bytes]) -> list[bytes]:
        if len(line) > MAX_CHUNK_LINE or b"\n" in line:
            raise BadMessage(400, "malformed chunk size")
        self._buffer = line
        return pieces

    def _trailers(self, data: bytes) -> None:
        if data[:2] == b"\r\n":
            self.rest = data[2:]
            self.done = True
            return
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            if len(data) > MAX_HEAD:
                raise BadMessage(431, "the trailers are too large")
            if BARE_LF.search(data):
                raise BadMessage(400, "a trailer line ends without a carriage return")
            self._buffer = data
            return
        pairs, special = fields_of(lines_of(head), 0)
        for name in special.keys() - {DATE}:
            raise BadMessage(400, f"{name} is not allowed as a trailer")
        self.trailers = CIMultiDict(pairs)
        self.rest = rest
        self.done = True
