"""What is peculiar to local processes: what they cannot do, and that none is killed by mistake."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from knlocal.runtime.api import ContainerPlan, ImageMissing, Runtime, RuntimeFailure
from knlocal.runtime.process_state import HeldPod
from tests.runtime.conftest import (
    House,
    eventually,
    get,
    logs,
    pod_id,
    pod_of,
    run_to_end,
    until_state,
)

WAIT = "import signal; print('up', flush=True); signal.pause()"


@pytest.fixture
def engine() -> str:
    return "process"


async def test_an_image_alone_cannot_run_and_the_message_says_what_to_add(runtime: Runtime) -> None:
    plan = pod_of(ContainerPlan("user", "example.com/app:1"))
    with pytest.raises(ImageMissing, match=r"knlocal\.dev/run") as missing:
        await runtime.prepare(plan)
    assert 'run = ["python", "app.py"]' in missing.value.message
    assert "example.com/app:1" in missing.value.message


@pytest.mark.parametrize(
    ("image", "digest"),
    [
        ("shop/orders", "shop/orders@sha256:"),
        ("localhost:5000/orders:v1", "localhost:5000/orders@sha256:"),
        ("orders@sha256:" + "a" * 64, "orders@sha256:" + "a" * 64),
    ],
)
async def test_an_image_name_stands_for_itself(runtime: Runtime, image: str, digest: str) -> None:
    found = await runtime.image(image)
    assert found is not None
    assert found.digest.startswith(digest)
    assert found == await runtime.pull(image)


async def test_each_pod_listens_on_a_port_of_its_own(house: House, runtime: Runtime) -> None:
    pods = [pod_id(f"pod-{number}") for number in range(5)]
    ports = {runtime.env_port(pod, 8080) for pod in pods}
    assert len(ports) == 5
    assert {runtime.env_port(pod, 8080) for pod in pods} == ports
    assert runtime.env_port(pods[0], 9090) not in ports


async def test_a_folder_that_does_not_exist_is_named(house: House, runtime: Runtime) -> None:
    plan = pod_of(house.python("", local_dir=house.folder / "absent"))
    await runtime.prepare(plan)
    with pytest.raises(RuntimeFailure, match="absent"):
        await runtime.start_container(plan, "user")


async def test_only_the_environment_that_programs_need_is_passed_on(
    house: House, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    plan = pod_of(house.python(code, env={"A": "b"}))
    await run_to_end(runtime, plan)
    found = json.loads(await logs(runtime, plan.id))
    assert found["A"] == "b"
    assert found["PATH"]
    assert "AWS_SECRET_ACCESS_KEY" not in found


async def test_an_unrelated_process_under_an_old_pid_is_not_touched(house: House) -> None:
    first = await house.open()
    plan = pod_of(house.python(WAIT))
    await first.prepare(plan)
    await first.start_container(plan, "user")
    await first.close()
    # As after a reboot: the noted pid now belongs to someone else.
    stranger = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import time; time.sleep(600)", start_new_session=True
    )
    path = house.folder / "processes" / plan.id.uid / "pod.json"
    content = json.loads(path.read_text())
    true_pid = content["containers"]["user"]["pid"]
    content["containers"]["user"] |= {
        "pid": stranger.pid,
        "born": psutil.Process(stranger.pid).create_time() - 1,
    }
    path.write_text(json.dumps(content))
    (path.parent / "user" / "0" / "bell").unlink()
    try:
        second = await house.open()
        assert (await until_state(second, plan.id, "exited")).exit_code == 137
        await second.remove(plan.id)
        assert stranger.returncode is None
        # The true one still carries the pod's uid, and was found by that.
        await eventually(lambda: not _runs(true_pid))
    finally:
        stranger.kill()
        await stranger.wait()


async def test_a_state_file_cut_short_does_no_harm(house: House) -> None:
    first = await house.open()
    plan = pod_of(house.python(WAIT))
    await first.prepare(plan)
    await first.start_container(plan, "user")
    await eventually(lambda: logs(first, plan.id))
    path = house.folder / "processes" / plan.id.uid / "pod.json"
    pid = json.loads(path.read_text())["containers"]["user"]["pid"]
    await first.close()
    path.write_text(path.read_text()[:40])
    second = await house.open()
    assert await second.pods() == []
    await eventually(lambda: not _runs(pid))
    assert not path.parent.exists()


async def test_a_start_that_a_kill_cut_short_is_found(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon dies after it started a program and before it noted which."""
    first = await house.open()
    plan = pod_of(house.python(WAIT))
    await first.prepare(plan)
    path = house.folder / "processes" / plan.id.uid / "pod.json"
    noted: list[str] = []
    save = HeldPod.save

    def note(pod: HeldPod, ports: dict[int, int]) -> None:
        save(pod, ports)
        noted.append(path.read_text())

    monkeypatch.setattr(HeldPod, "save", note)
    await first.start_container(plan, "user")
    monkeypatch.undo()
    pid = json.loads(noted[-1])["containers"]["user"]["pid"]
    await first.close()
    path.write_text(noted[0])
    second = await house.open()
    await until_state(second, plan.id, "running")
    await second.remove(plan.id)
    await eventually(lambda: not _runs(pid))


