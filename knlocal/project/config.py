"""Reads `knlocal.toml`: typed settings, or problems that say where, what and what to try."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import tomli
from pydantic import BaseModel, ValidationError

from knlocal.project.errors import Problem, ProjectError, did_you_mean, shown
from knlocal.project.settings import Project, Settings, is_name
from knlocal.project.tables import TABLE, TEXT

FILE_NAME = "knlocal.toml"

#: Tables whose keys name objects.
_NAMED = (
    *("services", "brokers", "triggers", "channels", "subscriptions", "sequences", "parallels"),
    "sources",
)

Path_ = tuple[str | int, ...]


def find(folder: Path | None = None) -> Path | None:
    """The `knlocal.toml` of `folder` or of the nearest folder above it."""
    start = (folder or Path.cwd()).resolve()
    for place in (start, *start.parents):
        if (place / FILE_NAME).is_file():
            return place / FILE_NAME
    return None


def load(path: Path) -> Settings:
    """The settings in a file. Raises ProjectError with every problem found in it."""
    name = shown(path)
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ProjectError(Problem(name, "no such file", hint="`knlocal init` makes one")) from None
    except UnicodeDecodeError as error:
        raise ProjectError(
            Problem(name, f"not UTF-8 text (byte {error.start})", hint="save it as UTF-8")
        ) from None
    except OSError as error:
        raise ProjectError(Problem(name, f"cannot be read: {error.strerror}")) from None
    return parse(text, name, path.resolve().parent)


def line_of(root: Path, *path: str) -> int:
    """The line of knlocal.toml that says what is at `path`; 0 when it cannot be told."""
    try:
        return _Lines((root / FILE_NAME).read_text("utf-8")).find(path)
    except (OSError, ValueError):
        return 0


def peek(path: Path) -> Project:
    """`[project]` of a file whatever else is wrong with it: enough to find its daemon."""
    try:
        table = tomli.loads(path.read_text("utf-8")).get("project", {})
        project = Project.model_validate(
            {key: table[key] for key in ("name", "state_dir", "namespace") if key in table}
        )
    except (OSError, ValueError, AttributeError):
        project = Project()
    return project.model_copy(update={"name": project.name or default_name(path.parent)})


def parse(text: str, name: str = FILE_NAME, root: Path = Path()) -> Settings:
    """Settings from TOML text; relative paths in it start at `root`."""
    try:
        data = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ProjectError(_syntax_problem(name, text, error)) from None
    lines = _Lines(text)
    problems = list(_name_problems(name, data, lines))
    try:
        settings = Settings.model_validate({**data, "root": root})
    except ValidationError as error:
        found = [_problem(name, data, lines, detail) for detail in error.errors()]
        raise ProjectError(*problems, *dict.fromkeys(found)) from None
    if problems:
        raise ProjectError(*problems)
    if not settings.project.name:
        project = settings.project.model_copy(update={"name": default_name(root)})
        settings = settings.model_copy(update={"project": project})
    return settings


def default_name(root: Path) -> str:
    """A project without a name is called after its folder."""
    name = re.sub(r"[^a-z0-9]+", "-", root.resolve().name.lower()).strip("-")
    return name[:40].rstrip("-") or "project"


# -- problems -------------------------------------------------------------------------------------


def _syntax_problem(name: str, text: str, error: tomli.TOMLDecodeError) -> Problem:
    message = str(error)
    found = re.search(r"^(.*) \(at line (\d+), column (\d+)\)$", message, re.S)
    if not found:
        return Problem(name, f"not valid TOML: {message}", line=text.count("\n") + 1)
    what, line, column = found.group(1), int(found.group(2)), int(found.group(3))
    lines = text.splitlines()
    source = lines[line - 1] if line <= len(lines) else ""
    pointer = f"{source}\n  {' ' * (column - 1)}^" if source.strip() else ""
    return Problem(name, f"not valid TOML: {what}", hint=pointer, line=line)


def _name_problems(name: str, data: Mapping[str, Any], lines: _Lines) -> Iterator[Problem]:
    for table in _NAMED:
        tables = data.get(table)
        for key in tables if isinstance(tables, dict) else ():
            if not is_name(key):
                yield Problem(
                    name,
                    f"{key!r} cannot be a name",
                    f"[{table}.{key}]",
                    "use lower-case letters, digits and '-', at most 63, starting with a letter",
                    lines.find((table, key)),
                )


def _problem(name: str, data: Any, lines: _Lines, detail: Mapping[str, Any]) -> Problem:
    path = _clean(detail["loc"])
    kind, context, given = detail["type"], detail.get("ctx", {}), detail.get("input")
    what, hint = detail["msg"], ""
    if kind == "extra_forbidden":
        path, key = path[:-1], str(path[-1])
        what, hint = f"unknown key {key!r}", did_you_mean(key, _keys_at(path, data), "known keys")
        line = lines.find((*path, key))
        return Problem(name, what, _where(path), hint, line)
    if kind == "missing":
        path, key = path[:-1], str(path[-1])
        return Problem(
            name, f"missing key {key!r}", _where(path), f"add: {key} = …", lines.find(path)
        )
    if kind == "value_error":
        what = str(context.get("error", what))
        key, colon, _ = what.partition(": ")
        if colon and lines.has((*path, key)):  # it is about one key of the table
            path, what = (*path, key), what.removeprefix(f"{key}: ")
    elif kind == "literal_error":
        options = re.findall(r"'([^']*)'", context["expected"])
        what = f"must be {_one_of(options)}, not {given!r}"
        hint = did_you_mean(given, options) if isinstance(given, str) else ""
        hint = hint if "did you mean" in hint else ""
    elif kind in {"union_tag_invalid", "union_tag_not_found"}:
        options = ["ping", "container", "apiserver", "binding"]
        if kind == "union_tag_not_found":
            what, hint = "missing key 'kind'", f"kind = one of {', '.join(options)}"
        else:
            tag = str(context.get("tag", ""))
            what = f"unknown kind {tag!r}"
            hint = did_you_mean(tag, options, "known kinds")
    elif kind in _AT_LEAST:
        word, key = _AT_LEAST[kind]
        what = f"must be {word} {context[key]:g}, not {given!r}"
    elif kind in _WANTED:
        wanted = "text or a table" if detail["loc"][-1] == TABLE else _WANTED[kind]
        what = f"must be {wanted}, not {_told(given)}"
        if kind == "string_type" and isinstance(given, (int, float, bool)):
            hint = f'write it in quotes: "{_text(given)}"'
        elif kind.startswith(("int", "float")) and isinstance(given, str) and _number(given):
            hint = f"write it without quotes: {given}"
        elif kind == "list_type" and isinstance(given, (str, dict)):
            hint = "put it in square brackets: [ … ]"
    return Problem(name, what, _where(path), hint, lines.find(path))


_AT_LEAST = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "greater_than": ("more than", "gt"),
    "less_than": ("less than", "lt"),
}
_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
}


def _told(given: Any) -> str:
    kinds: dict[type, str] = {dict: "a table", list: "a list"}
    if type(given) in kinds:
        return kinds[type(given)]
    if isinstance(given, str):
        return f"the text {given!r}"
    if isinstance(given, bool):
        return f"the truth value {_text(given)}"
    return f"the number {given}" if isinstance(given, (int, float)) else str(given)


def _text(given: Any) -> str:
    return str(given).lower() if isinstance(given, bool) else str(given)


def _number(given: str) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?", given))


def _one_of(options: Sequence[str]) -> str:
    quoted = [repr(option) for option in options]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def _clean(loc: Path_) -> Path_:
    """A pydantic location without the tags of alternatives and the names of validators."""
    path = [part for part in loc if part not in (TEXT, TABLE)]
    if path and path[0] == "sources" and len(path) > 2:
        del path[2]
    if path and path[-1] == "[key]":
        path.pop()
    return tuple(path)


def _where(path: Path_) -> str:
    """`[services.orders] scale.min`, `[[…]]` items counted from 1."""
    if not path:
        return ""
    cut = 2 if path[0] in (*_NAMED, "settings") else 1
    table = ".".join(str(part) for part in path[:cut])
    field = ""
    for part in path[cut:]:
        field += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return f"[{table}] {field.removeprefix('.')}".rstrip()


# -- which keys a table may have ------------------------------------------------------------------


def _keys_at(path: Path_, data: Any) -> list[str]:
    """The keys that the table at `path` may have, [] when any."""
    model: Any = Settings
    for part in path:
        data = _step_data(data, part)
        model = _step(model, part, data)
    model = _model(model, data)
    if isinstance(model, type) and issubclass(model, BaseModel):
        return [
            field.alias or key for key, field in model.model_fields.items() if not field.exclude
        ]
    return []


def _step_data(data: Any, part: str | int) -> Any:
    try:
        return data[part]
    except (KeyError, IndexError, TypeError):
        return None


def _step(model: Any, part: str | int, data: Any) -> Any:
    model = _model(model, data)
    if isinstance(model, type) and issubclass(model, BaseModel):
        for key, field in model.model_fields.items():
            if (field.alias or key) == part:
                return _model(field.annotation, data)
        return None
    arguments = get_args(model)
    return _model(arguments[-1], data) if arguments else None


def _model(annotation: Any, data: Any) -> Any:
    """The alternative of `annotation` that describes tables like `data`."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) not in (Union, types.UnionType):
        return annotation
    options = [_model(option, data) for option in get_args(annotation)]
    models = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
    if isinstance(data, dict) and "kind" in data:
        for model in models:
            field = model.model_fields.get("kind")
            if field is not None and data["kind"] in get_args(field.annotation):
                return model
    rest = [o for o in options if o not in (type(None), str)]
    return models[0] if models else (rest[0] if rest else annotation)


