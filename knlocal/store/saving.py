"""Saving: what was written goes to the state file soon after, many changes at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from knlocal.clock import Clock
from knlocal.resources.base import Key
from knlocal.store.database import Database, StateError

log = logging.getLogger(__name__)

#: Seconds until a state file that could not be written is tried again.
SAVE_AGAIN = 1.0


class Saver:
    """Changes on their way to `database`; with None they are in memory only."""

    def __init__(self, database: Database | None, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._unsaved: dict[Key, bytes | None] = {}
        self._version = 0
        self._planned = False
        self._failing = False

    def load(self) -> Iterator[tuple[Key, bytes]]:
        """Everything that was saved."""
        if self._database is not None:
            yield from self._database.load()

    @property
    def saved_version(self) -> int:
        return self._database.version() if self._database is not None else 0

    def add(self, key: Key, json: bytes | None, version: int) -> None:
        """A change to be saved when the event loop gets to it; None: the object is gone."""
        if self._database is None:
            return
        self._unsaved[key] = json
        self._version = version
        if not self._planned:
            try:
                asyncio.get_running_loop().call_soon(self._flush_in_turn)
                self._planned = True
            except RuntimeError:
                self.flush()

    def flush(self) -> None:
        """Save at once. Raises StateError, and tries again with the next change."""
        self._planned = False
        if self._database is None or not self._unsaved:
            return
        changes, self._unsaved = self._unsaved, {}
        try:
            self._database.save(changes, self._version)
        except Exception:
            self._unsaved = changes | self._unsaved
            raise
        if self._failing:
            self._failing = False
            log.warning("the state file can be written again; nothing is lost")

    def close(self) -> None:
        """Save and let go of the file."""
        if self._database is not None:
            try:
                self.flush()
            finally:
                self._database.close()
                self._database = None

    def _flush_in_turn(self) -> None:
        """What nobody waits for is tried again until it is saved: a full disk gets space again."""
        try:
            self.flush()
        except StateError as error:
            if not self._failing:
                self._failing = True
                log.error("%s. Until then changes are kept in memory only", error)
            self._planned = True
            self._clock.call_later(SAVE_AGAIN, self._flush_in_turn)