async def test_a_shim_that_was_killed_takes_its_process_along(house: House) -> None:
    runtime = await house.open()
    plan = pod_of(house.python(WAIT))
    await runtime.prepare(plan)
    await runtime.start_container(plan, "user")
    await eventually(lambda: logs(runtime, plan.id))  # from now on it is silent
    path = house.folder / "processes" / plan.id.uid / "pod.json"
    pid = json.loads(path.read_text())["containers"]["user"]["pid"]
    shim = psutil.Process(pid).parent()
    assert shim is not None
    shim.kill()
    assert (await until_state(runtime, plan.id, "exited")).exit_code == 137
    await eventually(lambda: not _runs(pid))


async def test_a_program_that_leaves_its_group_is_found_when_the_pod_goes(
    house: House, runtime: Runtime
) -> None:
    code = """
        import subprocess, sys, time
        child = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
        )
        print("child", child.pid, flush=True)
        time.sleep(600)
    """
    plan = pod_of(house.python(textwrap.dedent(code)))
    await runtime.prepare(plan)
    await runtime.start_container(plan, "user")
    child = int((await eventually(lambda: logs(runtime, plan.id))).split()[1])
    await runtime.remove(plan.id)
    await eventually(lambda: not _runs(child))


async def test_logs_on_disk_stay_within_their_limit(house: House) -> None:
    runtime = await house.open(log_max_bytes=400_000)
    code = "import sys\nfor n in range(20_000): sys.stdout.write('x' * 99 + '\\n')"
    plan = pod_of(house.python(code))
    await run_to_end(runtime, plan)
    folder = house.folder / "processes" / plan.id.uid / "user" / "0"
    assert sum(path.stat().st_size for path in folder.glob("log*")) <= 400_000


async def test_a_log_that_turns_over_is_followed_without_a_gap(house: House) -> None:
    runtime = await house.open(log_max_bytes=1_000_000)
    code = """
        import time
        for n in range(200):
            print(f"{n:04d}", "x" * 4000, flush=True)
            time.sleep(0.002)
    """
    plan = pod_of(house.python(textwrap.dedent(code)))
    await runtime.prepare(plan)
    await runtime.start_container(plan, "user")
    text = await logs(runtime, plan.id, follow=True)
    assert [int(line[:4]) for line in text.splitlines()] == list(range(200))


async def test_attaching_begins_at_once_though_nobody_reads_yet(
    house: House, runtime: Runtime
) -> None:
    code = "import signal; print('up', flush=True); signal.sigwait({10}); print('bye', flush=True)"
    plan = pod_of(house.python(f"import signal; signal.pthread_sigmask(0, {{10}}); {code}"))
    await runtime.prepare(plan)
    await runtime.start_container(plan, "user")
    await eventually(lambda: logs(runtime, plan.id))
    stream = await runtime.attach(plan.id, "user", stdin=False)
    path = house.folder / "processes" / plan.id.uid / "pod.json"
    os.kill(json.loads(path.read_text())["containers"]["user"]["pid"], signal.SIGUSR1)
    await until_state(runtime, plan.id, "exited")
    assert b"".join([data async for _, data in stream]) == b"bye\n"
    await stream.close()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root to switch users")
