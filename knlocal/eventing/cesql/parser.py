"""Reads CESQL text into nodes, or says where and why it cannot."""

from __future__ import annotations

from functools import cache
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from knlocal.eventing.cesql import nodes
from knlocal.eventing.cesql.errors import ParseError
from knlocal.eventing.cesql.values import INTEGER_MAX, INTEGER_MIN

MAX_LENGTH = 32_768
MAX_DEPTH = 200
"""Nesting above this is refused, so that no expression exhausts the stack."""


def parse(text: str) -> nodes.Node:
    """The syntax tree of `text`; ParseError when it is no CESQL expression."""
    if len(text) > MAX_LENGTH:
        raise ParseError(f"longer than {MAX_LENGTH} characters", text, MAX_LENGTH)
    try:
        # With a transformer built in, lark's `parse` returns what the transformer made.
        node: nodes.Node = _settle(_parser().parse(text))
    except UnexpectedInput as error:
        raise _explain(error, text) from None
    except _OutOfRange as error:
        problem = (
            f"{error.token} is outside the range of a 32 bit integer "
            f"({INTEGER_MIN} to {INTEGER_MAX})"
        )
        raise ParseError(problem, text, error.token.start_pos or 0) from None
    if _deeper_than(node, MAX_DEPTH):
        raise ParseError(f"nested deeper than {MAX_DEPTH} levels", text, 0)
    return node


@cache
def _parser() -> Lark:
    return Lark.open(
        "grammar.lark",
        rel_to=__file__,
        parser="lalr",
        maybe_placeholders=False,
        # Built while parsing: no recursion over the tree, so no input can exhaust the stack.
        transformer=_Builder(),
    )


_NAMES = {
    "LPAR": "'('",
    "RPAR": "')'",
    "COMMA": "','",
    "NAME": "an attribute",
    "FUNCTION": "a function",
    "INTEGER": "an integer",
    "STRING": "a string",
    "COMPARISON": "a comparison",
    "PLUS": "'+'",
    "MINUS": "'-'",
    "STAR": "'*'",
    "SLASH": "'/'",
    "PERCENT": "'%'",
    "$END": "the end",
}


def _explain(error: UnexpectedInput, text: str) -> ParseError:
    if isinstance(error, UnexpectedToken):
        expected = error.accepts or error.expected
        if error.token.type == "$END":
            position, found = len(text), "the expression ends too early"
        else:
            position, found = error.token.start_pos or 0, f"unexpected {str(error.token)!r}"
        return ParseError(f"{found}; expected {_one_of(expected)}", text, position)
    position = error.pos_in_stream or 0
    if isinstance(error, UnexpectedCharacters) and position < len(text):
        if text[position] in "'\"":
            return ParseError("this string never ends", text, position)
        problem = f"unexpected {text[position]!r}; expected {_one_of(error.allowed or ())}"
        return ParseError(problem, text, position)
    return ParseError("this is not an expression", text, position)


def _one_of(terminals: Any) -> str:
    names = sorted(_NAMES.get(t, t) for t in terminals)
    if len(names) > 1:
        return f"{', '.join(names[:-1])} or {names[-1]}"
    return names[0] if names else "something else"


def _deeper_than(root: nodes.Node, limit: int) -> bool:
    level: list[nodes.Node] = [root]
    depth = 0
    while level:
        depth += 1
        if depth > limit:
            return True
        level = [child for node in level for child in _nested(node)]
    return False


def _nested(node: nodes.Node) -> list[nodes.Node]:
    """What lies one level below; a chain of AND, OR and XOR is one level, however long."""
    if not isinstance(node, nodes.Binary) or node.operator not in nodes.LOGIC:
        return list(nodes.children(node))
    first, rest = nodes.chain(node)
    return [first, *(operand for _, operand in rest)]


def _unquote(token: Token) -> str:
    quote, inner = token[0], token[1:-1]
    return inner.replace("\\" + quote, quote)


class _OutOfRange(Exception):
    def __init__(self, token: Token) -> None:
        super().__init__(token)
        self.token = token


def _integer(token: Token, sign: int) -> nodes.Literal:
    limit = INTEGER_MAX if sign > 0 else -INTEGER_MIN
    if len(token.lstrip("0")) > 10 or int(token) > limit:
        raise _OutOfRange(token)
    return nodes.Literal(sign * int(token))


class _Unsigned:
    """Digits whose sign is not known yet: `-2147483648` is an integer, `2147483648` is none."""

    def __init__(self, token: Token) -> None:
        self.token = token


def _settle(node: Any) -> Any:
    return _integer(node.token, 1) if isinstance(node, _Unsigned) else node


class _Builder(Transformer[Token, Any]):
    """Lark's tree → our nodes; one method per rule alias of the grammar."""

    def true(self, _: list[Any]) -> nodes.Node:
        return nodes.Literal(True)

    def false(self, _: list[Any]) -> nodes.Node:
        return nodes.Literal(False)

    def integer(self, children: list[Any]) -> Any:
        return _Unsigned(children[0])

    def positive(self, children: list[Any]) -> nodes.Node:
        return _integer(children[1], 1)

    def string(self, children: list[Any]) -> nodes.Node:
        return nodes.Literal(_unquote(children[0]))

    def attribute(self, children: list[Any]) -> nodes.Node:
        return nodes.Attribute(children[0].lower())

    def exists(self, children: list[Any]) -> nodes.Node:
        return nodes.Exists(children[1].lower())

    def expressions(self, children: list[Any]) -> Any:
        return tuple(_settle(child) for child in children)

    def call(self, children: list[Any]) -> nodes.Node:
        return nodes.Call(children[0].upper(), children[1] if len(children) > 1 else ())

    def negated(self, children: list[Any]) -> nodes.Node:
        return nodes.Not(_settle(children[1]))

    def minus(self, children: list[Any]) -> nodes.Node:
        operand = children[1]
        if isinstance(operand, _Unsigned):
            return _integer(operand.token, -1)
        return nodes.Minus(operand)

    def binary(self, children: list[Any]) -> nodes.Node:
        left, operator, right = children
        return nodes.Binary(operator.upper(), _settle(left), _settle(right))

    def like(self, children: list[Any]) -> nodes.Node:
        return nodes.Like(_settle(children[0]), _unquote(children[-1]), negated=False)

    def not_like(self, children: list[Any]) -> nodes.Node:
        return nodes.Like(_settle(children[0]), _unquote(children[-1]), negated=True)

    def contained(self, children: list[Any]) -> nodes.Node:
        return nodes.In(_settle(children[0]), children[-1], negated=False)

    def not_contained(self, children: list[Any]) -> nodes.Node:
        return nodes.In(_settle(children[0]), children[-1], negated=True)
