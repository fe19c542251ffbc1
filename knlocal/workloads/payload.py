"""Folders of small files that change as one: ConfigMap, Secret and projected volumes.

The layout is Kubernetes' own (pkg/volume/util/atomic_writer.go): the files live in a hidden folder,
`..data` points at it, and each visible name points through `..data`. A change writes a new hidden
folder and swaps the one symlink, so a reader sees all old files or all new ones, and inside a
container (which mounts the outer folder) the change shows at once.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_DATA = "..data"


@dataclass(frozen=True, slots=True)
class PayloadFile:
    """One file: its content and its permission bits."""

    data: bytes
    mode: int


Payload = Mapping[str, PayloadFile]
"""Relative path (slashes allowed) → file."""


def write_payload(folder: Path, payload: Payload) -> bool:
    """Make `folder` show exactly `payload`. Returns whether anything changed."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    current = folder / _DATA
    if current.is_symlink() and _same(current, payload):
        return False
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    fresh.chmod(0o755)
    for path, file in payload.items():
        _write(fresh / path, file)
    old = os.readlink(current) if current.is_symlink() else ""
    _swap(current, fresh.name)
    _show_names(folder, {path.split("/")[0] for path in payload})
    if old:
        shutil.rmtree(folder / old, ignore_errors=True)
    return True


def read_payload(folder: Path) -> dict[str, PayloadFile]:
    """What `folder` shows now."""
    data = folder / _DATA
    return {
        str(path.relative_to(data)): PayloadFile(path.read_bytes(), path.stat().st_mode & 0o777)
        for path in sorted(data.rglob("*"))
        if path.is_file()
    }


def _same(current: Path, payload: Payload) -> bool:
    found = read_payload(current.parent)
    return found.keys() == payload.keys() and all(
        found[path].data == file.data and found[path].mode & ~0o060 == file.mode & ~0o060
        for path, file in payload.items()
    )


def _write(path: Path, file: PayloadFile) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.data)
    path.chmod(file.mode)
    for parent in path.parents:
        if parent.name.startswith(".."):
            break
        parent.chmod(0o755)  # whatever the daemon's umask says


def _swap(link: Path, target: str) -> None:
    """Point `link` at `target` in one step."""
    temporary = link.with_name("..data_tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def _show_names(folder: Path, names: set[str]) -> None:
    for name in names:
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(f"{_DATA}/{name}")
    for entry in folder.iterdir():
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()
