"""Builds with the Docker engine's own builder, through the Docker SDK: no BuildKit is needed."""

from __future__ import annotations

import asyncio
import io
import re
import tarfile
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, TypeVar

import docker
import docker.errors
import requests.exceptions
from docker.utils import kwargs_from_env

from knlocal.build import dockerfile
from knlocal.build.api import Builder, BuildFailure, BuildRequest, Progress
from knlocal.build.ignore import Ignore

#: Seconds: for a question to the engine, and for silence in the middle of a build.
QUICK, SILENCE = 15, 900
#: Lines of a failed step's output that are shown.
TAIL = 20


#: What the engine says about itself rather than about the build.
_NOISE = re.compile(r"^ ?(---> |Removing intermediate container |Successfully (built|tagged) )")

Result = TypeVar("Result")


class DockerBuilder(Builder):
    """The engine behind `DOCKER_HOST`, or the local one."""

    name = "docker"

    def __init__(self, parallel: int = 2) -> None:
        self._pool = ThreadPoolExecutor(parallel + 2, thread_name_prefix="build")
        self._client: Any = None

    def _api(self) -> Any:
        if self._client is None:
            self._client = docker.APIClient(**kwargs_from_env(), timeout=SILENCE)
        return self._client

    async def problem(self) -> str | None:
        try:
            await self._in_thread(lambda: docker.from_env(timeout=QUICK).ping())
        except (
            docker.errors.DockerException,
            requests.exceptions.RequestException,
            OSError,
        ) as why:
            return f"no Docker engine answers: {str(why).splitlines()[0]}"
        return None

    async def image_id(self, image: str) -> str | None:
        def look() -> str | None:
            try:
                return str(self._api().inspect_image(image)["Id"])
            except docker.errors.ImageNotFound:
                return None

        try:
            return await self._in_thread(look)
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
            raise BuildFailure(image, f"Docker does not answer: {error}") from None

    async def build(self, request: BuildRequest, progress: Progress) -> str:
        loop = asyncio.get_running_loop()
        given_up = threading.Event()

        def told(line: str) -> None:
            loop.call_soon_threadsafe(progress, line)

        try:
            return await self._in_thread(lambda: self._build(request, told, given_up))
        except asyncio.CancelledError:
            given_up.set()
            raise

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    # -- on the thread ------------------------------------------------------------------------

    def _build(self, request: BuildRequest, told: Progress, given_up: threading.Event) -> str:
        try:
            output = self._api().build(
                fileobj=_context(request),
                custom_context=True,
                dockerfile=_GENERATED if request.generated else request.dockerfile_name,
                tag=request.image,
                buildargs=dict(request.args),
                target=request.target or "",
                labels=dict(request.labels),
                rm=True,
                forcerm=True,
                decode=True,
            )
            return self._follow(request, output, told, given_up)
        except docker.errors.APIError as error:
            what = str(error.explanation or error)
            raise _refused(request, what) from None
        except (docker.errors.DockerException, requests.exceptions.RequestException) as error:
            raise BuildFailure(request.name, f"Docker does not answer: {error}") from None

    def _follow(
        self, request: BuildRequest, output: Any, told: Progress, given_up: threading.Event
    ) -> str:
        image, step = "", 0
        said: list[str] = []
        for message in output:
            if given_up.is_set():
                output.close()
                raise BuildFailure(request.name, "given up")
            if (aux := message.get("aux")) and aux.get("ID"):
                image = aux["ID"]
            if "status" in message and not message.get("progressDetail"):
                told(" ".join(filter(None, (message.get("id"), message["status"]))))
            for line in str(message.get("stream", "")).splitlines():
                if found := re.match(r"Step (\d+)/\d+ : ", line):
                    step, said = int(found[1]), []
                elif line.strip() and not _NOISE.match(line):
                    said.append(line)
                if line.strip() and not _NOISE.match(line):
                    told(line)
            if "error" in message:
                raise _failed(request, step, str(message["error"]), said)
        return image or str(self._api().inspect_image(request.image)["Id"])


def _failed(request: BuildRequest, step: int, what: str, said: list[str]) -> BuildFailure:
    instruction = dockerfile.step_line(dockerfile.parse(request.dockerfile), step)
    found = re.match(r"The command '(.*)' returned a non-zero code: (\d+)", what, re.S)
    what = f"the command failed with exit code {found[2]}" if found else what.strip()
    return BuildFailure(
        request.name,
        what,
        file=request.dockerfile_name,
        line=instruction.line if instruction and not request.generated else 0,
        step=f"{instruction.name} {instruction.value}" if instruction else "",
        tail="\n".join(said[-TAIL:]),
    )


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
