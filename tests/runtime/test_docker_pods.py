"""What only containers can do: isolation, limits, files, and an engine of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from knlocal.runtime import labels
from knlocal.runtime.api import (
    ContainerPlan,
    ExecStream,
    ImageMissing,
    Mount,
    PodId,
    PodPlan,
    Runtime,
    RuntimeFailure,
)
from knlocal.runtime.docker import DockerRuntime
from tests.images import build
from tests.images.programs import SURVIVOR
from tests.runtime.conftest import (
    House,
    events_of,
    eventually,
    get,
    logs,
    pod_id,
    pod_of,
    run_to_end,
    until_state,
)

pytestmark = pytest.mark.docker

HTTPD = "knlocal-test/httpd:1"


@pytest.fixture
def engine() -> str:
    return "docker"


def httpd(**changes: Any) -> ContainerPlan:
    return replace(ContainerPlan("user", HTTPD, env={"PORT": "8080"}), **changes)


async def serve(runtime: Runtime, *containers: ContainerPlan, **changes: Any) -> PodPlan:
    plan = pod_of(*(containers or (httpd(),)), **changes)
    await runtime.prepare(plan)
    for one in plan.containers:
        await runtime.start_container(plan, one.name)
    return plan


async def output(runtime: Runtime, house: House, code: str, **changes: Any) -> str:
    """What a Python program prints in a container made with these changes."""
    plan = pod_of(house.python(textwrap.dedent(code), **changes))
    await run_to_end(runtime, plan)
    return (await logs(runtime, plan.id)).strip()


def docker(*command: str) -> str:
    done = subprocess.run(["docker", *command], capture_output=True, text=True, check=True)
    return done.stdout


def containers_of(house: House) -> list[dict[str, Any]]:
    ids = docker("ps", "-aq", "--filter", f"label={labels.PROJECT}={house.project}").split()
    found: list[dict[str, Any]] = json.loads(docker("inspect", *ids)) if ids else []
    return found


# -- the pod's common ground ----------------------------------------------------------------------


async def test_a_scratch_image_runs_and_wakes(runtime: Runtime) -> None:
    plan = await serve(runtime, httpd(env={"PORT": "8080", "TARGET": "pod"}))
    assert await get(runtime, plan) == "Hello pod!\n"


async def test_all_containers_share_host_name_hosts_and_resolver(
    house: House, runtime: Runtime
) -> None:
    code = """
        import socket
        print(socket.gethostname())
        print(open("/etc/resolv.conf").read())
        print(socket.gethostbyname("broker.default.svc.cluster.local"))
        print(socket.gethostbyname("other.example"), socket.gethostbyname(socket.gethostname()))
    """
    code = textwrap.dedent(code)
    plan = pod_of(
        house.python(code),
        house.python(code, name="second"),
        hostname="my-pod",
        hosts={"broker.default.svc.cluster.local": "host-gateway", "other.example": "192.0.2.9"},
        dns_servers=("192.0.2.53",),
        dns_search=("default.svc.cluster.local", "svc.cluster.local"),
    )
    state = await runtime.prepare(plan)
    for name in ("user", "second"):
        await runtime.start_container(plan, name)
        await until_state(runtime, plan.id, "exited", name)
        text = await logs(runtime, plan.id, name)
        assert text.startswith("my-pod\n")
        assert "nameserver 192.0.2.53" in text
        assert "search default.svc.cluster.local svc.cluster.local" in text
        assert f"192.0.2.9 {state.ip}" in text
        assert await runtime.host_address() in text


async def test_a_long_pod_name_is_no_trouble(runtime: Runtime) -> None:
    plan = await serve(runtime, pod=pod_id("revision-" + "x" * 200 + "-deployment-abc"))
    assert await get(runtime, plan) == "Hello World!\n"
    assert len(await get(runtime, plan, path="/hostname")) <= 63


async def test_volumes_are_shared_and_read_only_when_asked(
    house: House, runtime: Runtime, tmp_path: Path
) -> None:
    shared, config = tmp_path / "shared", tmp_path / "config"
    shared.mkdir(mode=0o777)
    config.mkdir()
    (config / "key").write_text("value")
    mounts = (Mount("/shared", shared), Mount("/config", config, read_only=True))
    write = """
        open("/shared/note", "w").write(open("/config/key").read())
        try:
            open("/config/key", "w")
        except OSError as refused:
            print(refused.strerror)
    """
    writer = house.python(textwrap.dedent(write), name="writer", mounts=mounts)
    reader = house.python("print(open('/shared/note').read())", mounts=mounts)
    plan = pod_of(reader, init_containers=(writer,))
    await run_to_end(runtime, plan, "writer")
    await runtime.start_container(plan, "user")
    await until_state(runtime, plan.id, "exited")
    assert await logs(runtime, plan.id) == "value\n"
    assert await logs(runtime, plan.id, "writer") == "Read-only file system\n"


async def test_memory_can_be_mounted(house: House, runtime: Runtime) -> None:
    code = """
        import os
        open("/cache/x", "w").write("y")
        print([line for line in open("/proc/mounts") if " /cache " in line][0])
    """
    mount = Mount("/cache", tmpfs=True, size_limit=1 << 20)
    found = await output(runtime, house, code, mounts=(mount,), user=1234)
    assert found.startswith("tmpfs /cache tmpfs")
    assert "size=1024k" in found


async def test_a_missing_volume_is_named(house: House, runtime: Runtime, tmp_path: Path) -> None:
    plan = pod_of(house.python("", mounts=(Mount("/data", tmp_path / "absent"),)))
    with pytest.raises(RuntimeFailure, match="absent") as refused:
        await runtime.prepare(plan)
    assert refused.value.reason == "CreateContainerError"


async def test_last_words_are_kept(house: House, runtime: Runtime) -> None:
    code = "open('/dev/termination-log', 'w').write('it was the disk'); exit(1)"
    plan = pod_of(house.python(code, user=1234))
    assert await runtime.termination_message(plan.id, "user") == ""
    await run_to_end(runtime, plan)
    assert await runtime.termination_message(plan.id, "user") == "it was the disk"
    elsewhere = pod_of(
        house.python("open('/tmp/words', 'w').write('x' * 5000)"),
        termination_message_path="/tmp/words",
    )
    await run_to_end(runtime, elsewhere)
    assert await runtime.termination_message(elsewhere.id, "user") == "x" * 4096
    await runtime.remove(plan.id)
    assert await runtime.termination_message(plan.id, "user") == ""


# -- limits and identity --------------------------------------------------------------------------


async def test_running_out_of_memory_is_told(house: House, runtime: Runtime) -> None:
    async with events_of(runtime) as seen:
        plan = await serve(runtime, house.python(SURVIVOR, memory_limit=64 << 20))
        await eventually(lambda: "oom" in seen.of())
        await runtime.stop_container(plan.id, "user", 0)
        ended = await until_state(runtime, plan.id, "exited")
        assert (ended.oom_killed, ended.exit_code) == (True, 137)
        await eventually(lambda: "exited" in seen.of())


async def test_a_container_over_its_memory_limit_is_killed(runtime: Runtime) -> None:
    hungry = pod_of(httpd(args=("eat", "200"), memory_limit=64 << 20))
    assert (await run_to_end(runtime, hungry)).exit_code == 137
    modest = pod_of(httpd(args=("eat", "20"), memory_limit=64 << 20))
    await runtime.prepare(modest)
    await runtime.start_container(modest, "user")
    await eventually(lambda: logs(runtime, modest.id))
    assert (await until_state(runtime, modest.id, "running")).oom_killed is False


async def test_limits_can_be_read_inside_and_not_changed(house: House, runtime: Runtime) -> None:
    code = """
        import json, os
        def read(*names):
            for name in names:
                try:
                    return open("/sys/fs/cgroup/" + name).read().split()
                except OSError:
                    pass
        def write(*names):
            for name in names:
                if os.path.exists("/sys/fs/cgroup/" + name):
                    try:
                        open("/sys/fs/cgroup/" + name, "w").write("9")
                        return "written"
                    except OSError as refused:
                        return refused.strerror
        memory = ("memory.max", "memory/memory.limit_in_bytes")
        quota = read("cpu.max") or read("cpu/cpu.cfs_quota_us") + read("cpu/cpu.cfs_period_us")
        print(json.dumps([read(*memory), quota, write(*memory)]))
    """
    found = await output(
        runtime, house, code, memory_limit=128 << 20, cpu_limit=0.5, cpu_request=0.25
    )
    assert json.loads(found) == [[str(128 << 20)], ["50000", "100000"], "Read-only file system"]


async def test_a_cpu_limit_above_the_machine_is_no_error(house: House, runtime: Runtime) -> None:
    assert await output(runtime, house, "print('ran')", cpu_limit=500.0, cpu_request=400) == "ran"


@pytest.mark.parametrize(
    ("changes", "ids"),
    [
        ({}, "0 0 []"),
        ({"user": 1234}, "1234 0 []"),
        ({"user": 1234, "group": 99}, "1234 99 []"),
        ({"group": 99}, "0 99 []"),
        ({"user": 1234, "group": 99, "supplemental_groups": (7, 8)}, "1234 99 [7, 8]"),
    ],
)
async def test_user_and_groups_are_as_asked(
    house: House, runtime: Runtime, changes: dict[str, Any], ids: str
) -> None:
    code = "import os; g = os.getgid(); print(os.getuid(), g, sorted(set(os.getgroups()) - {g, 0}))"
    assert await output(runtime, house, code, **changes) == ids


async def test_what_a_container_may_do_is_as_asked(house: House, runtime: Runtime) -> None:
    code = """
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        try:
            open("/made", "w")
            root = "writable"
        except OSError as refused:
            root = refused.strerror
        print(status["NoNewPrivs"].strip(), status["CapEff"].strip(), root)
    """
    plain = (await output(runtime, house, code)).split(" ", 2)
    assert (plain[0], plain[2]) == ("0", "writable")
    strict = await output(
        runtime,
        house,
        code,
        allow_privilege_escalation=False,
        capabilities_drop=("ALL",),
        capabilities_add=("NET_BIND_SERVICE",),
        read_only_root=True,
    )
    assert strict == f"1 {1 << 10:016x} Read-only file system"


async def test_privileged_is_passed_on(house: House, runtime: Runtime) -> None:
    # Not started: where the engine itself is confined, it may not give every capability.
    await runtime.prepare(pod_of(httpd(privileged=True)))
    privileged = {
        one["Config"]["Labels"][labels.ROLE]: one["HostConfig"]["Privileged"]
        for one in containers_of(house)
    }
    assert privileged == {"sandbox": False, "container": True}


async def test_the_working_directory_is_as_asked(house: House, runtime: Runtime) -> None:
    assert (
        await output(runtime, house, "import os; print(os.getcwd())", working_dir="/tmp") == "/tmp"
    )


async def test_command_replaces_entrypoint_and_args_replace_cmd(
    house: House, runtime: Runtime
) -> None:
    crashing = pod_of(httpd(args=("crash", "5")))
    assert (await run_to_end(runtime, crashing)).exit_code == 5
    unknown = pod_of(httpd(command=("/httpd", "dance")))
    assert (await run_to_end(runtime, unknown)).exit_code == 64
    assert "unknown mode dance" in await logs(runtime, unknown.id)


# -- labels, leaks, recovery ----------------------------------------------------------------------


async def test_every_container_says_whose_it_is(house: House, runtime: Runtime) -> None:
    pod = PodId("shop", "orders-00001-abc", "uid-1")
    await runtime.prepare(pod_of(httpd(), pod=pod, labels={"team": "a"}))
    found = containers_of(house)
    roles = {one["Config"]["Labels"][labels.ROLE] for one in found}
    assert roles == {"sandbox", "container"}
    for one in found:
        own = one["Config"]["Labels"]
        assert own["team"] == "a"
        assert (own[labels.NAMESPACE], own[labels.POD], own[labels.UID]) == pod
        assert one["Name"].startswith(f"/knlocal.{house.project}.shop.orders-00001-abc.")


async def test_nothing_is_left_after_any_kind_of_life(house: House, runtime: Runtime) -> None:
    crashed = pod_of(httpd(args=("crash", "1")))
    for _ in range(3):
        await run_to_end(runtime, crashed)
    serving = await serve(runtime)
    prepared = pod_of(httpd())
    await runtime.prepare(prepared)
    frozen = await serve(runtime)
    await runtime.pause(frozen.id)
    broken = pod_of(httpd(command=("/absent",)))
    await runtime.prepare(broken)
    with pytest.raises(RuntimeFailure, match="absent"):
        await runtime.start_container(broken, "user")
    for plan in (crashed, serving, prepared, frozen, broken):
        await runtime.remove(plan.id, 5)
    assert containers_of(house) == []
    assert list((house.folder / "pods").glob("*")) == []


async def test_a_pod_that_is_just_being_made_is_listed_and_can_be_removed(
    house: House, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the daemon goes while a slow engine makes it."""
    assert isinstance(runtime, DockerRuntime)
    create, begun, go_on = runtime._maker._create, asyncio.Event(), asyncio.Event()

    async def slowly(*arguments: Any, **named: Any) -> str:
        begun.set()
        await go_on.wait()
        return await create(*arguments, **named)

    monkeypatch.setattr(runtime._maker, "_create", slowly)
    making = asyncio.create_task(runtime.prepare(pod_of(httpd())))
    await eventually(begun.is_set)
    making.cancel()
    (found,) = await runtime.pods()
    removing = asyncio.create_task(runtime.remove(found.id))
    go_on.set()
    await removing
    assert containers_of(house) == []
    assert await runtime.pods() == []


