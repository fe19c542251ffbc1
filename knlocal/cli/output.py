"""How things are printed: tables as the API gives them, JSON, YAML, names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click
import orjson

from knlocal.cli.context import echo, is_terminal
from knlocal.resources.base import Obj

FORMATS = ["json", "yaml", "name", "wide"]

#: Cells that mean something good or bad, for a terminal.
_GOOD = {"True", "Running", "Active", "Ready", "Bound", "Succeeded", "Completed"}
_BAD = {"False", "Error", "Failed", "CrashLoopBackOff", "ErrImagePull", "ImagePullBackOff"}


def aligned(rows: Iterable[Sequence[str]], *, colour: bool | None = None) -> list[str]:
    """Rows as lines whose columns stand below each other; the first row is the header."""
    rows = [[str(cell) for cell in row] for row in rows]
    if not rows:
        return []
    widths = [max(len(row[at]) for row in rows if at < len(row)) for at in range(len(rows[0]))]
    colour = is_terminal() if colour is None else colour
    return [_line(row, widths, colour, header=at == 0) for at, row in enumerate(rows)]


def _line(row: Sequence[str], widths: Sequence[int], colour: bool, *, header: bool) -> str:
    cells = []
    for at, cell in enumerate(row):
        padded = cell if at == len(row) - 1 else cell.ljust(widths[at])
        if colour:
            padded = _coloured(padded, cell, header)
        cells.append(padded)
    return "   ".join(cells).rstrip()


def _coloured(padded: str, cell: str, header: bool) -> str:
    if header:
        return click.style(padded, bold=True)
    if cell in _GOOD:
        return click.style(padded, fg="green")
    return click.style(padded, fg="red") if cell in _BAD else padded


class Table:
    """A `meta.k8s.io/v1` Table, printed like kubectl prints it."""

    def __init__(
        self, table: Any, *, wide: bool = False, spaces: bool = False, prefix: str = ""
    ) -> None:
        """`prefix` goes before each name, where several kinds are shown."""
        definitions = table["columnDefinitions"]
        self._kept = [
            at for at, column in enumerate(definitions) if wide or not column.get("priority")
        ]
        self._header = [definitions[at]["name"].upper() for at in self._kept]
        self._rows = table["rows"]
        self._spaces = spaces
        self._prefix = prefix
        self._widths: list[int] = []

    def print(self) -> None:
        header = (["NAMESPACE"] if self._spaces else []) + self._header
        rows = [header, *(self._cells(row) for row in self._rows)]
        self._widths = [max(len(row[at]) for row in rows) for at in range(len(header))]
        for at, row in enumerate(rows):
            echo(_line(row, self._widths, is_terminal(), header=at == 0))

    def print_rows(self, rows: list[Any], event: str) -> None:
        """Rows that came later, below the columns of the first ones."""
        for row in rows:
            cells = self._cells(row)
            if event == "DELETED":
                cells[-1] += " (deleted)"
            echo(_line(cells, self._widths, is_terminal(), header=False))

    def _cells(self, row: Any) -> list[str]:
        cells = [_cell(row["cells"][at]) for at in self._kept]
        if self._prefix and self._header[0] == "NAME":
            cells[0] = self._prefix + cells[0]
        space = (row.get("object") or {}).get("metadata", {}).get("namespace", "")
        return ([space] if self._spaces else []) + cells


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "True" if value else "False"
    return str(value)


def print_objects(objects: Sequence[Obj], form: str, *, single: bool = False) -> None:
    """Objects as JSON, YAML or names; several become a List."""
    if form == "name":
        for obj in objects:
            group = obj["apiVersion"].rpartition("/")[0]
            kind = obj["kind"].lower()
            echo(f"{kind}.{group}/{obj['metadata']['name']}" if group else
                 f"{kind}/{obj['metadata']['name']}")  # fmt: skip
        return
    value: Any = {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": list(objects)}
    if single and len(objects) == 1:
        value = objects[0]
    echo(as_text(value, form))


def as_text(value: Any, form: str) -> str:
    if form == "json":
        return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return yaml_text(value).rstrip()


def yaml_text(value: Any) -> str:
    """YAML as people write it: keys in their order, texts of several lines as blocks."""
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, data: str) -> Any:
        style = "|" if "\n" in data and not data.startswith(("\n", " ")) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Dumper.add_representer(str, text)
    result: str = yaml.dump(
        value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1_000_000
    )
    return result
