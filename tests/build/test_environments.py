"""What a program needs is there before it runs as a local process."""

import sys
import zipfile
from pathlib import Path

import pytest

from knlocal.build.api import BuildFailure
from knlocal.build.environments import KEPT, Environments, _is_here
from knlocal.build.recipes import recognise
from knlocal.project import config
from knlocal.project.home import Home
from knlocal.project.sources import Sources, wanted


@pytest.fixture
def environments(tmp_path: Path) -> Environments:
    return Environments(tmp_path / "environments")


def source(root: Path, requirements: str) -> Path:
    folder = root / "source"
    folder.mkdir(exist_ok=True)
    (folder / "main.py").write_text("def handle(request): ...")
    (folder / "requirements.txt").write_text(requirements)
    return folder


def wheel(folder: Path) -> str:
    name = "knlocal_thing-1.0-py3-none-any.whl"
    info = "knlocal_thing-1.0.dist-info"
    with zipfile.ZipFile(folder / name, "w") as file:
        file.writestr("knlocal_thing.py", "answer = 42\n")
        file.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: knlocal-thing\nVersion: 1\n"
        )
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return name


async def test_what_knlocals_own_python_has_is_not_fetched(
    tmp_path: Path, environments: Environments
) -> None:
    folder = source(tmp_path, "# a comment\nclick>=1  # and one more\npyyaml\n")
    recipe = recognise(folder)
    assert recipe.needs == ("-r", "requirements.txt")
    assert await environments.python("web", folder, recipe, print) == sys.executable


@pytest.mark.parametrize(
    ("requirement", "here"),
    [("click", True), ("click>=1.0", True), ("click>=999", False), ("click==0.1", False),
     ("click~=1.0", False), ("no-such-thing-at-all", False), (".", False), ("./a.whl", False)],
)  # fmt: skip
def test_only_what_is_surely_here_counts_as_here(requirement: str, here: bool) -> None:
    assert _is_here(requirement) is here


async def test_a_python_folder_gets_what_it_requires_once(
    tmp_path: Path, environments: Environments
) -> None:
    folder = source(tmp_path, "")
    (folder / "requirements.txt").write_text(f"./{wheel(folder)}\n")
    recipe, said = recognise(folder), list[str]()
    python = await environments.python("web", folder, recipe, said.append)
    assert (Path(python).parent.parent / "lib").is_dir()
    assert list(environments.folder.glob("*/lib/python*/site-packages/knlocal_thing.py"))
    assert said[0] == "installing -r requirements.txt"
    again = await environments.python("web", folder, recipe, said.append)
    assert (again, len(said)) == (python, 1)


async def test_what_cannot_be_installed_is_told_in_pips_words(
    tmp_path: Path, environments: Environments
) -> None:
    folder = source(tmp_path, "./not-there-1.0-py3-none-any.whl\n")
    said: list[str] = []
    for _ in range(2):  # and not asked for again at once
        with pytest.raises(BuildFailure, match=r"requirements\.txt: .*\n.*not-there"):
            await environments.python("web", folder, recognise(folder), said.append)
    assert said.count("installing -r requirements.txt") == 1


async def test_environments_that_nobody_uses_are_removed_but_for_the_newest(
    environments: Environments,
) -> None:
    for number in range(KEPT + 3):
        (environments.folder / f"e{number}").mkdir(parents=True)
    environments.collect({"e0"})
    left = {place.name for place in environments.folder.iterdir()}
    assert "e0" in left
    assert len(left) == KEPT + 1


async def test_a_node_program_finds_the_packages_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "web"
    (folder / "node_modules" / "thing").mkdir(parents=True)
    (folder / "package.json").write_text('{"main": "a.js", "dependencies": {"thing": "1"}}')
    (folder / "a.js").write_text("require('thing')")
    settings = config.parse('[services.web]\nsource = "web"', root=tmp_path)
    sources = Sources(settings, Home(tmp_path / ".knlocal"), "process", None)
    origin = await sources.origin(next(wanted(settings)), lambda _name, _line: None)
    assert origin.run is not None
    assert (Path(origin.run["dir"]) / "node_modules" / "thing").is_dir()


async def test_a_node_folder_without_dependencies_needs_nothing(
    tmp_path: Path, environments: Environments
) -> None:
    (tmp_path / "package.json").write_text('{"devDependencies": {"typescript": "5"}}')
    assert await environments.node_modules("web", tmp_path, print, builds=False) is None
