"""Builds with the Docker engine's own builder: no BuildKit is needed."""

from __future__ import annotations

import asyncio
import io
import json
import re
import tarfile
import tempfile
from contextlib import aclosing
from typing import IO
from urllib.parse import quote

from knlocal.build import dockerfile
from knlocal.build.api import Builder, BuildFailure, BuildRequest, BuiltImage, Progress
from knlocal.build.commands import plain_lines
from knlocal.build.engine import Engine, EngineRefused, EngineSilent
from knlocal.build.ignore import Ignore
from knlocal.build.recipe import BASE_IMAGE_VARIABLE

#: Lines of a failed step's output that are shown.
TAIL = 20

#: What the engine says about itself rather than about the build.
_NOISE = re.compile(r"^ ?(---> |Removing intermediate container |Successfully (built|tagged) )")


class DockerBuilder(Builder):
    """The engine behind `DOCKER_HOST`, or the local one."""

    name = "docker"

    def __init__(self, parallel: int = 2) -> None:
        self._engine = Engine()

    async def problem(self) -> str | None:
        try:
            await self._engine.get("/_ping")
        except (EngineSilent, EngineRefused) as why:
            return f"no Docker engine answers: {why}"
        return None

    async def image_id(self, image: str) -> str | None:
        try:
            found = await self._engine.image(image)
        except (EngineSilent, EngineRefused) as error:
            raise BuildFailure(image, f"Docker does not answer: {error}") from None
        return str(found["Id"]) if found else None

    async def build(self, request: BuildRequest, progress: Progress) -> str:
        context = await asyncio.to_thread(_context, request)
        params = {
            "dockerfile": _GENERATED if request.generated else request.dockerfile_name,
            "t": request.image,
            "buildargs": json.dumps(dict(request.args)),
            "labels": json.dumps(dict(request.labels)),
            "target": request.target or "",
            "rm": "1",
            "forcerm": "1",
        }
        try:
            with context:
                image = await self._follow(request, context, params, progress)
            return image or await self.image_id(request.image) or ""
        except EngineRefused as error:
            raise _refused(request, str(error)) from None
        except EngineSilent as error:
            raise BuildFailure(request.name, f"Docker does not answer: {error}") from None

    async def built(self, label: str) -> list[BuiltImage]:
        filters = quote(json.dumps({"label": [label]}))
        try:
            found = await self._engine.get(f"/images/json?filters={filters}")
        except (EngineSilent, EngineRefused):
            return []
        found = sorted(found, key=lambda one: int(one.get("Created") or 0), reverse=True)
        return [
            BuiltImage(name, str(one["Id"]), str((one.get("Labels") or {}).get(label, "")))
            for one in found
            for name in [n for n in one.get("RepoTags") or () if n != "<none>:<none>"] or [""]
        ]

    async def remove(self, image: str) -> bool:
        try:
            await self._engine.delete(f"/images/{quote(image, safe='/:@')}")
        except (EngineSilent, EngineRefused):
            return False
        return True

    async def close(self) -> None:
        await self._engine.close()

    async def _follow(
        self, request: BuildRequest, context: IO[bytes], params: dict[str, str], told: Progress
    ) -> str:
        image, step = "", 0
        said: list[str] = []
        async with aclosing(self._engine.build(context, params)) as messages:
            async for message in messages:
                if (aux := message.get("aux")) and aux.get("ID"):
                    image = str(aux["ID"])
                if "status" in message and not message.get("progressDetail"):
                    told(" ".join(filter(None, (message.get("id"), message["status"]))))
                for line in plain_lines(str(message.get("stream", ""))):
                    if found := re.match(r"Step (\d+)/\d+ : ", line):
                        step, said = int(found[1]), []
                    elif not _NOISE.match(line):
                        said.append(line)
                    if not _NOISE.match(line):
                        told(line)
                if "error" in message:
                    raise _failed(request, step, str(message["error"]), said)
        return image


def _failed(request: BuildRequest, step: int, what: str, said: list[str]) -> BuildFailure:
    instruction = dockerfile.step_line(dockerfile.parse(request.dockerfile), step)
    found = re.match(r"The command '(.*)' returned a non-zero code: (\d+)", what, re.S)
    what = f"the command failed with exit code {found[2]}" if found else what.strip()
    base = instruction.value.split(" ")[0] if instruction and instruction.name == "FROM" else ""
    if base and not said:
        base = dockerfile.substituted(base, request.args)
        what = f"the base image {base} is not here and cannot be fetched: {what}"
    return BuildFailure(
        request.name,
        what,
        file=request.dockerfile_name,
        line=instruction.line if instruction and not request.generated else 0,
        step=f"{instruction.name} {instruction.value}" if instruction else "",
        tail="\n".join(said[-TAIL:]),
        hint=_another_base(request) if base and not said else "",
    )


def _another_base(request: BuildRequest) -> str:
    asks = {"BASE_IMAGE", "BASE"} & dockerfile.arguments(request.dockerfile)
    if request.generated or asks:
        return (
            f"`docker pull` it, or name one that Docker has: {BASE_IMAGE_VARIABLE}=IMAGE in the "
            'environment, or base_image = "IMAGE" under [build]'
        )
    return "`docker pull` it where its registry answers, or change the Dockerfile's FROM"


def _refused(request: BuildRequest, what: str) -> BuildFailure:
    """The engine did not even begin: a Dockerfile it cannot read names its own line."""
    found = re.search(r"parse error (?:on )?line (\d+):? ?(.*)", what, re.S)
    line = int(found[1]) if found else 0
    said = found[2] if found and found[2] else what
    return BuildFailure(request.name, said, file=request.dockerfile_name, line=line)


_GENERATED = ".knlocal.Dockerfile"


def _context(request: BuildRequest) -> IO[bytes]:
    """The build context as a tar: the folder without what .dockerignore names."""
    ignored = Ignore(request.ignored)
    added = dict(request.files)
    if request.generated:
        # The engine takes what .dockerignore names out of the context once it has read it.
        added[_GENERATED] = request.dockerfile.encode()
        added[".dockerignore"] = f"{_GENERATED}\n.dockerignore\n".encode()
    else:
        added[request.dockerfile_name] = request.dockerfile.encode()
    buffer = tempfile.TemporaryFile()  # noqa: SIM115 (the SDK reads it until the build ends)
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, entry in ignored.walk(request.context):
            if path in added:
                continue
            try:
                tar.add(entry.path, path, recursive=False, filter=_plain)
            except FileNotFoundError:
                continue  # replaced by an editor just now
        for path, data in added.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Owner and exact mode are the machine's, not the source's: the layer cache must not care."""
    if not (info.isreg() or info.issym()):
        return None
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o755 if info.mode & 0o100 else 0o644
    return info
