"""Which files of a folder count: patterns as in .dockerignore (and, one per file, .gitignore)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: Never part of a build or snapshot: what tools leave behind and make anew.
ALWAYS = (
    "**/.git", "**/.hg", "**/.svn", "**/.knlocal", "**/__pycache__", "**/*.pyc", "**/.venv",
    "**/node_modules", "**/.mypy_cache", "**/.pytest_cache", "**/.ruff_cache", "**/.idea",
    "**/.vscode", "**/.DS_Store", "**/*.swp", "**/*.swx", "**/*~", "**/.#*", "**/4913",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Pattern:
    regex: re.Pattern[str]
    keeps: bool


class Ignore:
    """Matches paths against .dockerignore patterns; the last pattern that matches decides.

    Source: github.com/moby/patternmatcher. A matched folder takes everything below with it, unless
    a later `!` pattern brings something back.
    """

    def __init__(self, patterns: Iterable[str] = (), *, always: Iterable[str] = ALWAYS) -> None:
        self._patterns = [_compiled(pattern) for pattern in (*always, *patterns)]
        self._brings_back = any(pattern.keeps for pattern in self._patterns)

    def __call__(self, path: str) -> bool:
        """Whether the file at `path` (relative, with slashes) does not count."""
        ignored = False
        for pattern in self._patterns:
            if pattern.keeps == ignored and pattern.regex.match(path):
                ignored = not pattern.keeps
        return ignored

    def walk(self, folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """The files and links that count, by relative path. Links are never followed."""
        yield from self._walk(str(folder), "")

    def _walk(self, folder: str, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            return  # removed just now
        for entry in entries:
            path = prefix + entry.name
            ignored = self(path)
            if entry.is_dir(follow_symlinks=False):
                if not ignored or self._brings_back:
                    yield from self._walk(entry.path, path + "/")
            elif not ignored:
                yield path, entry


def read(folder: Path, name: str = ".dockerignore") -> list[str]:
    """The patterns of an ignore file; none when there is no such file."""
    try:
        lines = (folder / name).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def from_gitignore(lines: Iterable[str]) -> list[str]:
    """The patterns of a .gitignore in the words of a .dockerignore."""
    found = []
    for line in lines:
        keeps, pattern = line.startswith("!"), line.lstrip("!").rstrip("/")
        anchored = "/" in pattern
        pattern = pattern.lstrip("/") if anchored else f"**/{pattern}"
        if pattern:
            found.append(f"!{pattern}" if keeps else pattern)
    return found


def _compiled(pattern: str) -> _Pattern:
    keeps = pattern.startswith("!")
    cleaned = os.path.normpath(pattern.lstrip("!").strip()).replace(os.sep, "/").lstrip("/")
    if cleaned == ".":
        return _Pattern(re.compile(r"(?!)"), keeps)
    return _Pattern(re.compile(_regex(cleaned) + r"(?:/.*)?\Z", re.S), keeps)


def _regex(pattern: str) -> str:
    result, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**", at):
            at += 2
            if pattern.startswith("/", at):
                at += 1
                result += "(?:.*/)?"
            else:
                result += ".*"
            continue
        if char == "*":
            result += "[^/]*"
        elif char == "?":
            result += "[^/]"
        elif char == "[" and (end := pattern.find("]", at + 2)) > 0:
            inside = pattern[at + 1 : end].replace("\\", "\\\\")
            negated = inside[:1] in "^!"
            result += f"[{'^' if negated else ''}{inside[1:] if negated else inside}]"
            at = end
        elif char == "\\" and at + 1 < len(pattern):
            at += 1
            result += re.escape(pattern[at])
        else:
            result += re.escape(char)
        at += 1
    return result
