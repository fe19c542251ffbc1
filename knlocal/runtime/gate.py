"""The gate: the program that stands in front of a container's own until it is told to begin.

    gate DOOR CANDIDATE… "" ARGUMENT…

It waits for a byte from the FIFO at DOOR and then becomes the first CANDIDATE (a path) that can be
executed, with the ARGUMENTs as its argv. Environment, working directory, user and limits are what
the engine gave it, so the program begins as if the engine had just started it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from knlocal.runtime import elf

_AMD64 = b"".join(
    (
        b"\x4c\x8b\x24\x24",  # mov  r12, [rsp]           ; argc
        b"\x4c\x8d\x6c\x24\x08",  # lea  r13, [rsp+8]         ; argv
        b"\x4f\x8d\x74\xe5\x08",  # lea  r14, [r13+r12*8+8]   ; envp
        # wait:
        b"\x49\x8b\x7d\x08",  # mov  rdi, [r13+8]         ; DOOR
        b"\x31\xf6",  # xor  esi, esi             ; O_RDONLY
        b"\x31\xd2",  # xor  edx, edx
        b"\x6a\x02\x58",  # push 2; pop rax           ; open
        b"\x0f\x05",  # syscall
        b"\x83\xf8\xfc",  # cmp  eax, -4              ; interrupted
        b"\x74\xee",  # je   wait
        b"\x85\xc0",  # test eax, eax
        b"\x78\x4a",  # js   fail
        b"\x89\xc7",  # mov  edi, eax
        b"\x89\xc3",  # mov  ebx, eax
        b"\x50",  # push rax                  ; room for the byte
        b"\x48\x89\xe6",  # mov  rsi, rsp
        b"\x6a\x01\x5a",  # push 1; pop rdx
        b"\x31\xc0",  # xor  eax, eax             ; read
        b"\x0f\x05",  # syscall
        b"\x89\xc5",  # mov  ebp, eax
        b"\x59",  # pop  rcx
        b"\x89\xdf",  # mov  edi, ebx
        b"\x6a\x03\x58",  # push 3; pop rax           ; close
        b"\x0f\x05",  # syscall
        b"\x83\xfd\x01",  # cmp  ebp, 1               ; nothing was said
        b"\x75\xcc",  # jne  wait
        b"\x49\x8d\x5d\x10",  # lea  rbx, [r13+16]        ; CANDIDATEs
        b"\x49\x89\xdf",  # mov  r15, rbx
        # find:
        b"\x49\x8b\x07",  # mov  rax, [r15]
        b"\x49\x83\xc7\x08",  # add  r15, 8
        b"\x80\x38\x00",  # cmp  byte [rax], 0        ; ""
        b"\x75\xf4",  # jne  find
        # try:
        b"\x48\x8b\x3b",  # mov  rdi, [rbx]
        b"\x48\x83\xc3\x08",  # add  rbx, 8
        b"\x80\x3f\x00",  # cmp  byte [rdi], 0
        b"\x74\x0d",  # je   fail                 ; none is left
        b"\x4c\x89\xfe",  # mov  rsi, r15             ; ARGUMENTs
        b"\x4c\x89\xf2",  # mov  rdx, r14
        b"\x6a\x3b\x58",  # push 59; pop rax          ; execve
        b"\x0f\x05",  # syscall
        b"\xeb\xe7",  # jmp  try
        # fail:
        b"\x6a\x7f\x5f",  # push 127; pop rdi
        b"\xb8\xe7\x00\x00\x00",  # mov  eax, 231             ; exit_group
        b"\x0f\x05",  # syscall
    )
)

_ARM64 = struct.pack(
    "<42I",
    0x910003F3,  # mov  x19, sp
    0xF9400274,  # ldr  x20, [x19]            ; argc
    0x91002275,  # add  x21, x19, #8          ; argv
    0x8B140EB6,  # add  x22, x21, x20, lsl #3
    0x910022D6,  # add  x22, x22, #8          ; envp
    0xD10043FF,  # sub  sp, sp, #16           ; room for the byte
    # wait:
    0x92800C60,  # mov  x0, #-100             ; AT_FDCWD
    0xF94006A1,  # ldr  x1, [x21, #8]         ; DOOR
    0xD2800002,  # mov  x2, #0                ; O_RDONLY
    0xD2800003,  # mov  x3, #0
    0xD2800708,  # mov  x8, #56               ; openat
    0xD4000001,  # svc  #0
    0x3100101F,  # cmn  w0, #4                ; interrupted
    0x54FFFF20,  # b.eq wait
    0xB7F80320,  # tbnz x0, #63, fail
    0xAA0003F3,  # mov  x19, x0
    0x910003E1,  # mov  x1, sp
    0xD2800022,  # mov  x2, #1
    0xD28007E8,  # mov  x8, #63               ; read
    0xD4000001,  # svc  #0
    0xAA0003F4,  # mov  x20, x0
    0xAA1303E0,  # mov  x0, x19
    0xD2800728,  # mov  x8, #57               ; close
    0xD4000001,  # svc  #0
    0xF100069F,  # cmp  x20, #1               ; nothing was said
    0x54FFFDA1,  # b.ne wait
    0x910042B3,  # add  x19, x21, #16         ; CANDIDATEs
    0xAA1303F4,  # mov  x20, x19
    # find:
    0xF8408680,  # ldr  x0, [x20], #8
    0x39400001,  # ldrb w1, [x0]
    0x35FFFFC1,  # cbnz w1, find              ; ""
    # try:
    0xF8408660,  # ldr  x0, [x19], #8
    0x39400001,  # ldrb w1, [x0]
    0x340000C1,  # cbz  w1, fail              ; none is left
    0xAA1403E1,  # mov  x1, x20               ; ARGUMENTs
    0xAA1603E2,  # mov  x2, x22
    0xD2801BA8,  # mov  x8, #221              ; execve
    0xD4000001,  # svc  #0
    0x17FFFFF9,  # b    try
    # fail:
    0xD2800FE0,  # mov  x0, #127
    0xD2800BC8,  # mov  x8, #94               ; exit_group
    0xD4000001,  # svc  #0
)

_CODE = {"amd64": _AMD64, "arm64": _ARM64}
#: Where a program is looked up when its environment does not say (runc's and the shell's default).
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def executable(arch: str) -> bytes | None:
    """The gate for an architecture as Docker names it; None where there is none."""
    return elf.executable(arch, _CODE[arch]) if arch in _CODE else None


def words(door: str, argv: list[str], path: str | None) -> list[str]:
    """What the gate is told, to become `argv` with the search path `path`."""
    program = argv[0]
    if "/" in program:
        return [door, program, "", *argv]
    folders: Iterable[str] = (path or _PATH).split(":")
    return [door, *(f"{folder or '.'}/{program}" for folder in folders), "", *argv]
