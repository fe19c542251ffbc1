"""Tags to digests through the engine: what is here counts, what is not is fetched."""

from __future__ import annotations

from collections.abc import Sequence

from knlocal.runtime.api import EngineUnavailable, ImageInfo, Runtime, RuntimeFailure
from knlocal.serving.image_resolver import ImageUnresolved
from knlocal.workloads.images import pull_credentials
from knlocal.workloads.node import Node


class EngineDigests:
    """Serving's ImageResolver over the runtime (local images need no registry)."""

    def __init__(self, runtime: Runtime, node: Node) -> None:
        self._runtime = runtime
        self._node = node

    async def resolve(self, image: str, pull_secrets: Sequence[str], namespace: str) -> str:
        try:
            found = await self._runtime.image(image) or await self._fetch(
                image, pull_secrets, namespace
            )
        except RuntimeFailure as error:
            raise ImageUnresolved(error.message) from error
        return found.digest

    async def _fetch(self, image: str, pull_secrets: Sequence[str], namespace: str) -> ImageInfo:
        secrets = [{"name": name} for name in pull_secrets]
        user = {"metadata": {"namespace": namespace}, "spec": {"imagePullSecrets": secrets}}
        failure: RuntimeFailure | None = None
        for auth in (*pull_credentials(self._node, user, image), None):
            try:
                return await self._runtime.pull(image, auth)
            except EngineUnavailable:
                raise
            except RuntimeFailure as error:
                failure = failure or error
        assert failure is not None
        raise failure
