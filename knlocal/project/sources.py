"""From the `source` folders of a project to what runs: a snapshot, and on Docker an image.

Nothing changed, nothing built: images are named by the content they were made from. Where only
source files changed, the last image serves again with the new snapshot mounted over its copy.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from knlocal.build.api import Builder, BuildFailure, BuildRequest
from knlocal.build.builders import Builders
from knlocal.build.context import Scanner, SourceFile, digest
from knlocal.build.dockerfile import parse, substituted
from knlocal.build.environments import Environments
from knlocal.build.ignore import Ignore, from_gitignore, read
from knlocal.build.node import must_build
from knlocal.build.recipes import NotASource, Options, Recipe, recognise
from knlocal.build.snapshots import Snapshots, SourceChanged
from knlocal.project.config import FILE_NAME, line_of
from knlocal.project.debugging import debugged
from knlocal.project.errors import Problem, ProjectError
from knlocal.project.home import Home
from knlocal.project.objects import Origin
from knlocal.project.settings import Build, Container, Settings

#: Images under this name are never looked up in a registry (Knative's dev.local).
PREFIX = "dev.local"
#: On images: the project and the container they were built for.
BUILT_FOR = "dev.knlocal.built-for"
#: Images of a container that are kept beside those in use: the next switch of branches needs none.
KEPT_IMAGES = 3
#: How often a folder that keeps changing is looked at again before we take what there is.
TRIES = 20

RuntimeName = Literal["docker", "process"]
Told = Callable[[str, str], None]
"""Called with a service's name and one line about its build."""


class Wanted(NamedTuple):
    """One container that is made from a folder or a command."""

    service: str
    container: str
    """"" for the main one, "init:NAME" for init containers, "revision:NAME" for the main one of
    an earlier revision."""
    table: Container

    @property
    def name(self) -> str:
        return f"{self.service}/{self.container}" if self.container else self.service


def wanted(settings: Settings) -> Iterator[Wanted]:
    """Everything in the project that has a source or a command to run."""
    for name, service in settings.services.items():
        tables: dict[str, Container] = {"": service, **service.containers}
        tables |= {f"init:{key}": table for key, table in service.init.items()}
        for container, table in tables.items():
            if table.source or table.run:
                yield Wanted(name, container, table)
        for revision, earlier in service.revisions.items():
            if earlier.source:
                changed = service.model_copy(update={"source": earlier.source, "run": None})
                yield Wanted(name, f"revision:{revision}", changed)


class Looked(NamedTuple):
    """What a source folder holds right now."""

    folder: Path
    recipe: Recipe
    ignored: tuple[str, ...]
    files: tuple[SourceFile, ...]


def ignored_in(folder: Path, recipe: Recipe) -> list[str]:
    """Patterns of what does not count. A Dockerfile may copy what git ignores (built files); a
    folder that nobody wrote one for has only source."""
    own = read(folder, f"{recipe.dockerfile_name}.dockerignore") or read(folder)
    return own if not recipe.generated else [*from_gitignore(read(folder, ".gitignore")), *own]