# -- which line -----------------------------------------------------------------------------------


class _Lines:
    """Where keys stand in a TOML text: good enough to point at, never wrong about the table."""

    def __init__(self, text: str) -> None:
        self._at: dict[Path_, int] = {}
        table: Path_ = ()
        counts: dict[Path_, int] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if header := re.match(r"^\s*(\[\[?)([^\]]+)\]", line):
                table = tuple(_keys(header.group(2)))
                self._at.setdefault(table[:1], number)
                if header.group(1) == "[[":
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, counts[table])
                self._at.setdefault(table, number)
            elif key := re.match(
                r"""^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[\w"'-]+)*)\s*=""", line
            ):
                path = (*table, *_keys(key.group(1)))
                for end in range(len(table) + 1, len(path) + 1):
                    self._at.setdefault(path[:end], number)

    def has(self, path: Path_) -> bool:
        return path in self._at

    def find(self, path: Path_) -> int:
        """The line of the longest part of `path` that stands in the file; 0 when none does."""
        for end in range(len(path), 0, -1):
            if (line := self._at.get(path[:end])) is not None:
                return line
        return 0


def _keys(text: str) -> list[str]:
    return [
        part.strip().strip("\"'") for part in re.findall(r"""\s*("[^"]*"|'[^']*'|[^.]+)\s*""", text)
    ]
