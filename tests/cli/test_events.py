"""`send`, `events`, `explain`, `replay` against a real daemon in the background."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from knlocal.cli import run
from knlocal.cli.exits import Exit
from knlocal.cli.trails import told

TOML = """
[project]
name = "trail"
runtime = "process"
[gateway]
port = 0
internal_port = 0
[brokers.default]
[triggers.picky]
filter = "type = 'order.created' AND subject = 'x'"
sink = "http://127.0.0.1:9/"
[triggers.dead]
sink = "http://127.0.0.1:9/"
filter = { type = "order.created" }
"""


class Cli:
    """Runs commands in a folder; `out` and `err` hold what the last one printed."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder, self._capsys = folder, capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        self._capsys.readouterr()
        code = run(["-C", str(self._folder), *arguments])
        self.out, self.err = self._capsys.readouterr()
        return code


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("trail")
    (folder / "knlocal.toml").write_text(TOML)
    assert run(["-C", str(folder), "up", "-d"]) == Exit.OK
    yield folder
    assert run(["-C", str(folder), "down"]) == Exit.OK


@pytest.fixture
def cli(folder: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(folder, capsys)


def test_that_no_event_matches_is_said(cli: Cli) -> None:
    assert cli("events", "--type", "nobody.sends.this") == Exit.OK
    assert cli.out == ""
    assert "no such event passed here" in cli.err


def test_a_sent_event_can_be_explained(cli: Cli) -> None:
    assert cli("send", "broker:default", "-t", "order.created", "-d", '{"n": 1}', "--id", "a") == 0
    assert "a  accepted by broker:default (202)" in cli.out
    assert "knlocal explain a" in cli.err
    assert cli("explain", "a") == Exit.OK
    assert "came to Broker default/default" in cli.out
    assert "- trigger default/picky: not for it" in cli.out
    assert "the event has no attribute subject" in cli.out
    assert "- trigger default/dead:" in cli.out


def test_an_explanation_is_there_as_json_too(cli: Cli) -> None:
    cli("send", "broker:default", "-t", "order.created", "--id", "json")
    assert cli("explain", "json", "-o", "json") == Exit.OK
    (entry,) = json.loads(cli.out)["items"]
    names = {s["name"]: s["outcome"] for s in entry["subscribers"]}
    assert names["trigger default/picky"] == "refused"


def test_events_are_listed_chosen_recorded_and_replayed(cli: Cli, tmp_path: Path) -> None:
    cli("send", "broker:default", "-t", "rare.one", "--id", "r1", "-a", "subject=s")
    assert cli("events", "--type", "rare.*") == Exit.OK
    assert "r1  matched nobody" in cli.out
    file = tmp_path / "rare.jsonl"
    assert cli("events", "--type", "rare.*", "--record", str(file)) == Exit.OK
    assert cli("replay", "--file", str(file)) == Exit.OK
    assert "r1  rare.one  accepted" in cli.out
    assert cli("events", "--attribute", "subject=s", "-o", "json") == Exit.OK
    assert [json.loads(line)["event"]["id"] for line in cli.out.splitlines()] == ["r1", "r1"]


def test_one_event_is_replayed_by_its_id_to_another_place(cli: Cli) -> None:
    cli("send", "broker:default", "-t", "x", "--id", "again")
    assert cli("replay", "again", "--to", "http://127.0.0.1:9/") == Exit.FAILURE
    assert "again  x  cannot connect to 127.0.0.1:9" in cli.out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["explain", "nobody"], Exit.NOT_FOUND, "no event with id 'nobody' passed here"),
        (["send", "broker:nope", "-t", "x"], Exit.NOT_FOUND, '"nope" not found'),
        (["send", "planet:mars", "-t", "x"], Exit.USAGE, "names no place for events"),
        (["send", "broker:default"], Exit.USAGE, "an event needs a type"),
        (["send", "broker:default", "-t", "x", "-a", "BAD=1"], Exit.FAILURE, "lower-case"),
        (["send", "http://127.0.0.1:9/", "-t", "x"], Exit.FAILURE, "connection refused"),
        (["send", "broker:default", "--event", "/no/file"], Exit.USAGE, "cannot read /no/file"),
        (["events", "--since", "yesterday"], Exit.USAGE, "is no time"),
        (["replay"], Exit.USAGE, "which events?"),
        (["replay", "nobody"], Exit.NOT_FOUND, "nothing to send again"),
    ],
)
def test_wrong_input_gets_a_clear_answer(
    cli: Cli, arguments: list[str], code: Exit, said: str
) -> None:
    assert cli(*arguments) == code
    assert said in cli.err
    assert "Traceback" not in cli.err


@pytest.mark.parametrize(
    ("status", "says"),
    [(202, "to http://r"), (503, "did not take it (503)"), (0, "did not take it (no answer)")],
)
def test_a_reply_that_was_not_taken_is_no_success(status: int, says: str) -> None:
    reply = {"to": "http://r", "id": "again", "status": status}
    subscriber = {"name": "trigger d/t", "outcome": "delivered", "attempts": [], "reply": reply}
    entry = {
        "event": {"id": "1", "type": "t", "source": "/s"}, "time": "2026-01-01T00:00:00Z",
        "door": {"label": "Broker d/b"}, "subscribers": [subscriber],
    }  # fmt: skip
    line = told(entry).splitlines()[-1]
    assert "replied with event again" in line
    assert line.endswith(says)
