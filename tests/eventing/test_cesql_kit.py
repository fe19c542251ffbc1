"""CloudEvents' own conformance kit for CESQL, from github.com/cloudevents/spec (Apache-2.0).

Every YAML file in `cesql_tck/` is run; dropping another file of the kit there is enough.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from knlocal.eventing.cesql import CesqlError, compile_expression

KIT = Path(__file__).parent / "cesql_tck"


class _JsonLikeLoader(yaml.SafeLoader):
    """Reads timestamps as the strings that an event carries."""


_JsonLikeLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

DEFAULT_EVENT = {"specversion": "1.0", "id": "an-id", "source": "/a/source", "type": "a.type"}


def cases() -> list[Any]:
    found = []
    for path in sorted(KIT.glob("*.yaml")):
        suite = yaml.load(path.read_text(), _JsonLikeLoader)
        for test in suite["tests"]:
            found.append(pytest.param(test, id=f"{path.stem}: {test['name']}"))
    return found


def run(text: str, event: dict[str, Any]) -> tuple[Any, str | None]:
    """The value, and the kind of the first error."""
    try:
        result = compile_expression(text).evaluate(event)
    except CesqlError as error:
        return None, error.kind
    return result.value, result.errors[0].kind if result.errors else None


@pytest.mark.parametrize("case", cases())
def test_the_kit_is_passed(case: dict[str, Any]) -> None:
    event = {**case.get("event", DEFAULT_EVENT), **case.get("eventOverrides", {})}
    value, error = run(str(case["expression"]), event)
    assert error == case.get("error")
    if "result" in case and error != "parse":
        assert (type(value), value) == (type(case["result"]), case["result"])
