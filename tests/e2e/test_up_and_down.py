"""A project from `up` to `down`, through crashes and mistakes."""

import http.client
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import DEADLINE, SERVER, Knlocal, running


def test_a_project_comes_up_answers_and_leaves_nothing_behind(knlocal: Knlocal) -> None:
    said = knlocal.out("up", "-d")
    assert re.search(r"hello +http://hello\.default\.localhost:\d+ +yes +hello-00001", said)
    assert knlocal.out("invoke", "hello") == "hello hello-00001\n"
    assert knlocal.out("get", "-o", "name") == "service.serving.knative.dev/hello\n"
    knlocal.until(lambda: "got /" in knlocal.out("logs", "hello"))
    assert "'nope'" in knlocal("logs", "hello", "-c", "nope", code=4).stderr
    assert "hello-00001" in knlocal.out("describe", "hello")
    assert "100%" in knlocal.out("traffic", "hello")
    assert knlocal.left()
    assert "is down" in knlocal.out("down")
    assert knlocal.left() == []
    assert knlocal("get", code=3)


def test_ctrl_c_ends_everything_and_piped_output_has_no_colours(knlocal: Knlocal) -> None:
    process = subprocess.Popen(
        knlocal.command("up"), stdout=subprocess.PIPE, text=True, env=knlocal.env()
    )
    assert process.stdout is not None
    said = ""
    while "Ctrl-C stops everything" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    process.send_signal(signal.SIGINT)
    said += process.communicate(timeout=DEADLINE)[0]
    assert process.returncode == 0
    assert "\x1b[" not in said
    assert re.search(r"hello +ready at http://", said)
    assert knlocal.left() == []


def test_a_killed_daemon_comes_back_knowing_everything(knlocal: Knlocal) -> None:
    knlocal("up", "-d")
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mine}\ndata: {a: b}\n"
    knlocal("apply", "-f", "-", feed=manifest)
    (before,) = knlocal.objects("pods")
    knlocal.kill()
    assert knlocal.left()
    knlocal("up", "-d")
    assert knlocal.out("invoke", "hello") == "hello hello-00001\n"
    (after,) = knlocal.objects("pods")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert knlocal.objects("configmap", "mine")[0]["data"] == {"a": "b"}
    knlocal("down")
    assert knlocal.left() == []


def test_channels_still_take_events_after_a_restart(knlocal: Knlocal) -> None:
    knlocal.write("")
    knlocal("up", "-d")
    manifest = "apiVersion: messaging.knative.dev/v1\nkind: Channel\nmetadata: {name: c}\n"
    knlocal("apply", "-f", "-", feed=manifest)
    for _ in range(2):
        knlocal.until(lambda: _post_event(knlocal, "c-kn-channel.default.svc.cluster.local") == 202)
        knlocal("down")
        knlocal("up", "-d")
    assert _post_event(knlocal, "c-kn-channel.default.svc.cluster.local") == 202


def _post_event(knlocal: Knlocal, host: str) -> int:
    """The answer's status, at the door for containers."""
    headers = {
        "Host": host,
        "ce-specversion": "1.0",
        "ce-id": "1",
        "ce-source": "/s",
        "ce-type": "t",
    }
    door, port = knlocal.card["internal"].rsplit(":", 1)
    connection = http.client.HTTPConnection(door, int(port), timeout=10)
    try:
        connection.request("POST", "/", b"x", headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_every_service_answers_from_the_moment_that_up_returns(local: Knlocal) -> None:
    names = [f"s{number}" for number in range(5)]
    local.write("".join(f'[services.{name}]\nsource = "app"\n' for name in names))
    local("up", "-d")
    local.kill()
    local("up", "-d")
    host, _, port = local.card["gateway"].rpartition(":")
    for name in names:
        connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE)
        connection.request("GET", "/", headers={"Host": f"{name}.default.localhost"})
        assert connection.getresponse().status == 200
        connection.close()