async def test_removing_in_parallel_is_no_error(house: House, runtime: Runtime) -> None:
    plan = await serve(runtime)
    other = await house.open()
    await asyncio.gather(*(one.remove(plan.id) for one in (runtime, other, runtime, other)))
    assert containers_of(house) == []


async def test_only_one_earlier_attempt_is_kept(house: House, runtime: Runtime) -> None:
    plan = pod_of(httpd(args=("crash", "1")))
    for _ in range(4):
        await run_to_end(runtime, plan)
    assert len(containers_of(house)) == 3  # the sandbox, this attempt, the one before
    again = await house.open()
    await run_to_end(again, plan)
    assert len(containers_of(house)) == 3


async def test_a_plan_that_changed_before_the_start_is_made_anew(runtime: Runtime) -> None:
    plan = pod_of(httpd())
    await runtime.prepare(plan)
    changed = replace(plan, containers=(httpd(env={"PORT": "8080", "TARGET": "new"}),))
    await runtime.prepare(changed)
    await runtime.start_container(changed, "user")
    assert await get(runtime, changed) == "Hello new!\n"


async def test_a_pod_whose_sandbox_died_starts_again(house: House, runtime: Runtime) -> None:
    """As after a restart of the engine, or of the machine."""
    served, prepared = await serve(runtime), pod_of(httpd())
    await runtime.prepare(prepared)
    docker("kill", *(one["Id"] for one in containers_of(house) if one["State"]["Running"]))
    await until_state(runtime, served.id, "exited")
    for plan in (served, prepared):
        await runtime.start_container(plan, "user")
        assert await get(runtime, plan) == "Hello World!\n"


