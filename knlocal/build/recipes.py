"""What a source folder is, and so how it becomes an image or a local process.

In this order: a Dockerfile, a `func.yaml` (as `kn func` makes them), a Python folder, a Node
folder. Each kind of folder has its module; `recognise` asks them in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from knlocal.build import dockerfile
from knlocal.build.functions import deploy_beside, function
from knlocal.build.node import node_folder
from knlocal.build.python import python_folder
from knlocal.build.recipe import (
    BASE_IMAGE_VARIABLE,
    DEPENDENCIES,
    LAUNCHER,
    Deploy,
    NotASource,
    Options,
    Recipe,
)

__all__ = [
    "BASE_IMAGE_VARIABLE", "LAUNCHER", "Deploy", "NotASource", "Options", "Recipe", "recognise",
]  # fmt: skip


def recognise(folder: Path, options: Options = Options()) -> Recipe:
    """What `folder` is. Raises NotASource."""
    if not folder.is_dir():
        raise NotASource(f"{folder}: no such folder")
    for look in _LOOKS:
        recipe = look(folder, options)
        if recipe is not None:
            return recipe
    if options.buildpacks:
        return Recipe("folder", "", why_not='say how to run it as a process: run = "…"')
    raise NotASource(
        f"{folder}: nothing here that can be built or run; looked for a Dockerfile, a func.yaml, "
        "a Python program (main.py, app.py) and a package.json"
    )


def _dockerfile(folder: Path, options: Options) -> Recipe | None:
    names = [options.dockerfile] if options.dockerfile else ["Dockerfile", "Containerfile"]
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        if options.dockerfile:
            raise NotASource(f"{folder / options.dockerfile}: no such file")
        return None
    text = path.read_text("utf-8", "replace")
    args = dict(options.args)
    declared = dockerfile.arguments(text)
    # A build argument that the Dockerfile has for its base takes the project's base image.
    for name in ("BASE_IMAGE", "BASE"):
        if name in declared and name not in args and options.base(""):
            args[name] = options.base("")
    parsed = dockerfile.parse(text)
    own = python_folder(folder, options) or node_folder(folder, options)
    if own is None and (guess := dockerfile.command(parsed)) and _runs_here(guess, folder):
        language = "node" if Path(guess[0]).name == "node" else "python"
        own = Recipe("", None, run=tuple(guess), language=language)
    return Recipe(
        kind="Dockerfile",
        language=own.language if own else "",
        program=tuple(dockerfile.command(parsed) or ()),
        dockerfile=text,
        dockerfile_name=str(path.relative_to(folder)),
        run=own.run if own else None,
        why_not='a Dockerfile needs Docker; to run it as a process say how: run = "…"',
        deploy=deploy_beside(folder),
        target=dockerfile.source_target(parsed),
        rebuild=(path.name, ".dockerignore", *DEPENDENCIES, *dockerfile.copied(parsed)),
        args=args,
        needs=own.needs if own else (),
    )


def _runs_here(command: list[str], folder: Path) -> bool:
    """Whether a command from a Dockerfile means something on this machine: a script of the folder,
    run by an interpreter that is here too."""
    interpreters = {"python", "python3", "node"}
    return (
        len(command) > 1
        and Path(command[0]).name in interpreters
        and (folder / command[1]).is_file()
    )


_LOOKS: tuple[Callable[[Path, Options], Recipe | None], ...] = (
    _dockerfile, function, python_folder, node_folder,
)  # fmt: skip
