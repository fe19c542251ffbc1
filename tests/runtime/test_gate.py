"""The gate's program: it waits to be told, then is the program it stands in front of."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from knlocal.runtime import gate
from tests.runtime.machines import each_architecture, runner


@pytest.mark.parametrize(("architecture", "number"), [("amd64", 62), ("arm64", 183)])
def test_it_is_a_static_executable_of_a_few_hundred_bytes(architecture: str, number: int) -> None:
    program = gate.executable(architecture)
    assert program is not None
    assert len(program) < 400
    kind, machine = struct.unpack_from("<HH", program, 16)
    assert program[:6] == b"\x7fELF\x02\x01"
    assert (kind, machine) == (2, number)


def test_an_architecture_it_was_not_made_for_has_none() -> None:
    assert gate.executable("riscv64") is None


@contextmanager
def standing(
    architecture: str, tmp_path: Path, *argv: str, path: str | None = None
) -> Iterator[subprocess.Popen[str]]:
    program = tmp_path / "gate"
    program.write_bytes(gate.executable(architecture) or b"")
    program.chmod(0o755)
    os.mkfifo(tmp_path / "door")
    words = gate.words(str(tmp_path / "door"), list(argv), path)
    process = subprocess.Popen(
        [*runner(architecture), str(program), *words],
        env={"ONE": "1"}, cwd=tmp_path, text=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def tell(tmp_path: Path, what: bytes = b"g") -> None:
    door = os.open(tmp_path / "door", os.O_WRONLY)  # waits until somebody reads
    os.write(door, what) if what else None
    os.close(door)


@each_architecture
def test_it_becomes_the_program_with_its_arguments_environment_and_folder(
    architecture: str, tmp_path: Path
) -> None:
    with standing(
        architecture, tmp_path, "sh", "-c", 'echo "$0 $1 $ONE $(pwd)"', "zero", "one two"
    ) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        tell(tmp_path)
        assert process.communicate(timeout=10)[0] == f"zero one two 1 {tmp_path}\n"
        assert process.returncode == 0


@each_architecture
def test_it_looks_where_the_search_path_says_and_only_for_what_can_run(
    architecture: str, tmp_path: Path
) -> None:
    for folder, text in (("first", None), ("second", "#!/bin/sh\necho found $0\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tool").write_text(text or "not a program")
        (tmp_path / folder / "tool").chmod(0o755 if text else 0o644)
    path = f"{tmp_path}/none:{tmp_path}/first:{tmp_path}/second"
    with standing(architecture, tmp_path, "tool", path=path) as process:
        tell(tmp_path)
        assert process.communicate(timeout=10)[0] == f"found {tmp_path}/second/tool\n"


@each_architecture
def test_a_program_that_is_not_there_is_exit_code_127(architecture: str, tmp_path: Path) -> None:
    with standing(architecture, tmp_path, "no-such-program") as process:
        tell(tmp_path)
        assert process.wait(10) == 127


@each_architecture
def test_it_waits_on_though_the_door_is_closed_again_or_it_was_stopped(
    architecture: str, tmp_path: Path
) -> None:
    with standing(architecture, tmp_path, "true") as process:
        tell(tmp_path, b"")
        for interruption in (signal.SIGSTOP, signal.SIGCONT):
            process.send_signal(interruption)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        tell(tmp_path)
        assert process.wait(10) == 0
