"""Images: what is here, and fetching what is not."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from knlocal.runtime.api import ImageInfo, ImageMissing, RegistryAuth
from knlocal.runtime.docker_client import DockerSDK
from knlocal.runtime.docker_http import Engine, EngineRefused

#: Seconds without any word from the engine after which a pull counts as stuck.
PULL_SILENCE = 300.0

Progress = Callable[[str], None]


async def find(engine: Engine, image: str) -> ImageInfo | None:
    """By tag, by digest, or by id; a digest may be an image id, as `ImageInfo.digest` gives it."""
    for name in dict.fromkeys((image, local_name(image))):
        try:
            return _info(image, await engine.get(f"/images/{quote(name, safe='/:@')}/json"))
        except EngineRefused as refused:
            # 400: not a name at all. Pulling it will say so; here it is simply not known.
            if refused.status not in {400, 404}:
                raise
    return None


def local_name(image: str) -> str:
    """`repo@sha256:…` as an id, for images that were built here and have no repo digest."""
    return "sha256:" + image.partition("@sha256:")[2] if "@sha256:" in image else image


async def pull(
    engine: Engine,
    sdk: DockerSDK,
    image: str,
    auth: RegistryAuth | None,
    progress: Progress | None,
) -> ImageInfo:
    """Fetch; `progress` is given lines for people. ImageMissing in the registry's words."""
    if not re.fullmatch(r"[a-z0-9][\w.:/@+-]*", image, re.ASCII) or image.startswith("sha256:"):
        raise invalid_name(image)
    login = auth or await sdk.registry_auth(image)
    headers = {"X-Registry-Auth": _encode(login)} if login else {}
    error = ""
    try:
        async with engine.stream(
            "POST",
            "/images/create",
            params=_reference(image),
            headers=headers,
            silence=PULL_SILENCE,
        ) as body:
            shown = _Shown(progress)
            while line := await body.readline():
                if line.strip():
                    word = json.loads(line)
                    error = str(word.get("error") or error)
                    shown.add(word)
    except EngineRefused as refused:
        error = refused.message
    if not error and (found := await find(engine, image)):
        return found
    raise ImageMissing(
        f'failed to pull image "{image}": {error or "the engine does not have it after the pull"}'
    )


def invalid_name(image: str) -> ImageMissing:
    """In the kubelet's words (kubernetes `pkg/kubelet/images/image_manager.go`)."""
    return ImageMissing(
        f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}":'
        " invalid reference format",
        "InvalidImageName",
    )


class _Shown:
    """Progress for people: each layer's phase once, and its bytes at most every tenth."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._last: dict[str, tuple[str, int]] = {}

    def add(self, word: Mapping[str, Any]) -> None:
        if self._progress is None or "status" not in word:
            return
        layer, status = str(word.get("id", "")), str(word["status"])
        detail = word.get("progressDetail") or {}
        done, total = int(detail.get("current") or 0), int(detail.get("total") or 0)
        step = done * 10 // total if total else 0
        if self._last.get(layer) == (status, step):
            return
        self._last[layer] = (status, step)
        amount = f" {done / 1e6:.1f}/{total / 1e6:.1f} MB" if total else ""
        self._progress(f"{layer + ': ' if layer else ''}{status}{amount}")


def _reference(image: str) -> dict[str, str]:
    """The engine takes a digest as the tag; without either it would fetch every tag."""
    name, _, digest = image.partition("@")
    if digest:
        return {"fromImage": name, "tag": digest}
    repository, colon, tag = name.rpartition(":")
    if colon and "/" not in tag:
        return {"fromImage": repository, "tag": tag}
    return {"fromImage": name, "tag": "latest"}


def _encode(login: RegistryAuth | str) -> str:
    content = (
        {"identitytoken": login}
        if isinstance(login, str)
        else {"username": login.username, "password": login.password}
    )
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


def _info(asked: str, shown: Mapping[str, Any]) -> ImageInfo:
    config = shown.get("Config") or {}
    ports = (re.match(r"\d+", port) for port in config.get("ExposedPorts") or {})
    env = (pair.partition("=") for pair in config.get("Env") or ())
    return ImageInfo(
        id=str(shown["Id"]),
        digest=_digest(asked, shown),
        user=str(config.get("User") or ""),
        entrypoint=tuple(config.get("Entrypoint") or ()),
        cmd=tuple(config.get("Cmd") or ()),
        env={name: value for name, _, value in env},
        working_dir=str(config.get("WorkingDir") or ""),
        exposed_ports=tuple(sorted(int(port.group()) for port in ports if port)),
    )


def _digest(asked: str, shown: Mapping[str, Any]) -> str:
    """`repo@sha256:…`: the repo digest of the repository asked for, else the image id under it."""
    if "@sha256:" in asked:
        return asked
    known = [str(digest) for digest in shown.get("RepoDigests") or ()]
    repository = _repository(asked)
    if not repository:  # asked by id
        if known:
            return known[0]
        tags = [tag for tag in shown.get("RepoTags") or () if not tag.startswith("<none>")]
        if not tags:
            return str(shown["Id"])
        repository = _repository(tags[0])
    for digest in known:
        if _full(digest.partition("@")[0]) == _full(repository):
            return digest
    return f"{repository}@{shown['Id']}"


def _repository(image: str) -> str:
    """Without tag; "" for an id."""
    if re.fullmatch(r"(sha256:)?[0-9a-f]{12,64}", image):
        return ""
    name, colon, tag = image.rpartition(":")
    return name if colon and "/" not in tag else image


def _full(repository: str) -> str:
    """Docker Hub's short names written out, so that spellings compare."""
    first, slash, rest = repository.partition("/")
    if slash and first in {"docker.io", "index.docker.io"}:
        return _full(rest)
    if slash and ("." in first or ":" in first or first == "localhost"):
        return repository
    return repository if slash else f"library/{repository}"
