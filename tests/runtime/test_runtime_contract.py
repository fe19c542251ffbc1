"""What both runtimes do: one suite over Docker and local processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from knlocal.runtime.api import LogOptions, PodId, Runtime, RuntimeFailure
from tests.runtime.conftest import (
    House,
    events_of,
    eventually,
    get,
    kept_house,
    logs,
    pod_id,
    pod_of,
    run_to_end,
    until_heard,
    until_state,
)

WAIT = "import signal; print('up', flush=True); signal.pause()"
POLITE = """
import signal, sys
def bye(*_):
    print("bye", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, bye)
print("up", flush=True)
while True:
    signal.pause()
"""
TALKATIVE = """
import os, signal, sys, time
def bye(*_):
    os.write(1, b"bye\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, bye)
os.write(1, b"up\\n")
while True:
    os.write(1, b"on\\n")
    time.sleep(0.02)
"""
STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True:
    signal.pause()
"""


async def started(runtime: Runtime, house: House, code: str, **changes: object) -> PodId:
    plan = pod_of(house.python(code, **changes))
    await runtime.prepare(plan)
    await runtime.start_container(plan, "user")
    return plan.id


async def until_logged(runtime: Runtime, pod: PodId, text: str, container: str = "user") -> str:
    async def look() -> str:
        found = await logs(runtime, pod, container)
        return found if text in found else ""

    return str(await eventually(look))


# -- the life of a pod ------------------------------------------------------------------------


async def test_a_prepared_pod_starts_when_asked_and_answers_at_its_address(
    house: House, runtime: Runtime
) -> None:
    pod = pod_id()
    plan = pod_of(house.server(runtime, pod, "the pod"), pod=pod, labels={"app": "x"})
    prepared = await runtime.prepare(plan)
    assert {name: one.state for name, one in prepared.containers.items()} == {"user": "created"}
    assert prepared.ip
    begun = await runtime.start_container(plan, "user")
    assert (begun.name, begun.state) == ("user", "running")
    assert begun.container_id
    assert await get(runtime, plan) == "hello from the pod\n"
    state = await runtime.inspect(pod)
    assert state is not None
    assert state.id == pod
    assert state.labels["app"] == "x"
    assert state.containers["user"].started_at is not None


async def test_asking_twice_changes_nothing_and_is_no_error(house: House, runtime: Runtime) -> None:
    plan = pod_of(house.python(POLITE))
    first = await runtime.prepare(plan)
    assert (await runtime.prepare(plan)).ip == first.ip
    once = await runtime.start_container(plan, "user")
    again = await runtime.start_container(plan, "user")
    assert again.container_id == once.container_id
    assert (await runtime.prepare(plan)).containers["user"].state == "running"
    await until_logged(runtime, plan.id, "up")
    for _ in range(2):
        await runtime.pause(plan.id)
    assert (await until_state(runtime, plan.id, "paused")).container_id == once.container_id
    for _ in range(2):
        await runtime.unpause(plan.id)
    for _ in range(2):
        await runtime.stop_container(plan.id, "user", 10)
    for _ in range(2):
        await runtime.remove(plan.id)
    assert await runtime.inspect(plan.id) is None
    assert await runtime.pods() == []


async def test_asking_for_what_is_gone_is_no_error(house: House, runtime: Runtime) -> None:
    pod = pod_id()
    await runtime.stop_container(pod, "user", 1)
    await runtime.pause(pod)
    await runtime.unpause(pod)
    await runtime.remove(pod, 1)
    assert await runtime.inspect(pod) is None
    assert await logs(runtime, pod) == ""
    assert await runtime.stats(pod) == {}
    assert await runtime.termination_message(pod, "user") == ""
    with pytest.raises(RuntimeFailure, match="not found") as refused:
        await runtime.exec(pod, "user", ["true"])
    assert refused.value.reason == "ContainerNotFound"


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("raise SystemExit(0)", 0),
        ("raise SystemExit(7)", 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
    ],
)
async def test_the_exit_code_and_both_times_are_kept(
    house: House, runtime: Runtime, code: str, exit_code: int
) -> None:
    if house.kind == "docker" and exit_code == 137:
        code = "raise SystemExit(137)"  # the first process of a container cannot kill itself
    ended = await run_to_end(runtime, pod_of(house.python(code)))
    assert ended.exit_code == exit_code
    assert ended.started_at <= ended.finished_at
    assert ended.finished_at.tzinfo is not None


