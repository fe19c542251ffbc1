"""The files of a source folder: what they contain, and their common digest."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from knlocal.build.api import BuildRequest
from knlocal.build.ignore import Ignore


class SourceFile(NamedTuple):
    """A file of a source folder. `mode` is "100644", "100755" or "120000" (a link), as in git."""

    path: str
    digest: str
    mode: str
    link: str = ""


class Scanner:
    """Reads source folders; files that did not change since the last time are not read again."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, int, int], str]] = {}

    def scan(self, folder: Path, ignore: Ignore) -> list[SourceFile]:
        """The files under `folder` that count, by path. Links stay links, never followed."""
        found = []
        for path, entry in ignore.walk(folder):
            try:
                file = self._read(path, entry)
            except FileNotFoundError:
                continue  # saved by rename just now: the next look sees it
            if file is not None:
                found.append(file)
        return sorted(found)

    def _read(self, path: str, entry: os.DirEntry[str]) -> SourceFile | None:
        info = entry.stat(follow_symlinks=False)
        if stat.S_ISLNK(info.st_mode):
            link = os.readlink(entry.path)
            return SourceFile(path, hashlib.sha256(link.encode()).hexdigest(), "120000", link)
        if not stat.S_ISREG(info.st_mode):
            return None  # sockets and pipes are nobody's source
        mode = "100755" if info.st_mode & 0o100 else "100644"
        return SourceFile(path, self._digest(entry.path, info), mode)

    def _digest(self, path: str, info: os.stat_result) -> str:
        seen = (info.st_mtime_ns, info.st_size, info.st_ino)
        known = self._known.get(path)
        if known and known[0] == seen:
            return known[1]
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._known[path] = (seen, digest)
        return digest


def digest(
    files: Iterable[SourceFile],
    facts: Mapping[str, str] | None = None,
    only: Callable[[str], bool] | None = None,
) -> str:
    """One digest for files and further facts: the same content gives the same digest anywhere."""
    total = hashlib.sha256()
    for file in files:
        if only is None or only(file.path):
            total.update(f"{file.mode} {file.digest} {file.path}\0".encode())
    for key, value in sorted((facts or {}).items()):
        total.update(f"{key}={value}\0".encode())
    return total.hexdigest()


def export(request: BuildRequest, folder: Path) -> None:
    """Lay out a build context in a folder: for builders that are given one."""
    for path, entry in Ignore(request.ignored).walk(request.context):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy2(entry.path, target, follow_symlinks=False)
        except FileNotFoundError:
            continue  # replaced by an editor just now
    for path, data in request.files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    folder.mkdir(parents=True, exist_ok=True)
