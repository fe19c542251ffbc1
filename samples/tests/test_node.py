"""The plain Node folder, which has a project of its own."""

import shutil

import pytest

pytestmark = [
    pytest.mark.knlocal(folder="../node", runtime="process"),
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
]


def test_the_clock_knows_zones(knlocal) -> None:
    assert knlocal.service("clock").get("/Europe/Berlin").text.startswith("Europe/Berlin ")
    assert knlocal.service("clock").get("/Nowhere").status == 404
