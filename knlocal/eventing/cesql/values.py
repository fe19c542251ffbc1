"""The three primitive types of CESQL, their zero values and casts (CESQL 1.0, 3.1 and 3.7)."""

from __future__ import annotations

import re
from typing import Literal

Value = bool | int | str
"""What an expression evaluates to."""

Type = Literal["Boolean", "Integer", "String"]

INTEGER_MIN = -(2**31)
INTEGER_MAX = 2**31 - 1

ZERO: dict[Type, Value] = {"Boolean": False, "Integer": 0, "String": ""}

_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)


class CesqlError(Exception):
    """An error *value* of an evaluation, or (ParseError) a refusal to read an expression.

    `kind` is the name that the CESQL conformance kit gives to this sort of error.
    """

    kind = "generic"


class MathError(CesqlError):
    kind = "math"


class CastError(CesqlError):
    kind = "cast"


class MissingAttributeError(CesqlError):
    kind = "missingAttribute"


class MissingFunctionError(CesqlError):
    kind = "missingFunction"


class FunctionEvaluationError(CesqlError):
    kind = "functionEvaluation"


def type_of(value: Value) -> Type:
    if isinstance(value, str):
        return "String"
    return "Boolean" if isinstance(value, bool) else "Integer"


def in_range(number: int) -> bool:
    return INTEGER_MIN <= number <= INTEGER_MAX


def from_attribute(value: object) -> Value:
    """An attribute of an event as a CESQL value: what is not a primitive becomes a String."""
    if isinstance(value, (str, bool)):
        return value
    if isinstance(value, int) and in_range(value):
        return value
    return str(value)


def to_string(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def to_integer(value: Value, errors: list[CesqlError]) -> int:
    """The value as an Integer; 0 and a CastError when it is none."""
    if isinstance(value, str):
        if _INTEGER.fullmatch(value):
            # Longer digit strings cannot be in range and would cost time to convert.
            number = int(value) if len(value.lstrip("+-0")) <= 10 else INTEGER_MAX + 1
            if in_range(number):
                return number
            errors.append(CastError(f'"{value}" is not a 32 bit integer'))
            return 0
        errors.append(CastError(f'"{value}" is not an integer'))
        return 0
    return int(value)


def to_boolean(value: Value, errors: list[CesqlError]) -> bool:
    """The value as a Boolean; False and a CastError when it is none."""
    if isinstance(value, str):
        match value.lower():
            case "true":
                return True
            case "false":
                return False
        errors.append(CastError(f'"{value}" is not a boolean'))
        return False
    return bool(value)


def cast(value: Value, target: Type, errors: list[CesqlError]) -> Value:
    """`value` as `target`; its zero value, and a CastError in `errors`, when that cannot be."""
    match target:
        case "String":
            return to_string(value)
        case "Integer":
            return to_integer(value, errors)
        case "Boolean":
            return to_boolean(value, errors)
