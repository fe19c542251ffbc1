"""Reads env files as Docker does: KEY=VALUE lines; a bare KEY takes the value of the environment.

Quotes, `export`, comments and quoted values over several lines work as in a shell; nothing is
expanded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from knlocal.project.errors import Problem, ProjectError, shown

_LINE = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*(=)?\s*(.*)$", re.S)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$"}


def load(path: Path, root: Path, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables in a file. Raises ProjectError with the line that cannot be read."""
    name = shown(path, root)
    try:
        return parse(path.read_text("utf-8-sig"), name, environ)
    except FileNotFoundError:
        raise ProjectError(Problem(name, "no such env file")) from None
    except UnicodeDecodeError as error:
        raise ProjectError(Problem(name, f"not UTF-8 text (byte {error.start})")) from None
    except OSError as error:
        raise ProjectError(Problem(name, f"cannot be read: {error.strerror}")) from None


def parse(
    text: str, name: str = ".env", environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The variables in a text, in order; a later value of a name wins."""
    environ = os.environ if environ is None else environ
    values: dict[str, str] = {}
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        start, line = at, lines[at]
        at += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.match(line)
        if found is None:
            raise ProjectError(
                Problem(name, f"not KEY=VALUE: {line.strip()[:60]!r}", line=start + 1)
            )
        key, equals, rest = found.groups()
        if not equals:
            if rest:
                raise ProjectError(
                    Problem(name, f"not KEY=VALUE: {line.strip()[:60]!r}", line=start + 1)
                )
            if key in environ:
                values[key] = environ[key]
            continue
        quote = rest[:1]
        if quote in ("'", '"'):
            while not _closed(rest, quote):
                if at == len(lines):
                    raise ProjectError(
                        Problem(name, f"{key}: the {quote} is never closed", line=start + 1)
                    )
                rest += "\n" + lines[at]
                at += 1
            values[key] = _unquoted(rest, quote)
        else:
            values[key] = re.sub(r"(^|\s+)#.*$", "", rest).rstrip()
    return values


def _closed(text: str, quote: str) -> bool:
    return _end(text, quote) > 0


def _end(text: str, quote: str) -> int:
    at = 1
    while at < len(text):
        if quote == '"' and text[at] == "\\":
            at += 1
        elif text[at] == quote:
            return at
        at += 1
    return -1


def _unquoted(text: str, quote: str) -> str:
    body = text[1 : _end(text, quote)]
    if quote == "'":
        return body
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), body, flags=re.S)