def test_a_port_that_is_asked_for_asks_for_no_other(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first = Knlocal(project, "process")
    second = Knlocal(tmp_path_factory.mktemp("second"), "process")
    first.write(port="")
    second.write(port="")
    try:
        first("up", "-d", "--port", "0")
        second("up", "-d", "--port", "0")  # though both would like port 80 for containers
        assert second.card["gateway"] != first.card["gateway"]
    finally:
        first("down", code=None)
        second("down", code=None)


def test_a_daemon_that_is_killed_while_it_starts_keeps_nobody_waiting(local: Knlocal) -> None:
    local.write(
        '[services.hello]\nsource = "app"\n[services.mute]\nrun = "sleep 1000"\nsource = "app"\n'
    )
    starting = subprocess.Popen(
        local.command("up", "-d"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    local.until(lambda: len(local.left()) == 2)
    local.kill()
    assert starting.wait(DEADLINE) == 1
    assert "the daemon did not come up" in starting.communicate()[1]
    assert "removed 2 left-over pods" in local.out("down")


def test_what_a_killed_daemon_left_behind_goes_with_down(knlocal: Knlocal) -> None:
    knlocal("up", "-d")
    knlocal.kill()
    assert knlocal.left()
    assert "left-over" in knlocal.out("down")
    assert knlocal.left() == []


def test_ctrl_c_in_the_middle_of_the_start_leaves_nothing(knlocal: Knlocal) -> None:
    knlocal("up", "-d")
    knlocal.kill()
    assert knlocal.left()  # for the next daemon to find
    process = subprocess.Popen(knlocal.command("up"), stdout=subprocess.PIPE, env=knlocal.env())
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE)
    assert knlocal.left() == []


def test_a_project_that_is_still_starting_can_be_taken_down(local: Knlocal) -> None:
    process = subprocess.Popen(local.command("up"), stdout=subprocess.PIPE, env=local.env())
    assert process.stdout is not None
    process.stdout.readline()
    assert "is down" in local.out("down")
    process.communicate(timeout=DEADLINE)
    assert local.left() == []


def test_code_that_changed_while_the_project_was_down_is_a_new_revision(knlocal: Knlocal) -> None:
    knlocal("up", "-d")
    knlocal("down")
    knlocal("up", "-d")
    assert knlocal.out("invoke", "hello") == "hello hello-00001\n"
    knlocal("down")
    knlocal.source("main.py", SERVER.replace("'hello'", "'goodbye'"))
    knlocal("up", "-d")
    assert knlocal.out("invoke", "hello") == "goodbye hello-00002\n"


def test_rollback_really_restores_the_old_code(knlocal: Knlocal) -> None:
    knlocal("up", "-d")
    knlocal("down")
    knlocal.source("main.py", SERVER.replace("'hello'", "'goodbye'"))
    knlocal("up", "-d")
    assert "hello-00001" in knlocal.out("revisions", "hello")
    knlocal("rollback", "hello")
    knlocal.until(lambda: knlocal.out("invoke", "hello") == "hello hello-00001\n")
    knlocal("rollback", "hello", "--latest")
    knlocal.until(lambda: knlocal.out("invoke", "hello") == "goodbye hello-00002\n")


def test_what_the_file_no_longer_declares_is_removed(local: Knlocal) -> None:
    both = '[services.hello]\nsource = "app"\n[brokers.default]\n'
    local.write(both)
    local("up", "-d")
    manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mine}\n"
    local("apply", "-f", "-", feed=manifest)
    local("down")
    local.write()
    local("up", "-d")
    assert local("get", "broker", "default", code=4)
    assert local.objects("configmap", "mine")


def test_a_program_that_does_not_start_is_told_with_its_own_error(local: Knlocal) -> None:
    local.source("main.py", "if __name__ == '__main__':\n    raise SystemExit('no database')\n")
    said = local.out("up", "-d")
    assert re.search(r"hello .* no: .*", said)
    assert "no database" in said


def test_one_broken_service_does_not_keep_the_others_down(local: Knlocal) -> None:
    local.write('[services.hello]\nsource = "app"\n[services.gone]\nsource = "nowhere"\n')
    said = local("up", "-d", code=1).stdout
    assert "no such folder: nowhere" in said
    assert local.out("invoke", "hello") == "hello hello-00001\n"


def test_two_projects_run_beside_each_other(local: Knlocal, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    for second in running(folder, "process"):
        for one in (local, second):
            one.write(port="")  # both want the usual port
            one("up", "-d")
        assert local.card["gateway"] != second.card["gateway"]
        # Unless a program that is none of ours had it before.
        holder = "another knlocal in" if local.card["gateway"].endswith(":8080") else ""
        assert any(f"port 8080 is held by {holder}" in note for note in second.card["notes"])
        assert local.out("invoke", "hello") == second.out("invoke", "hello")


def test_a_second_up_of_the_same_project_is_refused(local: Knlocal) -> None:
    local("up", "-d")
    for arguments in (["up"], ["up", "-d"]):
        assert "already up (pid" in local(*arguments, code=2).stderr


def test_a_port_that_was_asked_for_and_is_taken_names_its_holder(
    local: Knlocal, free_port: Callable[[], int]
) -> None:
    port = free_port()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        local.write(port=str(port))
        said = local("up", "-d", code=2)
    assert f"port {port} is held by" in said.stdout + said.stderr
    assert f"pid {os.getpid()}" in said.stdout + said.stderr


@pytest.mark.parametrize("how", ["cut short", "newer"])
def test_a_state_file_that_cannot_be_used_is_told(local: Knlocal, how: str) -> None:
    local("up", "-d")
    local("down")
    state = local.folder / ".knlocal" / "state.db"
    if how == "newer":
        with sqlite3.connect(state) as connection:
            connection.execute("PRAGMA user_version=99")
    else:
        state.write_bytes(state.read_bytes()[:3000])
        for name in ("state.db-wal", "state.db-shm"):
            state.with_name(name).unlink(missing_ok=True)
    done = local("up", "-d", code=1)
    said = done.stdout + done.stderr
    assert ("damaged" if how == "cut short" else "newer knlocal") in said
    assert "Traceback" not in said


@pytest.mark.parametrize(("name", "code"), [("events.db", 1), ("journal.db", 0), ("lock", 2)])
def test_no_other_file_that_is_damaged_or_cannot_be_written_makes_a_traceback(
    local: Knlocal, name: str, code: int
) -> None:
    local("up", "-d")
    local("down")
    file = local.folder / ".knlocal" / name
    if name == "lock":
        file.unlink()
        file.mkdir()  # root may write any file, but no folder
    else:
        file.write_bytes(b"garbage" * 1000)
    done = local("up", "-d", code=code)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert "internal error" not in said
    if code:
        assert str(file) in said
    if name == "lock":
        file.rmdir()


def test_an_internal_port_that_was_asked_for_and_is_taken_names_its_holder(
    local: Knlocal, free_port: Callable[[], int]
) -> None:
    port = free_port()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        local.write(f'internal_port = {port}\n[services.hello]\nsource = "app"\n')
        done = local("up", "-d", code=2)
    assert "[gateway] internal_port" in done.stdout + done.stderr
    assert f"pid {os.getpid()}" in done.stdout + done.stderr


def test_a_trigger_that_leads_nowhere_is_told_before_up_returns(local: Knlocal) -> None:
    local.write('[brokers.default]\n[triggers.t]\nsink = "nobody"\n')
    assert "trigger t" in local.out("up", "-d")


def test_an_object_that_is_refused_is_told_with_its_line_and_the_exit_code(local: Knlocal) -> None:
    file = local.folder / "knlocal.toml"
    file.write_text(file.read_text().replace("[project]", '[project]\nmanifests = "k8s.yaml"'))
    (local.folder / "k8s.yaml").write_text(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: refused}\n"
        "spec:\n  template:\n    spec:\n      containerConcurrency: -1\n"
        "      containers: [{image: some}]\n"
    )
    done = local("up", "-d", code=1)
    assert "k8s.yaml:7: Service 'refused': " in done.stdout
    assert re.search(r"hello +http://\S+ +yes", done.stdout)
    assert "1 problem" in done.stderr
    assert "hello" in local.out("get")


def test_purge_forgets_everything(local: Knlocal) -> None:
    local("up", "-d")
    local("down", "--purge")
    assert not (local.folder / ".knlocal").exists()


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_finds_the_project_through_env(local: Knlocal) -> None:
    local("up", "-d")
    script = f'eval "$({" ".join(local.command("env"))})"; kubectl get ksvc hello -o name'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=DEADLINE)
    assert done.stdout == "service.serving.knative.dev/hello\n", done.stderr


def test_objects_come_and_go_by_hand(local: Knlocal) -> None:
    local("up", "-d")
    manifest = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: '1'}\n---\n"
        "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: b}\n"
    )
    assert local.out("apply", "-f", "-", feed=manifest).splitlines() == [
        "configmap/a created",
        "broker.eventing.knative.dev/b created",
    ]
    assert "configmap/a unchanged" in local.out("apply", "-f", "-", feed=manifest)
    assert "configmap/a configured" in local.out(
        "apply", "-f", "-", feed=manifest.replace("'1'", "'2'")
    )
    assert "NAME" in local.out("get", "brokers")
    assert "broker.eventing.knative.dev/b deleted" in local.out("delete", "broker", "b")
    assert local("get", "broker", "b", code=4)
    refused = local("apply", "-f", "-", code=2, feed=manifest.replace("Broker", "Brokr"))
    assert "did you mean 'Broker'?" in refused.stderr
    unknown = local("apply", "-f", "-", code=1, feed=manifest.replace("\ndata:", "\ndate:"))
    assert 'unknown field "date"' in unknown.stderr
