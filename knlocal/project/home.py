"""The `.knlocal/` folder of a project: its files, the lock, what a running daemon says of itself.

Everything a daemon needs to remember is here, and nothing here is meant for version control.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson
import psutil

from knlocal.project.errors import Problem, ProjectError

#: What to try when the folder cannot be written.
WRITABLE = (
    "make the project folder writable, or set state_dir under [project] in knlocal.toml to a "
    "folder that is"
)


#: Seconds for which others may hold the lock only to see whether it is held.
_LOOKERS_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Home:
    """Where things lie."""

    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / "state.db"

    @property
    def journal(self) -> Path:
        return self.folder / "journal.db"

    @property
    def events(self) -> Path:
        """Events of durable brokers and channels."""
        return self.folder / "events.db"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def secrets(self) -> Path:
        """CA, keys and token: readable by the owner only."""
        return self.folder / "secrets"

    @property
    def snapshots(self) -> Path:
        return self.folder / "snapshots"

    @property
    def volumes(self) -> Path:
        return self.folder / "volumes"

    @property
    def log(self) -> Path:
        return self.folder / "daemon.log"

    @property
    def card(self) -> Path:
        return self.folder / "daemon.json"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    def make(self) -> None:
        """Make the folder. ProjectError when that cannot be done."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            ignore = self.folder / ".gitignore"
            if not ignore.exists():
                ignore.write_text("# made by knlocal; nothing here belongs into git\n*\n")
        except OSError as error:
            raise ProjectError(
                Problem(
                    str(self.folder),
                    f"cannot be written: {error.strerror}",
                    hint=WRITABLE,
                )
            ) from None

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Be the one daemon of this project. ProjectError names the one that already is."""
        self.make()
        with self._opened_lock() as file:
            if not _locked(file):
                raise ProjectError(self._already_running())
            self.card.unlink(missing_ok=True)  # of one that was killed: its pid may be another's
            with suppress(OSError):  # a full disk takes no pid, and that is no reason to stop
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), b"%d" % os.getpid())
            try:
                yield
            finally:
                self.card.unlink(missing_ok=True)

    def _opened_lock(self) -> IO[bytes]:
        try:
            return self.lock.open("ab")
        except OSError as error:
            raise ProjectError(
                Problem(str(self.lock), f"cannot be written: {error.strerror}", hint=WRITABLE)
            ) from None

    def _already_running(self) -> Problem:
        pid = self.holder()
        who = f" (pid {pid})" if pid else ""
        return Problem(
            str(self.folder.parent),
            f"this project is already up{who}",
            hint="see it with `knlocal get services`, stop it with `knlocal down`",
        )

    def is_held(self) -> bool:
        """Whether a daemon runs on this project."""
        try:
            with self.lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def holder(self) -> int | None:
        """The pid of the daemon that runs on this project, from the moment it starts."""
        if not self.is_held():
            return None
        try:
            return int(self.lock.read_bytes())
        except (OSError, ValueError):
            card = self.read_card()
            return card.pid if card else None

    # -- the card -----------------------------------------------------------------------------

    def write_card(self, card: Card) -> None:
        """Publish what the daemon says of itself, whole or not at all."""
        draft = self.card.with_suffix(".new")
        draft.write_bytes(orjson.dumps(asdict(card), option=orjson.OPT_INDENT_2))
        draft.replace(self.card)

    def read_card(self) -> Card | None:
        """What the running daemon says of itself; None when none runs."""
        card = self.last_card()
        return card if card is not None and psutil.pid_exists(card.pid) else None

    def last_card(self) -> Card | None:
        """The card that lies there, be it of a daemon that runs or of one that was killed."""
        try:
            data: dict[str, Any] = orjson.loads(self.card.read_bytes())
            return Card(**data)
        except (OSError, ValueError, TypeError):
            return None


def _locked(file: IO[bytes]) -> bool:
    """Take the lock. Somebody who only looks (`is_held`) is waited for."""
    until = time.monotonic() + _LOOKERS_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        else:
            return True


@dataclass(frozen=True, slots=True)
class Card:
    """What a running daemon says of itself."""

    pid: int
    project: str
    runtime: str
    gateway: str
    """Where people reach services: "127.0.0.1:8080"."""
    internal: str
    """Where containers do."""
    api: str
    """The Kubernetes API's URL."""
    domain: str = "localhost"
    notes: list[str] = field(default_factory=list)
    """What a person should know: another port than asked for, no Docker, …"""
    version: str = ""