async def test_a_pod_whose_containers_were_taken_away_is_made_anew(
    house: House, runtime: Runtime
) -> None:
    plan, prepared = await serve(runtime), pod_of(httpd())
    await runtime.prepare(prepared)
    docker("rm", "-f", *(one["Id"] for one in containers_of(house)))
    assert await runtime.inspect(plan.id) is None
    for one in (plan, prepared):
        await runtime.start_container(one, "user")
        assert await get(runtime, one) == "Hello World!\n"


async def test_a_pod_made_by_another_daemon_is_known_without_a_restart(house: House) -> None:
    one, other = await house.open(), await house.open()
    plan = await serve(one)
    state = await other.inspect(plan.id)
    assert state is not None
    assert state.containers["user"].state == "running"
    assert "listening" in await logs(other, plan.id)


async def test_ports_are_published_where_addresses_are_out_of_reach(house: House) -> None:
    runtime = await house.open(publish=True)
    plan = await serve(runtime)
    state = await runtime.inspect(plan.id)
    assert state is not None
    host, port = runtime.address(state, 8080)
    assert (host, port != 8080) == ("127.0.0.1", True)
    assert await get(runtime, plan) == "Hello World!\n"
    again = await house.open(publish=True)
    assert again.address(state, 8080) == (host, port)


