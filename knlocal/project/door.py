"""The project's own door to the store: files in, objects out, again after every save."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from knlocal.build.api import BuildFailure
from knlocal.clock import SystemClock
from knlocal.project import apply, manifests, objects
from knlocal.project.apply import Outcome
from knlocal.project.errors import Problem, ProjectError
from knlocal.project.manifests import Manifest
from knlocal.project.objects import Origin
from knlocal.project.settings import Service, Settings
from knlocal.project.sources import Sources, Wanted, wanted
from knlocal.resources.base import GroupKind, Key, Obj, annotations_of
from knlocal.resources.status import StatusError
from knlocal.store.store import Store

REVISION = GroupKind("serving.knative.dev", "Revision")
#: Seconds within which a Service makes its Revision.
MADE_WITHIN = 10.0


@dataclass(slots=True)
class Told:
    """Where news about a project goes; each gets a service's name ("" for the project) and text."""

    build: Callable[[str, str], None] = lambda _name, _line: None
    """Lines of builds."""
    note: Callable[[str, str], None] = lambda _name, _text: None
    problem: Callable[[str, str], None] = lambda _name, _text: None


@dataclass(slots=True)
class Prepared:
    """What the sources became, and which services had to stay as they are."""

    origins: dict[tuple[str, str], Origin] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    impossible: set[str] = field(default_factory=set)


class ProjectDoor:
    """Applies a project to the store, as often as its files change."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        sources: Sources,
        told: Told,
        inventory: Key = apply.INVENTORY,
    ) -> None:
        self.settings = settings
        self._inventory = inventory
        self.sources = sources
        self._store = store
        self._told = told
        self._one_at_a_time = asyncio.Lock()

    async def apply(self) -> Outcome:
        """Read, build, apply and prune. Raises ProjectError when the files themselves are wrong;
        what only concerns one service or object is told and leaves the others alone."""
        async with self._one_at_a_time:
            found = self._read_manifests()
            prepared = await self._prepare()
            without = prepared.failed | prepared.impossible
            await self._make_earlier_revisions(prepared, without)
            found += objects.manifests(self.settings, prepared.origins, without)
            outcome = await apply.apply_project(
                found,
                self._store,
                namespace=self.settings.project.namespace,
                keep={self._key(name) for name in prepared.failed},
                inventory=self._inventory,
            )
        for problem in outcome.problems:
            self._told.problem("", str(problem))
        for warning in outcome.warnings:
            self._told.note("", warning)
        return outcome

    def _read_manifests(self) -> list[Manifest]:
        found = manifests.load(self.settings.project.manifests, self.settings.root)
        unknown = manifests.check_kinds(found, self._store.registry)
        for manifest in unknown:
            what = f"{manifest.obj['kind']} ({manifest.obj['apiVersion']})"
            self._told.note("", f"{manifest.place}: {what} is not simulated; left out")
        left_out = {id(manifest) for manifest in unknown}
        return [manifest for manifest in found if id(manifest) not in left_out]

    async def _make_earlier_revisions(self, prepared: Prepared, without: set[str]) -> None:
        """`[services.X.revisions.Y]`: have the Service make them first, one after the other."""
        for name, service in self.settings.services.items():
            if name in without:
                continue
            earlier = objects.earlier_objects(self.settings, name, service, prepared.origins)
            for revision, obj in earlier:
                key = Key(REVISION.group, REVISION.kind, self._key(name).namespace, revision)
                made = self._store.find_key(key)
                if made is not None and _is_made_of(made, obj):
                    continue
                if made is not None:  # a revision never changes: this is another one
                    self._store.delete(REVISION, key.namespace, revision, propagation="Background")
                apply.ensure_namespace(self._store, key.namespace)
                try:
                    await apply.apply_one(obj, apply.StoreTarget(self._store))
                    await self._until_made(key)
                except (StatusError, TimeoutError) as error:
                    self._told.problem(name, f"cannot make revision {revision}: {error}")

    async def _until_made(self, key: Key) -> None:
        with self._store.watch(key.group_kind, key.namespace) as changes:
            async with SystemClock().timeout(MADE_WITHIN):
                while self._store.find_key(key) is None:
                    await anext(changes)

    def _key(self, service: str) -> Key:
        table = self.settings.services[service]
        namespace = table.namespace or self.settings.project.namespace
        return Key("serving.knative.dev", "Service", namespace, service)

    # -- sources ------------------------------------------------------------------------------

    async def _prepare(self) -> Prepared:
        prepared = Prepared()
        if self.sources.runtime == "process":
            for name, service in self.settings.services.items():
                if not _runs_as_process(service):
                    prepared.impossible.add(name)
                    self._told.note(name, "needs Docker (it runs images); left out")
        wants = [w for w in wanted(self.settings) if w.service not in prepared.impossible]
        await asyncio.gather(*(self._prepare_one(want, prepared) for want in wants))
        return prepared

    async def _prepare_one(self, want: Wanted, prepared: Prepared) -> None:
        try:
            origin = await self.sources.origin(want, self._told.build)
        except (BuildFailure, ProjectError) as error:
            prepared.failed.add(want.service)
            self._told.problem(want.service, str(error))
        else:
            prepared.origins[want.service, want.container] = origin


def _is_made_of(revision: Obj, service: Obj) -> bool:
    """Whether a Revision is what this Service's template would make."""
    template = service["spec"]["template"]
    wanted = [_essence(container) for container in template["spec"]["containers"]]
    has = [_essence(container) for container in revision["spec"]["containers"]]
    marks = (objects.RUN, objects.SNAPSHOT)
    annotations = template.get("metadata", {}).get("annotations") or {}
    return wanted == has and all(
        annotations.get(mark) == annotations_of(revision).get(mark) for mark in marks
    )


def _essence(container: Obj) -> tuple[Any, Any]:
    return container.get("image"), container.get("env") or []


def _runs_as_process(service: Service) -> bool:
    """Whether a service can do without images: one container, from a folder or a command."""
    tables = [service, *service.containers.values(), *service.init.values()]
    return all(table.source or table.run for table in tables)


__all__ = ["Outcome", "Prepared", "Problem", "ProjectDoor", "Told"]
