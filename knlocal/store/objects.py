"""The objects there are: each as the JSON it is saved as, and decoded while it is in use.

Decoded, an object takes four to ten times the memory of its JSON, and most objects of a big project
are not looked at for hours. So the JSON is what is kept (it also goes into the state file and to
API clients as it is), and only the objects that were used last are kept decoded, too.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator

import orjson

from knlocal.resources.base import GroupKind, Obj

Place = tuple[str, str]
"""Where an object of some kind is: namespace and name."""

#: How many objects stay decoded: all those of a small project.
MOST_DECODED = 1_000


class Objects:
    """A table of objects by kind and place. What it hands out is shared: never change it, but
    take a `private` one."""

    def __init__(self, most_decoded: int = MOST_DECODED) -> None:
        self._most = most_decoded
        self._tables: dict[GroupKind, dict[Place, bytes]] = defaultdict(dict)
        # By JSON, which differs between any two versions, as it holds the resourceVersion.
        self._decoded: OrderedDict[bytes, Obj] = OrderedDict()

    def find(self, group_kind: GroupKind, place: Place) -> Obj | None:
        """The object, which stays decoded for a while."""
        json = self._tables[group_kind].get(place)
        if json is None:
            return None
        obj = self._decoded.get(json)
        if obj is None:
            return self._keep(json)
        self._decoded.move_to_end(json)
        return obj

    def private(self, group_kind: GroupKind, place: Place) -> Obj | None:
        """A copy that the caller may change."""
        json = self._tables[group_kind].get(place)
        return None if json is None else _decode(json)

    def table(self, group_kind: GroupKind) -> dict[Place, bytes]:
        """The JSON of all objects of one kind. Not to be changed."""
        return self._tables[group_kind]

    def decoded(self, json: bytes) -> Obj:
        """An object for one look, or for many: it is not kept for it."""
        obj = self._decoded.get(json)
        return _decode(json) if obj is None else obj

    def kinds(self) -> Iterator[GroupKind]:
        return (group_kind for group_kind, table in self._tables.items() if table)

    def put(self, group_kind: GroupKind, place: Place, json: bytes, *, keep: bool = True) -> Obj:
        """Add or replace an object; returns it decoded. Without `keep` it does not count as used:
        nobody is expected to look at it soon."""
        self._forget(group_kind, place)
        self._tables[group_kind][place] = json
        return self._keep(json) if keep else _decode(json)

    def remove(self, group_kind: GroupKind, place: Place) -> None:
        self._forget(group_kind, place)
        self._tables[group_kind].pop(place, None)

    def _keep(self, json: bytes) -> Obj:
        obj = self._decoded[json] = _decode(json)
        if len(self._decoded) > self._most:
            self._decoded.popitem(last=False)
        return obj

    def _forget(self, group_kind: GroupKind, place: Place) -> None:
        before = self._tables[group_kind].get(place)
        if before is not None:
            self._decoded.pop(before, None)


def encode(obj: Obj) -> bytes:
    """Raises TypeError for what JSON cannot say."""
    # A copy, as orjson's own bytes hold on to the buffer they were written in: four times as much.
    return bytes(memoryview(orjson.dumps(obj)))


def _decode(json: bytes) -> Obj:
    obj: Obj = orjson.loads(json)
    return obj
