"""Go's text/template, as far as Knative's settings use it.

Known: text, comments, trim markers, fields and map keys (`.Name`, `.Annotations.x`), variables,
pipelines, parentheses, `if`/`else if`/`else`, `with`, `range`, and the functions `index`, `len`,
`print`, `printf`, `println`, `eq`, `ne`, `lt`, `le`, `gt`, `ge`, `and`, `or`, `not`, `js`, `html`,
`urlquery`, `slice`. Anything else is a TemplateError that names it. Calls such as
`.Request.Header.Get "X"` work when the data holds a callable of that name.

Structs are Python objects or dataclasses (a missing field is an error); maps are mappings (a
missing key prints `<no value>`, or nothing where Go's map holds strings).
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus


class TemplateError(ValueError):
    """A template that cannot be parsed, or not be executed with this data."""


class Template:
    """A parsed template. Raises TemplateError when `text` is not one."""

    def __init__(self, text: str, name: str = "template") -> None:
        self.text = text
        self.name = name
        parser = _Parser(_tokens(text, name), name)
        self._nodes = parser.block()
        parser.done()

    def render(self, data: Any) -> str:
        out: list[str] = []
        _Run(self.name, {"$": data}, out).nodes(self._nodes, data)
        return "".join(out)


def render(text: str, data: Any, name: str = "template") -> str:
    """Parse and render at once."""
    return Template(text, name).render(data)


# --- the parts of a template ---------------------------------------------------------------------


@dataclass(slots=True)
class _Text:
    text: str


@dataclass(slots=True)
class _Action:
    pipe: _Pipe


@dataclass(slots=True)
class _Branch:
    """`if`, `with` or `range`."""

    word: str
    pipe: _Pipe
    body: list[_Node] = field(default_factory=list)
    otherwise: list[_Node] = field(default_factory=list)


_Node = _Text | _Action | _Branch


@dataclass(slots=True)
class _Pipe:
    commands: list[list[_Operand]]
    names: list[str] = field(default_factory=list)
    assigns: bool = False


@dataclass(slots=True)
class _Operand:
    """`kind`: literal, dot, variable, function, pipe; `path`: the fields that follow."""

    kind: str
    value: Any = None
    path: tuple[str, ...] = ()


_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.S)
_WORD = re.compile(
    r"""\s*(?:
      (?P<string>"(?:\\.|[^"\\\n])*"|`[^`]*`)
    | (?P<char>'(?:\\.|[^'\\])')
    | (?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?))
    | (?P<field>(?:\.[A-Za-z_][A-Za-z0-9_]*)+)
    | (?P<variable>\$[A-Za-z0-9_]*)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<symbol>:=|[|().=,])
    )""",
    re.X,
)


def _tokens(text: str, name: str) -> list[tuple[str, Any]]:
    """("text", …) and ("action", [(kind, word), …]) in order, comments left out."""
    found: list[tuple[str, Any]] = []
    position = 0
    trim = False
    while True:
        start = text.find("{{", position)
        plain = text[position:] if start < 0 else text[position:start]
        if trim:
            plain = plain.lstrip()
        match = _ACTION.match(text, start) if start >= 0 else None
        if start >= 0 and match is None:
            raise TemplateError(f"template: {name}:1: unclosed action")
        if match is not None and match[1]:
            plain = plain.rstrip()
        if plain:
            found.append(("text", plain))
        if match is None:
            return found
        trim = bool(match[3])
        position = match.end()
        body = match[2].strip()
        if not (body.startswith("/*") and body.endswith("*/")):
            found.append(("action", _words(body, name)))


def _words(body: str, name: str) -> list[tuple[str, str]]:
    words = []
    position = 0
    while position < len(body):
        match = _WORD.match(body, position)
        if match is None:
            if not body[position:].strip():
                break
            raise TemplateError(
                f"template: {name}:1: unexpected {body[position:].strip()[:1]!r} in {{{{{body}}}}}"
            )
        assert match.lastgroup is not None
        # A field directly after `)` or a name belongs to it; Go tells them apart by the space.
        words.append((match.lastgroup, match[match.lastgroup]))
        position = match.end()
    if not words:
        raise TemplateError(f"template: {name}:1: missing value for command")
    return words


class _Parser:
    def __init__(self, tokens: list[tuple[str, Any]], name: str) -> None:
        self._tokens = tokens
        self._at = 0
        self._name = name

    def done(self) -> None:
        if self._at < len(self._tokens):
            word = self._tokens[self._at][1][0][1]
            raise self._error(f"unexpected {{{{{word}}}}}")

    def block(self) -> list[_Node]:
        """Nodes up to `end` or `else` (which is left to the caller) or the end of the text."""
        nodes: list[_Node] = []
        while self._at < len(self._tokens):
            kind, value = self._tokens[self._at]
            if kind == "text":
                nodes.append(_Text(value))
                self._at += 1
                continue
            word = value[0][1] if value[0][0] == "name" else ""
            if word in ("end", "else"):
                return nodes
            self._at += 1
            if word in ("if", "with", "range"):
                nodes.append(self._branch(word, value[1:]))
            elif word in ("define", "template", "block", "break", "continue"):
                raise self._error(f"{{{{{word}}}}} is not supported here")
            else:
                nodes.append(_Action(self._pipe(value)))
        return nodes

    def _branch(self, word: str, words: list[tuple[str, str]]) -> _Branch:
        branch = _Branch(word, self._pipe(words))
        branch.body = self.block()
        if self._at >= len(self._tokens):
            raise self._error("unexpected EOF")
        closing = self._tokens[self._at][1]
        self._at += 1
        if closing[0][1] == "end":
            return branch
        if len(closing) > 1:  # else if …: an inner branch that shares our `end`
            branch.otherwise = [self._branch(closing[1][1], closing[2:])]
            return branch
        branch.otherwise = self.block()
        if self._at >= len(self._tokens) or self._tokens[self._at][1][0][1] != "end":
            raise self._error("unexpected EOF")
        self._at += 1
        return branch

    def _pipe(self, words: list[tuple[str, str]]) -> _Pipe:
        pipe, rest = self._pipeline(list(words))
        if rest:
            raise self._error(f"unexpected {rest[0][1]!r}")
        return pipe

    def _pipeline(self, words: list[tuple[str, str]]) -> tuple[_Pipe, list[tuple[str, str]]]:
        names: list[str] = []
        assigns = False
        symbols = [word for kind, word in words if kind == "symbol"]
        if words and words[0][0] == "variable" and {":=", "="} & set(symbols):
            while words and words[0] not in (("symbol", ":="), ("symbol", "=")):
                kind, word = words.pop(0)
                if kind == "variable":
                    names.append(word)
            assigns = words.pop(0)[1] == "="
        commands: list[list[_Operand]] = [[]]
        while words:
            kind, word = words[0]
            if kind == "symbol" and word == ")":
                break
            words.pop(0)
            if kind == "symbol" and word == "|":
                if not commands[-1]:
                    raise self._error("missing value for command")
                commands.append([])
                continue
            commands[-1].append(self._operand(kind, word, words))
        if not commands[-1]:
            raise self._error("missing value for command")
        return _Pipe(commands, names, assigns), words

    def _operand(self, kind: str, word: str, words: list[tuple[str, str]]) -> _Operand:
        match kind:
            case "string":
                return _Operand("literal", _unquote(word))
            case "char":
                return _Operand("literal", ord(_unquote(f'"{word[1:-1]}"')))
            case "number":
                return _Operand("literal", _number(word))
            case "field":
                return _Operand("dot", path=tuple(word[1:].split(".")))
            case "variable":
                return _Operand("variable", word, self._fields(words))
            case "name" if word in ("true", "false"):
                return _Operand("literal", word == "true")
            case "name" if word == "nil":
                return _Operand("literal", None)
            case "name" if word in _FUNCTIONS or word in ("and", "or"):
                return _Operand("function", word)
            case "name":
                raise self._error(f'function "{word}" not defined')
            case "symbol" if word == ".":
                return _Operand("dot")
            case "symbol" if word == "(":
                inner, rest = self._pipeline(words)
                if not rest:
                    raise self._error("unclosed left paren")
                words[:] = rest[1:]
                return _Operand("pipe", inner, self._fields(words))
        raise self._error(f"unexpected {word!r} in operand")

    def _fields(self, words: list[tuple[str, str]]) -> tuple[str, ...]:
        if words and words[0][0] == "field":
            return tuple(words.pop(0)[1][1:].split("."))
        return ()

    def _error(self, what: str) -> TemplateError:
        return TemplateError(f"template: {self._name}:1: {what}")


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}


def _unquote(word: str) -> str:
    if word.startswith("`"):
        return word[1:-1]
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), word[1:-1])


def _number(word: str) -> int | float:
    try:
        return int(word, 0)
    except ValueError:
        return float(word)


# --- running -------------------------------------------------------------------------------------


class _NoValue:
    """What a missing map key evaluates to."""

    def __str__(self) -> str:
        return "<no value>"

    def __bool__(self) -> bool:
        return False


_NO_VALUE = _NoValue()


class _Run:
    def __init__(self, name: str, variables: dict[str, Any], out: list[str]) -> None:
        self._name = name
        self._variables = variables
        self._out = out

    def nodes(self, nodes: Sequence[_Node], dot: Any) -> None:
        for node in nodes:
            if isinstance(node, _Text):
                self._out.append(node.text)
            elif isinstance(node, _Action):
                value = self._pipe(node.pipe, dot)
                if not node.pipe.names:
                    self._out.append(go_print(value))
            else:
                self._branch(node, dot)

    def _branch(self, node: _Branch, dot: Any) -> None:
        outer = self._variables
        self._variables = dict(outer)
        value = self._pipe(node.pipe, dot)
        if node.word == "range":
            self._range(node, value, dot)
        elif is_true(value):
            self.nodes(node.body, value if node.word == "with" else dot)
        else:
            self.nodes(node.otherwise, dot)
        self._variables = {name: self._variables[name] for name in outer}

    def _range(self, node: _Branch, value: Any, dot: Any) -> None:
        if isinstance(value, Mapping):
            items: list[tuple[Any, Any]] = sorted(value.items())
        elif isinstance(value, int) and not isinstance(value, bool):
            items = [(number, number) for number in range(value)]
        else:
            items = list(enumerate(value or ()))
        if not items:
            self.nodes(node.otherwise, dot)
        for key, item in items:
            match node.pipe.names:
                case [index, element]:
                    self._variables |= {index: key, element: item}
                case [element]:
                    self._variables[element] = item
            self.nodes(node.body, item)

    def _pipe(self, pipe: _Pipe, dot: Any) -> Any:
        value: Any = _NO_VALUE
        for number, command in enumerate(pipe.commands):
            value = self._command(command, dot, [value] if number else [])
        for name in pipe.names:
            if pipe.assigns and name not in self._variables:
                raise self._error(f"undefined variable: {name}")
            self._variables[name] = value
        return value

    def _command(self, command: list[_Operand], dot: Any, final: list[Any]) -> Any:
        first, *others = command
        if first.kind == "function":
            if first.value in ("and", "or"):
                return self._logic(first.value, others, dot, final)
            arguments = [self._operand(other, dot) for other in others] + final
            try:
                return _FUNCTIONS[first.value](*arguments)
            except TemplateError:
                raise
            except (TypeError, KeyError, IndexError, ValueError) as error:
                raise self._error(f"error calling {first.value}: {error}") from None
        value = self._operand(first, dot, call=False)
        if callable(value):
            return value(*[self._operand(other, dot) for other in others], *final)
        if others or final:
            raise self._error("can't give argument to non-function")
        return value

    def _logic(self, word: str, operands: list[_Operand], dot: Any, final: list[Any]) -> Any:
        value: Any = None
        for operand in operands:
            value = self._operand(operand, dot)
            if is_true(value) != (word == "and"):
                return value
        return final[0] if final else value

    def _operand(self, operand: _Operand, dot: Any, *, call: bool = True) -> Any:
        match operand.kind:
            case "literal":
                return operand.value
            case "dot":
                value = dot
            case "variable":
                if operand.value not in self._variables:
                    raise self._error(f"undefined variable: {operand.value}")
                value = self._variables[operand.value]
            case "pipe":
                value = self._pipe(operand.value, dot)
            case _:
                value = _FUNCTIONS[operand.value]()
        for name in operand.path:
            value = self._field(value, name)
        return value() if call and callable(value) else value

    def _field(self, value: Any, name: str) -> Any:
        if callable(value) and not isinstance(value, type):
            value = value()
        if isinstance(value, Mapping):
            return value.get(name, _NO_VALUE)
        if value is None or value is _NO_VALUE:
            raise self._error(f"nil data; no entry for key {name!r}")
        if not name.startswith("_") and hasattr(value, name):
            return getattr(value, name)
        raise self._error(f"can't evaluate field {name} in type {type(value).__name__}")

    def _error(self, what: str) -> TemplateError:
        return TemplateError(f"template: {self._name}: {what}")


def is_true(value: Any) -> bool:
    """Go's truth: not the zero value."""
    if isinstance(value, str | Mapping | list | tuple | int | float | bool | _NoValue):
        return bool(value)
    return value is not None


