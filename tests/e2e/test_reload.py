"""Saving a file changes what answers; a mistake changes nothing."""

from __future__ import annotations

import http.client
import itertools
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import DEADLINE, SERVER, Knlocal, running


@contextmanager
def up(knlocal: Knlocal) -> Iterator[list[str]]:
    """`knlocal up` in the foreground, and the lines it has printed so far."""
    process = subprocess.Popen(
        knlocal.command("up"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=knlocal.env(),
    )  # fmt: skip
    lines: list[str] = []

    def follow() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()

    def is_up() -> bool:
        assert process.poll() is None, "".join(lines)
        return any("Ctrl-C stops everything" in line for line in lines)

    try:
        knlocal.until(is_up)
        yield lines
    finally:
        process.terminate()
        process.wait(DEADLINE)
        reader.join(DEADLINE)


def get(knlocal: Knlocal) -> tuple[int, str]:
    host, _, port = knlocal.card["gateway"].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE)
    try:
        connection.request("GET", "/", headers={"Host": "hello.default.localhost"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def says(knlocal: Knlocal, text: str) -> bool:
    return get(knlocal)[1].startswith(text)


def code(greeting: str) -> str:
    return SERVER.replace("'hello'", repr(greeting))


def test_a_save_becomes_a_revision_that_takes_over(knlocal: Knlocal) -> None:
    with up(knlocal) as lines:
        assert get(knlocal) == (200, "hello hello-00001\n")
        knlocal.source("main.py", code("goodbye"))
        knlocal.until(lambda: get(knlocal) == (200, "goodbye hello-00002\n"))
        knlocal.until(lambda: any("hello-00002 takes over" in line for line in lines))


def test_a_broken_save_keeps_the_last_good_revision_and_shows_the_error(knlocal: Knlocal) -> None:
    with up(knlocal) as lines:
        knlocal.source("main.py", "import nothing_like_that\n" + SERVER)
        knlocal.until(lambda: any("No module named 'nothing_like_that'" in line for line in lines))
        knlocal.until(lambda: any("hello-00001 keeps serving" in line for line in lines))
        assert get(knlocal) == (200, "hello hello-00001\n")
        knlocal.source("main.py", code("mended"))
        knlocal.until(lambda: says(knlocal, "mended"))


def test_not_one_request_fails_while_code_is_saved_again_and_again(knlocal: Knlocal) -> None:
    failures: list[object] = []
    seen: set[str] = set()
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                status, text = get(knlocal)
                seen.add(text.split(" ")[0])
                if status != 200:
                    failures.append((status, text))
            except OSError as error:
                failures.append(error)
            done.wait(0.01)

    with up(knlocal):
        askers = [threading.Thread(target=ask) for _ in range(3)]
        for asker in askers:
            asker.start()
        try:
            for round_ in range(4):
                knlocal.source("main.py", code(f"round{round_}"))
                knlocal.until(lambda wanted=f"round{round_}": wanted in seen)  # type: ignore[misc]
        finally:
            done.set()
            for asker in askers:
                asker.join(DEADLINE)
    assert failures == []


def test_saves_in_quick_succession_end_with_the_last_one(local: Knlocal) -> None:
    with up(local):
        for round_ in range(40):
            local.source("main.py", code(f"round{round_}"))
            time.sleep(0.02)  # as fast as an eager editor
        local.until(lambda: says(local, "round39"))
        # Far fewer revisions than saves: what was obsolete before it began was never made.
        assert len(local.objects("revisions")) < 20


def test_new_code_is_served_while_an_editor_replaces_the_file_all_the_time(
    local: Knlocal,
) -> None:
    done = threading.Event()

    def save() -> None:
        for round_ in itertools.count():
            if done.wait(0.02):
                return
            local.source(f"main.py.{round_}", code(f"round{round_}"))
            (local.folder / "app" / f"main.py.{round_}").rename(local.folder / "app" / "main.py")

    with up(local):
        editor = threading.Thread(target=save)
        editor.start()
        try:
            local.until(lambda: len(local.objects("revisions")) > 3)
        finally:
            done.set()
            editor.join(DEADLINE)


def test_what_old_code_left_is_cleared_away_in_a_while(local: Knlocal) -> None:
    def names() -> set[str]:
        return {revision["metadata"]["name"] for revision in local.objects("revisions")}

    def snapshots() -> int:
        return sum(1 for _ in (local.folder / ".knlocal" / "snapshots" / "trees").iterdir())

    with up(local) as lines:
        local.source("main.py", "import nothing_like_that\n" + SERVER)
        local.until(lambda: any("hello-00001 keeps serving" in line for line in lines))
        assert snapshots() == 2
        local.source("main.py", code("mended"))
        local.until(lambda: says(local, "mended"))
        # Nobody goes back to what never ran; what did run is kept for that.
        local.until(lambda: names() == {"hello-00001", "hello-00003"})
        local.until(lambda: snapshots() == 2)


def test_an_edit_of_the_file_applies_just_the_difference(local: Knlocal) -> None:
    hello = '[services.hello]\nsource = "app"\n'
    with up(local) as lines:
        (before,) = local.objects("ksvc")
        local.write(hello + "[brokers.default]\n")
        local.until(lambda: local.objects("brokers"))
        local.write(hello + "[brokrs.default]\n")
        local.until(lambda: any("did you mean 'brokers'?" in line for line in lines))
        assert local.objects("brokers")
        local.write(hello)
        local.until(lambda: not local.objects("brokers"))
        (after,) = local.objects("ksvc")
        assert after["metadata"]["generation"] == before["metadata"]["generation"]


def test_a_save_takes_over_after_a_rollback(local: Knlocal) -> None:
    with up(local):
        local.source("main.py", code("second"))
        local.until(lambda: says(local, "second"))
        local("rollback", "hello")
        local.until(lambda: says(local, "hello"))
        local.source("main.py", code("third"))
        local.until(lambda: says(local, "third"))


def test_a_manifest_that_is_edited_or_removed_follows(local: Knlocal) -> None:
    folder = local.folder / "k8s"
    folder.mkdir()
    (folder / "keep.yaml").write_text("")
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: '%s'}\n"
    toml = (local.folder / "knlocal.toml").read_text()
    toml = toml.replace("[project]", '[project]\nmanifests = ["k8s/*.yaml"]')
    (local.folder / "knlocal.toml").write_text(toml)

    def value() -> str:
        found = local("get", "cm", "c", "-o", "json", code=None).stdout
        return '"a": "1"' if '"a": "1"' in found else '"a": "2"' if '"a": "2"' in found else ""

    with up(local):
        (folder / "c.yaml").write_text(manifest % 1)
        local.until(lambda: value() == '"a": "1"')
        (folder / "c.yaml").write_text(manifest % 2)
        local.until(lambda: value() == '"a": "2"')
        (folder / "c.yaml").unlink()
        local.until(lambda: value() == "")


@pytest.fixture
def in_docker(project: Path) -> Iterator[Knlocal]:
    yield from running(project, "docker")


def save(knlocal: Knlocal, number: int) -> None:
    """A save, and the pod that is held for the one after it."""
    knlocal.source("main.py", code(f"save-{number}"))
    knlocal.until(lambda: says(knlocal, f"save-{number} hello-{number:05d}"))
    knlocal.until(lambda: held(knlocal, number + 1))


def held(knlocal: Knlocal, number: int) -> bool:
    return any(f".hello-{number:05d}-" in name for name in knlocal.left())


@pytest.mark.docker
def test_the_pod_that_is_held_for_the_next_save_outlives_no_daemon(in_docker: Knlocal) -> None:
    in_docker("up", "-d")
    save(in_docker, 2)
    save(in_docker, 3)
    in_docker.kill()
    assert held(in_docker, 4)
    in_docker("up", "-d")
    in_docker.until(lambda: says(in_docker, "save-3"))
    save(in_docker, 4)
    in_docker("down")
    assert in_docker.left() == []
