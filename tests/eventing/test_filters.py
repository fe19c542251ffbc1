"""Trigger filters: what passes, and what a refused event is told."""

from __future__ import annotations

from typing import Any

import pytest

from knlocal.eventing.cesql import CesqlError
from knlocal.eventing.filters import trigger_filter

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "1",
    "type": "order.created",
    "source": "/shop/berlin",
    "time": "2020-01-01T00:00:00Z",
    "datacontenttype": "application/json; charset=utf-8",
    "dataschema": "http://x/schema",
    "flag": True,
    "number": 7,
}


@pytest.mark.parametrize(
    ("spec", "passes"),
    [
        ({}, True),
        ({"filter": {}}, True),
        ({"filter": {"attributes": {}}}, True),
        ({"filter": {"attributes": {"type": "order.created"}}}, True),
        ({"filter": {"attributes": {"type": "order"}}}, False),
        ({"filter": {"attributes": {"type": "", "flag": ""}}}, True),
        ({"filter": {"attributes": {"type": "order.created", "missing": ""}}}, False),
        ({"filter": {"attributes": {"flag": "true", "number": "7"}}}, True),
        ({"filter": {"attributes": {"schemaurl": "http://x/schema"}}}, True),
        ({"filter": {"attributes": {"datamediatype": "application/json"}}}, True),
        ({"filter": {"attributes": {"type": "x"}}, "filters": [{"exact": {"id": "1"}}]}, True),
        ({"filter": {"attributes": {"type": "x"}}, "filters": []}, False),
        ({"filters": [{"exact": {"id": "1", "type": "order.created"}}]}, True),
        ({"filters": [{"exact": {"id": "1", "type": "other"}}]}, False),
        ({"filters": [{"exact": {"missing": "x"}}]}, False),
        ({"filters": [{"prefix": {"type": "order.", "source": "/shop"}}]}, True),
        ({"filters": [{"prefix": {"type": "orders"}}]}, False),
        ({"filters": [{"suffix": {"source": "berlin"}}]}, True),
        ({"filters": [{"suffix": {"source": "paris"}}]}, False),
        ({"filters": [{"exact": {"id": "1"}}, {"exact": {"id": "2"}}]}, False),
        ({"filters": [{"all": [{"exact": {"id": "1"}}, {"prefix": {"type": "o"}}]}]}, True),
        ({"filters": [{"all": [{"exact": {"id": "1"}}, {"prefix": {"type": "x"}}]}]}, False),
        ({"filters": [{"any": [{"exact": {"id": "2"}}, {"prefix": {"type": "o"}}]}]}, True),
        ({"filters": [{"any": [{"exact": {"id": "2"}}, {"prefix": {"type": "x"}}]}]}, False),
        ({"filters": [{"not": {"exact": {"id": "2"}}}]}, True),
        ({"filters": [{"not": {"exact": {"id": "1"}}}]}, False),
        ({"filters": [{"not": {"exact": {"missing": "1"}}}]}, True),
        ({"filters": [{"not": {"not": {"any": [{"suffix": {"id": "1"}}]}}}]}, True),
        ({"filters": [{"cesql": "type LIKE 'order.%' AND number > 6 AND flag"}]}, True),
        ({"filters": [{"cesql": "missing = 1"}]}, False),
        ({"filters": [{"not": {"cesql": "missing = 1"}}]}, True),
        ({"filters": [{"cesql": "type"}]}, False),
        ({"filters": [{"exact": None, "prefix": {"type": "order"}}]}, True),
    ],
)
def test_an_event_passes_or_not(spec: dict[str, Any], passes: bool) -> None:
    compiled = trigger_filter(spec)
    assert compiled.matches(EVENT) is passes
    assert (compiled.explain(EVENT) is None) is passes


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            {"filter": {"attributes": {"type": "order.paid"}}},
            'filter.attributes.type: wanted "order.paid", the event has "order.created"',
        ),
        (
            {"filter": {"attributes": {"kind": ""}}},
            "filter.attributes.kind: wanted any value, the event has none",
        ),
        (
            {"filters": [{"exact": {"id": "1"}}, {"prefix": {"source": "/store"}}]},
            'filters[1].prefix.source: wanted prefix "/store", the event has "/shop/berlin"',
        ),
        (
            {"filters": [{"all": [{"suffix": {"source": "paris"}}]}]},
            'filters[0].all[0].suffix.source: wanted suffix "paris", the event has "/shop/berlin"',
        ),
        (
            {"filters": [{"any": [{"exact": {"id": "2"}}, {"exact": {"id": "3"}}]}]},
            (
                'filters[0].any: none passes (filters[0].any[0].exact.id: wanted "2", the event '
                'has "1"; filters[0].any[1].exact.id: wanted "3", the event has "1")'
            ),
        ),
        (
            {"filters": [{"cesql": "number > 10 OR type = 'x'"}]},
            (
                "filters[0].cesql: number > 10 OR type = 'x' is false with "
                'number="7", type="order.created"'
            ),
        ),
        (
            {"filters": [{"cesql": "missing = 1"}]},
            "filters[0].cesql: missing = 1 failed: the event has no attribute missing",
        ),
    ],
)
def test_a_refused_event_is_told_the_clause_and_both_values(
    spec: dict[str, Any], says: str
) -> None:
    assert str(trigger_filter(spec).explain(EVENT)) == says


def test_a_negated_match_says_what_it_saw() -> None:
    said = str(trigger_filter({"filters": [{"not": {"exact": {"id": "1"}}}]}).explain(EVENT))
    assert said.startswith("filters[0].not: the event passes what it must not (specversion=1.0")


def test_an_expression_that_does_not_parse_is_told_at_once() -> None:
    with pytest.raises(CesqlError, match="line 1, column 8"):
        trigger_filter({"filters": [{"cesql": "type = = 1"}]})
