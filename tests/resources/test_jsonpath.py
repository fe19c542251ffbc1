"""Printer columns and selectors find what kubectl's JSONPath would."""

import pytest

from knlocal.resources.jsonpath import JSONPathError, find

OBJ = {
    "metadata": {"labels": {"a.dev/b": "x"}},
    "spec": {"ports": [{"name": "http"}, {"name": "grpc"}]},
    "status": {"conditions": [{"type": "Ready", "reason": "Fine"}, {"type": "Other"}]},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (r".metadata.labels['a\.dev/b']", ["x"]),
        (".metadata.labels['a.dev/b']", ["x"]),
        (r".metadata.labels.a\.dev/b", ["x"]),
        ("{.spec.ports[0].name}", ["http"]),
        (".spec.ports[-1].name", ["grpc"]),
        (".spec.ports[*].name", ["http", "grpc"]),
        ('.status.conditions[?(@.type=="Ready")].reason', ["Fine"]),
        (".status.nothing.here", []),
    ],
)
def test_a_path_finds_what_it_names(path: str, found: list[str]) -> None:
    assert find(path, OBJ) == found


def test_a_path_that_cannot_be_read_says_where() -> None:
    with pytest.raises(JSONPathError, match="character"):
        find(".spec.ports[oops", OBJ)
