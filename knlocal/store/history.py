"""What changed of late: what watches replay, and from which older states are worked out."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from knlocal.resources.base import GroupKind
from knlocal.resources.status import Gone
from knlocal.store.objects import Place
from knlocal.store.watch import EventType

#: Changes that are remembered at most, and the bytes of past states they may hold.
MOST_CHANGES = 20_000
MOST_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class Change:
    """One change, with the objects after and before it as JSON."""

    version: int
    type: EventType
    group_kind: GroupKind
    place: Place
    json: bytes
    old: bytes | None

    @property
    def past(self) -> int:
        """Bytes that nobody but the history holds."""
        old = len(self.old) if self.old else 0
        return old + len(self.json) if self.type == "DELETED" else old


class History:
    """The last changes of all kinds, the oldest first."""

    def __init__(self, most_changes: int = MOST_CHANGES, most_bytes: int = MOST_BYTES) -> None:
        self._most_changes = most_changes
        self._most_bytes = most_bytes
        self._changes: deque[Change] = deque()
        self._bytes = 0
        self.begins = 0
        """The oldest version after which every change is known."""

    def add(self, change: Change) -> None:
        self._changes.append(change)
        self._bytes += change.past
        while len(self._changes) > self._most_changes or self._bytes > self._most_bytes:
            forgotten = self._changes.popleft()
            self._bytes -= forgotten.past
            self.begins = forgotten.version

    def since(self, version: int, latest: int, group_kind: GroupKind | None) -> Iterator[Change]:
        """Changes after `version`, in order. Gone when not all of them are known any more, or when
        there was no such version yet (`latest` is the last one made)."""
        if version < self.begins or version > latest:
            raise Gone(f"too old resource version: {version} ({max(self.begins, 1)})")
        first = bisect_right(self._changes, version, key=lambda change: change.version)
        return (
            change
            for change in islice(self._changes, first, None)
            if group_kind is None or change.group_kind == group_kind
        )
