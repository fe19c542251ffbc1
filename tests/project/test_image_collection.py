"""Images of earlier builds go when no object names them."""

from pathlib import Path

from knlocal.build.api import BuiltImage
from knlocal.build.builders import Builders
from knlocal.build.docker import DockerBuilder
from knlocal.clock import VirtualClock
from knlocal.project import config
from knlocal.project.apply import ensure_namespace
from knlocal.project.home import Home
from knlocal.project.reload import images_in_use
from knlocal.project.sources import BUILT_FOR, Sources
from knlocal.resources import catalog
from knlocal.store.store import Store


class Shelf(DockerBuilder):
    """An engine with these images, the newest first."""

    def __init__(self, *images: BuiltImage) -> None:
        self.images = list(images)

    async def built(self, label: str) -> list[BuiltImage]:
        assert label == BUILT_FOR
        return list(self.images)

    async def remove(self, image: str) -> bool:
        self.images = [one for one in self.images if image not in (one.name, one.id)]
        return True

    async def close(self) -> None:
        return


def image(name: str, service: str = "hello", project: str = "shop") -> BuiltImage:
    return BuiltImage(name, f"id-{name}", f"{project}/{service}")


async def test_older_images_that_no_object_names_are_removed(tmp_path: Path) -> None:
    store = Store(catalog.registry(), VirtualClock())
    ensure_namespace(store, "default")
    containers = {
        "containers": [{"name": "c", "image": "hello:5"}],
        "initContainers": [{"name": "i", "image": "hello:1"}],
    }
    metadata = {"name": "p", "namespace": "default"}
    store.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": containers})
    shelf = Shelf(
        *(image(f"hello:{n}") for n in range(6)),
        image("", "hello"),
        image("orders:0", "orders"),
        image("hello:other", project="another"),
    )
    builders = Builders()
    builders._made["docker"] = shelf
    settings = config.parse('[project]\nname = "shop"', root=tmp_path)
    sources = Sources(settings, Home(tmp_path / ".knlocal"), "docker", builders)
    await sources.collect(images_in_use(store))
    assert [one.name for one in shelf.images] == [
        "hello:0", "hello:1", "hello:2", "hello:3", "hello:5", "orders:0", "hello:other",
    ]  # fmt: skip