async def test_stopping_lets_a_program_finish(house: House, runtime: Runtime) -> None:
    pod = await started(runtime, house, POLITE)
    await until_logged(runtime, pod, "up")
    await runtime.stop_container(pod, "user", 20)
    ended = await until_state(runtime, pod, "exited")
    assert ended.exit_code == 0
    assert "bye" in await logs(runtime, pod)


async def test_a_program_that_ignores_sigterm_is_killed_after_the_grace(
    house: House, runtime: Runtime
) -> None:
    pod = await started(runtime, house, STUBBORN)
    await until_logged(runtime, pod, "up")
    await runtime.stop_container(pod, "user", 1)
    assert (await until_state(runtime, pod, "exited")).exit_code == 137


async def test_a_frozen_program_can_be_stopped(house: House, runtime: Runtime) -> None:
    pod = await started(runtime, house, POLITE)
    await until_logged(runtime, pod, "up")
    await runtime.pause(pod)
    await runtime.stop_container(pod, "user", 20)
    assert (await until_state(runtime, pod, "exited")).exit_code == 0


async def test_killing_takes_the_programs_children_too(house: House, runtime: Runtime) -> None:
    code = """
        import os, subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print("child", child.pid, flush=True)
        time.sleep(600)
    """
    pod = await started(runtime, house, textwrap.dedent(code))
    child = int((await until_logged(runtime, pod, "child ")).split()[1])
    await runtime.remove(pod)
    if house.kind == "process":  # a container's pids are its own
        await eventually(lambda: not _runs(child))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_frozen_pod_answers_only_after_it_is_unfrozen(
    house: House, runtime: Runtime
) -> None:
    pod = pod_id()
    plan = pod_of(house.server(runtime, pod), pod=pod)
    await runtime.prepare(plan)
    await runtime.start_container(plan, "user")
    await get(runtime, plan)
    await runtime.pause(pod)
    answer = asyncio.create_task(get(runtime, plan))
    done, _ = await asyncio.wait([answer], timeout=0.3)
    assert not done
    await runtime.unpause(pod)
    assert await answer == "hello from me\n"


async def test_a_container_that_ran_runs_again_with_logs_of_its_own(
    house: House, runtime: Runtime, tmp_path: Path
) -> None:
    plan = pod_of(house.python("import uuid; print('run', uuid.uuid4())"))
    with pytest.raises(RuntimeFailure, match="previous terminated container"):
        await logs(runtime, plan.id, previous=True)
    first = await run_to_end(runtime, plan)
    one = await logs(runtime, plan.id)
    second = await run_to_end(runtime, plan)
    two = await logs(runtime, plan.id)
    assert first.container_id != second.container_id
    assert one != two
    assert await logs(runtime, plan.id, previous=True) == one
    await run_to_end(runtime, plan)
    assert await logs(runtime, plan.id, previous=True) == two


async def test_init_containers_are_containers_of_the_same_pod(
    house: House, runtime: Runtime
) -> None:
    plan = pod_of(
        house.python("print('main')"),
        init_containers=(house.python("print('first')", name="setup"),),
    )
    prepared = await runtime.prepare(plan)
    assert set(prepared.containers) == {"setup", "user"}
    ended = await run_to_end(runtime, plan, "setup")
    assert ended.exit_code == 0
    assert (await until_state(runtime, plan.id, "created")).exit_code is None
    await run_to_end(runtime, plan)
    assert await logs(runtime, plan.id, "setup") == "first\n"


