"""Containers that are started ahead of time and held at a gate before their program begins.

What takes the engine long (network, file system, limits, the start itself) is done by then. What
the program is to find in one folder is decided when it is let go: that folder is a bind mount of an
empty one, filled with hard links in that moment. To everybody else such a container is "created":
nothing of the user's has run in it.

Only where the engine runs on this very kernel: a FIFO does not reach into a virtual machine.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from knlocal.runtime import gate, labels
from knlocal.runtime.api import ContainerPlan, ImageInfo, Mount, PodId, RuntimeFailure
from knlocal.runtime.realtime import CLOCK

#: Where the gate is inside a container: in a file system that is not the image's.
INSIDE = "/dev/.knlocal"
#: Seconds that a gate may take to be at its door, and between two looks.
PATIENCE, PAUSE = 2.0, 0.005


@dataclass(frozen=True, slots=True)
class Gate:
    """The gate of one pod's serving container."""

    folder: Path
    late: str = ""
    """Mount target whose content is decided last ("" when an earlier daemon made the gate: then
    nobody knows any more, and it fits no plan)."""
    image: ImageInfo | None = None
    """Says what the container runs when its plan does not."""

    @property
    def closed(self) -> bool:
        """Nobody has let the program go yet."""
        return (self.folder / "door" / "fifo").exists()

    def before(self, one: ContainerPlan) -> ContainerPlan:
        """The container with the gate in front, whatever is mounted at `late`."""
        argv = _argv(one, self.image)
        if not self.late or not argv:
            return one
        path = one.env.get("PATH") or (self.image.env.get("PATH") if self.image else None)
        late = Mount(self.late, self.folder / "source", read_only=True)
        mounts = [late if mount.target == self.late else mount for mount in one.mounts]
        mounts.append(Mount(INSIDE, self.folder / "door", read_only=True))
        return replace(
            one,
            command=(f"{INSIDE}/gate",),
            args=tuple(gate.words(f"{INSIDE}/fifo", argv, path)),
            mounts=tuple(mounts),
        )

    def fits(self, one: ContainerPlan, plan_hash: str) -> bool:
        """Whether the container that was made with this hash can become the planned one."""
        return labels.plan_hash(self.before(one)) == plan_hash

    def build(self, program: bytes) -> None:
        """Lay out its folder. RuntimeFailure when that cannot be written."""
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            for folder in (self.folder / "source", self.folder / "door"):
                folder.mkdir(parents=True)
                folder.chmod(0o755)  # whatever user the container has
            executable = self.folder / "door" / "gate"
            executable.write_bytes(program)
            executable.chmod(0o755)
            os.mkfifo(self.folder / "door" / "fifo")
            (self.folder / "door" / "fifo").chmod(0o644)
        except OSError as failed:
            raise RuntimeFailure(
                "CreateContainerError", f"cannot write {self.folder}: {failed.strerror or failed}"
            ) from failed

    async def open(self, one: ContainerPlan) -> bool:
        """Let the program go, with what the plan mounts at `late`; False when nobody waits."""
        tree = next((mount.source for mount in one.mounts if mount.target == self.late), None)
        fifo = self.folder / "door" / "fifo"
        if tree is None:
            return False
        try:
            await asyncio.to_thread(_fill, self.folder / "source", tree)
            door = await _opened(fifo)
            try:
                os.write(door, b"g")
            finally:
                os.close(door)
            fifo.unlink()
        except OSError:
            return False
        return True


class Gates:
    """All gates of a project, under its state folder."""

    def __init__(self, state_dir: Path) -> None:
        self._root = state_dir.absolute() / "held"

    def of(self, pod: PodId, late: str, image: ImageInfo) -> Gate:
        """For a pod that is to be made."""
        return Gate(self._root / pod.uid, late, image)

    def left_closed(self, pod: PodId) -> Gate | None:
        """What an earlier daemon has not opened."""
        left = Gate(self._root / pod.uid)
        return left if left.closed else None

    def remove(self, pod: PodId) -> None:
        shutil.rmtree(self._root / pod.uid, ignore_errors=True)

    def sweep(self, known: Iterable[PodId]) -> None:
        """Remove the folders of pods that are gone."""
        kept = {pod.uid for pod in known}
        for folder in self._root.iterdir() if self._root.is_dir() else ():
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def can_be_held(one: ContainerPlan, image: ImageInfo) -> bool:
    """False when neither plan nor image says what to run."""
    return bool(_argv(one, image))


def _argv(one: ContainerPlan, image: ImageInfo | None) -> list[str]:
    """What the container runs: a plan's command leaves nothing of the image's."""
    if one.command:
        return [*one.command, *(one.args or ())]
    if image is None:
        return []
    return [*image.entrypoint, *(one.args or image.cmd)]


async def _opened(fifo: Path) -> int:
    """The FIFO, once somebody reads it. OSError when nobody does in time."""
    until = CLOCK.monotonic() + PATIENCE
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as nobody:
            if nobody.errno != errno.ENXIO or CLOCK.monotonic() > until:
                raise
        await CLOCK.sleep(PAUSE)


def _fill(target: Path, source: Path) -> None:
    """The same tree, of hard links where the file system has them."""
    for entry in os.scandir(source):
        place = target / entry.name
        if entry.is_symlink():
            place.symlink_to(os.readlink(entry.path))
        elif entry.is_dir():
            place.mkdir()
            _fill(place, Path(entry.path))
        else:
            try:
                os.link(entry.path, place)
            except OSError:
                shutil.copy2(entry.path, place)
    shutil.copystat(source, target)
