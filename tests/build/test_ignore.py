"""Which files count: .dockerignore's rules, and .gitignore's in its words."""

from pathlib import Path

import pytest

from knlocal.build.ignore import Ignore, from_gitignore


@pytest.mark.parametrize(
    ("patterns", "path", "ignored"),
    [
        (["*.log"], "a.log", True),
        (["*.log"], "deep/a.log", False),
        (["**/*.log"], "deep/er/a.log", True),
        (["tmp"], "tmp/deep/file", True),
        (["tmp/"], "tmp/file", True),
        (["/tmp"], "tmp/file", True),
        (["tmp"], "tmpfile", False),
        (["*", "!keep.txt"], "keep.txt", False),
        (["*", "!keep.txt"], "other.txt", True),
        (["docs/*.md", "!docs/README.md"], "docs/README.md", False),
        (["!docs/README.md", "docs/*.md"], "docs/README.md", True),
        (["a?c"], "abc", True),
        (["a[bc]d"], "acd", True),
        (["a[^bc]d"], "acd", False),
        (["**/cache/**"], "x/cache/y", True),
        (["./x"], "x", True),
        (["."], "x", False),
        ([], "node_modules/a/b.js", True),
        ([], "src/__pycache__/a.pyc", True),
        ([], ".git/HEAD", True),
        ([], "main.py", False),
    ],
)
def test_dockerignore_patterns(patterns: list[str], path: str, ignored: bool) -> None:
    assert Ignore(patterns)(path) is ignored


@pytest.mark.parametrize(
    ("lines", "path", "ignored"),
    [
        (["*.log"], "deep/a.log", True),
        (["/a.log"], "deep/a.log", False),
        (["/a.log"], "a.log", True),
        (["build/"], "x/build/y", True),
        (["docs/out"], "docs/out/a", True),
        (["docs/out"], "x/docs/out/a", False),
        (["*.log", "!keep.log"], "x/keep.log", False),
    ],
)
def test_gitignore_patterns(lines: list[str], path: str, ignored: bool) -> None:
    assert Ignore(from_gitignore(lines))(path) is ignored


def test_a_walk_skips_what_does_not_count_and_survives_loops(tmp_path: Path) -> None:
    for name in ("main.py", "node_modules/big/index.js", "logs/a.log", "src/util.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "src" / "loop").symlink_to(tmp_path)
    found = [path for path, _ in Ignore(["logs"]).walk(tmp_path)]
    assert found == ["main.py", "src/loop", "src/util.py"]


def test_what_an_exception_brings_back_is_found_below_an_ignored_folder(tmp_path: Path) -> None:
    (tmp_path / "vendor" / "keep").mkdir(parents=True)
    (tmp_path / "vendor" / "keep" / "a").write_text("a")
    (tmp_path / "vendor" / "b").write_text("b")
    found = [path for path, _ in Ignore(["vendor", "!vendor/keep"]).walk(tmp_path)]
    assert found == ["vendor/keep/a"]
