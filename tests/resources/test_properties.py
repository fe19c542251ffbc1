"""What holds for every input, tried on generated ones."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from knlocal.resources import catalog, duration, labels, names, quantity, schema

LABEL = st.from_regex(r"[a-z]([-a-z0-9]{0,60}[a-z0-9])?", fullmatch=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["spec", "metadata", "template", "x"]), inner, max_size=3)
    ),
    max_leaves=10,
)
SERVICE = catalog.registry().by_version("serving.knative.dev/v1", "Service")


@given(LABEL, LABEL)
def test_a_childs_name_is_a_label(parent: str, suffix: str) -> None:
    name = names.child_name(parent, f"-{suffix}")
    assert names.dns1035_label(name) == []


@given(
    st.from_regex(r"[0-9]{1,6}(\.[0-9]{1,3})?(n|u|m|k|M|G|T|Ki|Mi|Gi|Ti|e3|E2)?", fullmatch=True)
)
def test_the_canonical_spelling_keeps_the_value_and_is_final(text: str) -> None:
    canonical = quantity.canonical(text)
    assert quantity.parse(canonical) == quantity.parse(text)
    assert quantity.canonical(canonical) == canonical


@given(st.integers(min_value=-(10**18), max_value=10**18))
def test_a_written_duration_reads_back(nanoseconds: int) -> None:
    text = duration.format_nanoseconds(nanoseconds)
    assert duration.parse_nanoseconds(text) == nanoseconds


@given(st.dictionaries(LABEL, LABEL, max_size=4))
def test_a_selector_for_exactly_these_labels_matches_them(wanted: dict[str, str]) -> None:
    text = ",".join(f"{key}={value}" for key, value in wanted.items())
    assert labels.parse(text).matches(wanted)
    assert labels.parse(text) == labels.equals(wanted)


@given(st.dictionaries(st.sampled_from(["spec", "metadata", "status", "kind", "y"]), JSON))
def test_any_json_can_be_pruned_and_checked_and_once_is_enough(obj: dict[str, Any]) -> None:
    assert SERVICE is not None
    schema.prune(obj, SERVICE.schema)
    again = copy.deepcopy(obj)
    assert schema.prune(again, SERVICE.schema) == []
    assert again == obj
    schema.check_types(obj, SERVICE.schema)
