"""What a source folder is, and so how it becomes an image or a local process.

In this order: a Dockerfile, a `func.yaml` (as `kn func` makes them), a Python folder, a Node
folder. Each kind of folder is one function here; `recognise` asks them in turn.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from knlocal.build import dockerfile

#: Environment variables that change the base images of generated Dockerfiles.
BASE_IMAGE_VARIABLE = "KNLOCAL_BASE_IMAGE"

PYTHON_BASE = "python:3.12-slim"
NODE_BASE = "node:22-slim"
LAUNCHER = Path(__file__).parent / "launchers"


class NotASource(Exception):
    """The folder is nothing that can be built or run; the message says what was looked for."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a project says about building."""

    dockerfile: str | None = None
    base_image: str | None = None
    args: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    debug: bool = False
    """Whether generated Dockerfiles bring a debugger."""

    def base(self, usual: str) -> str:
        return self.base_image or os.environ.get(BASE_IMAGE_VARIABLE) or usual


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a folder becomes something that serves."""

    kind: str
    """For people: "Dockerfile", "Python folder", "function (python)", …"""
    dockerfile: str | None
    """Its text; None when the folder can only be run as a process."""
    dockerfile_name: str = "Dockerfile"
    generated: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict)
    run: tuple[str, ...] | None = None
    """What the process runtime runs in the folder; None when nothing is known."""
    why_not: str = ""
    """Why `run` is None."""
    language: str = ""
    """"python", "node", or "" where it is not known."""
    program: tuple[str, ...] = ()
    """What the image runs."""
    env: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    target: str | None = None
    """Where in the image the folder's files lie unchanged: a later save may be mounted there."""
    rebuild: tuple[str, ...] = ()
    """Patterns of files whose change needs a new image."""
    args: Mapping[str, str] = field(default_factory=dict)


def recognise(folder: Path, options: Options = Options()) -> Recipe:
    """What `folder` is. Raises NotASource."""
    if not folder.is_dir():
        raise NotASource(f"{folder}: no such folder")
    for look in _LOOKS:
        recipe = look(folder, options)
        if recipe is not None:
            return recipe
    raise NotASource(
        f"{folder}: nothing here that can be built or run; looked for a Dockerfile, a func.yaml, "
        "a Python program (main.py, app.py) and a package.json"
    )


# -- a Dockerfile ---------------------------------------------------------------------------------


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
    own = _python(folder, options) or _node(folder, options)
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
        target=dockerfile.source_target(parsed),
        rebuild=(path.name, ".dockerignore", *DEPENDENCIES, *dockerfile.copied(parsed)),
        args=args,
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


#: Files that say which libraries a program needs: changed ones need a new image.
DEPENDENCIES = (
    "requirements*.txt", "pyproject.toml", "setup.py", "setup.cfg", "uv.lock", "poetry.lock",
    "Pipfile*", "package.json", "package-lock.json", "yarn.lock", "pnpm-lock.yaml", "go.mod",
    "go.sum",
)  # fmt: skip


# -- plain Python and Node ------------------------------------------------------------------------


def _python(folder: Path, options: Options) -> Recipe | None:
    entry = next((n for n in ("main.py", "app.py", "server.py") if (folder / n).is_file()), None)
    if entry is None:
        return None
    serves = serves_itself((folder / entry).read_text("utf-8", "replace"))
    launcher = LAUNCHER / "serve_python.py"
    command = [entry] if serves else ["/knlocal/serve_python.py", entry]
    local = [entry] if serves else [str(launcher), entry]
    return Recipe(
        kind="Python folder",
        dockerfile=_python_dockerfile(folder, options, command),
        dockerfile_name="(generated for a Python folder)",
        generated=True,
        files={} if serves else {".knlocal-launcher/serve_python.py": launcher.read_bytes()},
        run=(_python_of(folder), *local),
        language="python",
        program=("python3", *command),
        target="/app",
        rebuild=DEPENDENCIES,
    )


