from __future__ import annotations

from typing import Any

import pytest

from knlocal.resources.ages import age, human_duration
from knlocal.resources.base import parse_timestamp
from knlocal.resources.jsonpath import JSONPathError, find

OBJ: dict[str, Any] = {
    "metadata": {"name": "a", "labels": {"serving.knative.dev/service": "s"}},
    "status": {
        "url": "http://a",
        "replicas": 0,
        "ok": False,
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Fine"},
            {"type": "Other", "status": "False"},
        ],
    },
    "spec": {"traffic": [{"percent": 90}, {"percent": 10}]},
}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".status.url", ["http://a"]), ("status.url", ["http://a"]), ("{.status.url}", ["http://a"]),
        (".status.replicas", [0]), (".status.ok", [False]), (".status.nothing.more", []),
        (".status.conditions[?(@.type=='Ready')].status", ["True"]),
        ('.status.conditions[?(@.type == "Ready")].reason', ["Fine"]),
        (".status.conditions[?(@.status!='True')].type", ["Other"]),
        (r".metadata.labels.serving\.knative\.dev/service", ["s"]),
        (".metadata.labels['serving.knative.dev/service']", ["s"]),
        (".spec.traffic[*].percent", [90, 10]), (".spec.traffic[1].percent", [10]),
        (".spec.traffic[-1].percent", [10]), (".spec.traffic[7].percent", []),
        (".spec.traffic[0:1].percent", [90]), (".metadata.labels.*", ["s"]), (".", [OBJ]),
    ],
)  # fmt: skip
def test_a_path_finds_values(path: str, values: list[Any]) -> None:
    assert find(path, OBJ) == values


@pytest.mark.parametrize("path", [".a[", ".a[?(x)]", "[abc]", ".a[?(@.b=='c'].d"])
def test_a_path_that_cannot_be_read_says_where(path: str) -> None:
    with pytest.raises(JSONPathError, match="character"):
        find(path, OBJ)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (190, "3m10s"),
        (599, "9m59s"), (600, "10m"), (10799, "179m"), (10800, "3h"), (12000, "3h20m"),
        (28800, "8h"), (172799, "47h"), (172800, "2d"), (180000, "2d2h"), (691200, "8d"),
        (63072000, "2y"), (64000000, "2y10d"), (252288000, "8y"),
    ],
)  # fmt: skip
def test_ages_are_told_as_kubectl_tells_them(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_an_age_that_is_not_there_is_unknown() -> None:
    now = parse_timestamp("2026-01-01T00:00:00Z")
    assert age(None, now) == age("yesterday", now) == "<unknown>"
    assert age("2025-12-31T23:59:00Z", now) == "60s"
