"""The sandbox's program: small, valid, and it ends when told to."""

from __future__ import annotations

import platform
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

from knlocal.runtime import sandbox
from tests.runtime.machines import each_architecture, runner


@pytest.mark.parametrize(("architecture", "number"), [("amd64", 62), ("arm64", 183)])
def test_it_is_a_static_executable_of_a_few_hundred_bytes(architecture: str, number: int) -> None:
    program = sandbox.executable(architecture)
    assert len(program) < 400
    kind, machine, _, entry = struct.unpack_from("<HHIQ", program, 16)
    offset, address, _, size = struct.unpack_from("<QQQQ", program, 64 + 8)
    assert program[:6] == b"\x7fELF\x02\x01"
    assert (kind, machine) == (2, number)
    assert size == len(program)
    assert address <= entry < address + size - offset


def until_it_waits(pid: int) -> None:
    """Before that, a signal ends it (an emulator takes a moment to start)."""
    rt_sigtimedwait = {"x86_64": "128", "aarch64": "137"}[platform.machine()]
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/syscall").read_text().split()[0] != rt_sigtimedwait:
        assert time.monotonic() < deadline, "it does not wait"
        time.sleep(0.01)


@each_architecture
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_waits_and_exits_when_told(
    architecture: str, tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "pause"
    path.write_bytes(sandbox.executable(architecture))
    path.chmod(0o755)
    process = subprocess.Popen([*runner(architecture), path])
    try:
        until_it_waits(process.pid)
        # Stopped and continued, its wait is interrupted: it must wait on.
        for interruption in (signal.SIGSTOP, signal.SIGCONT):
            process.send_signal(interruption)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.send_signal(number)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
