"""Reads what a Go program carries about its Kubernetes types: protobuf descriptors, struct tags.

The layouts are those of Go's `internal/abi` (Type, StructType, StructField, Name), which the
runtime's reflection relies on; 64-bit little-endian programs at fixed addresses only (Linux amd64
releases of kubectl are).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2

_GZIP = b"\x1f\x8b\x08\x00\x00\x00\x00\x00"


def file_descriptors(binary: bytes) -> Iterator[Any]:
    """The embedded `FileDescriptorProto`s of Kubernetes' generated.proto files."""
    for found in re.finditer(re.escape(_GZIP), binary):
        try:
            raw = zlib.decompressobj(31).decompress(binary[found.start() : found.start() + 400_000])
        except zlib.error:
            continue
        if b"generated.proto" not in raw[:200]:
            continue
        file = descriptor_pb2.FileDescriptorProto()
        file.ParseFromString(raw)
        yield file


def pointer_fields(binary: bytes) -> dict[str, frozenset[str]]:
    """Per message ("k8s.io.api.core.v1.PodSpec") the JSON names of fields that are pointers in Go:
    for them a zero on the wire was meant, for others it is the absence of a value."""
    found: dict[str, frozenset[str]] = {}
    for name, fields in _Types(binary).structs():
        pointers = {_json_name(tag) for tag, is_pointer in fields if is_pointer}
        found.setdefault(name, frozenset(pointers))
    return found


def _json_name(tag: str) -> str:
    found = re.search(r'json:"([^",]*)', tag)
    return found.group(1) if found else ""


_STRUCT, _POINTER = 25, 22
_TYPE_SIZE = 48
_TFLAG_UNCOMMON = 1


class _Types:
    """The run-time type information of a Go program."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._sections = self._read_sections()
        #: Names and types are addressed relative to where read-only data begins.
        self._base = self._sections[".rodata"][0]

    def structs(self) -> Iterator[tuple[str, list[tuple[str, bool]]]]:
        """Named struct types with protobuf tags: (full name, [(tag, whether a pointer)])."""
        _, at, size = self._sections[".typelink"]
        for (offset,) in struct.iter_unpack("<i", self._data[at : at + size]):
            pointer = self._base + offset
            if self._kind(pointer) != _POINTER:
                continue
            element = self._word(pointer + _TYPE_SIZE)
            if self._kind(element) == _STRUCT and self._flags(element) & _TFLAG_UNCOMMON:
                fields = self._fields(element)
                if any("protobuf:" in tag for tag, _ in fields):
                    yield self._full_name(element), fields

    def _fields(self, type_: int) -> list[tuple[str, bool]]:
        first, count = self._word(type_ + 56), self._word(type_ + 64)
        found = []
        for index in range(count):
            name, field_type = (self._word(first + 24 * index + 8 * part) for part in (0, 1))
            found.append((self._tag(name), self._kind(field_type) == _POINTER))
        return found

    def _full_name(self, type_: int) -> str:
        """`k8s.io.api.core.v1.PodSpec`: the package's path with dots, then the type's name."""
        (text,) = struct.unpack_from("<i", self._data, self._offset(type_ + 40))
        (path,) = struct.unpack_from("<i", self._data, self._offset(type_ + _TYPE_SIZE + 32))
        package = self._text(self._base + path).replace("/", ".")
        return f"{package}.{self._text(self._base + text).rpartition('.')[2]}"

    def _text(self, name: int) -> str:
        return self._strings(name)[0]

    def _tag(self, name: int) -> str:
        return self._strings(name)[1]

    def _strings(self, name: int) -> tuple[str, str]:
        """The text and the tag of a `Name`: a byte of flags, then varint-prefixed strings."""
        at = self._offset(name)
        flags = self._data[at]
        text, at = self._string(at + 1)
        tag = self._string(at)[0] if flags & 2 else ""
        return text, tag

    def _string(self, at: int) -> tuple[str, int]:
        length = shift = 0
        while True:
            byte = self._data[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        return self._data[at : at + length].decode(errors="replace"), at + length

    def _kind(self, type_: int) -> int:
        return self._data[self._offset(type_ + 23)] & 31

    def _flags(self, type_: int) -> int:
        return self._data[self._offset(type_ + 20)]

    def _word(self, address: int) -> int:
        return int(struct.unpack_from("<Q", self._data, self._offset(address))[0])

    def _offset(self, address: int) -> int:
        for start, at, size in self._sections.values():
            if start and start <= address < start + size:
                return at + address - start
        raise ValueError(f"nothing is loaded at {address:#x}")

    def _read_sections(self) -> dict[str, tuple[int, int, int]]:
        """Per section: its address, its place in the file, its size."""
        table = struct.unpack_from("<Q", self._data, 40)[0]
        size, count, names = struct.unpack_from("<HHH", self._data, 58)
        headers = [
            struct.unpack_from("<IIQQQQ", self._data, table + index * size)
            for index in range(count)
        ]
        strings = headers[names][4]
        sections = {}
        for name, _, _, address, at, length in headers:
            start = strings + name
            end = self._data.index(b"\0", start)
            sections[self._data[start:end].decode()] = (address, at, length)
        return sections
