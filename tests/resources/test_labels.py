from __future__ import annotations

from typing import Any

import pytest

from knlocal.resources import labels
from knlocal.resources.status import BadRequest

POD = {"app": "shop", "tier": "web", "empty": "", "size": "3"}


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("", True),
        ("app=shop", True),
        ("app==shop", True),
        ("app = shop , tier=web", True),
        ("app=shop,tier=db", False),
        ("app!=shop", False),
        ("other!=x", True),
        ("app", True),
        ("other", False),
        ("!app", False),
        ("!other", True),
        ("tier in (web, db)", True),
        ("tier in (db)", False),
        ("tier notin (db)", True),
        ("other notin (db)", True),
        ("empty=", True),
        ("empty in ()", True),
        ("size>2", True),
        ("size<2", False),
        ("app,tier in (web),size!=4", True),
        ("in=x", False),
        ("serving.knative.dev/service=hello", False),
    ],
)
def test_a_selector_matches_labels(selector: str, matches: bool) -> None:
    assert labels.parse(selector).matches(POD) is matches


@pytest.mark.parametrize(
    "selector", ["=x", "a in b", "a in (b", "a==b==c", "a,,b", "a b", "a/b/c=d", "a>x", "a=b,"]
)
def test_a_broken_selector_is_a_bad_request(selector: str) -> None:
    with pytest.raises(BadRequest):
        labels.parse(selector)


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"app": "shop"}}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["web"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "nope", "operator": "DoesNotExist"}]}, True),
        (
            {
                "matchLabels": {"app": "x"},
                "matchExpressions": [{"key": "app", "operator": "Exists"}],
            },
            False,
        ),
    ],
)
def test_a_label_selector_object_matches(selector: dict[str, Any] | None, matches: bool) -> None:
    assert labels.from_label_selector(selector).matches(POD) is matches


def test_field_selectors_read_the_object() -> None:
    pod = {"metadata": {"name": "a", "namespace": "b"}, "status": {"phase": "Running"}}
    assert labels.parse_fields("metadata.name=a,metadata.namespace==b").matches(pod)
    assert labels.parse_fields("status.phase!=Pending", "", "Pod").matches(pod)
    assert not labels.parse_fields("status.phase=Pending", "", "Pod").matches(pod)
    assert labels.parse_fields("spec.nodeName=", "", "Pod").matches(pod)
    assert labels.parse_fields("metadata.name=a").exact("metadata.name") == "a"


def test_an_unsupported_field_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match=r"field label not supported: spec\.x"):
        labels.parse_fields("spec.x=1", "serving.knative.dev", "Service")
