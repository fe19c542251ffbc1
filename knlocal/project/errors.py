"""What is wrong with a project, said so that it can be put right: where, what, what to try."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `where` is the table or field; `line` counts from 1 (0: unknown)."""

    file: str
    what: str
    where: str = ""
    hint: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        text = ": ".join(part for part in (place, self.where, self.what) if part)
        return f"{text}\n  {self.hint}" if self.hint else text


class ProjectError(Exception):
    """One or more problems with the project's files. `str()` is what people read."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was most likely meant to be."""
    options = list(known)
    by_lower = {option.lower().replace("-", "_"): option for option in options}
    found = difflib.get_close_matches(word.lower().replace("-", "_"), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str], what: str = "known") -> str:
    """A hint: the nearest right word, or all of them."""
    options = sorted(known)
    if (right := nearest(word, options)) is not None:
        return f"did you mean {right!r}?"
    return f"{what}: {', '.join(options)}" if options else ""


def shown(path: Path, root: Path | None = None) -> str:
    """`path` as a person would type it from the project folder."""
    try:
        return str(path.resolve().relative_to((root or Path.cwd()).resolve()))
    except ValueError:
        return str(path)
