"""Where objects survive: one SQLite file, written in groups, readable after `kill -9`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import orjson

from knlocal.resources.base import Key

#: Raised when the layout changes; an older knlocal then refuses the file instead of guessing.
SCHEMA_VERSION = 1


class StateError(Exception):
    """The state file cannot be used; the message says why and what to do."""


class Database:
    """Objects by key. `save` takes a whole group of changes as one transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None)
            self._prepare()
        except PermissionError as error:
            raise StateError(
                f"cannot write the state file {path}: {error.strerror}; "
                "make the folder writable or set [project] state_dir in knlocal.toml"
            ) from error
        except OSError as error:
            raise StateError(
                f"cannot write the state file {path}: {error.strerror or error}; "
                "make the folder writable or set [project] state_dir in knlocal.toml"
            ) from error
        except sqlite3.OperationalError as error:
            raise StateError(
                f"cannot open the state file {path}: {error}; "
                "make the folder writable or set [project] state_dir in knlocal.toml"
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> StateError:
        return StateError(
            f"the state file {self.path} is damaged ({error}); "
            f"move it away to start fresh: mv {self.path} {self.path}.damaged"
        )

    def _prepare(self) -> None:
        run = self._connection.execute
        # WAL without a sync per commit: what is committed survives the daemon's death, which is
        # the promise; only a power cut may lose the last moments, never the file.
        run("PRAGMA journal_mode=WAL")
        run("PRAGMA synchronous=NORMAL")
        found = run("PRAGMA user_version").fetchone()[0]
        if found > SCHEMA_VERSION:
            raise StateError(
                f"the state file {self.path} was written by a newer knlocal (layout {found}, this "
                f"one knows {SCHEMA_VERSION}); upgrade knlocal or move the file away to start fresh"
            )
        run(
            "CREATE TABLE IF NOT EXISTS objects ("
            "grp TEXT, kind TEXT, namespace TEXT, name TEXT, data BLOB NOT NULL, "
            "PRIMARY KEY (grp, kind, namespace, name)) WITHOUT ROWID"
        )
        run("CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
        if found != SCHEMA_VERSION:
            run(f"PRAGMA user_version={SCHEMA_VERSION}")
        problems = run("PRAGMA quick_check(1)").fetchone()[0]
        if problems != "ok":
            raise self._broken(Exception(problems))

    def load(self) -> Iterator[tuple[Key, bytes]]:
        """Every object, as JSON that is sound."""
        try:
            for group, kind, namespace, name, data in self._connection.execute(
                "SELECT grp, kind, namespace, name, data FROM objects"
            ):
                orjson.loads(data)
                yield Key(group, kind, namespace, name), data
        except (sqlite3.DatabaseError, orjson.JSONDecodeError) as error:
            raise self._broken(error) from error

    def version(self) -> int:
        row = self._connection.execute("SELECT value FROM facts WHERE name='version'").fetchone()
        return int(row[0]) if row else 0

    def save(self, changes: dict[Key, bytes | None], version: int) -> None:
        """Write objects, as JSON (None deletes), and the store's version, all or nothing."""
        run = self._connection.execute
        run("BEGIN")
        try:
            self._connection.executemany(
                "DELETE FROM objects WHERE grp=? AND kind=? AND namespace=? AND name=?",
                [key for key, data in changes.items() if data is None],
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)",
                [(*key, data) for key, data in changes.items() if data is not None],
            )
            run("INSERT OR REPLACE INTO facts VALUES ('version', ?)", (str(version),))
            run("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                run("ROLLBACK")
            raise StateError(
                f"cannot write the state file {self.path}: {error}; "
                "make space on its disk, and it is saved by itself"
            ) from error

    def close(self) -> None:
        self._connection.close()