def serves_itself(source: str) -> bool:
    """Whether a Python file starts a server when it is run (else it defines an app or handler)."""
    if re.search(r"^if\s+__name__\s*==\s*['\"]__main__['\"]", source, re.M):
        return True
    return bool(re.search(r"^\S.*(serve_forever|run_app|\.run|uvicorn\.run|serve)\(", source, re.M))


def _python_of(folder: Path) -> str:
    """The interpreter of the folder's own virtual environment, else ours."""
    for name in (".venv", "venv"):
        if (folder / name / "bin" / "python").exists():
            return str(folder / name / "bin" / "python")
    return sys.executable


def _python_dockerfile(folder: Path, options: Options, command: list[str]) -> str:
    base = options.base(PYTHON_BASE)
    lines = [f"FROM {base}", "ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1", "WORKDIR /app"]
    if (folder / "requirements.txt").is_file():
        lines += [
            "COPY requirements.txt ./",
            "RUN python3 -m pip install --no-cache-dir -r requirements.txt",
        ]
    elif (folder / "pyproject.toml").is_file() and _has_dependencies(folder / "pyproject.toml"):
        lines += ["COPY . .", "RUN python3 -m pip install --no-cache-dir ."]
    if options.debug:
        lines.append("RUN python3 -m pip install --no-cache-dir debugpy")
    if command[0].startswith("/knlocal/"):
        lines.append("COPY .knlocal-launcher /knlocal")
    return "\n".join([*lines, "COPY . .", f"CMD {_json(['python3', *command])}", ""])


def _has_dependencies(path: Path) -> bool:
    return bool(re.search(r"^\s*dependencies\s*=\s*\[\s*[\"']", path.read_text("utf-8"), re.M))


def _node(folder: Path, options: Options) -> Recipe | None:
    if not (folder / "package.json").is_file():
        return None
    command = _node_command(folder)
    if command is None:
        return None
    lock = (folder / "package-lock.json").is_file()
    install = "npm ci --omit=dev" if lock else "npm install --omit=dev"
    needs = bool(_package(folder).get("dependencies"))
    lines = [f"FROM {options.base(NODE_BASE)}", "ENV NODE_ENV=production", "WORKDIR /app"]
    if needs:
        # One folder up, where Node looks too: /app holds nothing but the source.
        lines += ["COPY package*.json /", f"RUN cd / && {install}"]
    lines += ["COPY . .", f"CMD {_json(command)}", ""]
    return Recipe(
        kind="Node folder",
        dockerfile="\n".join(lines),
        dockerfile_name="(generated for a Node folder)",
        generated=True,
        run=tuple(command),
        language="node",
        program=tuple(command),
        target="/app",
        rebuild=DEPENDENCIES,
    )


def _package(folder: Path) -> dict[str, Any]:
    import orjson

    try:
        found = orjson.loads((folder / "package.json").read_bytes())
    except ValueError as error:
        raise NotASource(f"{folder / 'package.json'}: not valid JSON: {error}") from None
    return found if isinstance(found, dict) else {}


def _node_command(folder: Path) -> list[str] | None:
    package = _package(folder)
    start = (package.get("scripts") or {}).get("start")
    if isinstance(start, str) and re.fullmatch(r"node [\w./-]+", start):
        return shlex.split(start)  # without npm in between, signals arrive
    if start:
        return ["npm", "start", "--silent"]
    for name in (package.get("main"), "server.js", "index.js", "app.js"):
        if isinstance(name, str) and (folder / name).is_file():
            return ["node", name]
    return None


# -- func.yaml ------------------------------------------------------------------------------------


