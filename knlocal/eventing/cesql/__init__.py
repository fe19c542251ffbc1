"""CloudEvents SQL Expression Language 1.0: `compile` once, evaluate per event.

The grammar is `grammar.lark`; parse errors carry their position. See `compiler` for how errors
travel through an evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from knlocal.eventing.cesql.compiler import Attributes, Evaluator, compile_node
from knlocal.eventing.cesql.errors import ParseError
from knlocal.eventing.cesql.nodes import attribute_names
from knlocal.eventing.cesql.values import CesqlError, Value

__all__ = ["CesqlError", "Evaluation", "Expression", "ParseError", "Value", "compile_expression"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The value, and the errors that arose on the way to it."""

    value: Value
    errors: tuple[CesqlError, ...] = ()


class Expression:
    """A compiled expression."""

    __slots__ = ("_evaluate", "attributes", "text")

    def __init__(self, text: str, evaluate: Evaluator, attributes: frozenset[str]) -> None:
        self.text = text
        self._evaluate = evaluate
        #: The names of the attributes it looks at.
        self.attributes = attributes

    def evaluate(self, attributes: Attributes) -> Evaluation:
        errors: list[CesqlError] = []
        value = self._evaluate(attributes, errors)
        return Evaluation(value, tuple(errors))

    def matches(self, attributes: Attributes) -> bool:
        """As a filter: passes only on a Boolean true without errors (section 1.2)."""
        errors: list[CesqlError] = []
        return self._evaluate(attributes, errors) is True and not errors


@lru_cache(maxsize=4096)
def compile_expression(text: str) -> Expression:
    """`text` ready to run; ParseError, with the position, when it is no CESQL."""
    from knlocal.eventing.cesql.parser import parse  # its library is slow to import

    node = parse(text)
    return Expression(text, compile_node(node), attribute_names(node))
