"""Notices saves: bursts, atomic saves and branch switches become one batch of changed paths.

Only folders that hold something of the project are watched, each by itself, so that the thousands
of folders of a `node_modules` cost nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import watchfiles

from knlocal.build.ignore import Ignore, from_gitignore, read
from knlocal.project import inotify, manifests
from knlocal.project.config import FILE_NAME
from knlocal.project.settings import Build, Settings
from knlocal.project.sources import wanted

log = logging.getLogger(__name__)

#: Milliseconds without a change after which a batch is complete, and after which it is anyway.
#: One save must not wait; whoever gets many at once (a branch switch) does, see `reload.py`.
QUIET, LONGEST = 5, 500
#: Milliseconds between looks where the system has no watches left to give.
POLL = 500


class Watched:
    """What a project consists of on disk, as of the last `refresh`."""

    def __init__(self, settings: Settings) -> None:
        self.root = settings.root.resolve()
        self.file = self.root / FILE_NAME
        self.sources: dict[Path, Ignore] = {}
        """Source folders, and what does not count in them."""
        self.files: set[Path] = {self.file}
        """Manifests and env files, wherever they are."""
        self.patterns: list[tuple[Path, str]] = []
        self.refresh(settings)

    def refresh(self, settings: Settings) -> None:
        self.sources = {}
        for want in wanted(settings):
            if settings.services[want.service].watch:
                context = (want.table.build or Build()).context or want.table.source or "."
                folder = (self.root / context).resolve()
                self.sources[folder] = Ignore([*from_gitignore(read(folder, ".gitignore")),
                                               *read(folder)])  # fmt: skip
        self.files = {self.file}
        for service in settings.services.values():
            for container in (service, *service.containers.values(), *service.init.values()):
                self.files |= {(self.root / file).resolve() for file in container.env_file}
        found = manifests.files(settings.project.manifests, self.root)
        self.files |= {path.resolve() for path in found}
        self.patterns = [_anchored(self.root, p) for p in settings.project.manifests]

    def folders(self) -> set[Path]:
        """Every folder to be watched; those that do not exist are left out."""
        places = {path.parent for path in self.files}
        places |= {folder for folder, _ in self.patterns}
        for folder, ignore in self.sources.items():
            places |= set(_folders(folder, ignore))
        return {place for place in places if place.is_dir()}

    def concerns(self, path: Path) -> bool:
        """Whether a change at `path` may change the project."""
        if path in self.files:
            return True
        for folder, ignore in self.sources.items():
            if path == folder or (
                path.is_relative_to(folder) and not ignore(_inside(path, folder))
            ):
                return True
        return any(path.match(pattern) for _, pattern in self.patterns)

    def source_of(self, path: Path) -> Path | None:
        """The source folder that a path belongs to, when it is nothing else, too."""
        if path in self.files or any(path.match(pattern) for _, pattern in self.patterns):
            return None
        return next((folder for folder in self.sources if path.is_relative_to(folder)), None)


async def batches(watched: Watched, stop: asyncio.Event) -> AsyncIterator[set[Path]]:
    """Paths that changed and concern the project, batch by batch, until `stop`.

    Whenever folders come or go, watching begins anew, and all source folders are told: what was
    saved in between would be missed else.
    """
    polling, again = False, False
    while not stop.is_set():
        folders = watched.folders()
        try:
            async with aclosing(_watch(folders, stop, polling=polling)) as changes:
                following = asyncio.ensure_future(anext(changes))
                try:
                    await asyncio.sleep(0)  # from here on the watches stand
                    if again:
                        yield set(watched.sources)
                    while True:
                        paths = await following
                        relevant = {path for path in paths if watched.concerns(path)}
                        if relevant:
                            yield relevant
                        if watched.folders() != folders or paths & folders:
                            break
                        following = asyncio.ensure_future(anext(changes))
                finally:
                    following.cancel()
                    with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
                        await following
            again = True
        except StopAsyncIteration:
            return
        except (FileNotFoundError, RuntimeError) as error:
            log.info("watching again: %s", error)  # a folder went away just now
            again = True
            await asyncio.sleep(QUIET / 1000)
        except OSError as error:
            if polling:
                raise
            log.warning("no more watches to be had (%s); looking twice a second instead", error)
            polling = again = True


async def _watch(
    folders: set[Path], stop: asyncio.Event, *, polling: bool
) -> AsyncGenerator[set[Path], None]:
    if not folders:
        await stop.wait()
        return
    if not polling and inotify.available():
        told = inotify.changes(folders, stop, quiet=QUIET / 1000, longest=LONGEST / 1000)
        async with aclosing(told):
            async for paths in told:
                yield paths
        return
    async for changes in watchfiles.awatch(
        *folders,
        recursive=False,
        watch_filter=None,
        debounce=LONGEST,
        step=QUIET,
        stop_event=stop,
        force_polling=polling,
        poll_delay_ms=POLL,
        ignore_permission_denied=True,
    ):
        yield {Path(path) for _, path in changes}


def _folders(root: Path, ignore: Ignore) -> Iterator[Path]:
    for folder, below, _ in os.walk(root):
        path = Path(folder)
        yield path
        below[:] = [name for name in below if not ignore(_inside(path / name, root))]


def _inside(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _anchored(root: Path, pattern: str) -> tuple[Path, str]:
    """A manifest pattern as the folder it starts in and what to match whole paths with."""
    path = Path(pattern).expanduser()
    path = path if path.is_absolute() else root / path
    if path.is_dir():
        return path, str(path / "*")
    folder = path
    while any(letter in str(folder) for letter in "*?["):
        folder = folder.parent
    return (folder if folder.is_dir() else folder.parent), str(path)
