"""Image references, parsed as Knative does (go-containerregistry `name`, weak validation)."""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_REGISTRY = "index.docker.io"
DEFAULT_TAG = "latest"

_REPOSITORY = re.compile(r"[a-z0-9_\-./]{2,255}")
_TAG = re.compile(r"[A-Za-z0-9_\-.]{1,128}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REGISTRY = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._\-]+)(:[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Image:
    """A reference in parts. `registry` and `repository` are spelt out in full ("index.docker.io",
    "library/busybox"); `tag` is "latest" when neither tag nor digest was given."""

    text: str
    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Registry and repository: what a digest is appended to."""
        return f"{self.registry}/{self.repository}"


def parse(text: str) -> Image:
    """The parts of an image reference. Raises ValueError with go-containerregistry's words."""
    image = _tagged(text) or _digested(text)
    if image is None:
        raise ValueError(f"could not parse reference: {text}")
    return image


def _tagged(text: str) -> Image | None:
    base, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        base, tag = text, ""
    if tag and not _TAG.fullmatch(tag):
        return None
    return _repository(text, base, tag=tag or DEFAULT_TAG)


def _digested(text: str) -> Image | None:
    base, at, digest = text.partition("@")
    if not at or not _DIGEST.fullmatch(digest):
        return None
    name, colon, tag = base.rpartition(":")
    if colon and "/" not in tag and _TAG.fullmatch(tag):
        base = name
    else:
        tag = ""
    return _repository(text, base, tag=tag, digest=digest)


def _repository(text: str, base: str, *, tag: str = "", digest: str = "") -> Image | None:
    registry, slash, repository = base.partition("/")
    if not slash or not (any(char in registry for char in ".:") or registry == "localhost"):
        registry, repository = DEFAULT_REGISTRY, base
    if registry == "docker.io":
        registry = DEFAULT_REGISTRY
    if not _REGISTRY.fullmatch(registry) or not _REPOSITORY.fullmatch(repository):
        return None
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"library/{repository}"
    return Image(text, registry, repository, tag, digest)
