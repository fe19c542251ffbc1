"""What is said about text that is no CESQL."""

from __future__ import annotations

from knlocal.eventing.cesql.values import CesqlError


class ParseError(CesqlError):
    """The expression is no CESQL. `position` is the offset in characters, from 0."""

    kind = "parse"

    def __init__(self, problem: str, text: str, position: int) -> None:
        before = text[:position]
        self.position = position
        self.line = before.count("\n") + 1
        self.column = position - (before.rfind("\n") + 1) + 1
        self.problem = problem
        super().__init__(f"parse error at line {self.line}, column {self.column}: {problem}")
