"""The durable engine: SQLite before 202, so that `kill -9` loses nothing.

Everything that happened in one turn of the event loop is one transaction (group commit): a turn's
new events and its finished deliveries, before anything is sent that depends on it. A commit writes
to the file and does not wait for the disk, so it survives the death of the daemon; a thread of its
own moves the log into the database and waits for the disk (`synchronous = NORMAL`), so that a power
cut costs at most the last moments.

A queue keeps a window of its messages in memory and reads the rest when it gets there.

Most of a commit's cost is the pages it changes, so a commit only appends: messages, each with the
subscribers it is for, and who is done with which. What nobody waits for any more is deleted a few
hundred messages at a time.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import orjson

from knlocal.clock import Clock, SystemClock, Timer
from knlocal.eventing.engines.base import Engine, Kept, Limits, Message, Queue
from knlocal.events import Event
from knlocal.gateway.outbox import before_sending
from knlocal.store.database import StateError

log = logging.getLogger(__name__)

LAYOUT = 1
"""Of the file. A file of a newer knlocal is left alone."""

WINDOW = 2_000
"""Messages that a queue keeps in memory."""

CHECKPOINT_EVERY = 1_000
"""Commits after which the log is moved into the database."""

FLOWING_DEPTH = 8
"""Waiting messages above which an event may wait for the commit of the next finished delivery."""

FLOWING_COMMITS = 4
"""Commits without a finished delivery, after which none is expected soon."""

PATIENCE_SECONDS = 0.002
"""How long an event waits for a finished delivery to share its commit."""

LOG_BYTES = 64 * 1024 * 1024
"""Bytes of the log above which the event loop waits for the disk, to begin it anew."""

DELETED_TOGETHER = 256
"""Messages that nobody waits for any more, until they are deleted."""


_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
  key INTEGER PRIMARY KEY, uids TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS done (
  key INTEGER NOT NULL, uid TEXT NOT NULL, PRIMARY KEY (key, uid)) WITHOUT ROWID;
"""
# Parameters: the key after which, and twice the subscriber.
_WAITING = """
FROM events WHERE key > ? AND instr(uids, ' ' || ? || ' ')
AND NOT EXISTS (SELECT 1 FROM done WHERE done.key = events.key AND uid = ?)
"""


class DurableQueue(Queue):
    def __init__(self, uid: str, engine: DurableEngine, depth: int) -> None:
        super().__init__(uid, depth)
        self._engine = engine
        self._window: deque[Message] = deque()
        #: The commit that told the last finished delivery.
        self.finished_at = 0
        #: Messages behind the window, on disk only.
        self._behind = depth
        self._last = 0
        self.closed = False

    def put(self, message: Message) -> None:
        self.depth += 1
        if self._behind or len(self._window) >= WINDOW:
            self._behind += 1
        else:
            self._window.append(message)
            self._last = message.key
        self.filled()

    def take(self) -> Message | None:
        if not self._window and self._behind:
            self._read_on()
        return self._window.popleft() if self._window else None

    def _read_on(self) -> None:
        messages = self._engine.read(self.uid, self._last, WINDOW)
        self._window.extend(messages)
        self._behind = max(0, self._behind - len(messages)) if messages else 0
        if messages:
            self._last = messages[-1].key

    def done(self, message: Message) -> None:
        if not self.closed:
            self.depth -= 1
            self.finished_at = self._engine.commits
            self._engine.finished(self.uid, message)

    @property
    def flowing(self) -> bool:
        """Whether a delivery is likely to be finished in a moment."""
        return (
            self.depth > FLOWING_DEPTH and self._engine.commits - self.finished_at < FLOWING_COMMITS
        )

    def position(self, message: Message) -> int:
        for index, waiting in enumerate(self._window):
            if waiting.key == message.key:
                return self.depth - self._behind - len(self._window) + index
        if message.key > self._last:
            return max(0, self.depth - self._behind)
        return -1


