from __future__ import annotations

import pytest

from knlocal.resources import images

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "name", "tag", "digest"),
    [
        ("busybox", "index.docker.io/library/busybox", "latest", ""),
        ("ghcr.io/acme/audit:1.4", "ghcr.io/acme/audit", "1.4", ""),
        ("localhost:5000/a/b", "localhost:5000/a/b", "latest", ""),
        ("ko.local/app:x", "ko.local/app", "x", ""),
        (f"acme/app@{DIGEST}", "index.docker.io/acme/app", "", DIGEST),
        (f"gcr.io/app:v1@{DIGEST}", "gcr.io/app", "v1", DIGEST),
    ],
)
def test_an_image_reference_is_taken_apart(text: str, name: str, tag: str, digest: str) -> None:
    image = images.parse(text)
    assert (image.name, image.tag, image.digest) == (name, tag, digest)


@pytest.mark.parametrize("text", ["foo:bar:baz", "UPPER/case", "a b", "x@sha256:12", ":tag", ""])
def test_a_broken_reference_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^could not parse reference: {text}"):
        images.parse(text)