def _function(folder: Path, options: Options) -> Recipe | None:
    path = folder / "func.yaml"
    if not path.is_file():
        return None
    try:
        spec = yaml.safe_load(path.read_text("utf-8")) or {}
    except yaml.YAMLError as error:
        raise NotASource(f"{path}: not valid YAML: {error}") from None
    runtime = str(spec.get("runtime", ""))
    makers = {"python": _python_function, "node": _node_function, "go": _go_function}
    if runtime not in makers:
        known = ", ".join(makers)
        raise NotASource(f"{path}: runtime {runtime!r} is not supported; known: {known}")
    run = spec.get("run") or {}
    build = spec.get("build") or {}
    deploy = spec.get("deploy") or {}
    env = _function_env(run.get("envs") or spec.get("envs") or [], path)
    recipe = makers[runtime](folder, options, str(spec.get("invoke") or "http"))
    return Recipe(
        kind=f"function ({runtime})",
        dockerfile=recipe.dockerfile,
        dockerfile_name=f"(generated for func.yaml, {runtime})",
        generated=True,
        files=recipe.files,
        run=recipe.run,
        why_not=recipe.why_not,
        language=runtime,
        program=recipe.program,
        env=env,
        annotations=deploy.get("annotations") or {},
        target=recipe.target,
        rebuild=(*DEPENDENCIES, "func.yaml"),
        args={
            str(e["name"]): str(e.get("value", ""))
            for e in build.get("buildEnvs") or []
            if "name" in e
        },
    )


def _function_env(entries: list[Any], path: Path) -> dict[str, str]:
    env = {}
    for entry in entries:
        if not isinstance(entry, dict) or "name" not in entry:
            continue  # envFrom-like entries (secret:, configMap:) have no local counterpart here
        value = str(entry.get("value", ""))
        local = re.fullmatch(r"\{\{\s*env:(\w+)\s*\}\}", value)
        env[str(entry["name"])] = os.environ.get(local[1], "") if local else value
    return env


def _python_function(folder: Path, options: Options, invoke: str) -> Recipe:
    launcher = LAUNCHER / "serve_python.py"
    entry = next(
        (n for n in ("func.py", "function/func.py", "main.py", "app.py") if (folder / n).is_file()),
        None,
    )
    if entry is None:
        raise NotASource(f"{folder}: a Python function needs func.py")
    command = ["/knlocal/serve_python.py", entry, f"--invoke={invoke}"]
    return Recipe(
        kind="",
        dockerfile=_python_dockerfile(folder, options, command),
        files={".knlocal-launcher/serve_python.py": launcher.read_bytes()},
        run=(_python_of(folder), str(launcher), entry, f"--invoke={invoke}"),
        program=("python3", *command),
        target="/app",
    )


def _node_function(folder: Path, options: Options, invoke: str) -> Recipe:
    launcher = LAUNCHER / "serve_node.mjs"
    package = _package(folder) if (folder / "package.json").is_file() else {}
    entry = str(package.get("main") or "index.js")
    if not (folder / entry).is_file():
        raise NotASource(f"{folder}: a Node function needs {entry}")
    lines = [f"FROM {options.base(NODE_BASE)}", "ENV NODE_ENV=production", "WORKDIR /app"]
    if package.get("dependencies"):
        lines += ["COPY package*.json /", "RUN cd / && npm install --omit=dev"]
    arguments = [entry, f"--invoke={invoke}"]
    command = ["node", "/knlocal/serve_node.mjs", *arguments]
    lines += ["COPY .knlocal-launcher /knlocal", "COPY . .", f"CMD {_json(command)}", ""]
    return Recipe(
        kind="",
        dockerfile="\n".join(lines),
        files={".knlocal-launcher/serve_node.mjs": launcher.read_bytes()},
        run=("node", str(launcher), *arguments),
        program=tuple(command),
        target="/app",
    )


def _go_function(folder: Path, options: Options, invoke: str) -> Recipe:
    raise NotASource(
        f"{folder}: Go functions are built with a Dockerfile here; add one, or builder = "
        '"buildpacks" where `pack` is installed'
    )


def _json(command: list[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in command) + "]"


_LOOKS: tuple[Callable[[Path, Options], Recipe | None], ...] = (
    _dockerfile, _function, _python, _node,
)  # fmt: skip
