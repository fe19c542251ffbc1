"""Who may use a volume's files: any user of a container, and a pod's fsGroup.

The daemon usually is no root user and then cannot give files to another group: it opens them to
everyone as far as the group would have been let in, which is the same thing for one developer.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def open_folder(folder: Path) -> None:
    """Make a folder that any user of a container may write to (as Kubernetes' emptyDir, 0777)."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        folder.chmod(0o777)
    except PermissionError:
        pass  # made by a container's user earlier: theirs to decide


def give_to_group(folder: Path, group: int | None, *, writable: bool) -> None:
    """Let `group` (a pod's fsGroup) read, or write, everything in `folder`
    (k8s.io/kubernetes pkg/volume/volume_linux.go SetVolumeOwnership)."""
    if group is None:
        return
    wanted = 0o660 if writable else 0o440
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            continue
        mode = path.stat().st_mode
        bits = wanted
        if stat.S_ISDIR(mode):
            bits |= 0o110
        try:
            os.chown(path, -1, group)
            extra = stat.S_ISGID if stat.S_ISDIR(mode) else 0
            path.chmod(stat.S_IMODE(mode) | bits | extra)
        except PermissionError:
            _let_everyone(path, mode, bits)


def _let_everyone(path: Path, mode: int, bits: int) -> None:
    try:
        path.chmod(stat.S_IMODE(mode) | bits | (bits & 0o070) >> 3)
    except PermissionError:
        pass  # someone else's file: they decide
