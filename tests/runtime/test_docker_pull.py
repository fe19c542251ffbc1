"""Pulling images, from a real registry protocol on loopback."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from knlocal.runtime.api import ContainerPlan, ImageMissing, RegistryAuth, Runtime
from tests.images.registry import Registry
from tests.runtime.conftest import get, kept_house, pod_of

pytestmark = pytest.mark.docker


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[Runtime]:
    async with kept_house("docker", tmp_path) as house:
        yield await house.open()


async def _untag(*images: str) -> None:
    await asyncio.to_thread(
        subprocess.run, ["docker", "rmi", "-f", *images], capture_output=True, check=False
    )


@contextlib.asynccontextmanager
async def registry_with(login: tuple[str, str] | None = None) -> AsyncIterator[Registry]:
    async with Registry("knlocal-test/httpd:1", login) as registry:
        try:
            yield registry
        finally:
            names = [registry.image, f"{registry.host}/team/app@{registry.digest}"]
            await _untag(*names)


async def test_a_pulled_image_has_its_repo_digest_and_shows_progress(runtime: Runtime) -> None:
    async with registry_with() as registry:
        assert await runtime.image(registry.image) is None
        shown: list[str] = []
        found = await runtime.pull(registry.image, progress=shown.append)
        assert found.digest == f"{registry.host}/team/app@{registry.digest}"
        assert any("Pulling from team/app" in line for line in shown)
        assert any("Pull complete" in line or "Already exists" in line for line in shown)
        again = await runtime.pull(found.digest)
        assert (again.id, again.digest) == (found.id, found.digest)


async def test_a_missing_image_is_fetched_for_the_pod_that_needs_it(runtime: Runtime) -> None:
    async with registry_with() as registry:
        by_digest = f"{registry.host}/team/app@{registry.digest}"
        plan = pod_of(ContainerPlan("user", by_digest))
        await runtime.prepare(plan)
        await runtime.start_container(plan, "user")
        assert await get(runtime, plan) == "Hello World!\n"
        await runtime.remove(plan.id)


async def test_an_unknown_tag_is_refused_in_the_registrys_words(runtime: Runtime) -> None:
    async with registry_with() as registry:
        with pytest.raises(ImageMissing, match="manifest unknown|not found") as missing:
            await runtime.pull(f"{registry.host}/team/app:v2")
        assert missing.value.reason == "ErrImagePull"


async def test_a_login_is_taken_from_the_call_or_from_docker_login(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    async with registry_with(("me", "secret")) as registry:
        with pytest.raises(ImageMissing, match="auth|unauthorized|denied"):
            await runtime.pull(registry.image)
        with pytest.raises(ImageMissing, match="auth|unauthorized|denied"):
            await runtime.pull(registry.image, RegistryAuth("me", "wrong"))
        assert await runtime.pull(registry.image, RegistryAuth("me", "secret"))
        await _untag(registry.image)
        auths = {registry.host: {"auth": base64.b64encode(b"me:secret").decode()}}
        (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
        assert await runtime.pull(registry.image)
