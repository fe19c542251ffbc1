"""The project's own door to the store: files in, objects out, again after every save."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from knlocal.build.api import BuildFailure
from knlocal.clock import SystemClock
from knlocal.project import apply, manifests, objects
from knlocal.project.apply import Outcome
from knlocal.project.errors import Problem, ProjectError
from knlocal.project.manifests import Manifest
from knlocal.project.objects import Origin
from knlocal.project.settings import Earlier, Service, Settings
from knlocal.project.sources import Sources, Wanted, wanted
from knlocal.resources.annotations import RUN
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
        self.applied: Callable[[], Awaitable[None]] | None = None
        """Awaited after every whole apply."""

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
                keep={self._key(name) for name in prepared.failed if self._can_go_on(name)},
                inventory=self._inventory,
            )
        for problem in outcome.problems:
            self._told.problem("", str(problem))
        for warning in outcome.warnings:
            self._told.note("", warning)
        if self.applied is not None:
            await self.applied()
        return outcome

    def use(self, settings: Settings) -> None:
        """Go on with settings that were read anew."""
        self.settings = settings
        self.sources.settings = settings

    async def apply_services(
        self, names: set[str], changed: Callable[[str], object] = lambda _name: None
    ) -> None:
        """Only these services, because only their sources changed; each as soon as it is built.
        `changed` is told, at once, those that did."""
        if any(self._store.find_key(self._key(name)) is None for name in names):
            await self.apply()  # one that could not be built before: it is not in the books yet
            for name in names:
                changed(name)
            return
        async with self._one_at_a_time:
            await asyncio.gather(*(self._apply_service(name, changed) for name in sorted(names)))

    async def _apply_service(self, name: str, changed: Callable[[str], object]) -> None:
        prepared = await self._prepare({name})
        if name in prepared.failed | prepared.impossible:
            return
        table = self.settings.services[name]
        obj = objects.service_object(self.settings, name, table, prepared.origins)
        try:
            change = await apply.apply_one(obj, apply.StoreTarget(self._store))
        except StatusError as error:
            self._told.problem(name, error.message)
            return
        if change.what != "unchanged":
            changed(name)

    def _read_manifests(self) -> list[Manifest]:
        found = manifests.load(self.settings.project.manifests, self.settings.root)
        for manifest in found:
            if manifest.note:
                self._told.note("", f"{manifest.place}: {manifest.note}")
        unknown = manifests.check_kinds(found, self._store.registry)
        for manifest in unknown:
            what = f"{manifest.obj['kind']} ({manifest.obj['apiVersion']})"
            self._told.note("", f"{manifest.place}: {what} is not simulated; left out")
        left_out = {id(manifest) for manifest in unknown}
        return [manifest for manifest in found if id(manifest) not in left_out]

    def _can_go_on(self, name: str) -> bool:
        """Whether the last good code of a service runs here: local processes are told what to run,
        containers are not, so neither can stand in for the other."""
        live = self._store.find_key(self._key(name))
        if live is None:
            return True
        is_process = RUN in annotations_of(live["spec"]["template"])
        return is_process == (self.sources.runtime == "process")

    async def _make_earlier_revisions(self, prepared: Prepared, without: set[str]) -> None:
        """`[services.X.revisions.Y]`: have the Service make them first, one after the other."""
        for name, service in self.settings.services.items():
            if name in without:
                continue
            earlier = objects.earlier_objects(self.settings, name, service, prepared.origins)
            for revision, obj in earlier:
                key = Key(REVISION.group, REVISION.kind, self._key(name).namespace, revision)
                made = self._store.find_key(key)
                if made is not None and _is_made_of(made, obj, service.revisions[revision]):
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

    async def _prepare(self, only: set[str] | None = None) -> Prepared:
        prepared = Prepared()
        services = self.settings.services
        names = services.keys() if only is None else only & services.keys()
        if self.sources.runtime == "process":
            for name in sorted(names):
                if not _runs_as_process(services[name]):
                    prepared.impossible.add(name)
                    self._told.note(name, "needs Docker (it runs images); left out")
        possible = names - prepared.impossible
        wants = [want for want in wanted(self.settings) if want.service in possible]
        await asyncio.gather(*(self._prepare_one(want, prepared) for want in wants))
        return prepared

    async def _prepare_one(self, want: Wanted, prepared: Prepared) -> None:
        try:
            origin = await self.sources.origin(want, self._told.build)
        except (BuildFailure, ProjectError) as error:
            prepared.failed.add(want.service)
            self._told.problem(want.service, str(error).removeprefix(f"{want.service}: "))
        else:
            prepared.origins[want.service, want.container] = origin


def _is_made_of(revision: Obj, service: Obj, table: Earlier) -> bool:
    """Whether a Revision is what its table still says. Code that the table does not name is what
    it was when the Revision was made: a save of the service's source changes nothing about it."""
    template = service["spec"]["template"]
    wanted = template["spec"]["containers"][0]
    has = revision["spec"]["containers"][0]
    annotations = template.get("metadata", {}).get("annotations") or {}
    if (RUN in annotations) != (RUN in annotations_of(revision)):
        return False  # made for the other runtime
    if (table.image or table.source) and wanted["image"] != has["image"]:
        return False
    return bool((wanted.get("env") or []) == (has.get("env") or []))


def _runs_as_process(service: Service) -> bool:
    """Whether a service can do without images: one container, from a folder or a command."""
    tables = [service, *service.containers.values(), *service.init.values()]
    return all(table.source or table.run for table in tables)


__all__ = ["Outcome", "Prepared", "Problem", "ProjectDoor", "Told"]