async def test_containers_of_a_pod_reach_each_other_on_localhost(
    house: House, runtime: Runtime
) -> None:
    pod = pod_id()
    port = runtime.env_port(pod, 8080)
    asks = f"""
        import time, urllib.request
        while True:
            try:
                print(urllib.request.urlopen("http://127.0.0.1:{port}/").read().decode())
                break
            except OSError:
                time.sleep(0.05)
    """
    asker = house.python(textwrap.dedent(asks), name="asker")
    plan = pod_of(house.server(runtime, pod, "the neighbour"), asker, pod=pod)
    await runtime.prepare(plan)
    await asyncio.gather(
        runtime.start_container(plan, "user"), runtime.start_container(plan, "asker")
    )
    await until_state(runtime, pod, "exited", "asker")
    assert "hello from the neighbour" in await logs(runtime, pod, "asker")


async def test_many_pods_live_side_by_side(house: House, runtime: Runtime) -> None:
    async def live(number: int) -> str:
        pod = pod_id(f"pod-{number}")
        plan = pod_of(house.server(runtime, pod, f"number {number}"), pod=pod)
        await runtime.prepare(plan)
        await runtime.start_container(plan, "user")
        answer = await get(runtime, plan)
        await runtime.remove(pod, 5)
        return answer

    answers = await asyncio.gather(*(live(number) for number in range(6)))
    assert answers == [f"hello from number {number}\n" for number in range(6)]
    assert await runtime.pods() == []


async def test_a_command_that_does_not_exist_is_named(house: House, runtime: Runtime) -> None:
    missing = ("no-such-program",)
    plan = pod_of(
        house.python("", command=missing)
        if house.kind == "docker"
        else house.python("", local_command=missing)
    )
    await runtime.prepare(plan)
    with pytest.raises(RuntimeFailure, match="no-such-program") as refused:
        await runtime.start_container(plan, "user")
    assert refused.value.reason == "RunContainerError"
    state = await runtime.inspect(plan.id)
    assert state is not None
    assert state.containers["user"].state == "exited"
    assert state.containers["user"].exit_code == 127
    with pytest.raises(RuntimeFailure, match="no-such-program"):
        await runtime.start_container(plan, "user")


async def test_what_is_started_by_a_wrong_name_is_refused(house: House, runtime: Runtime) -> None:
    plan = pod_of(house.python(WAIT))
    await runtime.prepare(plan)
    with pytest.raises(RuntimeFailure, match='"other" is not in pod'):
        await runtime.start_container(plan, "other")


async def test_preparing_while_removing_leaves_nothing_half_done(
    house: House, runtime: Runtime
) -> None:
    plan = pod_of(house.python(WAIT))
    preparing = asyncio.create_task(runtime.prepare(plan))
    await asyncio.sleep(0.01)
    await runtime.remove(plan.id)
    await preparing
    await runtime.remove(plan.id)
    assert await runtime.pods() == []


async def test_work_that_is_cancelled_leaves_nothing_behind(house: House, runtime: Runtime) -> None:
    for pause in (0.0, 0.003, 0.01, 0.03):
        plan = pod_of(house.python(WAIT), house.python("", name="again"))
        await runtime.prepare(plan)
        await runtime.start_container(plan, "again")
        await until_state(runtime, plan.id, "exited", "again")
        other = pod_of(house.python(WAIT))
        for work in (
            runtime.start_container(plan, "again"),
            runtime.start_container(plan, "user"),
            runtime.prepare(other),
        ):
            cut_short = asyncio.ensure_future(work)
            await asyncio.wait([cut_short], timeout=pause)
            cut_short.cancel()
            await asyncio.wait([cut_short])
        await asyncio.gather(runtime.remove(plan.id), runtime.remove(other.id))
        assert await (await house.open()).pods() == []


async def test_a_start_that_waits_while_its_pod_is_removed_is_refused(
    house: House, runtime: Runtime
) -> None:
    plan = pod_of(house.python("exit(0)"))
    await run_to_end(runtime, plan)
    removing = asyncio.create_task(runtime.remove(plan.id))
    await asyncio.sleep(0.002)
    starting = asyncio.create_task(runtime.start_container(plan, "user"))
    await removing
    await asyncio.wait([starting])
    await runtime.remove(plan.id)
    assert await (await house.open()).pods() == []


