"""Builds with BuildKit, through `docker buildx`."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from knlocal.build import commands
from knlocal.build.api import BuildRequest, Progress
from knlocal.build.context import export
from knlocal.build.docker import DockerBuilder


class BuildKitBuilder(DockerBuilder):
    """`docker buildx build --load`: newer Dockerfiles' cache mounts and heredocs work."""

    name = "buildkit"

    async def problem(self) -> str | None:
        if why := commands.missing("docker") or await super().problem():
            return why
        process = await asyncio.create_subprocess_exec(
            "docker", "buildx", "version",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        return "docker has no buildx plugin" if await process.wait() else None

    async def build(self, request: BuildRequest, progress: Progress) -> str:
        with tempfile.TemporaryDirectory(prefix="knlocal-build-") as folder:
            context = Path(folder) / "context"
            await asyncio.to_thread(export, request, context)
            file = Path(folder) / "Dockerfile"
            file.write_text(request.dockerfile)
            command = [
                "docker", "buildx", "build", "--load", "--progress=plain",
                "-t", request.image, "-f", str(file),
            ]  # fmt: skip
            for key, value in request.args.items():
                command += ["--build-arg", f"{key}={value}"]
            for key, value in request.labels.items():
                command += ["--label", f"{key}={value}"]
            if request.target:
                command += ["--target", request.target]
            await commands.run(request, [*command, str(context)], progress)
        return await self.image_id(request.image) or ""
