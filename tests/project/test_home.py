"""One daemon per project, and ports that say who holds them."""

import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from knlocal.project.errors import ProjectError
from knlocal.project.home import Card, Home
from knlocal.project.ports import holder_of, take

CARD = Card(os.getpid(), "shop", "docker", "127.0.0.1:8080", "172.17.0.1:80", "https://x")


def test_two_daemons_never_share_a_project(project: Path) -> None:
    home = Home(project / ".knlocal")
    with home.hold():
        home.write_card(CARD)
        assert home.is_held()
        second = Home(project / ".knlocal").hold()
        with pytest.raises(ProjectError, match=rf"already up \(pid {os.getpid()}\)"), second:
            raise AssertionError
    assert not home.is_held()
    assert home.read_card() is None


def test_the_lock_of_a_killed_daemon_is_free(project: Path) -> None:
    home = Home(project / ".knlocal")
    script = (
        "import os; from pathlib import Path; from knlocal.project.home import Home\n"
        f"hold = Home(Path({str(home.folder)!r})).hold(); hold.__enter__(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 9
    with home.hold():
        pass


def test_the_card_of_a_dead_daemon_is_not_believed(project: Path) -> None:
    home = Home(project / ".knlocal")
    home.make()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    home.write_card(Card(child.pid, "shop", "docker", "a:1", "b:2", "c"))
    assert home.read_card() is None


def test_a_state_folder_that_cannot_be_made_is_told(project: Path) -> None:
    (project / ".knlocal").write_text("a file in the way")
    with pytest.raises(ProjectError, match="state_dir"):
        Home(project / ".knlocal").make()


def test_a_program_run_as_a_module_is_named_by_its_module(free_port: Callable[[], int]) -> None:
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as server:
        until = time.monotonic() + 30
        while (holder := holder_of(port)) == "another process":
            assert time.monotonic() < until
            time.sleep(0.02)
        server.terminate()
    assert "-m http.server" in holder
    assert f"pid {server.pid}" in holder


async def _listen(port: int, sockets: list[socket.socket]) -> int:
    listener = socket.socket()
    listener.bind(("127.0.0.1", port))
    listener.listen()
    sockets.append(listener)
    return int(listener.getsockname()[1])


async def test_a_port_that_was_asked_for_and_is_taken_names_its_holder(
    free_port: Callable[[], int],
) -> None:
    port = free_port()
    sockets: list[socket.socket] = []
    await _listen(port, sockets)
    with pytest.raises(ProjectError, match=rf"port {port} is held by .*pid {os.getpid()}"):
        await take(
            lambda p: _listen(p, sockets), "127.0.0.1", port, where="[gateway] port", asked_for=True
        )
    for listener in sockets:
        listener.close()


async def test_the_usual_port_gives_way_to_the_next_free_one(free_port: Callable[[], int]) -> None:
    port = free_port()
    sockets: list[socket.socket] = []
    await _listen(port, sockets)
    taken = await take(
        lambda p: _listen(p, sockets), "127.0.0.1", port, where="[gateway]", asked_for=False
    )
    assert taken.port > port
    assert f"port {port} is held by" in taken.note
    for listener in sockets:
        listener.close()


def test_a_port_that_nobody_holds_has_no_known_holder(free_port: Callable[[], int]) -> None:
    assert holder_of(free_port()) == "another process"


def test_who_holds_a_project_is_known_from_the_start(project: Path) -> None:
    home = Home(project / ".knlocal")
    assert home.holder() is None
    with home.hold():
        assert home.read_card() is None
        assert home.holder() == os.getpid()
    assert home.holder() is None


def test_the_card_of_a_killed_daemon_is_not_taken_for_the_next_ones(project: Path) -> None:
    home = Home(project / ".knlocal")
    home.make()
    home.write_card(CARD)  # its pid is another program's by now
    assert home.last_card() == CARD
    with home.hold():
        assert home.read_card() is None


def test_a_look_at_the_lock_keeps_no_daemon_from_starting(project: Path) -> None:
    home = Home(project / ".knlocal")
    home.make()
    with home.lock.open("ab") as looker:
        fcntl.flock(looker, fcntl.LOCK_SH)
        threading.Timer(0.02, looker.close).start()
        with home.hold():
            pass
