"""What `up` shows, and when."""

import asyncio
import types
from collections.abc import Callable
from typing import Any

import pytest

from knlocal.cli import screen as screens
from knlocal.cli.context import is_terminal
from knlocal.cli.narrator import Line
from knlocal.cli.screen import Screen
from knlocal.project import config


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(Screen, "print", lambda self, text="": lines.append(text))
    monkeypatch.setattr(screens, "PATIENCE", 0.001)
    return lines


def daemon(*ready: str) -> Any:
    """A stand-in with services of these states."""
    services = [
        {
            "metadata": {"name": f"s{at}", "namespace": "default", "generation": 1},
            "status": {
                "observedGeneration": 1,
                "conditions": [{"type": "Ready", "status": state}],
            },
        }
        for at, state in enumerate(ready)
    ]
    store = types.SimpleNamespace(list=lambda kind: services, kinds_in_use=list)
    return types.SimpleNamespace(store=store)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_what_waits_for_a_service_that_starts_is_told_with_the_table_at_the_latest(
    said: list[str],
) -> None:
    screen = Screen("default", with_logs=False)
    screen._daemon = daemon("Unknown")
    screen._wait(Line("trigger t", "not ready: it waits", "bad", wait=True))
    first, _ = screen._waiting["trigger t"]
    await until(lambda: screen._waiting["trigger t"][0] is not first)
    assert said == []
    screen.table(screen._daemon)
    assert "not ready: it waits" in said[0]
    screen.close()


async def test_what_stays_wrong_when_all_services_are_known_is_told(said: list[str]) -> None:
    screen = Screen("default", with_logs=False)
    screen._daemon = daemon("True", "False")
    screen._wait(Line("trigger t", "not ready: it waits", "bad", wait=True))
    await until(lambda: bool(said))
    screen.close()


def test_the_column_of_names_fits_the_project_from_the_first_line(said: list[str]) -> None:
    text = '[services.a]\nimage = "x"\n[triggers.shipping]\nsink = "a"\n[sources.tick]\n'
    settings = config.parse(text + 'kind = "ping"\nsink = "a"\n')
    screen = Screen("default", with_logs=False)
    screen.header(settings)
    screen.line(Line("a", "first"))
    screen.line(Line("trigger shipping", "second"))
    assert said[1].index("first") == said[2].index("second")


@pytest.mark.parametrize("name", ["NO_COLOR", "TERM"])
def test_colours_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout", types.SimpleNamespace(isatty=lambda: True))
    assert is_terminal()
    monkeypatch.setenv(name, "dumb")
    assert not is_terminal()
