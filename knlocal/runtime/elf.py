"""Static executables written out as machine code: they need no compiler, no libc, no registry."""

from __future__ import annotations

import struct
from collections.abc import Mapping

#: Architecture as Docker names it to its ELF machine number.
MACHINES = {"amd64": 62, "arm64": 183}
_SPELLINGS = {"x86_64": "amd64", "aarch64": "arm64"}
_BASE = 0x400000


def architecture(version: Mapping[str, object]) -> str:
    """What an engine's "version" answer says it runs on, as Docker names it."""
    said = str(version.get("Arch", ""))
    return _SPELLINGS.get(said, said)


def executable(arch: str, code: bytes) -> bytes:
    """One header, one segment, the code; it begins at the code's first byte."""
    header_size, segment_size = 64, 56
    entry = _BASE + header_size + segment_size
    size = header_size + segment_size + len(code)
    header = b"\x7fELF" + bytes((2, 1, 1, 0)) + bytes(8)
    header += struct.pack(
        "<HHIQQQIHHHHHH",
        *(2, MACHINES[arch], 1, entry, header_size, 0, 0, header_size, segment_size, 1, 0, 0, 0),
    )
    # One loadable, readable and executable segment, aligned for the largest arm64 page.
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)
    return header + segment + code
