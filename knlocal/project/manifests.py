"""Reads YAML and JSON manifests: several documents, Lists, standard input, folders and globs.

Each object remembers the file it came from, and the line of each of its fields.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from knlocal.project import yamltext
from knlocal.project.errors import Problem, ProjectError, did_you_mean, shown
from knlocal.project.legacy import modern
from knlocal.resources.base import Obj
from knlocal.resources.kinds import KindRegistry

SUFFIXES = {".yaml", ".yml", ".json"}
#: Fields as refusals name them.
_FIELD = re.compile(r"\b(?:spec|metadata|data|stringData)(?:\.[\w/-]+|\[[^\]\s]+\])+")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object and where it was written."""

    obj: Obj
    file: str
    line: int = 0
    note: str = ""
    """What a person should know about how it was read."""
    node: Any = field(default=None, compare=False, repr=False)
    """Where its fields stand (`yamltext`)."""

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    def problem(self, what: str, hint: str = "") -> Problem:
        metadata = self.obj.get("metadata") or {}
        named = f"{self.obj.get('kind', 'object')} {metadata.get('name', '')!r}"
        return Problem(self.file, what, named, hint or self._guess(what), self._line_of(what))

    def _line_of(self, what: str) -> int:
        """The line of the field that a refusal is about, else where the object begins."""
        found = _FIELD.search(what)
        return yamltext.line_of(self.node, found[0]) if found and self.node else self.line

    def _guess(self, what: str) -> str:
        """Why a value is refused that was meant for a tool which did not run."""
        text = orjson.dumps(self.obj).decode()
        if found := re.search(r"\$\{?\w+\}?", what):
            return f"{found[0]} is not filled in: run it through envsubst first"
        if "must be of type string" in what:
            return "a number or truth value that is meant as text needs quotes"
        if "ko://" in what or ('"ko://' in text and "image" in what):
            return "ko:// images are built by `ko resolve -f FILE`: apply what it prints"
        return ""


def load(patterns: Iterable[str], root: Path, *, recursive: bool = False) -> list[Manifest]:
    """The objects in files, folders and globs; "-" is standard input.

    Raises ProjectError with every problem found in any of them.
    """
    manifests: list[Manifest] = []
    problems: list[Problem] = []
    for pattern in patterns:
        try:
            for name, text in _sources(pattern, root, recursive):
                manifests += parse(text, name)
        except ProjectError as error:
            problems += error.problems
    if problems:
        raise ProjectError(*problems)
    return manifests


def files(patterns: Iterable[str], root: Path) -> list[Path]:
    """The files that the patterns name now (for watching them)."""
    found: list[Path] = []
    for pattern in patterns:
        try:
            found += _files(pattern, root, recursive=False)
        except ProjectError:
            continue
    return found


def parse(text: str, name: str = "-") -> list[Manifest]:
    """The objects in one YAML or JSON text."""
    if text.lstrip()[:1] in "{[" and text.strip():
        try:
            return list(_objects(orjson.loads(text), name, 1, None))
        except orjson.JSONDecodeError:
            pass  # YAML flow style looks alike
    manifests: list[Manifest] = []
    for line, value, node in yamltext.documents(text, name):
        if value is not None:
            manifests += _objects(value, name, line, node)
    return manifests


def check_kinds(manifests: Sequence[Manifest], registry: KindRegistry) -> list[Manifest]:
    """The manifests of kinds that knlocal does not know and does not simulate.

    A kind that is misspelt within a known group is a problem (ProjectError), not an unknown kind.
    """
    groups = {kind.group for kind in registry}
    unknown, problems = [], []
    for manifest in manifests:
        api_version, kind = manifest.obj["apiVersion"], manifest.obj["kind"]
        if registry.by_version(api_version, kind) is not None:
            continue
        group = api_version.rpartition("/")[0]
        known = [item for item in registry if item.kind == kind]
        if group in groups:
            versions = sorted({item.api_version for item in known if item.group == group})
            versions = versions or sorted({item.api_version for item in known})
            names = sorted({item.kind for item in registry if item.group == group})
            hint = (
                f"write apiVersion: {' or '.join(versions)}"
                if versions
                else did_you_mean(kind, names)
            )
            problems.append(manifest.problem(f"no kind {kind!r} in {api_version}", hint))
        elif group == "extensions" and known:
            hint = f"write apiVersion: {known[0].api_version}"
            problems.append(manifest.problem(f"no kind {kind!r} in {api_version}", hint))
        elif near := did_you_mean(group, groups):
            if near.startswith("did you mean"):
                what = f"no API group {group!r}"
                problems.append(manifest.problem(what, near))
            else:
                unknown.append(manifest)
    if problems:
        raise ProjectError(*problems)
    return unknown


