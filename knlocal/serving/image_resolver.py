"""Tags become digests once per revision, so that a revision stays what it was (B90 to B93)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from knlocal.clock import Clock
from knlocal.resources import images
from knlocal.resources.base import Obj, spec_of
from knlocal.serving.config import Config
from knlocal.serving.kinds import SERVICE_ACCOUNT
from knlocal.store.store import Store


class ImageUnresolved(Exception):
    """No digest could be found; the message is the registry's (or engine's) own."""


class ImageResolver(Protocol):
    """What the daemon wires to the runtime."""

    async def resolve(self, image: str, pull_secrets: Sequence[str], namespace: str) -> str:
        """`repository@sha256:…` for an image by tag, or "" when this image has no digest and is to
        be run as it is. `pull_secrets` are names of Secrets in `namespace`. Raises
        ImageUnresolved."""


class KeepTags:
    """Resolves nothing: every image is run as it is written."""

    async def resolve(self, image: str, pull_secrets: Sequence[str], namespace: str) -> str:
        return ""


async def resolve_all(
    revision: Obj, resolver: ImageResolver, config: Config, store: Store, clock: Clock
) -> dict[str, list[dict[str, Any]]]:
    """`containerStatuses` and `initContainerStatuses` of a revision, in the order of its spec.

    Raises ImageUnresolved for the first container whose image cannot be resolved.
    """
    secrets = pull_secrets(revision, store)
    namespace = revision["metadata"]["namespace"]
    result: dict[str, list[dict[str, Any]]] = {}
    for field, shown in (
        ("containers", "containerStatuses"),
        ("initContainers", "initContainerStatuses"),
    ):
        statuses = []
        for container in spec_of(revision).get(field) or ():
            image = container.get("image") or ""
            digest = await _resolve(image, secrets, namespace, resolver, config, clock)
            status = {"name": container["name"]}
            if digest:
                status["imageDigest"] = digest
            statuses.append(status)
        if statuses:
            result[shown] = statuses
    return result


async def _resolve(
    image: str,
    secrets: Sequence[str],
    namespace: str,
    resolver: ImageResolver,
    config: Config,
    clock: Clock,
) -> str:
    try:
        parsed = images.parse(image)
    except ValueError as error:
        raise ImageUnresolved(f'Unable to fetch image "{image}": {error}') from None
    if parsed.digest:
        return image
    if parsed.registry in config.deployment.registries_skipping_tag_resolving:
        return ""
    seconds = config.deployment.digest_resolution_timeout
    try:
        digest = await clock.wait_for(resolver.resolve(image, secrets, namespace), seconds)
        return str(digest)
    except ImageUnresolved as error:
        raise ImageUnresolved(f'Unable to fetch image "{image}": {error}') from None
    except TimeoutError:
        raise ImageUnresolved(
            f'Unable to fetch image "{image}": failed to resolve image to digest: '
            f"no answer within {seconds:g}s"
        ) from None


def pull_secrets(revision: Obj, store: Store) -> list[str]:
    """Names of the pull secrets of a revision and of its service account."""
    spec, namespace = spec_of(revision), revision["metadata"]["namespace"]
    account = store.find(SERVICE_ACCOUNT, namespace, spec.get("serviceAccountName") or "default")
    references = [
        *(spec.get("imagePullSecrets") or ()),
        *((account or {}).get("imagePullSecrets") or ()),
    ]
    return list(dict.fromkeys(r["name"] for r in references if r.get("name")))
