"""CEL, the Common Expression Language, as validation rules of CRDs use it.

Evaluated by the `common-expression-language` package (`pip install knlocal[cel]`), with the
functions that Kubernetes adds (k8s.io/apiserver/pkg/cel/library) as far as plain data needs them.
What it does not know raises `Unsupported`: the caller lets the object pass and says so.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from knlocal.resources.value_checks import readable

#: The package is imported with the first expression: it takes a quarter of a second.
AVAILABLE = find_spec("cel") is not None

Schema = Mapping[str, Any]

_KEYWORDS = frozenset({
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function",
    "if", "import", "let", "loop", "package", "namespace", "return", "var", "void", "while",
})  # fmt: skip
_ESCAPES = (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"))


class Unsupported(Exception):
    """The expression needs something that is not simulated here."""


class Failed(Exception):
    """The expression could not be evaluated for this value, nor could it on a cluster."""


class Malformed(Exception):
    """The expression is not CEL."""


class Expression:
    """One compiled expression. Raises Malformed or Unsupported."""

    def __init__(self, text: str) -> None:
        import cel

        self.text = text
        try:
            self._program = cel.compile(text)
        except ValueError as error:
            said = str(error).partition("ERROR: ")[2] or str(error)
            if "unsupported syntax" in said:
                raise Unsupported(said) from None
            raise Malformed(f"ERROR: {said}") from None
        self.variables = frozenset(self._program.variables())

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The result for these variables. Raises Failed or Unsupported."""
        import cel
        from cel.stdlib import add_stdlib_to_context

        context = cel.Context()
        add_stdlib_to_context(context)
        for name, function in _FUNCTIONS.items():
            context.add_function(name, function)
        for name, value in values.items():
            context.add_variable(name, value)
        try:
            return self._program.execute(context)
        except KeyError as error:
            raise Failed(f"no such key: {error.args[0]}") from None
        except RuntimeError as error:
            if "Undefined variable or function" in str(error):
                raise Unsupported(str(error).partition(". ")[0]) from None
            raise Failed(str(error)) from None
        except Exception as error:  # each operation of CEL has its own Python exception
            raise Failed(str(error)) from None


def optional(value: Any) -> Any:
    """CEL's optional value; None is the empty one."""
    import cel

    return cel.OptionalValue.none() if value is None else cel.OptionalValue.of(value)


def to_cel(value: Any, schema: Schema) -> Any:
    """JSON data as CEL sees it through its schema: escaped names, numbers and moments by type."""
    if isinstance(value, dict):
        return _object(value, schema)
    if isinstance(value, list):
        items = schema.get("items") or {}
        return [to_cel(item, items) for item in value]
    if isinstance(value, str):
        return _string(value, schema)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if schema.get("type") == "number":
            return float(value)
        return int(value) if schema.get("type") == "integer" else value
    return value


def _object(value: dict[str, Any], schema: Schema) -> dict[str, Any]:
    fields = schema.get("properties") or {}
    others = schema.get("additionalProperties")
    below = others if isinstance(others, Mapping) else {}
    return {
        escaped(name) if name in fields else name: to_cel(item, fields.get(name, below))
        for name, item in value.items()
    }


def _string(value: str, schema: Schema) -> Any:
    read = _FORMATS.get(schema.get("format") or "")
    if read is None or schema.get("type") != "string":
        return value
    try:
        return read(value)
    except (ValueError, binascii.Error):
        return value


def escaped(name: str) -> str:
    """A property's name as rules spell it."""
    if name in _KEYWORDS:
        return f"__{name}__"
    for raw, spelt in _ESCAPES:
        name = name.replace(raw, spelt)
    return name


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")


def _duration(text: str) -> timedelta:
    if not re.fullmatch(rf"-?(?:{_DURATION.pattern})+", text):
        raise ValueError(text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
    return timedelta(seconds=-seconds if text.startswith("-") else seconds)


_FORMATS: Mapping[str, Callable[[str], Any]] = {
    "date-time": _moment,
    "date": _moment,
    "duration": _duration,
    "byte": base64.b64decode,
}


# --- what Kubernetes adds to CEL -----------------------------------------------------------------


def _find(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    return found.group() if found else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = [match.group() for match in re.finditer(pattern, text)]
    return found if limit < 0 else found[:limit]


def _is_sorted(items: list[Any]) -> bool:
    return all(one <= two for one, two in pairwise(items))


def _format(text: str, values: list[Any]) -> str:
    return re.sub(r"%s", "{}", text).replace("%d", "{}").format(*values)


def _is_url(text: str) -> bool:
    try:
        return bool(urlsplit(text).scheme) or text.startswith("/")
    except ValueError:
        return False


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "find": _find,
    "findAll": _find_all,
    "isSorted": _is_sorted,
    "format": _format,
    "isURL": _is_url,
    "isIP": readable(ipaddress.ip_address),
    "isCIDR": lambda text: "/" in text and readable(ipaddress.ip_interface)(text),
}
