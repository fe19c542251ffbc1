"""The pytest plugin: fixtures `knlocal`, `knlocal_module`, `knlocal_session` and `sink`.

    @pytest.mark.knlocal(folder="shop", runtime="docker")   # both optional
    def test_orders_are_audited(knlocal, sink): ...

Without a folder, the nearest one above the test file that holds a knlocal.toml is the project;
without one, the test starts with an empty project.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # the fixtures import what they need: most test runs never use them
    from knlocal.testing.host import Host
    from knlocal.testing.project import LocalProject
    from knlocal.testing.sink import Sink

LINES_OF_LOG = 30


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("knlocal")
    group.addoption(
        "--knlocal-seed",
        type=int,
        help="the seed of faults (a failed test prints its own)",
    )
    group.addoption("--knlocal-record", action="store_true", help="write golden recordings anew")
    group.addoption(
        "--knlocal-runtime",
        choices=["auto", "docker", "process"],
        default=os.environ.get("KNLOCAL_TEST_RUNTIME", "auto"),
        help="what runs services in tests that do not ask for one (default: auto)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "knlocal(folder=None, runtime=None): the project folder of a test (relative to its file), "
        "and what runs it: docker or process",
    )


class _Hosts:
    """One daemon per runtime asked for, each started when first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hosts: dict[str, Host] = {}

    def get(self, runtime: str) -> Host:
        from knlocal.testing.host import Host

        if runtime not in self._hosts:
            state = self._folder / runtime
            state.mkdir(parents=True)
            self._hosts[runtime] = Host(state, runtime).start()  # type: ignore[arg-type]
        return self._hosts[runtime]

    def stop(self) -> None:
        for host in self._hosts.values():
            host.stop()


@pytest.fixture(scope="session")
def _knlocal_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Hosts]:
    hosts = _Hosts(tmp_path_factory.mktemp("knlocal"))
    yield hosts
    hosts.stop()


@pytest.fixture
def knlocal(request: pytest.FixtureRequest, _knlocal_hosts: _Hosts) -> Iterator[LocalProject]:
    """The test's project, up and ready in a namespace of its own; gone after the test."""
    yield from _project(request, _knlocal_hosts)


@pytest.fixture(scope="module")
def knlocal_module(
    request: pytest.FixtureRequest, _knlocal_hosts: _Hosts
) -> Iterator[LocalProject]:
    """The same, shared by the tests of a module."""
    yield from _project(request, _knlocal_hosts)


@pytest.fixture(scope="session")
def knlocal_session(
    request: pytest.FixtureRequest, _knlocal_hosts: _Hosts
) -> Iterator[LocalProject]:
    """The same, shared by all tests (of an xdist worker)."""
    yield from _project(request, _knlocal_hosts)


@pytest.fixture
def sink(request: pytest.FixtureRequest) -> Iterator[Sink]:
    """A real HTTP subscriber that records what arrives and answers as told."""
    if "knlocal" in request.fixturenames:
        # The project closes it.
        yield request.getfixturevalue("knlocal").sink()
        return
    from knlocal.testing.loop import LoopThread
    from knlocal.testing.sink import Sink

    loop = LoopThread()
    alone = Sink(loop)
    yield alone
    alone.close()
    loop.stop()


def _project(request: pytest.FixtureRequest, hosts: _Hosts) -> Iterator[LocalProject]:
    from knlocal.testing.project import LocalProject

    mark = request.node.get_closest_marker("knlocal")
    wanted: dict[str, Any] = dict(mark.kwargs) if mark else {}
    runtime = wanted.get("runtime") or request.config.getoption("--knlocal-runtime")
    project = LocalProject(
        hosts.get(runtime),
        _folder(request, wanted.get("folder")),
        seed=request.config.getoption("--knlocal-seed"),
        record=request.config.getoption("--knlocal-record"),
    )
    try:
        project.start()
        request.node.stash[_PROJECT] = project
        yield project
    finally:
        project.stop()


_PROJECT = pytest.StashKey["LocalProject"]()


def _folder(request: pytest.FixtureRequest, named: str | None) -> Path:
    path = getattr(request, "path", None) or request.config.rootpath / "here"
    here = Path(path).parent
    if named:
        return (here / named).resolve()
    for folder in (here, *here.parents):
        if (folder / "knlocal.toml").exists():
            return folder
        if folder == request.config.rootpath:
            break
    return here


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A failed test shows what its services wrote last."""
    report = yield
    project = item.stash.get(_PROJECT, None)
    if call.when == "call" and report.failed and project is not None:  # type: ignore[attr-defined]
        told = {
            "knlocal services": project.recent_logs(LINES_OF_LOG),
            "knlocal faults (repeat with --knlocal-seed)": str(project.faults),
        }
        report.sections += [(name, text) for name, text in told.items() if text]  # type: ignore[attr-defined]
    return report
