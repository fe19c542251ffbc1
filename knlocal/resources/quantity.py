"""Kubernetes quantities ("500m", "1Gi", "1e3"): exact numbers and their canonical spelling.

Follows k8s.io/apimachinery/pkg/api/resource.
"""

from __future__ import annotations

import re
from decimal import ROUND_UP, Context, Decimal

_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX = {power: suffix for suffix, power in _BINARY.items()}
_SHAPE = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([a-zA-Z]*)([+-]?[0-9]*)")
_NANO = Decimal("1e-9")
_EXACT = Context(prec=60)
_MAX = Decimal((1 << 63) - 1)

_REGEX = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
_WRONG_SHAPE = f"quantities must match the regular expression '{_REGEX}'"


def parse(text: str | int | float) -> Decimal:
    """The exact number, rounded up to whole billionths. Raises ValueError in Kubernetes' words."""
    return _parse(text)[0]


def parse_int(text: str | int | float) -> int:
    """The number rounded up to an integer (bytes), as `Quantity.Value()`."""
    return int(parse(text).to_integral_value(rounding="ROUND_CEILING"))


def parse_milli(text: str | int | float) -> int:
    """The number in thousandths, rounded up (millicores), as `Quantity.MilliValue()`."""
    return int((parse(text) * 1000).to_integral_value(rounding="ROUND_CEILING"))


def canonical(text: str | int | float) -> str:
    """The one spelling that Kubernetes stores: no fraction, the largest fitting suffix of the
    family the writer chose ("0.5" → "500m", "1024Mi" → "1Gi", "1000m" → "1")."""
    return format_quantity(*_parse(text))


def format_quantity(value: Decimal, family: str = "decimal") -> str:
    """`family` is "decimal" (k, M, …), "binary" (Ki, Mi, …) or "exponent" (e3, e6, …)."""
    if value == 0:
        return "0"
    if family == "binary" and abs(value) >= 1024 and value == value.to_integral_value():
        number, power = int(value), 0
        while number % 1024 == 0 and power < 6:
            number, power = number // 1024, power + 1
        return f"{number}{_BINARY_SUFFIX[power] if power else ''}"
    exponent = -9
    number = int(value.scaleb(9, _EXACT))
    while number % 1000 == 0 and exponent < 18:
        number, exponent = number // 1000, exponent + 3
    if family == "exponent":
        return f"{number}e{exponent}" if exponent else str(number)
    return f"{number}{_DECIMAL_SUFFIX[exponent]}"


def _parse(text: str | int | float) -> tuple[Decimal, str]:
    text = str(text)
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ValueError(_WRONG_SHAPE)
    sign, digits, letters, exponent = match.groups()
    number = Decimal(digits)
    family = "decimal"
    if letters in ("e", "E") and exponent.lstrip("+-"):
        number, family = number.scaleb(int(exponent), _EXACT), "exponent"
    elif exponent:
        raise ValueError(_WRONG_SHAPE)
    elif letters in _BINARY:
        number, family = _EXACT.multiply(number, Decimal(1024) ** _BINARY[letters]), "binary"
    elif letters in _DECIMAL:
        number = number.scaleb(_DECIMAL[letters], _EXACT)
    else:
        raise ValueError("unable to parse quantity's suffix")
    number = min(number, _MAX).quantize(_NANO, rounding=ROUND_UP, context=_EXACT)
    return (-number if sign == "-" else number), family