class DurableEngine(Engine):
    """Survives the daemon. One file for all durable brokers and channels."""

    def __init__(self, path: Path, limits: Limits = Limits(), clock: Clock = SystemClock()) -> None:
        super().__init__(limits)
        self._path = path
        self._clock = clock
        self._patience: Timer | None = None
        self.commits = 0
        self._database: sqlite3.Connection | None = None
        self._queues: dict[str, DurableQueue] = {}
        #: How many subscribers have not dealt with each message on disk.
        self._left: dict[int, int] = {}
        #: Messages on disk that nobody waits for.
        self._emptied: list[tuple[int]] = []
        self._next = 1
        self._accepted: list[tuple[Message, Sequence[Queue], bytes, Kept]] = []
        self._finished: list[tuple[int, str]] = []
        self._planned = False
        self._copied = 0
        self._checkpoint: threading.Thread | None = None

    async def start(self) -> None:
        """Open the file. StateError when it cannot be used: it may hold events that were accepted,
        so what becomes of it is for a person to say."""
        try:
            self._open()
        except sqlite3.OperationalError as error:
            raise StateError(
                f"cannot use the file of durable events {self._path}: {error}"
            ) from error
        except sqlite3.DatabaseError as error:
            raise StateError(
                f"the file of durable events {self._path} is damaged ({error}); "
                f"move it away to start without its events: mv {self._path} {self._path}.damaged"
            ) from error

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._database = database = _connect(self._path)
        # A commit writes whole pages: the smaller, the less.
        database.execute("PRAGMA page_size = 2048")
        database.execute("PRAGMA journal_mode = WAL")
        # Checkpoints, which wait for the disk, are the other thread's.
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("PRAGMA synchronous = NORMAL")
        layout = database.execute("PRAGMA user_version").fetchone()[0]
        if layout > LAYOUT:
            raise StateError(
                f"the file of durable events {self._path} was written by a newer knlocal (layout "
                f"{layout}, this one knows {LAYOUT}); upgrade knlocal or move the file away to "
                "start without its events"
            )
        problems = database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problems != "ok":
            raise sqlite3.DatabaseError(problems)
        database.executescript(_SCHEMA)
        database.execute(f"PRAGMA user_version = {LAYOUT}")
        self._lock(alone=True)
        done = dict(database.execute("SELECT key, count(*) FROM done GROUP BY key"))
        for key, uids in database.execute("SELECT key, uids FROM events ORDER BY key"):
            left = len(uids.split()) - done.get(key, 0)
            if left > 0:
                self._left[key] = left
            else:
                self._emptied.append((key,))
            self._next = key + 1

    async def stop(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._write()
        if self._checkpoint is not None:
            self._checkpoint.join(timeout=10)
        if self._database is not None:
            self._database.close()
            self._database = None

    def open(self, uid: str) -> Queue:
        queue = self._queues.get(uid)
        if queue is None:
            found = self._db.execute(f"SELECT count(*) {_WAITING}", (0, uid, uid))
            queue = self._queues[uid] = DurableQueue(uid, self, int(found.fetchone()[0]))
        return queue

    def remove(self, uid: str) -> None:
        queue = self._queues.pop(uid, None)
        if queue is not None:
            queue.closed = True
        self._write()
        waiting = self._db.execute(f"SELECT key {_WAITING}", (0, uid, uid)).fetchall()
        self._finished += [(key, uid) for (key,) in waiting]
        self._plan()

    def known(self) -> list[str]:
        done = set(self._db.execute("SELECT key, uid FROM done"))
        messages = self._db.execute("SELECT key, uids FROM events")
        return list(
            {uid for key, uids in messages for uid in uids.split() if (key, uid) not in done}
        )

    def accept(self, message: Message, queues: Sequence[Queue], kept: Kept) -> None:
        if not queues:
            kept(None)
            return
        message.key = self._next
        self._next += 1
        self._left[message.key] = len(queues)
        self._accepted.append((message, queues, _pack(message), kept))
        if not any(queue.flowing for queue in queues if isinstance(queue, DurableQueue)):
            self._plan()
        elif self._patience is None:
            self._patience = self._clock.call_later(PATIENCE_SECONDS, self._lose_patience)

    def _lose_patience(self) -> None:
        self._patience = None
        if self._accepted:
            self._plan()

    def finished(self, uid: str, message: Message) -> None:
        """A subscriber is done with a message; the next commit says so."""
        self._finished.append((message.key, uid))
        if self._left.get(message.key) == 1:
            message.event.cache = None
        self._plan()

    def read(self, uid: str, after: int, limit: int) -> list[Message]:
        """The next messages that wait for `uid`."""
        self._write()
        rows = self._db.execute(
            f"SELECT key, body {_WAITING} ORDER BY key LIMIT ?", (after, uid, uid, limit)
        )
        return [_unpack(key, body) for key, body in rows]

    @property
    def _db(self) -> sqlite3.Connection:
        if self._database is None:
            raise RuntimeError("the engine is not running")
        return self._database

    # -- group commit -------------------------------------------------------------------------

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            before_sending(self._write)

    def _write(self) -> None:
        self._planned = False
        accepted, self._accepted = self._accepted, []
        finished, self._finished = self._finished, []
        if not (accepted or finished):
            return
        try:
            self._transaction(accepted, finished)
        except sqlite3.Error as error:
            log.error("cannot write to the file of durable events %s: %s", self._path, error)
            # Delivered once more after a restart, unless the next commit succeeds.
            self._finished[:0] = finished
            for message, _, _, kept in accepted:
                self._left.pop(message.key, None)
                kept(error)
            return
        for message, queues, _, kept in accepted:
            for queue in queues:
                assert isinstance(queue, DurableQueue)
                queue.put(message)
            kept(None)

    def _transaction(
        self,
        accepted: list[tuple[Message, Sequence[Queue], bytes, Kept]],
        finished: list[tuple[int, str]],
    ) -> None:
        emptied = self._emptied if len(self._emptied) >= DELETED_TOGETHER else []
        database = self._db
        database.execute("BEGIN")
        try:
            if accepted:
                database.executemany(
                    "INSERT INTO events VALUES (?, ?, ?)",
                    [
                        (message.key, f" {' '.join([queue.uid for queue in queues])} ", body)
                        for message, queues, body, _ in accepted
                    ],
                )
            if finished:
                database.executemany("INSERT OR IGNORE INTO done VALUES (?, ?)", finished)
            if emptied:
                database.executemany("DELETE FROM events WHERE key = ?", emptied)
                database.executemany("DELETE FROM done WHERE key = ?", emptied)
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
        if emptied:
            self._emptied = []
        for key, _ in finished:
            left = self._left.pop(key, 1) - 1
            if left:
                self._left[key] = left
            else:
                self._emptied.append((key,))
        self.commits += 1
        if self.commits - self._copied >= CHECKPOINT_EVERY:
            self._start_checkpoint()
        elif self._checkpoint is not None and not self._checkpoint.is_alive():
            self._checkpoint = None
            self._bound_log()
            self._lock(alone=True)

    def _bound_log(self) -> None:
        """Begin the log anew when it has become long: under a load that never pauses the other
        thread never gets to its end, and what is left for this one is little."""
        if self._path.with_name(f"{self._path.name}-wal").stat().st_size > LOG_BYTES:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def _lock(self, *, alone: bool) -> None:
        """Hold the file's locks from commit to commit, which makes one a quarter cheaper; or take
        and release them each time, while the other thread uses the file, too."""
        self._db.execute(f"PRAGMA locking_mode = {'EXCLUSIVE' if alone else 'NORMAL'}").fetchone()
        # It takes effect with the next access.
        self._db.execute("SELECT 1 FROM events LIMIT 1").fetchone()

    def _start_checkpoint(self) -> None:
        if self._checkpoint is not None and self._checkpoint.is_alive():
            return
        self._copied = self.commits
        self._lock(alone=False)
        self._checkpoint = threading.Thread(
            target=_checkpoint, args=(self._path,), name="durable engine checkpoint", daemon=True
        )
        self._checkpoint.start()


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)


def _checkpoint(path: Path) -> None:
    try:
        database = _connect(path)
        try:
            database.execute("PRAGMA synchronous = NORMAL")
            # TRUNCATE would wait for the writer; PASSIVE never holds it up.
            database.execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            database.close()
    except sqlite3.Error:
        log.exception("cannot move the log of %s into the database", path)


def _pack(message: Message) -> bytes:
    event = message.event
    head = orjson.dumps(
        [event.mode, event.content, event.data is not None, message.ttl, message.forward,
         event.attributes, *([event.wire] if event.wire else [])]
    )  # fmt: skip
    return len(head).to_bytes(4, "big") + head + (event.data or b"")


def _unpack(key: int, body: bytes) -> Message:
    end = 4 + int.from_bytes(body[:4], "big")
    mode, content, has_data, ttl, forward, attributes, *wire = orjson.loads(body[4:end])
    event = Event(attributes, body[end:] if has_data else None, mode, content)
    if wire:
        event.wire = {name: (value, header) for name, (value, header) in wire[0].items()}
    message = Message(event, tuple((name, value) for name, value in forward), ttl)
    message.key = key
    return message
