"""Saves are noticed: what concerns the project, as one batch, and nothing else."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from knlocal.project import config, inotify
from knlocal.project.watch import Watched, batches

DEADLINE = 20.0
FILE = (
    '[project]\nmanifests = ["k8s/*.yaml"]\n'
    '[services.a]\nsource = "a"\nenv_file = "a.env"\n[services.b]\nsource = "b"\nwatch = false\n'
)


@pytest.fixture(params=["kernel", "watchfiles"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How changes are learnt: from the kernel where it tells them, else from a library."""
    if request.param == "watchfiles":
        monkeypatch.setattr(inotify, "available", lambda: False)
    elif not inotify.available():
        pytest.skip("the kernel does not tell of changes here")


@pytest.fixture
def root(project: Path, way: None) -> Path:
    for name in ("a/main.py", "b/main.py", "k8s/one.yaml", "a/.gitignore"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("")
    (project / "a" / ".gitignore").write_text("*.log\n")
    (project / "a.env").write_text("A=1\n")
    (project / "knlocal.toml").write_text(FILE)
    return project.resolve()


class Seen:
    """What the watcher reported."""

    def __init__(self, queue: asyncio.Queue[set[Path]], root: Path) -> None:
        self._queue = queue
        self._root = root
        self.batches = 0

    async def until(self, names: Iterable[str]) -> set[str]:
        """Every path reported up to the moment when all of `names` were."""
        seen: set[str] = set()
        async with asyncio.timeout(DEADLINE):
            while not set(names) <= seen:
                seen |= {str(path.relative_to(self._root)) for path in await self._queue.get()}
                self.batches += 1
        return seen


@asynccontextmanager
async def watching(root: Path) -> AsyncIterator[Seen]:
    stop = asyncio.Event()
    queue: asyncio.Queue[set[Path]] = asyncio.Queue()
    watched = Watched(config.load(root / "knlocal.toml"))

    async def follow() -> None:
        async for paths in batches(watched, stop):
            queue.put_nowait(paths)

    task = asyncio.create_task(follow())
    seen = Seen(queue, root)
    # The first change that arrives shows that the watches stand.
    async with asyncio.timeout(DEADLINE):
        while queue.empty():
            (root / "knlocal.toml").write_text(FILE)
            await asyncio.sleep(0.05)
    await seen.until(["knlocal.toml"])
    try:
        yield seen
    finally:
        stop.set()
        await asyncio.wait_for(task, DEADLINE)


async def test_saves_of_sources_manifests_and_env_files_are_noticed(root: Path) -> None:
    async with watching(root) as seen:
        names = ["a/main.py", "k8s/one.yaml", "a.env"]
        for name in names:
            (root / name).write_text("changed")
        await seen.until(names)


async def test_what_does_not_count_is_not_told(root: Path) -> None:
    async with watching(root) as seen:
        for name in ("a/x.log", "a/__pycache__/x.pyc", "b/main.py", "notes.txt", "k8s/notes.txt"):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text("changed")
        (root / "a" / "main.py").write_text("changed")
        told = await seen.until(["a/main.py"])
    assert told <= {"a/main.py", "knlocal.toml", "a"}


async def test_an_atomic_save_is_a_change_of_the_file(root: Path) -> None:
    async with watching(root) as seen:
        (root / "a" / "main.py~").write_text("changed")
        os.replace(root / "a" / "main.py~", root / "a" / "main.py")
        await seen.until(["a/main.py"])


async def test_folders_that_come_later_are_watched_too(root: Path) -> None:
    async with watching(root) as seen:
        (root / "a" / "deep" / "er").mkdir(parents=True)
        async with asyncio.timeout(DEADLINE):
            while True:
                (root / "a" / "deep" / "er" / "new.py").write_text("x")
                try:
                    async with asyncio.timeout(0.2):
                        await seen.until(["a/deep/er/new.py"])
                    break
                except TimeoutError:
                    continue


async def test_a_new_manifest_and_a_removed_one_are_noticed(root: Path) -> None:
    async with watching(root) as seen:
        (root / "k8s" / "two.yaml").write_text("x")
        (root / "k8s" / "one.yaml").unlink()
        await seen.until(["k8s/two.yaml", "k8s/one.yaml"])


async def test_a_burst_is_a_few_batches(root: Path) -> None:
    async with watching(root) as seen:
        before = seen.batches
        for at in range(200):
            (root / "a" / f"file{at}.py").write_text("x")
        await seen.until([f"a/file{at}.py" for at in range(200)])
        assert seen.batches - before < 50


async def test_a_watched_folder_that_disappears_and_returns_is_watched_again(root: Path) -> None:
    async with watching(root) as seen:
        (root / "a").rename(root / "elsewhere")
        (root / "elsewhere").rename(root / "a")
        async with asyncio.timeout(DEADLINE):
            while True:
                (root / "a" / "main.py").write_text("back")
                try:
                    async with asyncio.timeout(0.2):
                        await seen.until(["a/main.py"])
                    break
                except TimeoutError:
                    continue


def test_a_large_ignored_folder_costs_no_watches(root: Path) -> None:
    for at in range(50):
        (root / "a" / "node_modules" / f"package{at}").mkdir(parents=True)
    (root / "a" / "loop").symlink_to(root / "a")
    folders = Watched(config.load(root / "knlocal.toml")).folders()
    assert folders == {root, root / "a", root / "k8s"}
