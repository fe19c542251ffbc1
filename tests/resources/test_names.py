from __future__ import annotations

import random

import pytest

from knlocal.resources import names
from knlocal.resources.base import GroupKind

ALNUM = "and must start and end with an alphanumeric character"
SENTENCES = {
    "1035": "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start "
    "with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or "
    "'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
    "subdomain": "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric "
    f"characters, '-' or '.', {ALNUM} (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    "value": "a valid label must be an empty string or consist of alphanumeric characters, '-', "
    f"'_' or '.', {ALNUM} (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for "
    "validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
    "fqdn": "should be a domain with at least two segments separated by dots",
}


@pytest.mark.parametrize(
    ("check", "value", "said"),
    [
        (names.dns1035_label, "1abc", SENTENCES["1035"]),
        (names.dns1123_subdomain, "foo@bar.baz", SENTENCES["subdomain"]),
        (names.dns1123_label, "a" * 64, "must be no more than 63 bytes"),
        (names.label_value, "a b", SENTENCES["value"]),
        (names.fully_qualified_domain_name, "short", SENTENCES["fqdn"]),
        (names.path_segment, "a/b", "may not contain '/'"),
    ],
)
def test_a_bad_name_is_refused_in_kubernetes_words(
    check: names.NameCheck, value: str, said: str
) -> None:
    assert check(value) == [said]


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (names.dns1035_label, "a" * 63),
        (names.dns1123_label, "1abc"),
        (names.dns1123_subdomain, "a.b-c.d1"),
        (names.label_value, ""),
        (names.label_value, "A_b.c"),
        (names.qualified_name, "serving.knative.dev/creator"),
        (names.as_prefix(names.dns1035_label), "hello-"),
        (names.path_segment, "system:node"),
        (names.fully_qualified_domain_name, "www.example.com"),
    ],
)
def test_a_good_name_passes(check: names.NameCheck, value: str) -> None:
    assert check(value) == []


@pytest.mark.parametrize(
    ("parent", "suffix", "expected"),
    [
        ("hello", "-00001", "hello-00001"),
        ("a" * 57, "-00001", "a" * 57 + "-00001"),
        ("asdf", "-deployment", "asdf-deployment"),
        ("a" * 63, "-deployment", "a" * 20 + "b06521f39153d618550606be297466d5-deployment"),
    ],
)
def test_a_child_is_named_as_in_a_cluster(parent: str, suffix: str, expected: str) -> None:
    assert names.child_name(parent, suffix) == expected


def test_a_very_long_suffix_is_hashed_with_its_parent() -> None:
    name = names.child_name("foo", "-" + "s" * 50 + "-" * 20)
    assert name.startswith("foo")
    assert len(name) == 63
    assert names.dns1035_label(name) == []


def test_a_generated_name_keeps_its_base_and_stays_a_label() -> None:
    rng = random.Random(1)
    name = names.generate_name("b" * 70, rng)
    assert len(name) == 63
    assert set(name[58:]) <= set("bcdfghjklmnpqrstvwxz2456789")
    assert names.generate_name("job-", rng) != names.generate_name("job-", rng)


def test_metadata_is_checked_as_a_whole() -> None:
    obj = {
        "metadata": {
            "name": "Bad_Name",
            "labels": {"ok": "x" * 64, "not ok": "v"},
            "annotations": {"a": "y" * (256 * 1024)},
        }
    }
    found = names.check_metadata(obj, GroupKind("apps", "Deployment"))
    assert [finding.path for finding in found] == [
        "metadata.name",
        "metadata.labels",
        "metadata.labels",
        "metadata.annotations",
    ]
    assert str(found[0]).startswith('metadata.name: Invalid value: "Bad_Name": a lowercase RFC')
    assert found[3].message == "Too long: may not be more than 262144 bytes"


def test_a_name_or_a_prefix_is_required() -> None:
    found = names.check_metadata({"metadata": {}}, GroupKind("", "ConfigMap"))
    assert [str(finding) for finding in found] == [
        "metadata.name: Required value: name or generateName is required"
    ]
    assert names.check_metadata({"metadata": {"generateName": "a-"}}, GroupKind("", "Pod")) == []
