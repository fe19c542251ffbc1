"""Source folders kept by content: what a Revision was made of, for as long as it lives.

A snapshot is a folder of hard links into a store of files named by their digest; the same content
is there once, however many snapshots have it, and a snapshot is never written to again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from knlocal.build.context import SourceFile, digest


class SourceChanged(Exception):
    """A file changed between the look at it and the snapshot."""


class Snapshots:
    """Snapshots under one folder (`.knlocal/snapshots`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blobs = folder / "files"
        self._trees = folder / "trees"

    def take(self, source: Path, files: Iterable[SourceFile]) -> Path:
        """The folder that holds these files of `source`, made when it is not there yet.

        SourceChanged when a file is no longer what was scanned: scan again.
        """
        files = list(files)
        name = digest(files)[:20]
        place = self._trees / name
        if place.is_dir():
            return place
        self._trees.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=self._trees))
        try:
            for file in files:
                self._put(source, draft, file)
            draft.chmod(0o755)
            os.replace(draft, place)
        except FileNotFoundError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise SourceChanged(str(error.filename)) from None
        except BaseException as error:
            shutil.rmtree(draft, ignore_errors=True)
            if not (isinstance(error, OSError) and place.is_dir()):  # else: another was faster
                raise
        return place

    def _put(self, source: Path, tree: Path, file: SourceFile) -> None:
        target = tree / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.mode == "120000":
            target.symlink_to(file.link)
            return
        blob = self._blobs / file.digest[:2] / f"{file.digest[2:]}-{file.mode}"
        if not blob.exists():
            blob.parent.mkdir(parents=True, exist_ok=True)
            draft = blob.with_name(f".{blob.name}-{os.getpid()}")
            _copy(source / file.path, draft, file)
            draft.chmod(0o755 if file.mode == "100755" else 0o644)
            os.replace(draft, blob)
        try:
            os.link(blob, target)
        except OSError:  # a file system without hard links, or too many of them
            shutil.copy2(blob, target)

    def collect(self, kept: Iterable[Path]) -> int:
        """Remove every snapshot but these, and the files that none has any more.

        Returns how many snapshots went.
        """
        names = {path.name for path in kept}
        gone = 0
        for tree in self._trees.iterdir() if self._trees.is_dir() else ():
            if tree.name not in names:
                shutil.rmtree(tree, ignore_errors=True)
                gone += 1
        if gone:
            self._collect_blobs()
        return gone

    def _collect_blobs(self) -> None:
        for blob in self._blobs.glob("*/*"):
            with contextlib.suppress(FileNotFoundError):
                if blob.stat().st_nlink == 1:
                    blob.unlink()


def _copy(source: Path, target: Path, file: SourceFile) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        content = hashlib.sha256()
        while block := reader.read(1 << 20):
            content.update(block)
            writer.write(block)
    if content.hexdigest() != file.digest:
        target.unlink()
        raise SourceChanged(file.path)
