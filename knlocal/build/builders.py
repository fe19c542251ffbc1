"""Which builders there are: one line for each."""

from __future__ import annotations

from collections.abc import Callable

from knlocal.build.api import Builder
from knlocal.build.buildkit import BuildKitBuilder
from knlocal.build.buildpacks import BuildpacksBuilder
from knlocal.build.docker import DockerBuilder
from knlocal.build.kaniko import KanikoBuilder

BUILDERS: dict[str, Callable[[int], Builder]] = {
    "docker": DockerBuilder,
    "buildkit": BuildKitBuilder,
    "buildpacks": BuildpacksBuilder,
    "kaniko": KanikoBuilder,
}


class Builders:
    """Builders by name, made when first asked for. `usual` is for who names none."""

    def __init__(self, usual: str = "docker", parallel: int = 2) -> None:
        self._usual = usual
        self._parallel = parallel
        self._made: dict[str, Builder] = {}

    def get(self, name: str | None = None) -> Builder:
        wanted = name or self._usual
        if wanted not in self._made:
            self._made[wanted] = BUILDERS[wanted](self._parallel)
        return self._made[wanted]

    async def close(self) -> None:
        for builder in self._made.values():
            await builder.close()
