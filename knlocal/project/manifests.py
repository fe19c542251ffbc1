"""Reads YAML and JSON manifests: several documents, Lists, standard input, folders and globs.

YAML is read as kubectl reads it (YAML 1.1 truth values; dates and `12:30` stay text; a key given
twice is an error), and each object remembers the file and line it came from.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

from knlocal.project.errors import Problem, ProjectError, did_you_mean, shown
from knlocal.project.legacy import modern
from knlocal.resources.base import Obj
from knlocal.resources.kinds import KindRegistry

SUFFIXES = {".yaml", ".yml", ".json"}
MAX_DEPTH = 200


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object and where it was written."""

    obj: Obj
    file: str
    line: int = 0
    note: str = ""
    """What a person should know about how it was read."""

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    def problem(self, what: str, hint: str = "") -> Problem:
        metadata = self.obj.get("metadata") or {}
        named = f"{self.obj.get('kind', 'object')} {metadata.get('name', '')!r}"
        return Problem(self.file, what, named, hint, self.line)


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
            return list(_objects(orjson.loads(text), name, 1))
        except orjson.JSONDecodeError:
            pass  # YAML flow style looks alike
    manifests: list[Manifest] = []
    for line, value in _documents(text, name):
        if value is not None:
            manifests += _objects(value, name, line)
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
            versions = sorted({item.api_version for item in known})
            names = sorted({item.kind for item in registry if item.group == group})
            hint = f"it is in {', '.join(versions)}" if versions else did_you_mean(kind, names)
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


def _objects(value: Any, name: str, line: int) -> Iterator[Manifest]:
    if isinstance(value, list):
        for item in value:
            yield from _objects(item, name, line)
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
        for item in value["items"]:
            bare = kind == "List" or not isinstance(item, dict) or "kind" in item
            yield from _objects(item if bare else {**item_defaults, **item}, name, line)
        return
    manifest = Manifest(value, name, line)
    problems = list(_shape_problems(manifest))
    if problems:
        raise ProjectError(*problems)
    obj, note = modern(value)
    yield Manifest(obj, name, line, note)


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
    return f"{type(value).__name__} {str(value)[:40]!r}"


# -- YAML as kubectl reads it ---------------------------------------------------------------------

_Base: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[valid-type, misc]
    """YAML 1.1 as Go's library has it: no dates, no base-60 numbers, `1e3` is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, (str, int, float, bool, type(None))):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice (first in line {seen[key]})",
                    key_node.start_mark,
                )  # fmt: skip
            seen[key] = line
        mapping = super().construct_mapping(node, deep)
        return {_key(key): value for key, value in mapping.items()}


def _key(key: Any) -> str:
    """JSON has text keys only."""
    if isinstance(key, bool):
        return "true" if key else "false"
    return "null" if key is None else str(key)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    kept = {}
    for first, entries in _Base.yaml_implicit_resolvers.items():
        kept[first] = [
            (tag, pattern)
            for tag, pattern in entries
            if not tag.endswith((":timestamp", ":int", ":float", ":value"))
        ]
    return kept


_Loader.yaml_implicit_resolvers = _resolvers()
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+|0|[1-9][0-9_]*)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN))$"
    ),
    list("-+0123456789."),
)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    digits = text.lstrip("+-")
    value = int(digits, 8 if re.fullmatch(r"0[0-7]+", digits) else 0)
    return -value if text.startswith("-") else value


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def _documents(text: str, name: str) -> Iterator[tuple[int, Any]]:
    """Each document with the line of its first content."""
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ProjectError(
            Problem(name, f"not valid YAML: {error.reason} (#x{error.character:04x})", line=line)
        ) from None
    try:
        _check_depth(text)
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield node.start_mark.line + 1, loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = error.problem or str(error)
        if error.context and error.problem_mark:
            what = f"{what} ({error.context})"
        line = mark.line + 1 if mark else 0
        hint = _pointer(text, mark)
        if "cannot start any token" in what and "\t" in hint:
            hint += "\n  indent with spaces, not with tabs"
        raise ProjectError(Problem(name, f"not valid YAML: {what}", hint=hint, line=line)) from None
    except yaml.YAMLError as error:
        raise ProjectError(Problem(name, f"not valid YAML: {error}")) from None
    finally:
        loader.dispose()


def _check_depth(text: str) -> None:
    """libyaml composes recursively, in C: what is nested too deep would end the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                mark: Any = event.start_mark
                raise yaml.composer.ComposerError(None, None, "nested too deep", mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _pointer(text: str, mark: Any) -> str:
    lines = text.splitlines()
    if mark is None or mark.line >= len(lines):
        return ""
    source, column = lines[mark.line], mark.column
    if column > 100:
        source, column = source[column - 60 : column + 20], 60
    return f"{source[:120]}\n  {' ' * column}^"