def go_print(value: Any) -> str:
    """A value as Go's `%v` prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "<nil>"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e21 else f"{value:e}"
    if isinstance(value, Mapping):
        entries = sorted(value.items(), key=lambda entry: str(entry[0]))
        return f"map[{' '.join(f'{go_print(k)}:{go_print(v)}' for k, v in entries)}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(go_print(item) for item in value)}]"
    return str(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            found = value.get(key, _NO_VALUE)
            # Go's zero value: labels and annotations are maps of strings.
            value = "" if found is _NO_VALUE and _holds_strings(value) else found
        elif value is None or value is _NO_VALUE:
            raise TemplateError("index of untyped nil")
        else:
            value = value[key]
    return value


def _holds_strings(value: Mapping[Any, Any]) -> bool:
    return all(isinstance(item, str) for item in value.values())


def _print(*values: Any) -> str:
    text = ""
    for number, value in enumerate(values):
        both_not_strings = number and not (
            isinstance(value, str) or isinstance(values[number - 1], str)
        )
        text += (" " if both_not_strings else "") + go_print(value)
    return text


_VERB = re.compile(r"%([-+# 0]*)(\d+)?(?:\.(\d+))?([a-zA-Z%])")


def _printf(layout: str, *values: Any) -> str:
    rest = list(values)

    def convert(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not rest:
            return f"%!{verb}(MISSING)"
        value = rest.pop(0)
        match verb:
            case "s" | "v":
                text = go_print(value)
                text = text[: int(precision)] if precision and verb == "s" else text
            case "q":
                text = '"' + go_print(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
            case "d" | "x" | "X" | "o" | "b" | "c" | "e" | "f" | "g" | "t":
                if verb == "t":
                    text = go_print(value)
                elif verb == "c":
                    text = chr(value)
                else:
                    spec = f"{'.' + precision if precision else ''}{verb}"
                    text = format(value, spec if verb in "efg" else verb)
            case _:
                return f"%!{verb}({go_print(value)})"
        if width:
            fill = "0" if "0" in flags and "-" not in flags else " "
            size = int(width)
            text = text.ljust(size) if "-" in flags else text.rjust(size, fill)
        return text

    text = _VERB.sub(convert, layout)
    if rest:
        text += "%!(EXTRA " + ", ".join(f"{type(v).__name__}={go_print(v)}" for v in rest) + ")"
    return text


_JS = {
    "\\": "\\\\",
    "'": "\\'",
    '"': '\\"',
    "<": "\\u003C",
    ">": "\\u003E",
    "&": "\\u0026",
    "=": "\\u003D",
}


def _js(*values: Any) -> str:
    return "".join(
        _JS.get(char) or (f"\\u{ord(char):04X}" if ord(char) < 32 else char)
        for char in _print(*values)
    )


def _html(*values: Any) -> str:
    return html.escape(_print(*values)).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")


def _slice(value: Any, *bounds: int) -> Any:
    return value[slice(*bounds[:2])] if len(bounds) > 1 else value[bounds[0] if bounds else 0 :]


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "index": _index,
    "len": len,
    "print": _print,
    "println": lambda *values: " ".join(go_print(value) for value in values) + "\n",
    "printf": _printf,
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "not": lambda value: not is_true(value),
    "js": _js,
    "html": _html,
    "urlquery": lambda *values: quote_plus(_print(*values)),
    "slice": _slice,
}
