"""Termination messages: the file a container may leave its last words in.

Source: kubernetes `pkg/kubelet/kuberuntime` (the file is bind-mounted, its first 4096 bytes count).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from knlocal.runtime.api import PodId, RuntimeFailure

#: Bytes of the file that are read.
LONGEST = 4096


class TerminationLogs:
    """One file per container, under the runtime's state folder."""

    def __init__(self, state_dir: Path) -> None:
        self._root = state_dir.absolute() / "pods"

    def path(self, pod: PodId, container: str) -> Path:
        return self._root / pod.uid / container / "termination-log"

    def reset(self, pod: PodId, container: str) -> Path:
        """Make it, empty, writable by whatever user the container runs as."""
        path = self.path(pod, container)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
            path.chmod(0o666)
        except OSError as failed:
            raise RuntimeFailure(
                "CreateContainerError", f"cannot write {path}: {failed.strerror or failed}"
            ) from failed
        return path

    def read(self, pod: PodId, container: str) -> str:
        """ "" when the container wrote none."""
        try:
            with self.path(pod, container).open("rb") as file:
                return file.read(LONGEST).decode(errors="replace")
        except OSError:
            return ""

    def remove(self, pod: PodId) -> None:
        shutil.rmtree(self._root / pod.uid, ignore_errors=True)
