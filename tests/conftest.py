"""What every test may use: free ports, a project folder, and the word on Docker.

Tests marked `docker` are skipped, with the reason, where no engine answers; with CI=true a missing
engine is a failure, so that nothing passes by not being run.
"""

from __future__ import annotations

import functools
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine than about the code.
settings.register_profile(
    "any machine", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("docker") is None or (problem := docker_problem()) is None:
        return
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(f"CI needs a Docker engine: {problem}", pytrace=False)
    pytest.skip(f"no Docker engine: {problem}")


@functools.cache
def docker_problem() -> str | None:
    """Why Docker cannot be used here, or None when it answers."""
    import docker

    try:
        client = docker.from_env(timeout=5)
        try:
            client.ping()
        finally:
            client.close()
    except Exception as error:
        return str(error).splitlines()[0]
    return None


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Gives a loopback port that nobody listens on, another one at each call. It is none of those
    that the system gives to connections or to who asks for any port."""
    given: set[int] = set()

    def pick() -> int:
        while True:
            port = random.randint(10_000, 19_999)
            with socket.socket() as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            if port not in given:
                given.add(port)
                return port

    return pick


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder
