"""Pods that are started ahead and held: for everybody else, nothing has run in them yet."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from knlocal.runtime.api import ContainerPlan, Mount, PodPlan, Runtime
from tests.runtime.conftest import House, get, pod_id, run_to_end, until_state

pytestmark = pytest.mark.docker

#: Serves what its source says, and tells how it was started.
MAIN = """
import http.server, os, sys
from text import TEXT
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        said = f"{TEXT} {sys.argv} {os.getcwd()} {os.environ['WHO']} {os.getpid()}"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(said.encode())
    def log_message(self, *args): pass
http.server.HTTPServer(("", 8080), Handler).serve_forever()
"""


@pytest.fixture
def engine() -> str:
    return "docker"


def source(folder: Path, text: str) -> Path:
    tree = folder / f"source-{text}"
    (tree / "deep").mkdir(parents=True)
    (tree / "main.py").write_text(MAIN)
    (tree / "deep" / "text.py").write_text(f"TEXT = {text!r}\n")
    (tree / "text.py").symlink_to("deep/text.py")
    return tree


def program(tree: Path, **changes: Any) -> ContainerPlan:
    one = ContainerPlan(
        "user",
        "knlocal-test/python:3",
        command=("python3", "main.py", "one two"),
        working_dir="/app",
        env={"WHO": "me", "PYTHONDONTWRITEBYTECODE": "1"},
        mounts=(Mount("/app", tree, read_only=True),),
    )
    return replace(one, **changes)


def docker(*words: str) -> list[str]:
    command = ["docker", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def containers_of(house: House) -> list[str]:
    return docker("ps", "-aq", "--filter", f"label=dev.knlocal.project={house.project}")


async def held(runtime: Runtime, folder: Path, **changes: Any) -> PodPlan:
    (folder / "unknown").mkdir(exist_ok=True)
    plan = PodPlan(pod_id("held"), (program(folder / "unknown", **changes),), ports=(8080,))
    assert await runtime.hold(plan, "user", "/app")
    return plan


async def test_its_program_begins_when_it_is_started_with_what_is_known_only_then(
    house: House, runtime: Runtime, tmp_path: Path
) -> None:
    plan = await held(runtime, tmp_path)
    state = await runtime.inspect(plan.id)
    assert state is not None
    assert state.containers["user"].state == "created"
    before = state.containers["user"].container_id

    plan = replace(plan, containers=(program(source(tmp_path, "new")),))
    await runtime.prepare(plan)
    started = await runtime.start_container(plan, "user")
    assert started.container_id == before
    await until_state(runtime, plan.id, "running")
    answer = await get(runtime, plan)
    assert answer == "new ['main.py', 'one two'] /app me 1"


async def test_nothing_can_be_written_to_its_source(
    house: House, runtime: Runtime, tmp_path: Path
) -> None:
    plan = await held(runtime, tmp_path, command=("sh", "-c", "touch /app/main.py"))
    tree = source(tmp_path, "new")
    one = program(tree, command=("sh", "-c", "touch /app/main.py"))
    ended = await run_to_end(runtime, replace(plan, containers=(one,)))
    assert ended.exit_code != 0


async def test_a_plan_that_differs_in_more_has_the_container_made_anew(
    house: House, runtime: Runtime, tmp_path: Path
) -> None:
    plan = await held(runtime, tmp_path)
    one = program(source(tmp_path, "new"))
    plan = replace(plan, containers=(replace(one, env={**one.env, "WHO": "another"}),))
    await runtime.prepare(plan)
    await runtime.start_container(plan, "user")
    assert "another" in await get(runtime, plan)
    assert len(containers_of(house)) == 2


async def test_a_started_program_is_not_held_for_a_later_daemon(
    house: House, runtime: Runtime, tmp_path: Path
) -> None:
    plan = await held(runtime, tmp_path)
    plan = replace(plan, containers=(program(source(tmp_path, "new")),))
    await runtime.start_container(plan, "user")
    later = await house.open()
    (state,) = await later.pods()
    assert state.containers["user"].state == "running"
    assert "new" in await get(later, plan)


async def test_a_later_daemon_makes_what_an_earlier_one_held_anew(
    house: House, runtime: Runtime, tmp_path: Path
) -> None:
    plan = await held(runtime, tmp_path)
    later = await house.open()
    (state,) = await later.pods()
    assert state.containers["user"].state == "created"
    plan = replace(plan, containers=(program(source(tmp_path, "new")),))
    await later.start_container(plan, "user")
    assert "new" in await get(later, plan)
    assert len(containers_of(house)) == 2


async def test_nothing_of_it_is_left_when_it_is_removed(
    house: House, runtime: Runtime, tmp_path: Path
) -> None:
    plan = await held(runtime, tmp_path)
    await runtime.remove(plan.id)
    assert containers_of(house) == []
    assert list((house.folder / "held").iterdir()) == []


async def test_what_it_needed_is_swept_away_though_others_removed_it(
    house: House, runtime: Runtime, tmp_path: Path
) -> None:
    await held(runtime, tmp_path)
    docker("rm", "-f", *containers_of(house))
    await house.open()
    assert list((house.folder / "held").iterdir()) == []


async def test_one_that_ended_while_it_was_held_is_made_anew(
    house: House, runtime: Runtime, tmp_path: Path
) -> None:
    plan = await held(runtime, tmp_path)
    state = await runtime.inspect(plan.id)
    assert state is not None
    container = state.containers["user"].container_id
    docker("kill", container)
    ended = await runtime.inspect(plan.id)
    assert ended is not None
    assert ended.containers["user"].state == "exited"
    plan = replace(plan, containers=(program(source(tmp_path, "new")),))
    await runtime.prepare(plan)
    await runtime.start_container(plan, "user")
    assert "new" in await get(runtime, plan)


async def test_a_program_of_the_image_can_be_held_too(
    house: House, runtime: Runtime, tmp_path: Path
) -> None:
    one = ContainerPlan("user", "knlocal-test/httpd:1", env={"PORT": "8080"})
    plan = PodPlan(
        pod_id("held"), (replace(one, mounts=(Mount("/app", tmp_path),)),), ports=(8080,)
    )
    assert await runtime.hold(plan, "user", "/app")
    await runtime.prepare(plan)
    await runtime.start_container(plan, "user")
    assert "Hello" in await get(runtime, plan)


async def test_a_container_that_cannot_be_started_leaves_an_ordinary_one(
    house: House, runtime: Runtime, tmp_path: Path
) -> None:
    bad = PodPlan(pod_id("held"), (program(tmp_path, working_dir="/dev/null/x"),), ports=(8080,))
    with pytest.raises(Exception, match="."):
        await runtime.hold(bad, "user", "/app")
    plan = replace(bad, containers=(program(source(tmp_path, "new")),))
    await runtime.prepare(plan)
    await runtime.start_container(plan, "user")
    assert "new" in await get(runtime, plan)


async def test_a_user_without_rights_comes_through_whatever_the_daemons_umask(
    house: House, runtime: Runtime, tmp_path: Path
) -> None:
    before = os.umask(0o077)
    try:
        plan = await held(runtime, tmp_path, user=4711)
    finally:
        os.umask(before)
    plan = replace(plan, containers=(program(source(tmp_path, "new"), user=4711),))
    await runtime.start_container(plan, "user")
    assert "new" in await get(runtime, plan)