# -- what a program finds -----------------------------------------------------------------------


async def test_a_program_finds_its_environment_and_an_empty_stdin(
    house: House, runtime: Runtime
) -> None:
    code = """
        import os, sys
        print(os.environ["GREETING"], os.environ["HOSTNAME"], repr(sys.stdin.read()))
        print(sys.argv[1:])
    """
    one = house.python(
        textwrap.dedent(code), env={"GREETING": "héllo = $x\nthere"}, args=("a b", "")
    )
    plan = pod_of(one, hostname="my-host")
    await run_to_end(runtime, plan)
    assert await logs(runtime, plan.id) == "héllo = $x\nthere my-host ''\n['a b', '']\n"


# -- logs ---------------------------------------------------------------------------------------


async def test_logs_come_as_whole_lines_of_both_streams(house: House, runtime: Runtime) -> None:
    code = (
        "import sys; print('out', flush=True); print('err', file=sys.stderr); print('x' * 100_000)"
    )
    plan = pod_of(house.python(code))
    await run_to_end(runtime, plan)
    lines = (await logs(runtime, plan.id)).splitlines()
    assert sorted(lines) == ["err", "out", "x" * 100_000]
    assert await logs(runtime, plan.id, tail=0) == ""
    numbers = pod_of(house.python("for n in range(100): print(n)\nprint('end', end='')"))
    await run_to_end(runtime, numbers)
    assert (await logs(runtime, numbers.id, tail=3)).splitlines() == ["98", "99", "end"]
    assert (await logs(runtime, numbers.id)).endswith("99\nend")


async def test_logs_are_dated_and_can_start_later(house: House, runtime: Runtime) -> None:
    plan = pod_of(house.python("print('y' * 40_000)\nprint('short')"))
    before = datetime.now(UTC)
    await run_to_end(runtime, plan)
    lines = (await logs(runtime, plan.id, timestamps=True)).splitlines()
    assert [line.partition(" ")[2] for line in lines] == ["y" * 40_000, "short"]
    dates = [datetime.fromisoformat(line.partition(" ")[0]) for line in lines]
    assert all(before - timedelta(seconds=1) <= date <= datetime.now(UTC) for date in dates)
    assert await logs(runtime, plan.id, since=before - timedelta(seconds=1)) != ""
    assert await logs(runtime, plan.id, since=datetime.now(UTC) + timedelta(hours=1)) == ""


async def test_following_a_log_ends_with_the_container(house: House, runtime: Runtime) -> None:
    code = """
        import signal, time
        print("one", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: (print("two", flush=True), exit(0)))
        while True: signal.pause()
    """
    pod = await started(runtime, house, textwrap.dedent(code))
    chunks: list[bytes] = []

    async def follow() -> None:
        async for chunk in runtime.logs(pod, "user", LogOptions(follow=True)):
            chunks.append(chunk)

    following = asyncio.create_task(follow())
    await eventually(lambda: b"one\n" in b"".join(chunks))
    await runtime.stop_container(pod, "user", 10)
    await asyncio.wait_for(following, 30)
    assert b"".join(chunks) == b"one\ntwo\n"


async def test_a_flooded_log_keeps_its_end_and_a_bounded_size(house: House) -> None:
    runtime = await house.open(log_max_bytes=200_000)
    code = "for n in range(30_000): print(f'{n:06d}', 'x' * 90)"
    plan = pod_of(house.python(code))
    await run_to_end(runtime, plan)
    text = await logs(runtime, plan.id)
    assert len(text) < 300_000
    assert text.splitlines()[-1].startswith("029999")


# -- exec ---------------------------------------------------------------------------------------


