"""Kubernetes' sentences for field errors (k8s.io/apimachinery/pkg/util/validation/field)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from knlocal.resources.field_errors import FieldError

Errors = list[FieldError]


def required(path: str, detail: str = "") -> FieldError:
    return FieldError(f"Required value: {detail}" if detail else "Required value", (path,))


def invalid(path: str, value: Any, detail: str) -> FieldError:
    return FieldError(f"Invalid value: {_shown(value)}: {detail}", (path,))


def duplicate(path: str, value: Any) -> FieldError:
    return FieldError(f"Duplicate value: {_shown(value)}", (path,))


def not_found(path: str, value: Any) -> FieldError:
    return FieldError(f"Not found: {_shown(value)}", (path,))


def forbidden(path: str, detail: str) -> FieldError:
    return FieldError(f"Forbidden: {detail}", (path,))


def too_long(path: str, most: int) -> FieldError:
    return FieldError(f"Too long: may not be more than {most} bytes", (path,))


def not_supported(path: str, value: Any, supported: Iterable[str]) -> FieldError:
    known = ", ".join(f'"{item}"' for item in supported)
    return FieldError(
        f"Unsupported value: {_shown(value or '')}: supported values: {known}", (path,)
    )


def negative(value: Any, path: str) -> Errors:
    """The error of a number below zero; none for others and for no number."""
    if not isinstance(value, int) or value >= 0:
        return []
    return [invalid(path, value, "must be greater than or equal to 0")]


def _shown(value: Any) -> str:
    if isinstance(value, str) and value == "<omitted>":
        return value
    if isinstance(value, dict | list | str):
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    return str(value)
