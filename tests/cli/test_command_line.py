"""The command line without a daemon: help, wrong words, exit codes, files that are wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from knlocal.cli import COMMANDS, run
from knlocal.cli.exits import Exit, say

GOOD = '[project]\nname = "shop"\n[services.hello]\nimage = "hello:1"\n'


def knlocal(folder: Path, *arguments: str) -> int:
    return run(["-C", str(folder), *arguments])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == Exit.OK
    assert "Usage: knlocal" in capsys.readouterr().out


def test_help_lists_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == Exit.OK
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)
    assert "Exit codes: 0 done" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["upp"], "did you mean 'up'?"),
        (["get", "--nope"], "No such option"),
        (["apply"], "Missing option"),
        (["up", "--port", "80000"], "0<=x<=65535"),
        (["up", "--runtime", "podman"], "'auto', 'docker', 'process'"),
        (["completion", "tcsh"], "'bash', 'zsh', 'fish'"),
    ],
)
def test_wrong_words_are_answered_with_exit_code_2(
    arguments: list[str], said: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert knlocal(project, *arguments) == Exit.USAGE
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["up", "down", "get", "logs", "export", "build", "env"])
def test_a_folder_without_a_project_is_told_how_to_make_one(
    command: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert knlocal(project, command) == Exit.USAGE
    assert "`knlocal init` makes one" in capsys.readouterr().err


def test_what_env_sets_can_be_undone(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert knlocal(project, "env", "--unset") == Exit.OK
    unset = capsys.readouterr().out.split()
    assert unset[0] == "unset"
    assert {"KUBECONFIG", "KNLOCAL_GATEWAY", "SYSTEM_NAMESPACE"} <= set(unset)


@pytest.mark.parametrize("command", [["get"], ["logs"], ["invoke", "x"], ["env"], ["kubeconfig"]])
def test_without_a_daemon_the_exit_code_is_3(
    command: list[str], project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "knlocal.toml").write_text(GOOD)
    assert knlocal(project, *command) == Exit.NO_DAEMON
    assert "`knlocal up` starts it" in capsys.readouterr().err


def test_a_mistake_in_the_file_is_shown_with_its_place(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "knlocal.toml").write_text(GOOD + "scael = { min = 1 }\n")
    assert knlocal(project, "up") == Exit.USAGE
    assert "[services.hello]: unknown key 'scael'\n  did you mean 'scale'?" in (
        capsys.readouterr().err
    )


def test_init_makes_a_file_from_what_the_folder_holds(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "orders").mkdir()
    (project / "orders" / "main.py").write_text("if __name__ == '__main__': ...")
    (project / "k8s").mkdir()
    (project / "k8s" / "a.yaml").write_text("")
    assert knlocal(project, "init", "--name", "shop") == Exit.OK
    text = (project / "knlocal.toml").read_text()
    assert 'manifests = ["k8s/*.yaml"]' in text
    assert '[services.orders]\nsource = "./orders"' in text
    assert knlocal(project, "init") == Exit.USAGE
    assert "--force replaces it" in capsys.readouterr().err


def test_init_names_functions_and_says_what_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, func in (("one", "name: my-fn\nruntime: python\n"), ("two", "runtime: cobol\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "func.yaml").write_text(func)
        (tmp_path / name / "func.py").write_text("def handle(request): ...")
    (tmp_path / "k8s").mkdir()
    (tmp_path / "k8s" / "a.yml").write_text("")
    assert knlocal(tmp_path, "init") == Exit.OK
    text = (tmp_path / "knlocal.toml").read_text()
    assert 'manifests = ["k8s/*.yml"]' in text
    assert '[services.my-fn]\nsource = "./one"' in text
    said = capsys.readouterr()
    assert "runtime 'cobol' is not supported" in said.err


def test_export_prints_what_a_cluster_takes(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "k.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n")
    (project / "app").mkdir()
    (project / "app" / "main.py").write_text("if __name__ == '__main__': ...")
    (project / "knlocal.toml").write_text(
        '[project]\nname = "shop"\nmanifests = ["k.yaml"]\n'
        '[services.hello]\nsource = "./app"\nscale = { idle = "freeze", max = 2 }\n'
        '[sources.tick]\nkind = "ping"\nsink = "hello"\n'
    )
    assert knlocal(project, "export", "--image-prefix", "example.com/team") == Exit.OK
    found = capsys.readouterr()
    config_map, service, source = yaml.safe_load_all(found.out)
    assert config_map["kind"] == "ConfigMap"
    assert source["kind"] == "PingSource"
    template = service["spec"]["template"]
    assert template["metadata"]["annotations"] == {"autoscaling.knative.dev/max-scale": "2"}
    assert template["spec"]["containers"][0]["image"].startswith("example.com/team/hello:")
    assert "left out annotation knlocal.dev/idle" in found.err


def test_completion_prints_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "zsh"]) == Exit.OK
    assert "#compdef knlocal" in capsys.readouterr().out


def test_a_bug_is_told_as_one_without_a_traceback(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_path: Path) -> None:
        raise RuntimeError("wires crossed")

    monkeypatch.delenv("KNLOCAL_DEBUG", raising=False)
    monkeypatch.setattr("knlocal.project.config.find", broken)
    assert knlocal(project, "get") == Exit.INTERNAL
    said = capsys.readouterr().err
    assert "wires crossed" in said
    assert "Traceback" not in said


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = f"{sys.executable} -m knlocal --help | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_reader_that_leaves_between_two_lines_is_no_error() -> None:
    program = (
        "import sys, click; from knlocal import cli\n"
        "@click.command()\n"
        "def chatter():\n"
        "    for _ in range(99): click.echo('x' * 9999)\n"
        "cli.COMMANDS['chatter'] = ('', ''); cli.root.get_command = lambda *_: chatter\n"
        "sys.exit(cli.run(['chatter']))"
    )
    command = '"$0" -c "$1" | head -c 1; exit "${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, program], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "x", "")


def test_ctrl_c_while_a_module_is_imported_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    wrapped = RuntimeError("Error calling __set_name__ on 'Field' instance")
    wrapped.__cause__ = KeyboardInterrupt()
    assert say(wrapped) == Exit.INTERRUPTED
    assert capsys.readouterr().err == "\n"
