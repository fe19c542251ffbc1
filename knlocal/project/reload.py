"""Hot reload: a save becomes a new Revision, an edit of the project's files just the difference.

Knative does the rest: traffic moves when the new Revision is ready; one that does not start leaves
the last good one serving.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from pathlib import Path

import orjson

from knlocal.clock import Clock
from knlocal.project import config
from knlocal.project.door import ProjectDoor, Told
from knlocal.project.errors import ProjectError
from knlocal.project.objects import ROLLBACK
from knlocal.project.settings import Settings
from knlocal.project.watch import Watched, batches
from knlocal.resources.annotations import RUN, SNAPSHOT
from knlocal.resources.base import GroupKind, Obj, annotations_of, labels_of
from knlocal.store.store import Store

SERVICE = GroupKind("serving.knative.dev", "Service")
REVISION = GroupKind("serving.knative.dev", "Revision")
GENERATION = "serving.knative.dev/configurationGeneration"

#: Revisions of a service that are kept for going back to, beside those that have traffic.
KEPT = 20
#: More changed files than this come from a tool, which gets this many seconds for the next one.
FEW, SETTLE = 3, 0.1
#: Seconds after which it is not waited for any longer: somebody may be saving all the time.
SETTLED_WITHIN = 2.0
#: Seconds between two revisions of a folder that is saved all the time.
PAUSE = 0.5
#: Seconds from a reload until what it left without use is cleared away: new code comes first.
TIDY_AFTER = 2.0


class Reloader:
    """Watches a project and applies what changes. `run` ends with `stop`."""

    def __init__(self, door: ProjectDoor, store: Store, clock: Clock, told: Told) -> None:
        self._door = door
        self._store = store
        self._clock = clock
        self._told = told
        self._watched = Watched(door.settings)
        self._stop = asyncio.Event()
        self._changed: set[Path] = set()
        self._more = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._asked = False
        self._tidy_at: float | None = None
        self.reloaded: Callable[[Settings], object] = lambda _settings: None
        """Told when knlocal.toml was read again."""

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._watch(), name="watch"),
            asyncio.create_task(self._follow(), name="reload"),
        ]

    async def stop(self) -> None:
        self._stop.set()
        for task in (*self._tasks, self._work):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def reload_all(self) -> None:
        """As if everything had been saved; tells when that changed nothing."""
        self._asked = True
        self._note({self._watched.file})

    # -- from changes to work -----------------------------------------------------------------

    async def _watch(self) -> None:
        async for paths in batches(self._watched, self._stop):
            self._note(paths)

    def _note(self, paths: set[Path]) -> None:
        self._changed |= paths
        self._more.set()

    async def _follow(self) -> None:
        """One reload at a time. A save during a build makes that build obsolete: it is given up."""
        await self._door.sources.collect(images_in_use(self._store))
        while True:
            await self._until_changed()
            await self._all_arrived()
            self._more.clear()
            paths, self._changed = self._changed, set()
            begun = self._clock.monotonic()
            self._work = asyncio.create_task(self._reload(paths), name="reload work")
            if not await self._finished(self._work):
                self._changed |= paths
                continue
            if self._tidy_at is None:
                self._tidy_at = self._clock.monotonic() + TIDY_AFTER
            pause = PAUSE - (self._clock.monotonic() - begun)
            if self._changed and pause > 0:
                await self._clock.sleep(pause)

    async def _until_changed(self) -> None:
        """Wait for a save. Old code is cleared away between reloads, never beside one: that may
        just be taking a snapshot which no object names yet."""
        while True:
            left = None if self._tidy_at is None else self._tidy_at - self._clock.monotonic()
            if left is not None and left <= 0:
                # What pods of a Revision that goes now still use is collected once they are gone.
                again = await self._collect()
                self._tidy_at = self._clock.monotonic() + TIDY_AFTER if again else None
            elif self._changed:
                return
            else:
                self._more.clear()
                with contextlib.suppress(TimeoutError):
                    await self._clock.wait_for(self._more.wait(), left)

    async def _all_arrived(self) -> None:
        """More than a save or two is a branch switch or the like: wait until all of it is there."""
        known, until = 0, self._clock.monotonic() + SETTLED_WITHIN
        while len(self._changed) > max(FEW, known) and self._clock.monotonic() < until:
            known = len(self._changed)
            await self._clock.sleep(SETTLE)

    async def _finished(self, work: asyncio.Task[None]) -> bool:
        """Wait for a reload; False when it was given up for a newer save."""
        while True:
            more = asyncio.create_task(self._more.wait())
            try:
                await asyncio.wait({work, more}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                more.cancel()
            if work.done():
                with contextlib.suppress(asyncio.CancelledError):
                    work.result()
                return True
            self._more.clear()
            if self._door.sources.building:
                work.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await work
                return False

    # -- one reload ---------------------------------------------------------------------------

    async def _reload(self, paths: set[Path]) -> None:
        try:
            folders = {self._watched.source_of(path) for path in paths}
            if None in folders:
                await self._reload_project(paths)
            else:
                await self._reload_sources({folder for folder in folders if folder is not None})
        except ProjectError as error:
            self._told.problem("", str(error))

    async def _reload_project(self, paths: set[Path]) -> None:
        if self._watched.file in paths:
            settings = config.load(self._watched.file)
            before = self._door.settings
            for name in ("gateway", "api"):
                if getattr(before, name) != getattr(settings, name):
                    self._told.note("", f"[{name}] changes with the next `knlocal up`")
            self._door.use(settings)
            self.reloaded(settings)
        outcome = await self._door.apply()
        self._watched.refresh(self._door.settings)
        changed = [c for c in outcome.changed() if c.what in ("created", "configured", "deleted")]
        for change in changed:
            self._told.note("", f"{change.obj['kind']} {change.obj['metadata']['name']} "
                                f"{change.what}")  # fmt: skip
        asked, self._asked = self._asked, False
        if asked and not changed and not outcome.problems:
            self._told.note("reload", "nothing changed")

    async def _reload_sources(self, folders: set[Path]) -> None:
        names = {
            want.service
            for want, folder in self._door.sources.folders()
            if folder in folders
        }  # fmt: skip
        await self._door.apply_services(names, changed=self._forget_rollback)

    def _forget_rollback(self, name: str) -> None:
        """New code takes over again after somebody had gone back to older code."""
        table = self._door.settings.services.get(name)
        place = (table and table.namespace) or self._door.settings.project.namespace
        service = self._store.find(SERVICE, place, name)
        if service is None or ROLLBACK not in annotations_of(service):
            return

        def back_to_latest(obj: Obj) -> None:
            obj["metadata"]["annotations"].pop(ROLLBACK)
            obj["spec"]["traffic"] = [{"latestRevision": True, "percent": 100}]

        self._store.modify(SERVICE, place, name, back_to_latest)

    # -- old code -----------------------------------------------------------------------------

    async def _collect(self) -> bool:
        """Revisions of earlier saves, but for the last good ones, and the snapshots and images
        that none needs. Returns whether there were such Revisions."""
        removed = sum(self._collect_revisions(obj) for obj in self._store.list(SERVICE))
        sources, used = self._door.sources, snapshots_in_use(self._store)
        await asyncio.to_thread(sources.snapshots.collect, used)
        named = environments_in_use(self._store, used)
        await asyncio.to_thread(sources.environments.collect, named)
        await sources.collect(images_in_use(self._store))
        return removed > 0

    def _collect_revisions(self, service: Obj) -> int:
        metadata = service["metadata"]
        label = {"serving.knative.dev/service": metadata["name"]}
        found = [
            revision
            for revision in self._store.list(REVISION, metadata["namespace"], label)
            if SNAPSHOT in annotations_of(revision) or RUN in annotations_of(revision)
        ]
        found.sort(key=lambda r: int(labels_of(r).get(GENERATION, 0)), reverse=True)
        status = service.get("status") or {}
        busy = {target.get("revisionName") for target in status.get("traffic") or ()}
        busy |= {target.get("revisionName") for target in service["spec"].get("traffic") or ()}
        busy |= {status.get("latestCreatedRevisionName"), status.get("latestReadyRevisionName")}
        old = [
            name
            for at, revision in enumerate(found)
            if (name := revision["metadata"]["name"]) not in busy
            and (at >= KEPT or _has_failed(revision))
        ]
        for name in old:
            self._store.delete(REVISION, metadata["namespace"], name, propagation="Background")
        return len(old)


def _has_failed(revision: Obj) -> bool:
    """Whether there is nothing in it to go back to."""
    return any(
        condition["type"] == "Ready" and condition["status"] == "False"
        for condition in (revision.get("status") or {}).get("conditions") or ()
    )


def snapshots_in_use(store: Store) -> list[Path]:
    """Snapshots that some object still names."""
    found = set()
    for group_kind in (SERVICE, REVISION, GroupKind("", "Pod"), GroupKind("apps", "Deployment")):
        for obj in store.list(group_kind):
            template = (obj.get("spec") or {}).get("template") or {}
            for holder in (obj, template):
                for name in (RUN, SNAPSHOT):
                    text = annotations_of(holder).get(name)
                    if text:
                        found |= set(_folders_in(orjson.loads(text)))
    return sorted(found)


def environments_in_use(store: Store, snapshots: list[Path]) -> set[str]:
    """Names of environments that programs run on, or that snapshots link to."""
    told = [annotations_of(obj).get(RUN, "") for obj in store.list(REVISION)]
    for tree in snapshots:
        with contextlib.suppress(OSError):
            told.append(str((tree / "node_modules").readlink()))
    return {name for text in told for name in re.findall(r"/environments/(\w+)", text)}


def images_in_use(store: Store) -> set[str]:
    """Images that some object still names."""
    found = set()
    for group_kind in list(store.kinds_in_use()):
        for obj in store.list(group_kind):
            spec = obj.get("spec") or {}
            template = (spec.get("template") if isinstance(spec, dict) else None) or {}
            for holder in (spec, template.get("spec") if isinstance(template, dict) else None):
                if isinstance(holder, dict):
                    for key in ("containers", "initContainers"):
                        found |= {str(one.get("image")) for one in holder.get(key) or ()}
    return found


def _folders_in(value: Obj) -> list[Path]:
    entries = [value, *(value.get("containers") or {}).values()]
    return [Path(entry["dir"]) for entry in entries if entry.get("dir")]