async def test_a_command_runs_beside_the_program(house: House, runtime: Runtime) -> None:
    pod = await started(runtime, house, WAIT, env={"GREETING": "hello"})
    result = await runtime.exec(pod, "user", ["sh", "-c", "echo $GREETING; echo oops >&2; exit 3"])
    assert result.exit_code == 3
    assert sorted(result.output.split()) == [b"hello", b"oops"]
    missing = await runtime.exec(pod, "user", ["no-such-program"])
    assert missing.exit_code in {126, 127}
    assert b"no-such-program" in missing.output
    with pytest.raises(RuntimeFailure, match="timed out after") as late:
        await runtime.exec(pod, "user", ["sleep", "600"], timeout_seconds=0.5)
    assert late.value.reason == "DeadlineExceeded"


async def test_a_command_in_a_stopped_container_is_refused(house: House, runtime: Runtime) -> None:
    plan = pod_of(house.python(""))
    await run_to_end(runtime, plan)
    with pytest.raises(RuntimeFailure) as refused:
        await runtime.exec(plan.id, "user", ["true"])
    assert refused.value.reason == "ContainerNotRunning"


async def test_a_command_can_be_talked_to(house: House, runtime: Runtime) -> None:
    pod = await started(runtime, house, WAIT)
    stream = await runtime.exec_stream(
        pod, "user", ["sh", "-c", "cat; echo done >&2; exit 5"], stdin=True, tty=False
    )
    await stream.write(b"line one\n")
    await stream.write(b"x" * 200_000 + b"\n")
    await stream.write(b"")
    got = {"stdout": b"", "stderr": b""}
    async for name, data in stream:
        got[name] += data
    assert got == {"stdout": b"line one\n" + b"x" * 200_000 + b"\n", "stderr": b"done\n"}
    assert await stream.wait() == 5
    await stream.close()


async def test_a_terminal_has_a_size(house: House, runtime: Runtime) -> None:
    pod = await started(runtime, house, WAIT)
    code = "read line; stty size; exit 0"
    stream = await runtime.exec_stream(pod, "user", ["sh", "-c", code], stdin=True, tty=True)
    await stream.resize(101, 37)
    await stream.write(b"go\n")
    output = b"".join([data async for _, data in stream])
    assert b"37 101" in output
    assert await stream.wait() == 0
    await stream.close()


async def test_a_command_left_alone_can_be_closed(house: House, runtime: Runtime) -> None:
    pod = await started(runtime, house, WAIT)
    stream = await runtime.exec_stream(pod, "user", ["cat"], stdin=True, tty=False)
    await stream.close()
    await runtime.remove(pod)


async def test_attaching_shows_what_is_written_from_now_on(house: House, runtime: Runtime) -> None:
    pod = await started(runtime, house, TALKATIVE)
    await until_logged(runtime, pod, "on")
    stream = await runtime.attach(pod, "user", stdin=False)
    seen: list[bytes] = []

    async def read() -> None:
        async for _, data in stream:
            seen.append(data)

    reading = asyncio.create_task(read())
    await eventually(lambda: seen)  # an engine says that it is attached before it is
    await runtime.stop_container(pod, "user", 10)
    await asyncio.wait_for(reading, 30)
    first, *_, last = b"".join(seen).splitlines()
    assert (first, last) == (b"on", b"bye")
    assert await stream.wait() == 0
    await stream.close()


# -- looking ------------------------------------------------------------------------------------


async def test_events_tell_what_happens_in_order(house: House, runtime: Runtime) -> None:
    async with events_of(runtime) as seen:
        await until_heard(house, runtime, seen)
        plan = pod_of(house.python(""))
        await run_to_end(runtime, plan)
        await eventually(lambda: "exited" in seen.of())
        await runtime.start_container(plan, "user")
        await eventually(lambda: seen.of().count("exited") == 2)
        await runtime.remove(plan.id)
        await eventually(lambda: "removed" in seen.of())
        assert seen.of() == ["started", "exited", "started", "exited", "removed"]


async def test_usage_is_measured(house: House, runtime: Runtime) -> None:
    pod = await started(runtime, house, "print('up', flush=True)\nwhile True: pass")
    await until_logged(runtime, pod, "up")

    async def busy() -> bool:
        cores, memory = (await runtime.stats(pod))["user"]
        return cores > 0.05 and memory > 100_000

    await eventually(busy)


# -- a daemon that comes back -------------------------------------------------------------------


