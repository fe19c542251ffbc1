"""What `knlocal traffic` makes of its words."""

from types import SimpleNamespace
from typing import Any

import pytest

from knlocal.cli.exits import CliError
from knlocal.cli.traffic import _before, _changed, _must_exist

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


class Revisions:
    """Answers as the API does when asked for the revisions of a service."""

    def __init__(self, *names: str) -> None:
        self._items = [{"metadata": {"name": name, "labels": {}}} for name in names]

    def resource(self, _plural: str) -> Any:
        return SimpleNamespace(api_version="serving.knative.dev/v1", kind="Revision")

    def items(self, *_: Any, **__: Any) -> list[Target]:
        return self._items


def test_traffic_for_a_revision_that_is_not_there_is_refused_with_the_nearest() -> None:
    client: Any = Revisions("a-00001", "a-00002")
    _must_exist([LATEST, pinned("a-00001", 10)], client, "default", "a")
    with pytest.raises(CliError, match="a has no revision 'a-0001'") as refused:
        _must_exist([pinned("a-0001", 100)], client, "default", "a")
    assert "did you mean 'a-00001'?" in refused.value.hint
