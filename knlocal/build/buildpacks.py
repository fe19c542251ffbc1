"""Builds with Cloud Native Buildpacks, through `pack`: no Dockerfile is used."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from knlocal.build import commands
from knlocal.build.api import BuildRequest, Progress
from knlocal.build.context import export
from knlocal.build.docker import DockerBuilder

#: The image with the buildpacks; `KNLOCAL_BUILDPACKS_BUILDER` names another one.
USUAL = "paketobuildpacks/builder-jammy-base"


class BuildpacksBuilder(DockerBuilder):
    """`pack build`."""

    name = "buildpacks"

    async def problem(self) -> str | None:
        return commands.missing("pack") or await super().problem()

    async def build(self, request: BuildRequest, progress: Progress) -> str:
        with tempfile.TemporaryDirectory(prefix="knlocal-build-") as folder:
            context = Path(folder) / "context"
            await asyncio.to_thread(export, request, context)
            with_builder = os.environ.get("KNLOCAL_BUILDPACKS_BUILDER", USUAL)
            command = [
                "pack", "build", request.image, "--path", str(context), "--builder", with_builder,
                "--pull-policy", "if-not-present",
            ]  # fmt: skip
            for key, value in request.args.items():
                command += ["--env", f"{key}={value}"]
            await commands.run(request, command, progress)
        return await self.image_id(request.image) or ""