class Sources:
    """Makes origins. Keeps in mind what it built, and what it read, for the next save."""

    def __init__(
        self, settings: Settings, home: Home, runtime: RuntimeName, builders: Builders | None
    ) -> None:
        self.settings = settings
        self._home = home
        self.runtime = runtime
        self._builders = builders
        self._scanner = Scanner()
        self.snapshots = Snapshots(home.snapshots)
        self.environments = Environments(home.folder / "environments")
        self._slots = asyncio.Semaphore(settings.build.parallel)
        self._images_building = 0
        self.has_built = True
        """Whether there may be images that nobody needs any more."""
        self.debugged: dict[str, str] = {}
        """Language of each service that waits for a debugger."""

    @property
    def building(self) -> int:
        """How many images and environments are being made, or wait for their turn."""
        return self._images_building + self.environments.working

    def folders(self) -> Iterator[tuple[Wanted, Path]]:
        """Where each source lies."""
        for want in wanted(self.settings):
            context = (want.table.build or Build()).context or want.table.source or "."
            yield want, (self.settings.root / context).resolve()

    async def origin(self, want: Wanted, told: Told, *, mount: bool = True) -> Origin:
        """What a container is made of now. Raises ProjectError or BuildFailure.

        `mount` False always builds what changed, instead of mounting a snapshot over it.
        """
        looked = await asyncio.to_thread(self.look, want)
        if self.runtime == "process":
            origin = await self._process_origin(want, looked, told)
        else:
            origin = await self._docker_origin(want, looked, told, mount)
        if not self._is_debugged(want):
            return origin
        self.debugged[want.service] = looked.recipe.language
        in_container = self.runtime == "docker"
        return debugged(
            self.settings, want.service, looked.recipe, origin, in_container=in_container
        )

    def _is_debugged(self, want: Wanted) -> bool:
        return not want.container and self.settings.services[want.service].debug

    def look(self, want: Wanted) -> Looked:
        """Read a source folder: what it is, and its files. Runs on a thread: it may be large."""
        where = f"[services.{want.service}]"
        folder = (self.settings.root / (want.table.source or ".")).resolve()
        build = want.table.build or Build()
        if build.context:
            folder = (self.settings.root / build.context).resolve()
        if not folder.is_dir():
            line = line_of(self.settings.root, "services", want.service, "source")
            what = f"no such folder: {want.table.source}"
            raise ProjectError(Problem(FILE_NAME, what, f"{where} source", line=line))
        try:
            recipe = recognise(folder, self._options(build, debug=self._is_debugged(want)))
        except NotASource as error:
            if not want.table.run:
                hint = 'or say how: run = "…"' if "nothing here" in str(error) else ""
                line = line_of(self.settings.root, "services", want.service)
                raise ProjectError(Problem(FILE_NAME, str(error), where, hint, line)) from None
            recipe = Recipe("command", None)
        if want.table.run:
            recipe = replace(recipe, run=tuple(want.table.run))
        ignored = tuple(ignored_in(folder, recipe))
        return Looked(folder, recipe, ignored, tuple(self._scanner.scan(folder, Ignore(ignored))))

    def _options(self, build: Build, *, debug: bool = False) -> Options:
        common = self.settings.build
        return Options(
            dockerfile=build.dockerfile or common.dockerfile,
            base_image=build.base_image or common.base_image,
            args={**common.args, **build.args},
            target=build.target or common.target,
            debug=debug,
            buildpacks=(build.builder or common.builder) == "buildpacks",
        )

    # -- local processes ----------------------------------------------------------------------

    async def _process_origin(self, want: Wanted, looked: Looked, told: Told) -> Origin:
        recipe, link = await self._with_needs(want, looked, told)
        if recipe.run is None:
            raise ProjectError(
                Problem(
                    "knlocal.toml",
                    "cannot run as a local process",
                    f"[services.{want.service}]",
                    recipe.why_not or 'say how to run it: run = "…"',
                )
            )
        looked, tree = await self._snapshot(want, looked, link)
        files = (*looked.files, *link)
        return Origin(
            image=self._image(want, digest(files, {"run": json.dumps(recipe.run)})),
            deploy=recipe.deploy,
            run={"command": list(recipe.run), "dir": str(tree)},
        )

    async def _with_needs(
        self, want: Wanted, looked: Looked, told: Told
    ) -> tuple[Recipe, tuple[SourceFile, ...]]:
        """The recipe with the libraries that it needs, and for Node a link to them."""
        recipe, folder = looked.recipe, looked.folder

        def progress(line: str) -> None:
            told(want.name, line)

        if recipe.run and recipe.run[0] == sys.executable and recipe.needs:
            python = await self.environments.python(want.name, folder, recipe, progress)
            return replace(recipe, run=(python, *recipe.run[1:])), ()
        if recipe.run and recipe.language == "node" and not want.table.run:
            modules = await self.environments.node_modules(
                want.name, folder, progress, builds=must_build(folder)
            )
            if modules is not None:  # Node looks for packages beside the program
                content = hashlib.sha256(str(modules).encode()).hexdigest()
                return recipe, (SourceFile("node_modules", content, "120000", str(modules)),)
        return recipe, ()

    async def _snapshot(
        self, want: Wanted, looked: Looked, more: tuple[SourceFile, ...] = ()
    ) -> tuple[Looked, Path]:
        """The snapshot of the folder as it is, taken again when it changes meanwhile."""
        for _ in range(TRIES):
            try:
                return looked, await asyncio.to_thread(
                    self.snapshots.take, looked.folder, (*looked.files, *more)
                )
            except SourceChanged:
                looked = await asyncio.to_thread(self.look, want)
            except OSError as error:
                raise ProjectError(
                    Problem(str(self._home.snapshots), f"cannot be written: {error.strerror}")
                ) from None
        raise ProjectError(Problem(str(looked.folder), "keeps changing while it is read"))

    # -- images -------------------------------------------------------------------------------

    async def _docker_origin(self, want: Wanted, looked: Looked, told: Told, mount: bool) -> Origin:
        recipe = looked.recipe
        if recipe.dockerfile is None or self._builders is None:
            raise ProjectError(
                Problem(
                    "knlocal.toml",
                    "cannot be built into an image",
                    f"[services.{want.service}]",
                    'add a Dockerfile, or set runtime = "process" under [project]',
                )
            )
        builder = self._builders.get((want.table.build or Build()).builder)
        facts = await self._facts(want, recipe, builder)
        image = self._image(want, digest(looked.files, facts))
        origin = Origin(image, deploy=recipe.deploy)
        # Only the container that serves can have a snapshot mounted over its source.
        mount = mount and not want.container
        if await builder.image_id(image):
            self._remember(want, digest(looked.files, facts, self._rebuilds(recipe)), image)
            return origin
        parts = digest(looked.files, facts, self._rebuilds(recipe))
        last = self._remembered(want, parts)
        if mount and recipe.target and last and await builder.image_id(last):
            looked, tree = await self._snapshot(want, looked)
            over = {"dir": str(tree), "target": recipe.target}
            return replace(origin, image=last, snapshot=over)
        await self._build(builder, want, looked, image, told)
        self._remember(want, parts, image)
        return origin

    def image_of(self, want: Wanted, looked: Looked) -> str:
        """A name by content for where nothing is built: it does not know the base image here."""
        return self._image(want, digest(looked.files, self._own_facts(want, looked.recipe)))

    @staticmethod
    def _own_facts(want: Wanted, recipe: Recipe) -> dict[str, str]:
        """What an image depends on beside its files."""
        build = want.table.build or Build()
        return {
            "dockerfile": recipe.dockerfile or "",
            "target": build.target or "",
            **{f"arg.{key}": value for key, value in recipe.args.items()},
            **{f"file.{key}": data.hex() for key, data in recipe.files.items()},
        }

    async def _facts(self, want: Wanted, recipe: Recipe, builder: Builder) -> dict[str, str]:
        """The same with what is only known where it is built: the base as it is here."""
        facts = {**self._own_facts(want, recipe), "builder": builder.name}
        for instruction in parse(recipe.dockerfile or ""):
            if instruction.name == "FROM":
                base = substituted(instruction.value.split(" ")[0], recipe.args)
                facts[f"base.{base}"] = await builder.image_id(base) or ""
        return facts

    @staticmethod
    def _rebuilds(recipe: Recipe) -> Callable[[str], bool]:
        return Ignore(recipe.rebuild, always=())

    def _image(self, want: Wanted, content: str) -> str:
        name = want.name.replace(":", "-").replace("/", "-")
        return f"{PREFIX}/{self.settings.project.name}/{name}:{content[:16]}"

    async def _build(
        self, builder: Builder, want: Wanted, looked: Looked, image: str, told: Told
    ) -> None:
        recipe = looked.recipe
        assert recipe.dockerfile is not None
        build = want.table.build or Build()
        request = BuildRequest(
            name=want.name,
            image=image,
            context=looked.folder,
            ignored=looked.ignored,
            dockerfile=recipe.dockerfile,
            dockerfile_name=recipe.dockerfile_name,
            generated=recipe.generated,
            files=recipe.files,
            args={**self.settings.build.args, **recipe.args, **build.args},
            target=build.target or self.settings.build.target,
            labels={BUILT_FOR: f"{self.settings.project.name}/{want.name}"},
        )
        self._images_building += 1
        try:
            async with self._slots:
                with_what = "" if builder.name == "docker" else f" with {builder.name}"
                told(want.name, f"building from {recipe.kind}{with_what}")
                await builder.build(request, lambda line: told(want.name, line))
                self.has_built = True
                told(want.name, f"built {image}")
        finally:
            self._images_building -= 1

    async def collect(self, in_use: Collection[str]) -> None:
        """Remove the project's older images that no object names."""
        if self._builders is None or not self.has_built:
            return
        self.has_built = False
        builder, prefix = self._builders.get(), f"{self.settings.project.name}/"
        kept: dict[str, int] = {}
        for image in await builder.built(BUILT_FOR):
            if not image.label.startswith(prefix) or image.name in in_use:
                continue
            kept[image.label] = kept.get(image.label, 0) + bool(image.name)
            if not image.name or kept[image.label] > KEPT_IMAGES:
                await builder.remove(image.name or image.id)

    # -- which image was built from which dependencies -----------------------------------------

    @property
    def _notes(self) -> Path:
        return self._home.folder / "builds.json"

    def _read_notes(self) -> dict[str, str]:
        try:
            found = json.loads(self._notes.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _remembered(self, want: Wanted, parts: str) -> str | None:
        return self._read_notes().get(f"{want.name} {parts[:24]}")

    def _remember(self, want: Wanted, parts: str, image: str) -> None:
        notes = self._read_notes()
        if notes.get(key := f"{want.name} {parts[:24]}") != image:
            # Newest first; what is older than a few hundred builds is forgotten.
            notes = dict(list({key: image, **notes}.items())[:500])
            self._notes.write_text(json.dumps(notes, indent=1))


__all__ = ["BuildFailure", "Looked", "Sources", "Wanted", "wanted"]
