"""The patterns of LIKE (CESQL 1.0, section 3.4.3), matched without backtracking.

`%` splits a pattern into pieces. The first and the last piece are anchored, the others are looked
for from left to right, each at its first place: as right as any other choice, and never slower
than length of text times length of pattern.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_TOKENS = re.compile(r"\\[%_]|[%_]|[^%_\\]+|\\", re.DOTALL)


def like_matcher(pattern: str) -> Callable[[str], bool]:
    """A function that says whether a text matches `pattern`."""
    pieces = _pieces(pattern)
    if len(pieces) == 1:
        whole = pieces[0].fullmatch
        return lambda text: whole(text) is not None
    head, *middle, tail = pieces
    tail_length = _length(tail)

    def matches(text: str) -> bool:
        found = head.match(text)
        if found is None:
            return False
        position = found.end()
        end = len(text) - tail_length
        for piece in middle:
            found = piece.search(text, position)
            if found is None:
                return False
            position = found.end()
        return position <= end and tail.match(text, end) is not None

    return matches


def _pieces(pattern: str) -> list[re.Pattern[str]]:
    pieces = [""]
    for token in _TOKENS.findall(pattern):
        if token == "%":
            pieces.append("")
        elif token == "_":
            pieces[-1] += "."
        else:
            pieces[-1] += re.escape(token[1:] if token in ("\\%", "\\_") else token)
    head, *rest = pieces
    if not rest:
        return [re.compile(head, re.DOTALL)]
    *middle, tail = rest
    # Runs of % leave empty pieces, which match anywhere.
    return [re.compile(piece, re.DOTALL) for piece in (head, *filter(None, middle), tail)]


def _length(piece: re.Pattern[str]) -> int:
    """Characters that `piece` takes: each is one literal character or one wildcard."""
    return len(re.sub(r"\\(.)", r"\1", piece.pattern, flags=re.DOTALL))
