"""JSONata expressions, evaluated beside the event loop and within bounds."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from jsonata import Jsonata

TIMEOUT_MS = 5_000
"""Milliseconds that one evaluation may take."""
DEPTH = 500
"""How deep an expression's functions may call each other."""


class ExpressionError(ValueError):
    """An expression that does not parse, or that failed; the message says where and why."""


class Expression:
    """A parsed expression. Raises ExpressionError, with the position, when it does not parse."""

    def __init__(self, text: str) -> None:
        self.text = text
        # A Jsonata object serves one evaluation at a time: each thread has its own.
        self._compiled = threading.local()
        self._compiled.one = _compile(text)

    async def evaluate(self, document: Any, executor: Executor) -> bytes:
        """The result as JSON. Raises ExpressionError when evaluating fails, takes too long, or
        gives nothing that JSON knows."""
        return await asyncio.get_running_loop().run_in_executor(executor, self._run, document)

    def _run(self, document: Any) -> bytes:
        one = getattr(self._compiled, "one", None)
        if one is None:
            one = self._compiled.one = _compile(self.text)
        one.environment.set_runtime_bounds(TIMEOUT_MS, DEPTH)
        try:
            result = one.evaluate(document)
        except Exception as error:  # the library lets Python's own through, too
            raise ExpressionError(_said(error)) from error
        if result is None:
            raise ExpressionError("the expression selects nothing from this event")
        try:
            return orjson.dumps(result)
        except TypeError as error:
            raise ExpressionError(f"the result is no JSON: {error}") from error


def _compile(text: str) -> Jsonata:
    from jsonata import Jsonata  # slow to import, and few need it

    try:
        return Jsonata(text)
    except Exception as error:  # the library lets Python's own through, too
        raise ExpressionError(_said(error)) from error


def _said(error: Exception) -> str:
    from jsonata.jexception import JException

    if not isinstance(error, JException):
        return f"{type(error).__name__}: {error}"
    location = getattr(error, "location", -1)
    where = f" (at character {location})" if isinstance(location, int) and location >= 0 else ""
    return f"{error}{where}"
