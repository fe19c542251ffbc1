"""Builds with kaniko in a container: layers are made without the engine's own builder."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from knlocal.build import commands
from knlocal.build.api import BuildFailure, BuildRequest, Progress
from knlocal.build.context import export
from knlocal.build.docker import DockerBuilder

#: The executor's image; `KNLOCAL_KANIKO_IMAGE` names another one.
USUAL = "gcr.io/kaniko-project/executor:latest"


class KanikoBuilder(DockerBuilder):
    """`docker run …/executor --no-push`, whose tar file the engine then loads."""

    name = "kaniko"

    @property
    def executor(self) -> str:
        return os.environ.get("KNLOCAL_KANIKO_IMAGE", USUAL)

    async def problem(self) -> str | None:
        if why := commands.missing("docker") or await super().problem():
            return why
        if await self.image_id(self.executor) is None:
            return f"its image is not here: docker pull {self.executor}"
        return None

    async def build(self, request: BuildRequest, progress: Progress) -> str:
        with tempfile.TemporaryDirectory(prefix="knlocal-build-") as folder:
            context = Path(folder) / "context"
            await asyncio.to_thread(export, request, context)
            (Path(folder) / "Dockerfile").write_text(request.dockerfile)
            command = [
                "docker", "run", "--rm", "-v", f"{folder}:/workspace", self.executor,
                "--context=dir:///workspace/context", "--dockerfile=/workspace/Dockerfile",
                f"--destination={request.image}", "--no-push", "--tar-path=/workspace/image.tar",
            ]  # fmt: skip
            for key, value in request.args.items():
                command.append(f"--build-arg={key}={value}")
            for key, value in request.labels.items():
                command.append(f"--label={key}={value}")
            if request.target:
                command.append(f"--target={request.target}")
            await commands.run(request, command, progress)
            await commands.run(request, ["docker", "load", "-i", f"{folder}/image.tar"], progress)
        found = await self.image_id(request.image)
        if found is None:
            raise BuildFailure(request.name, "the engine does not have the image after the build")
        return found
