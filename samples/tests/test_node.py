"""The Node folder and function, which have a project of their own."""

import shutil

import pytest

pytestmark = [
    pytest.mark.knlocal(folder="../node", runtime="process"),
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
]


def test_the_clock_knows_zones(knlocal) -> None:
    assert knlocal.service("clock").get("/Europe/Berlin").text.startswith("Europe/Berlin ")
    assert knlocal.service("clock").get("/Nowhere").status == 404


def test_the_function_greets_whom_it_is_told(knlocal) -> None:
    greeter = knlocal.service("greeter")
    assert greeter.get("/?name=Ada").json() == {"greeting": "Good day, Ada"}
    assert greeter.post("/", json={"name": "Grace"}).json() == {"greeting": "Good day, Grace"}
