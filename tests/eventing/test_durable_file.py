"""The file of durable events holds what was accepted: one that cannot be read is left as it is."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from knlocal.eventing.engines.durable import DurableEngine
from knlocal.store.database import StateError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    async def make() -> None:
        engine = DurableEngine(tmp_path / "events.db")
        await engine.start()
        await engine.stop()

    asyncio.run(make())
    return tmp_path / "events.db"


def newer(file: Path) -> None:
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:3000])


def overwritten(file: Path) -> None:
    file.write_bytes(b"no database at all" * 1000)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(newer, "newer knlocal"), (cut_short, "is damaged"), (overwritten, "is damaged")],
)
def test_a_file_that_cannot_be_understood_is_refused_and_kept(
    file: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(file)
    before = file.read_bytes()
    with pytest.raises(StateError, match=said):
        asyncio.run(DurableEngine(file).start())
    assert file.read_bytes() == before
