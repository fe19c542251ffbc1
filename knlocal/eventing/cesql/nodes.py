"""The abstract syntax of CESQL expressions."""

from __future__ import annotations

from dataclasses import dataclass

from knlocal.eventing.cesql.values import Value


@dataclass(frozen=True, slots=True)
class Literal:
    value: Value


@dataclass(frozen=True, slots=True)
class Attribute:
    """A context attribute or extension, by its lower-case name."""

    name: str


@dataclass(frozen=True, slots=True)
class Exists:
    name: str


@dataclass(frozen=True, slots=True)
class Not:
    operand: Node


@dataclass(frozen=True, slots=True)
class Minus:
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary:
    """`operator` is upper case: AND OR XOR = != <> < <= > >= + - * / %."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Like:
    operand: Node
    pattern: str
    negated: bool


@dataclass(frozen=True, slots=True)
class In:
    operand: Node
    elements: tuple[Node, ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A function invocation; `name` is upper case."""

    name: str
    arguments: tuple[Node, ...]


Node = Literal | Attribute | Exists | Not | Minus | Binary | Like | In | Call

LOGIC = frozenset({"AND", "OR", "XOR"})


def chain(node: Binary) -> tuple[Node, list[tuple[str, Node]]]:
    """`a AND b OR c` (which nests to the left) as `a` and [("AND", b), ("OR", c)]."""
    rest: list[tuple[str, Node]] = []
    left: Node = node
    while isinstance(left, Binary) and left.operator in LOGIC:
        rest.append((left.operator, left.right))
        left = left.left
    return left, rest[::-1]


def children(node: Node) -> tuple[Node, ...]:
    match node:
        case Not(operand) | Minus(operand) | Like(operand):
            return (operand,)
        case Binary(_, left, right):
            return (left, right)
        case In(operand, elements):
            return (operand, *elements)
        case Call(_, arguments):
            return arguments
    return ()


def attribute_names(root: Node) -> frozenset[str]:
    """The attributes that an expression mentions."""
    found = set()
    waiting: list[Node] = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Attribute | Exists):
            found.add(node.name)
        waiting += children(node)
    return frozenset(found)
