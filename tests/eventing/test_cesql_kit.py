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


@pytest.mark.parametrize("case", cases())
def test_the_kit_is_passed(case: dict[str, Any]) -> None:
    event = {**case.get("event", DEFAULT_EVENT), **case.get("eventOverrides", {})}
    text = case["expression"]
    try:
        result = compile_expression(text if isinstance(text, str) else str(text)).evaluate(event)
    except CesqlError as error:
        assert error.kind == case.get("error"), error
        return
    assert (result.errors[0].kind if result.errors else None) == case.get("error")
    if "result" in case:
        assert (type(result.value), result.value) == (type(case["result"]), case["result"])