async def test_root_can_run_a_program_as_another_user(house: House, runtime: Runtime) -> None:
    code = "import os; print(os.getuid(), os.getgid(), os.getgroups())"
    for changes, found in (
        ({"user": 1234}, "1234 0"),
        ({"user": 1234, "group": 99, "supplemental_groups": (7,)}, "1234 99 [7]"),
    ):
        one = replace(house.python(code, **changes), local_dir=Path("/"))
        plan = pod_of(replace(one, local_command=("/usr/bin/env", "python3", "-c", code)))
        await run_to_end(runtime, plan)
        assert (await logs(runtime, plan.id)).startswith(found)


async def test_signals_reach_a_program_as_if_it_stood_alone(house: House, runtime: Runtime) -> None:
    # Asked of a shell: Python itself changes what happens at SIGPIPE.
    asks = ("sh", "-c", "grep -E 'SigIgn|SigBlk' /proc/self/status")
    plan = pod_of(replace(house.python(""), local_command=asks))
    await run_to_end(runtime, plan)
    for line in (await logs(runtime, plan.id)).splitlines():
        for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP):
            assert not int(line.split()[1], 16) >> (number - 1) & 1


async def test_a_pod_serves_after_its_port_was_chosen_by_a_daemon_before(house: House) -> None:
    first = await house.open()
    pod = pod_id()
    plan = pod_of(house.server(first, pod), pod=pod)
    await first.prepare(plan)
    await first.close()
    second = await house.open()
    await second.start_container(plan, "user")
    assert await get(second, plan) == "hello from me\n"


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


# -- shims that are started ahead -----------------------------------------------------------------


def waiting_shims() -> set[int]:
    """Shims of this process that have no program yet."""
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "process_shim.py" in " ".join(child.cmdline()) and not child.children():
                found.add(child.pid)
    return found


async def test_the_next_program_has_its_shim_already_and_is_as_any_other(house: House) -> None:
    runtime = await house.open()
    before = waiting_shims()
    first = pod_of(house.python("print('first')"))
    await run_to_end(runtime, first)
    (ahead,) = await eventually(lambda: waiting_shims() - before)
    what = "os.environ['WHO'], os.getcwd(), os.getppid(), os.getsid(0) == os.getpid()"
    code = f"import os; print({what})"
    plan = pod_of(house.python(code, env={"WHO": "me"}))
    ended = await run_to_end(runtime, plan)
    assert ended.exit_code == 0
    assert (await logs(runtime, plan.id)).split() == ["me", str(house.folder), str(ahead), "True"]


async def test_more_than_a_pipe_takes_reaches_the_program_all_the_same(house: House) -> None:
    runtime = await house.open()
    before = waiting_shims()
    await run_to_end(runtime, pod_of(house.python("pass")))
    await eventually(lambda: waiting_shims() - before)
    plan = pod_of(
        house.python("import os; print(len(os.environ['BIG']))", env={"BIG": "x" * 100_000})
    )
    await run_to_end(runtime, plan)
    assert await logs(runtime, plan.id) == "100000\n"


async def test_a_shim_that_was_killed_while_it_waited_is_not_missed(house: House) -> None:
    runtime = await house.open()
    before = waiting_shims()
    await run_to_end(runtime, pod_of(house.python("pass")))
    (ahead,) = await eventually(lambda: waiting_shims() - before)
    os.kill(ahead, signal.SIGKILL)
    await eventually(lambda: not _runs(ahead))  # the kernel takes its time
    plan = pod_of(house.python("print('runs')"))
    await run_to_end(runtime, plan)
    assert await logs(runtime, plan.id) == "runs\n"


async def test_no_shim_waits_once_the_daemon_is_gone(house: House) -> None:
    before = waiting_shims()
    runtime = await house.open()
    await run_to_end(runtime, pod_of(house.python("pass")))
    await eventually(lambda: waiting_shims() - before)
    await runtime.close()
    await eventually(lambda: not waiting_shims() - before)
