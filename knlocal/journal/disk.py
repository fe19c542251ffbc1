"""The journal's file: rendered trails in SQLite, the oldest forgotten first."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

PAGE = 200

AT_ONCE = 200
"""Rows in one statement. A statement for each would hand the interpreter from thread to thread as
often, and a busy event loop would wait for it each time."""


class Row(NamedTuple):
    seq: int
    at: float
    """Seconds since the epoch."""
    id: str
    body: bytes
    """The trail as JSON."""


class JournalFile:
    """One connection, guarded: saving runs on another thread than reading. A file that is no
    journal is set aside."""

    def __init__(self, path: Path, max_rows: int) -> None:
        self._max_rows = max_rows
        self._guard = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = self._open(path)
        except sqlite3.DatabaseError:
            # Trails are a convenience: a damaged file must not keep the daemon from starting.
            path.rename(path.with_suffix(".damaged"))
            self._database = self._open(path)

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = OFF")
            database.execute(
                "CREATE TABLE IF NOT EXISTS trails ("
                "seq INTEGER PRIMARY KEY, at REAL NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL)"
            )
            database.execute("CREATE INDEX IF NOT EXISTS trails_by_id ON trails (id)")
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database

    def last_seq(self) -> int:
        return int(self._select("SELECT max(seq) FROM trails")[0][0] or 0)

    def write(self, rows: Iterable[Row]) -> None:
        with self._guard:
            self._write(list(rows))

    def _write(self, rows: list[Row]) -> None:
        database = self._database
        database.execute("BEGIN")
        try:
            for start in range(0, len(rows), AT_ONCE):
                some = rows[start : start + AT_ONCE]
                places = ", ".join(["(?, ?, ?, ?)"] * len(some))
                values = [value for row in some for value in row]
                database.execute(f"INSERT OR REPLACE INTO trails VALUES {places}", values)
            database.execute(
                "DELETE FROM trails WHERE seq <= (SELECT max(seq) FROM trails) - ?",
                (self._max_rows,),
            )
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")

    def by_id(self, event_id: str) -> list[dict[str, Any]]:
        found = self._select("SELECT body FROM trails WHERE id = ? ORDER BY seq", event_id)
        return [orjson.loads(body) for (body,) in found]

    def newest(self, before_seq: int) -> Iterator[dict[str, Any]]:
        """Trails before `before_seq`, the newest first."""
        while page := self._select(
            "SELECT seq, body FROM trails WHERE seq < ? ORDER BY seq DESC LIMIT ?", before_seq, PAGE
        ):
            for _, body in page:
                yield orjson.loads(body)
            before_seq = page[-1][0]

    def _select(self, query: str, *values: object) -> list[Any]:
        with self._guard:
            return self._database.execute(query, values).fetchall()

    def close(self) -> None:
        with self._guard:
            self._database.close()
