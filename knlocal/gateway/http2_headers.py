"""Header blocks, without paying for compression that nobody needs on one machine.

The `hpack` library's encoder and decoder take most of the time of a gRPC call through the gateway.
These two do the same with less: the encoder uses the static table and plain literals only, and the
decoder remembers what a block meant for as long as the dynamic table stands still (the calls of one
client mostly repeat the same block). Together they save a fifth of a call (benchmarks/README.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from hpack import Decoder, Encoder, HeaderTuple
from hpack.hpack import encode_integer
from hpack.table import HeaderTable

_REMEMBERED_BLOCKS: Final = 64
_REMEMBERED_NAMES: Final = 1024

_STATIC_PAIRS: Final = {
    pair: bytes([0x80 | index]) for index, pair in enumerate(HeaderTable.STATIC_TABLE, 1) if pair[1]
}
_STATIC_NAMES: Final = {
    pair[0]: index for index, pair in reversed(list(enumerate(HeaderTable.STATIC_TABLE, 1)))
}
_name_prefixes: dict[bytes, bytes] = {}


class PlainEncoder(Encoder):
    """Literals without indexing (RFC 7541 6.2.2): no state, no search, no Huffman code."""

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        parts = []
        if self.header_table.resized:
            parts.append(self._encode_table_size_change())
            self.header_table.resized = False
        for pair in headers:
            found = _STATIC_PAIRS.get(pair)
            if found is not None:
                parts.append(found)
                continue
            name, value = pair
            prefix = _name_prefixes.get(name) or _name_prefix(name)
            size = len(value)
            length = bytes((size,)) if size < 127 else bytes(encode_integer(size, 7))
            parts += (prefix, length, value)
        return b"".join(parts)


def _name_prefix(name: bytes) -> bytes:
    index = _STATIC_NAMES.get(name)
    if index is not None:
        prefix = bytes(encode_integer(index, 4))
    else:
        prefix = b"\x00" + bytes(encode_integer(len(name), 7)) + name
    if len(_name_prefixes) < _REMEMBERED_NAMES and len(name) < 64:
        _name_prefixes[name] = prefix
    return prefix


class RememberingDecoder(Decoder):
    """What a block decodes to depends on the dynamic table only: the same until that changes."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[bytes, list[HeaderTuple]] = {}
        self._table = _WatchedTable(self._known)
        self.header_table = self._table

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        data = bytes(data)
        known = self._known.get(data)
        if known is not None:
            return list(known)
        before = self._table.changes
        decoded = list(super().decode(data, raw))
        if self._table.changes == before and len(data) < 1024 and len(decoded) < 64:
            if len(self._known) >= _REMEMBERED_BLOCKS:
                self._known.clear()
            self._known[data] = decoded
        return list(decoded)


class _WatchedTable(HeaderTable):
    """A dynamic table that forgets remembered blocks whenever it changes."""

    def __init__(self, known: dict[bytes, list[HeaderTuple]]) -> None:
        self._known = known
        self.changes = 0
        super().__init__()

    def add(self, name: bytes, value: bytes) -> None:
        self._changed()
        super().add(name, value)

    def _shrink(self) -> None:
        self._changed()
        super()._shrink()

    def _changed(self) -> None:
        self.changes += 1
        self._known.clear()
