"""What a folder's program needs, where it runs as a local process: environments by content.

A Python folder with requirements and no `.venv` gets a virtual environment, a Node folder with
dependencies and no `node_modules` gets those; made once, for as long as the needs are the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from knlocal.build import commands
from knlocal.build.api import BuildFailure, BuildRequest, Progress
from knlocal.build.recipe import Recipe
from knlocal.clock import SystemClock

#: Written last: an environment without it was given up half-way.
_READY = ".ready"
#: Seconds before what could not be installed is tried again, unless it is written otherwise.
AGAIN = 60.0
#: Environments that are kept beside those in use.
KEPT = 4


class Environments:
    """Environments under one folder (`.knlocal/environments`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._locks: dict[Path, asyncio.Lock] = {}
        self._failed: dict[Path, tuple[float, BuildFailure]] = {}
        self._clock = SystemClock()
        self.working = 0
        """How many environments are being made."""

    async def python(self, name: str, folder: Path, recipe: Recipe, progress: Progress) -> str:
        """The interpreter that a Python recipe should run on, made when it is not there yet.

        Raises BuildFailure with what pip says.
        """
        texts = await asyncio.to_thread(_missing, folder, recipe.needs)
        if texts is None:
            return sys.executable
        place = self._place(f"python {sys.version}", *recipe.needs, *texts)
        async with self._locks.setdefault(place, asyncio.Lock()):
            if not (place / _READY).exists():
                shutil.rmtree(place, ignore_errors=True)
                written = "requirements.txt" if "-r" in recipe.needs else "pyproject.toml"
                request = BuildRequest(name, "", folder, (), "", dockerfile_name=written)
                made = str(place / "bin" / "python")
                pip = [made, "-m", "pip", "install", "-q", *recipe.needs]
                with self._work(place):
                    progress(f"installing {' '.join(recipe.needs)}")
                    venv = [sys.executable, "-m", "venv", str(place)]
                    await commands.run(request, venv, _silent)
                    await commands.run(request, pip, progress, cwd=folder)
                (place / _READY).touch()
        return str(place / "bin" / "python")

    async def node_modules(
        self, name: str, folder: Path, progress: Progress, *, builds: bool
    ) -> Path | None:
        """The `node_modules` of a folder: its own, or made here; None when it needs none.

        `builds` says that it needs its development dependencies, too.
        """
        own = folder / "node_modules"
        if own.is_dir():
            return own
        files = [path for path in (folder / "package.json", folder / "package-lock.json")
                 if path.is_file()]  # fmt: skip
        if not files or not re.search(r'"(devD|d)ependencies"' if builds else r'"dependencies"',
                                      _text(files[0])):  # fmt: skip
            return None
        place = self._place(f"node {builds}", *map(_text, files))
        async with self._locks.setdefault(place, asyncio.Lock()):
            if not (place / _READY).exists():
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir(parents=True)
                for path in files:
                    shutil.copy(path, place)
                request = BuildRequest(name, "", folder, (), "", dockerfile_name="package.json")
                install = "ci" if len(files) > 1 else "install"
                command = ["npm", install, "--ignore-scripts", "--no-audit", "--no-fund"]
                command += [] if builds else ["--omit=dev"]
                with self._work(place):
                    progress("installing what package.json names")
                    await commands.run(request, command, progress, cwd=place)
                (place / _READY).touch()
        return place / "node_modules"

    def collect(self, in_use: Collection[str]) -> None:
        """Remove all but those whose names are in `in_use`, and the newest others."""
        if not self.folder.is_dir():
            return
        others = [place for place in self.folder.iterdir() if place.name not in in_use]
        others.sort(key=lambda place: place.stat().st_mtime, reverse=True)
        for place in others[KEPT:]:
            shutil.rmtree(place, ignore_errors=True)

    @contextmanager
    def _work(self, place: Path) -> Iterator[None]:
        """What could not be had a moment ago is not asked for again at a neighbour's save."""
        at, failure = self._failed.get(place, (0.0, None))
        if failure is not None and self._clock.monotonic() - at < AGAIN:
            raise failure
        self.working += 1
        try:
            yield
        except BuildFailure as failure:
            self._failed[place] = self._clock.monotonic(), failure
            raise
        finally:
            self.working -= 1

    def _place(self, *needs: str) -> Path:
        return self.folder / hashlib.sha256("\0".join(needs).encode()).hexdigest()[:16]


def _silent(_line: str) -> None:
    return


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace")


def _names(folder: Path, needs: Collection[str]) -> Iterator[str]:
    """The distributions that pip's words name."""
    words = iter(needs)
    for word in words:
        if word == "-r":
            for line in _text(folder / next(words)).splitlines():
                line = line.partition("#")[0].strip()
                if line:
                    yield line
        else:
            yield word


def _missing(folder: Path, needs: Collection[str]) -> list[str] | None:
    """What the needs are written in; None when there is nothing to fetch."""
    if all(map(_is_here, _names(folder, needs))):
        return None
    names = ("requirements*.txt", "constraints*.txt", "pyproject.toml")
    return [_text(path) for name in names for path in sorted(folder.glob(name))]


def _is_here(requirement: str) -> bool:
    """Whether knlocal's own Python has it: then nothing needs to be fetched. A version that is
    asked for must be the very one, or at most a least one."""
    found = re.fullmatch(r"([A-Za-z0-9][\w.-]*)\s*(?:(==|>=)\s*([\w.]+))?", requirement)
    if found is None:
        return False
    try:
        version = metadata.version(found[1])
    except metadata.PackageNotFoundError:
        return False
    return _numbers(version) >= _numbers(found[3]) if found[2] == ">=" else (
        found[2] is None or version == found[3]
    )  # fmt: skip


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]
