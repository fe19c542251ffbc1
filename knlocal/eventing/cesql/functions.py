"""The built-in functions of CESQL (sections 3.5.1, 3.5.2 and the casts of 3.7), and those added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from knlocal.eventing.cesql.values import (
    INTEGER_MAX,
    INTEGER_MIN,
    CesqlError,
    FunctionEvaluationError,
    MathError,
    Type,
    Value,
    cast,
)

#: Unicode's White_Space. `str.strip()` would also take the separators U+001C to U+001F.
_WHITESPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)

Body = Callable[..., Value]
"""Takes the list of errors to add to, then the (already cast) arguments."""


@dataclass(frozen=True, slots=True)
class Function:
    """One definition: `parameters` are the fixed ones, `variadic` the type of any further ones.

    A parameter type of None takes a value of any type as it is.
    """

    returns: Type
    parameters: tuple[Type | None, ...]
    body: Body
    variadic: Type | None = None

    def accepts(self, count: int) -> bool:
        fixed = len(self.parameters)
        return count == fixed if self.variadic is None else count >= fixed

    def parameter_types(self, count: int) -> tuple[Type | None, ...]:
        return self.parameters + (self.variadic,) * (count - len(self.parameters))


def find(name: str, count: int) -> Function | None:
    """The definition of `name` (upper case) that takes `count` arguments."""
    for function in FUNCTIONS.get(name, ()):
        if function.accepts(count):
            return function
    return None


def define(name: str, function: Function) -> None:
    """Add a function, or a definition with another number of arguments, to those there are.

    For use at import: expressions compiled before do not know of it.
    """
    FUNCTIONS[name.upper()] = (*FUNCTIONS.get(name.upper(), ()), function)


def _abs(errors: list[CesqlError], x: int) -> int:
    if x == INTEGER_MIN:
        errors.append(MathError(f"ABS({x}) is outside the range of a 32 bit integer"))
        return INTEGER_MAX
    return abs(x)


def _left(errors: list[CesqlError], x: str, y: int) -> str:
    if y < 0:
        errors.append(FunctionEvaluationError(f"LEFT: the length {y} is negative"))
        return x
    return x[:y]


def _right(errors: list[CesqlError], x: str, y: int) -> str:
    if y < 0:
        errors.append(FunctionEvaluationError(f"RIGHT: the length {y} is negative"))
        return x
    return x[-y:] if y else ""


def _substring(errors: list[CesqlError], x: str, pos: int, length: int | None = None) -> str:
    if length is not None and length < 0:
        errors.append(FunctionEvaluationError(f"SUBSTRING: the length {length} is negative"))
        return ""
    if pos > len(x) or pos < -len(x):
        errors.append(FunctionEvaluationError(f"SUBSTRING: the position {pos} is outside"))
        return ""
    if pos == 0:
        return ""
    start = pos - 1 if pos > 0 else len(x) + pos
    return x[start:] if length is None else x[start : start + length]


def _casts(target: Type) -> Body:
    def body(errors: list[CesqlError], x: Value) -> bool:
        wrong: list[CesqlError] = []
        cast(x, target, wrong)
        return not wrong

    return body


FUNCTIONS: dict[str, tuple[Function, ...]] = {
    "LENGTH": (Function("Integer", ("String",), lambda _, x: len(x)),),
    "CONCAT": (Function("String", (), lambda _, *x: "".join(x), variadic="String"),),
    "CONCAT_WS": (Function("String", ("String",), lambda _, d, *x: d.join(x), variadic="String"),),
    "LOWER": (Function("String", ("String",), lambda _, x: x.lower()),),
    "UPPER": (Function("String", ("String",), lambda _, x: x.upper()),),
    "TRIM": (Function("String", ("String",), lambda _, x: x.strip(_WHITESPACE)),),
    "LEFT": (Function("String", ("String", "Integer"), _left),),
    "RIGHT": (Function("String", ("String", "Integer"), _right),),
    "SUBSTRING": (
        Function("String", ("String", "Integer"), _substring),
        Function("String", ("String", "Integer", "Integer"), _substring),
    ),
    "ABS": (Function("Integer", ("Integer",), _abs),),
    "INT": (Function("Integer", ("Integer",), lambda _, x: x),),
    "BOOL": (Function("Boolean", ("Boolean",), lambda _, x: x),),
    "STRING": (Function("String", ("String",), lambda _, x: x),),
    # Drafts of the specification had these two, and so has the engine of Knative's filters
    # (github.com/cloudevents/sdk-go/sql/v2).
    "IS_INT": (Function("Boolean", (None,), _casts("Integer")),),
    "IS_BOOL": (Function("Boolean", (None,), _casts("Boolean")),),
}
