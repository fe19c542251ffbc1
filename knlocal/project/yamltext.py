"""YAML as kubectl reads it, with the line of every field and words for what is wrong with it.

YAML 1.1 truth values; dates and `12:30` stay text; a key given twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from knlocal.project.errors import Problem, ProjectError

MAX_DEPTH = 200


class Document(NamedTuple):
    """One document. `node` knows where everything stands."""

    line: int
    value: Any
    node: Any


_Base: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[valid-type, misc]
    """YAML 1.1 as Go's library has it: no dates, no base-60 numbers, `1e3` is a number."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError) as error:  # a tag that does not fit: !!int word
            raise yaml.constructor.ConstructorError(
                None, None, f"a value is not what its tag says: {error}", node.start_mark
            ) from None

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


def documents(text: str, name: str) -> Iterator[Document]:
    """The documents of a text. Raises ProjectError with the line, the place in it, and a hint."""
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
                yield Document(_line(node), loader.construct_document(node), node)
    except yaml.MarkedYAMLError as error:
        raise ProjectError(_problem(text, name, error)) from None
    except yaml.YAMLError as error:
        raise ProjectError(Problem(name, f"not valid YAML: {error}")) from None
    finally:
        loader.dispose()


def line_of(node: Any, path: str) -> int:
    """The line of a field such as `spec.containers[0].image`, or of the nearest thing around it
    that is there; 0 without a node."""
    line = _line(node) if node is not None else 0
    rest = path
    while rest and node is not None:
        if isinstance(node, yaml.SequenceNode) and (found := re.match(r"\[(\d+)\]\.?", rest)):
            if int(found[1]) >= len(node.value):
                break
            node, rest = node.value[int(found[1])], rest[found.end() :]
            line = _line(node)
        elif isinstance(node, yaml.MappingNode):
            # Keys may have dots themselves (annotations): the longest that fits.
            fits = [pair for pair in node.value if _is_next(str(pair[0].value), rest)]
            if not fits:
                break
            key, node = max(fits, key=lambda pair: len(str(pair[0].value)))
            line, rest = _line(key), rest.lstrip("[")[len(str(key.value)) :].lstrip("].")
            rest = f"[{rest}" if re.match(r"\d+\]", rest) else rest
        else:
            break
    return line


def _is_next(key: str, path: str) -> bool:
    path = path.lstrip("[")
    return (
        bool(key) and path.startswith(key) and path[len(key) : len(key) + 1] in ("", ".", "[", "]")
    )


def item(node: Any, *path: str | int) -> Any:
    """The node below `node` at a path of keys and positions; None when there is none."""
    for part in path:
        if isinstance(part, int):
            node = node.value[part] if isinstance(node, yaml.SequenceNode) else None
        elif isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == part), None)
        else:
            node = None
    return node


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1


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


# -- words ----------------------------------------------------------------------------------------


def _problem(text: str, name: str, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    said, context = str(error.problem or error), str(error.context or "")
    source = _source(text, mark)
    at = source[mark.column : mark.column + 1] if mark else ""
    what, hint = said, ""
    if "{{" in source or "{%" in source:
        what, hint = "a template, not YAML", "render it first, and name what comes out"
    elif "cannot start any token" in said:
        what = "a tab" if at == "\t" else f"a value cannot begin with {at!r}"
        hint = "indent with spaces, not with tabs" if at == "\t" else "put it in quotes"
    elif "unexpected end of stream" in said and "quoted" in context:
        what, mark = "a quote that does not end", error.context_mark or mark
    elif "expected ',' or" in said:
        what, mark = f"a bracket that does not end ({said})", error.context_mark or mark
    elif "mapping values are not allowed" in said:
        what = "a ':' where none can be"
        hint = "a value with ': ' in it needs quotes; keys that belong together start in one column"
    elif re.search("expected (<document start>|<block end>|key|'-' indicator)", said):
        what, hint = "the indentation does not fit the lines above", ""
    elif "could not determine a constructor" in said:
        tag = said.rpartition("tag ")[2]
        what, hint = f"unknown tag {tag}", "a value that begins with '!' needs quotes"
    elif "undefined alias" in said:
        what, hint = "undefined alias", "a value that begins with '*' needs quotes"
    elif "unknown escape" in said:
        what, hint = "unknown escape in double quotes", "double the backslash, or use single quotes"
    elif context:
        what = f"{said} ({context})"
    shown = "\n  ".join(part for part in (_pointer(text, mark), hint) if part)
    line = mark.line + 1 if mark else 0
    return Problem(name, f"not valid YAML: {what}", hint=shown, line=line)


def _source(text: str, mark: Any) -> str:
    lines = text.splitlines()
    return lines[mark.line] if mark is not None and mark.line < len(lines) else ""


def _pointer(text: str, mark: Any) -> str:
    source = _source(text, mark)
    if not source:
        return ""
    column = mark.column
    if column > 100:
        source, column = source[column - 60 : column + 20], 60
    return f"{source[:120]}\n  {' ' * column}^"