# -- where texts come from ------------------------------------------------------------------------


def _sources(pattern: str, root: Path, recursive: bool) -> Iterator[tuple[str, str]]:
    if pattern == "-":
        yield "standard input", sys.stdin.read()
        return
    if re.match(r"^https?://", pattern):
        raise ProjectError(
            Problem(pattern, "URLs are not fetched", hint="download the file and name it here")
        )
    for path in _files(pattern, root, recursive):
        name = shown(path, root)
        try:
            yield name, path.read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ProjectError(Problem(name, f"not UTF-8 text (byte {error.start})")) from None
        except OSError as error:
            raise ProjectError(Problem(name, f"cannot be read: {error.strerror}")) from None


def _files(pattern: str, root: Path, recursive: bool) -> list[Path]:
    path = Path(pattern).expanduser()
    path = path if path.is_absolute() else root / path
    if path.is_dir():
        found = path.rglob("*") if recursive else path.iterdir()
        return sorted(file for file in found if file.suffix in SUFFIXES and file.is_file())
    if path.is_file() or path.is_fifo():
        return [path]
    if any(letter in pattern for letter in "*?["):
        anchor = Path(path.anchor) if path.is_absolute() else root
        matched = sorted(anchor.glob(str(path.relative_to(anchor))))
        if matched:
            return [file for file in matched if file.is_file()]
        raise ProjectError(Problem(pattern, "matches no file", hint=f"looked in {root}"))
    raise ProjectError(Problem(pattern, "no such file or folder", hint=f"looked in {root}"))


# -- documents to objects -------------------------------------------------------------------------


def _objects(value: Any, name: str, line: int, node: Any) -> Iterator[Manifest]:
    line = yamltext.line_of(node, "") or line
    if isinstance(value, list):
        for at, item in enumerate(value):
            yield from _objects(item, name, line, yamltext.item(node, at))
        return
    if not isinstance(value, dict):
        raise ProjectError(
            Problem(name, f"not an object but {_told(value)}", hint="needs apiVersion, kind, …",
                    line=line)
        )  # fmt: skip
    kind = value.get("kind")
    if isinstance(kind, str) and kind.endswith("List") and isinstance(value.get("items"), list):
        item_defaults = {
            "apiVersion": value.get("apiVersion"), "kind": kind.removesuffix("List"),
        }  # fmt: skip
        for at, item in enumerate(value["items"]):
            bare = kind == "List" or not isinstance(item, dict) or "kind" in item
            whole = item if bare else {**item_defaults, **item}
            yield from _objects(whole, name, line, yamltext.item(node, "items", at))
        return
    manifest = Manifest(value, name, line, node=node)
    problems = list(_shape_problems(manifest))
    if problems:
        raise ProjectError(*problems)
    obj, note = modern(value)
    yield Manifest(obj, name, line, note, node)


def _shape_problems(manifest: Manifest) -> Iterator[Problem]:
    obj = manifest.obj
    for key in ("apiVersion", "kind"):
        if not isinstance(obj.get(key), str) or not obj[key]:
            near = did_you_mean(key, [str(k) for k in obj if k not in ("metadata", "spec")])
            hint = f"there is {near[len('did you mean ') : -1]}" if "did you" in near else ""
            yield Problem(manifest.file, f"{key} not set", hint=hint, line=manifest.line)
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict):
        yield Problem(manifest.file, "metadata not set", line=manifest.line)
    elif not metadata.get("name") and not metadata.get("generateName"):
        yield manifest.problem("metadata.name not set")
    elif not isinstance(metadata.get("name") or metadata.get("generateName"), str):
        yield manifest.problem("metadata.name is not text", "write it in quotes")


def _told(value: Any) -> str:
    word = {str: "the text", bool: "the truth value", int: "the number", float: "the number"}
    return f"{word.get(type(value), 'the value')} {str(value)[:40]!r}"