# -- images ---------------------------------------------------------------------------------------


async def test_images_are_found_by_tag_digest_and_id(runtime: Runtime) -> None:
    by_tag = await runtime.image(HTTPD)
    assert by_tag is not None
    assert by_tag.digest == f"knlocal-test/httpd@{by_tag.id}"
    assert (by_tag.entrypoint, by_tag.exposed_ports) == (("/httpd",), (8080,))
    for name in (by_tag.digest, by_tag.id):
        found = await runtime.image(name)
        assert found is not None
        assert (found.id, found.digest) == (by_tag.id, by_tag.digest)
    assert await runtime.image("knlocal-test/absent:1") is None
    assert await runtime.image("Not A Name") is None
    plan = await serve(runtime, httpd(image=by_tag.digest))
    assert await get(runtime, plan) == "Hello World!\n"


@pytest.mark.parametrize(
    ("image", "policy", "reason", "words"),
    [
        ("127.0.0.1:9/none/such:1", "IfNotPresent", "ErrImagePull", "127.0.0.1:9/none/such:1"),
        ("127.0.0.1:9/none/such:1", "Never", "ErrImageNeverPull", "pull policy of Never"),
        ("No Such Image", "IfNotPresent", "InvalidImageName", "invalid reference format"),
    ],
)
async def test_an_image_that_cannot_be_had_is_named(
    runtime: Runtime, image: str, policy: Any, reason: str, words: str
) -> None:
    plan = pod_of(httpd(image=image, pull_policy=policy))
    with pytest.raises(ImageMissing, match=words) as missing:
        await runtime.prepare(plan)
    assert missing.value.reason == reason
    good = replace(plan, containers=(httpd(),))
    await runtime.prepare(good)
    await runtime.start_container(good, "user")
    assert await get(runtime, good) == "Hello World!\n"


