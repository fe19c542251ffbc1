"""docs/conformance.md is complete, and every test that it names exists."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = (HERE.parent.parent / "docs" / "conformance.md").read_text()
SECTION = re.compile(r"^## .+ \((\d+) rules\)$", re.MULTILINE)
ROW = re.compile(r"^\| ([A-Z]+)-(\d+) \| “(.+)” \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"`((?:\.\./)*[\w/]+\.py)::(\w+)`")


@functools.cache
def names_in(path: Path) -> frozenset[str]:
    found = [
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return frozenset(one for one in found if one.startswith("test_"))


def test_each_specification_has_as_many_rules_as_its_heading_says() -> None:
    parts = SECTION.split(PAGE)
    counts, texts = parts[1::2], parts[2::2]
    assert len(counts) == 5
    for count, text in zip(counts, texts, strict=True):
        rows = ROW.findall(text)
        assert [int(row[1]) for row in rows] == list(range(1, int(count) + 1))
        assert len({row[0] for row in rows}) == 1
        assert len(rows) == sum(line.startswith("| ") for line in text.splitlines()) - 1


def test_every_rule_quotes_its_word_and_has_a_test_or_a_reason() -> None:
    for prefix, number, words, shown in ROW.findall(PAGE):
        assert re.search("MUST|SHOULD", words), f"{prefix}-{number}"
        if shown.startswith("No test: "):
            assert len(shown) > len("No test: ") + 20, f"{prefix}-{number}"
        else:
            assert all(TEST.fullmatch(part) for part in shown.split("<br>")), f"{prefix}-{number}"


def test_every_test_that_is_named_exists() -> None:
    missing = {
        f"{path}::{test}"
        for path, test in TEST.findall(PAGE)
        if not (HERE / path).exists() or test not in names_in(HERE / path)
    }
    assert missing == set()
