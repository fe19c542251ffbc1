"""What `knlocal traffic` makes of its words."""

from typing import Any

import pytest

from knlocal.cli.exits import CliError
from knlocal.cli.traffic import _before, _changed

Target = dict[str, Any]
LATEST: Target = {"latestRevision": True, "percent": 100}


def pinned(name: str, percent: int, tag: str = "") -> Target:
    target = {"revisionName": name, "latestRevision": False, "percent": percent}
    return target | ({"tag": tag} if tag else {})


@pytest.mark.parametrize(
    ("now", "targets", "tags", "untags", "then"),
    [
        (
            [LATEST], ["latest=90", "a-1=10"], [], [],
            [{"latestRevision": True, "percent": 90}, pinned("a-1", 10)],
        ),
        ([LATEST], [], ["a-1=old"], [], [LATEST, pinned("a-1", 0, "old")]),
        ([LATEST, pinned("a-1", 0, "old")], ["a-1=100"], [], [], [pinned("a-1", 100, "old")]),
        ([LATEST, pinned("a-1", 0, "old")], [], [], ["old"], [LATEST]),
        (
            [pinned("a-1", 100, "x"), pinned("a-2", 0, "y")], [], ["a-2=x"], [],
            [pinned("a-1", 100), pinned("a-2", 0, "y"), pinned("a-2", 0, "x")],
        ),
    ],
)  # fmt: skip
def test_words_become_targets(
    now: list[Target], targets: list[str], tags: list[str], untags: list[str], then: list[Target]
) -> None:
    obj = {"spec": {"traffic": now}}
    assert _changed(obj, tuple(targets), tuple(tags), tuple(untags)) == then


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["latest=90"], "add up to 90, not to 100"),
        (["latest=ninety"], "no percentage"),
        (["latest"], "is not NAME=VALUE"),
    ],
)
def test_wrong_words_are_refused(targets: list[str], said: str) -> None:
    with pytest.raises(CliError, match=said):
        _changed({"spec": {}}, tuple(targets), (), ())


def test_rollback_goes_to_the_ready_revision_before_the_one_that_serves() -> None:
    serving = {"status": {"traffic": [{"revisionName": "a-3", "percent": 100}]}}
    assert _before(serving, ["a-4", "a-3", "a-1"]) == "a-1"
    with pytest.raises(CliError, match="no earlier ready revision"):
        _before(serving, ["a-3"])