async def test_the_sandbox_needs_no_registry_and_almost_no_room(runtime: Runtime) -> None:
    images = json.loads(
        docker("image", "inspect", docker("images", "-q", "knlocal/sandbox").split()[0])
    )
    assert images[0]["Size"] < 10_000


def test_the_test_images_are_named_once() -> None:
    assert build.IMAGES["httpd"][0] == HTTPD


# -- stdin ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("once", [False, True])
async def test_the_end_of_a_clients_stdin_is_not_the_end_of_its_output(
    house: House, runtime: Runtime, once: bool
) -> None:
    """`kubectl run -i < /dev/null`: what is written afterwards is still shown."""
    code = """
        import sys
        print("got", sys.stdin.readline().strip(), flush=True)
        print("rest", repr(sys.stdin.readline()) if "once" in sys.argv else "", flush=True)
    """
    one = house.python(textwrap.dedent(code), stdin=True, stdin_once=once)
    one = replace(one, args=("once",) if once else ())
    plan = await serve(runtime, one)
    stream = await runtime.attach(plan.id, "user", stdin=True)
    if once:
        await stream.write(b"a line\n")
        await stream.write(b"")
        assert await _all_of(stream) == b"got a line\nrest ''\n"
    else:
        await stream.write(b"")
        other = await runtime.attach(plan.id, "user", stdin=True)
        await other.write(b"a line\n")
        assert await _all_of(stream) == b"got a line\nrest \n"
        await other.close()
    await stream.close()


async def _all_of(stream: ExecStream) -> bytes:
    return await asyncio.wait_for(_joined(stream), 30)


async def _joined(stream: ExecStream) -> bytes:
    return b"".join([data async for _, data in stream])
