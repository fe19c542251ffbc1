"""What a save changes is applied service by service: a slow build holds up nobody else."""

import asyncio
from pathlib import Path

import pytest

from knlocal.build.api import BuildFailure
from knlocal.clock import VirtualClock
from knlocal.project import config
from knlocal.project.door import ProjectDoor, Told
from knlocal.project.home import Home
from knlocal.project.objects import Origin
from knlocal.project.settings import Settings
from knlocal.project.sources import RuntimeName, Sources, Wanted
from knlocal.resources.base import GroupKind
from knlocal.resources.catalog import registry
from knlocal.store.store import Store

SERVICE = GroupKind("serving.knative.dev", "Service")
TOML = '[services.slow]\nsource = "."\n[services.quick]\nsource = "."\n'


class Builds(Sources):
    """Builds whatever is asked for, and `slow` only once it is let."""

    def __init__(self, settings: Settings, root: Path) -> None:
        super().__init__(settings, Home(root / ".knlocal"), "docker", None)
        self.version = 1
        self.let = asyncio.Event()
        self.let.set()
        self.failing: set[str] = set()

    async def origin(self, want: Wanted, told: object, *, mount: bool = True) -> Origin:
        if want.service in self.failing:
            raise BuildFailure("quick", "it failed")
        if want.service == "slow":
            await self.let.wait()
        run = {"command": ["true"], "dir": "/"} if self.runtime == "process" else None
        return Origin(f"{want.service}:{self.version}", run=run)


@pytest.fixture
def store() -> Store:
    return Store(registry(), VirtualClock())


def image(store: Store, name: str) -> str:
    service = store.get(SERVICE, "default", name)
    return str(service["spec"]["template"]["spec"]["containers"][0]["image"])


async def test_a_save_that_touches_several_services_waits_for_no_slow_build(
    store: Store, tmp_path: Path
) -> None:
    settings = config.parse(TOML, root=tmp_path)
    builds = Builds(settings, tmp_path)
    door = ProjectDoor(settings, store, builds, Told())
    await door.apply()
    builds.version = 2
    builds.let.clear()
    changed: asyncio.Queue[str] = asyncio.Queue()
    work = asyncio.create_task(door.apply_services({"slow", "quick"}, changed.put_nowait))
    assert await changed.get() == "quick"
    assert (image(store, "quick"), image(store, "slow")) == ("quick:2", "slow:1")
    builds.let.set()
    await work
    assert changed.get_nowait() == "slow"
    assert image(store, "slow") == "slow:2"


async def test_a_build_that_fails_leaves_the_others_alone(store: Store, tmp_path: Path) -> None:
    settings = config.parse(TOML, root=tmp_path)
    builds = Builds(settings, tmp_path)
    problems: list[tuple[str, str]] = []
    told = Told(problem=lambda name, text: problems.append((name, text)))
    door = ProjectDoor(settings, store, builds, told)
    await door.apply()
    builds.version, builds.failing = 2, {"quick"}
    await door.apply_services({"slow", "quick"})
    assert (image(store, "quick"), image(store, "slow")) == ("quick:1", "slow:2")
    assert problems == [("quick", "it failed")]


@pytest.mark.parametrize(("runtime", "left"), [("docker", {"quick"}), ("process", set())])
async def test_what_cannot_be_built_goes_on_only_on_the_runtime_it_was_made_for(
    store: Store, tmp_path: Path, runtime: RuntimeName, left: set[str]
) -> None:
    settings = config.parse(TOML, root=tmp_path)
    before = Builds(settings, tmp_path)
    before.runtime = runtime
    await ProjectDoor(settings, store, before, Told()).apply()
    now = Builds(settings, tmp_path)
    now.failing = {"quick"}
    await ProjectDoor(settings, store, now, Told()).apply()
    assert {obj["metadata"]["name"] for obj in store.list(SERVICE)} == {"slow", *left}
