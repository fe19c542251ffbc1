"""The sandbox image: a few hundred bytes of machine code, so that nothing has to be pulled.

A sandbox only holds the pod's namespaces. Its one program blocks SIGTERM and SIGINT, waits for one
of them, and exits. Written out as instructions below, it needs no compiler, no libc, no registry.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import struct
import tarfile

from knlocal.runtime import elf
from knlocal.runtime.api import RuntimeFailure
from knlocal.runtime.docker_http import Engine, EngineRefused

REPOSITORY = "knlocal/sandbox"

#: SIGINT (2) and SIGTERM (15) as a kernel signal set: bit n-1 stands for signal n.
_SIGNALS = 1 << 1 | 1 << 14

_AMD64 = b"".join(
    (
        b"\x68" + struct.pack("<I", _SIGNALS),  # push set            ; rsp -> the set
        b"\x48\x89\xe6",  # mov  rsi, rsp
        b"\x31\xff",  # xor  edi, edi       ; SIG_BLOCK
        b"\x31\xd2",  # xor  edx, edx       ; no old set
        b"\x6a\x08\x41\x5a",  # push 8; pop r10     ; size of a set
        b"\x6a\x0e\x58",  # push 14; pop rax    ; rt_sigprocmask
        b"\x0f\x05",  # syscall
        # wait:
        b"\x48\x89\xe7",  # mov  rdi, rsp
        b"\x31\xf6",  # xor  esi, esi       ; no siginfo
        b"\x31\xd2",  # xor  edx, edx       ; no timeout
        b"\x6a\x08\x41\x5a",  # push 8; pop r10
        b"\xb8\x80\x00\x00\x00",  # mov  eax, 128       ; rt_sigtimedwait
        b"\x0f\x05",  # syscall
        b"\x85\xc0",  # test eax, eax
        b"\x78\xea",  # js   wait           ; interrupted: wait again
        b"\x31\xff",  # xor  edi, edi
        b"\xb8\xe7\x00\x00\x00",  # mov  eax, 231       ; exit_group
        b"\x0f\x05",  # syscall
    )
)

_ARM64 = struct.pack(
    "<21I",
    0xD10043FF,  # sub  sp, sp, #16
    0xD2800009 | _SIGNALS << 5,  # mov  x9, set
    0xF90003E9,  # str  x9, [sp]
    0xD2800000,  # mov  x0, #0        ; SIG_BLOCK
    0x910003E1,  # mov  x1, sp
    0xD2800002,  # mov  x2, #0
    0xD2800103,  # mov  x3, #8
    0xD28010E8,  # mov  x8, #135      ; rt_sigprocmask
    0xD4000001,  # svc  #0
    # wait:
    0x910003E0,  # mov  x0, sp
    0xD2800001,  # mov  x1, #0
    0xD2800002,  # mov  x2, #0
    0xD2800103,  # mov  x3, #8
    0xD2801128,  # mov  x8, #137      ; rt_sigtimedwait
    0xD4000001,  # svc  #0
    0xB7FFFF40,  # tbnz x0, #63, wait ; interrupted: wait again
    0xD2800000,  # mov  x0, #0
    0xD2800BC8,  # mov  x8, #94       ; exit_group
    0xD4000001,  # svc  #0
    0xD503201F,  # nop
    0xD503201F,  # nop
)

_CODE = {"amd64": _AMD64, "arm64": _ARM64}


def executable(architecture: str) -> bytes:
    return elf.executable(architecture, _CODE[architecture])


async def ensure_image(engine: Engine) -> str:
    """The sandbox image's name, made when the engine does not have it yet."""
    architecture = elf.architecture(engine.version)
    if architecture not in _CODE:
        raise RuntimeFailure(
            "SandboxUnsupported",
            f"The container engine runs on {architecture or 'an unknown processor'}; knlocal's"
            f" sandbox is made for {' and '.join(_CODE)}. Try the process runtime.",
        )
    program = executable(architecture)
    tag = hashlib.sha256(program).hexdigest()[:12]
    image = f"{REPOSITORY}:{tag}"
    # A build and a prune may race with us: look, make, look again.
    for _ in range(3):
        try:
            await engine.get(f"/images/{image}/json")
            return image
        except EngineRefused as missing:
            if missing.status != 404:
                raise
        await engine.call(
            "POST",
            "/images/create",
            params={
                "fromSrc": "-",
                "repo": REPOSITORY,
                "tag": tag,
                "platform": f"linux/{architecture}",
                "changes": 'ENTRYPOINT ["/pause"]',
            },
            data=await asyncio.to_thread(_tar, program),
            headers={"Content-Type": "application/x-tar"},
        )
    return image


def _tar(program: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("pause")
        entry.size, entry.mode = len(program), 0o755
        tar.addfile(entry, io.BytesIO(program))
    return out.getvalue()