async def test_a_restarted_daemon_adopts_what_runs(house: House) -> None:
    first = await house.open()
    pod = pod_id()
    plan = pod_of(house.server(first, pod, "before"), pod=pod, labels={"app": "kept"})
    await first.prepare(plan)
    await first.start_container(plan, "user")
    await get(first, plan)
    await first.close()

    second = await house.open()
    (found,) = await second.pods()
    assert found.id == pod
    assert found.labels["app"] == "kept"
    assert found.containers["user"].state == "running"
    assert second.env_port(pod, 8080) == int(plan.containers[0].env["PORT"])
    assert await get(second, plan) == "hello from before\n"
    assert "serving" in await logs(second, pod)
    assert (await second.exec(pod, "user", ["sh", "-c", "echo $WHO"])).output == b"before\n"
    again = await second.start_container(plan, "user")
    assert again.container_id == found.containers["user"].container_id
    async with events_of(second) as seen:
        await second.stop_container(pod, "user", 0)
        await eventually(lambda: "exited" in seen.of())
    await second.remove(pod)
    assert await second.pods() == []


async def test_a_restarted_daemon_knows_frozen_prepared_and_ended_containers(house: House) -> None:
    first = await house.open()
    frozen = await started(first, house, WAIT)
    await until_logged(first, frozen, "up")
    await first.pause(frozen)
    prepared = pod_of(house.python("print('now')"))
    await first.prepare(prepared)
    ended = pod_of(house.python("print('then'); exit(4)"))
    await run_to_end(first, ended)
    await first.close()

    second = await house.open()
    states = {pod.id: pod.containers["user"] for pod in await second.pods()}
    assert states[frozen].state == "paused"
    assert states[prepared.id].state == "created"
    assert (states[ended.id].state, states[ended.id].exit_code) == ("exited", 4)
    await second.unpause(frozen)
    await until_state(second, frozen, "running")
    await run_to_end(second, prepared)
    assert await logs(second, prepared.id) == "now\n"
    await run_to_end(second, ended)
    assert await logs(second, ended.id, previous=True) == "then\n"


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.runtime.conftest import House, pod_of
from knlocal.runtime.api import PodId

async def main(kind, folder, project):
    house = House(kind, Path(folder), project)
    runtime = await house.open()
    for name, code in (("lives", {wait!r}), ("ends", {ends!r})):
        plan = pod_of(house.python(code), pod=PodId("default", name, "uid-" + name))
        await runtime.prepare(plan)
        await runtime.start_container(plan, "user")
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_killed_daemon_loses_nothing(house: House) -> None:
    ends = "import time; time.sleep(0.5); print('last words'); exit(9)"
    code = KILLED.format(wait=WAIT, ends=ends)
    root = Path(__file__).parents[2]
    killed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code, house.kind, str(house.folder), house.project],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        timeout=60,
    )
    assert killed.returncode == -signal.SIGKILL
    runtime = await house.open()
    found = {pod.id.name: pod.id for pod in await runtime.pods()}
    assert set(found) == {"lives", "ends"}
    assert (await until_state(runtime, found["lives"], "running")).exit_code is None
    assert (await until_state(runtime, found["ends"], "exited")).exit_code == 9
    assert await logs(runtime, found["ends"]) == "last words\n"
    for pod in found.values():
        await runtime.remove(pod)
    assert await runtime.pods() == []


async def test_two_projects_do_not_see_each_other(house: House, tmp_path: Path) -> None:
    async with kept_house(house.kind, tmp_path / "other") as neighbour:
        mine, theirs = await house.open(), await neighbour.open()
        plan = pod_of(house.python(WAIT))
        await mine.prepare(plan)
        assert await theirs.pods() == []
        await theirs.remove(plan.id)
        assert [pod.id for pod in await mine.pods()] == [plan.id]


async def test_it_says_that_it_is_healthy_and_where_this_machine_is(runtime: Runtime) -> None:
    assert await runtime.healthy()
    assert await runtime.host_address()
    await runtime.close()
    assert not await runtime.healthy()
