"""`$(VAR)` references in commands, arguments and values (k8s.io/kubernetes third_party/forked/
golang/expansion): `$$` is a dollar sign, an unknown reference stays as it is written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`text` with its references replaced by `variables`."""

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return "$"
        return variables.get(name, match.group(0))

    return _REFERENCE.sub(replace, text) if "$" in text else text


def expand_all(words: Sequence[str] | None, variables: Mapping[str, str]) -> tuple[str, ...] | None:
    """A command or argument list expanded; None (not given) stays None."""
    return None if not words else tuple(expand(word, variables) for word in words)
