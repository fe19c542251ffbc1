"""Plain Python folders: which program they are, and an image with what it needs."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli

from knlocal.build.recipe import DEPENDENCIES, LAUNCHER, NotASource, Options, Recipe, json_words

PYTHON_BASE = "python:3.12-slim"
ENTRIES = ("main.py", "app.py", "server.py")

_ENV = "ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1"
#: In an image, pip may do as it likes, and nobody watches it.
_PIP_ENV = (
    "ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 "
    "PIP_PROGRESS_BAR=off"
)
_PIP = ("python3", "-m", "pip", "install", "--no-cache-dir")


def python_folder(folder: Path, options: Options) -> Recipe | None:
    """A folder with `main.py`, `app.py` or `server.py`."""
    entry = next((name for name in ENTRIES if (folder / name).is_file()), None)
    if entry is None:
        return None
    serves = serves_itself((folder / entry).read_text("utf-8", "replace"))
    launcher = LAUNCHER / "serve_python.py"
    command = [entry] if serves else ["/knlocal/serve_python.py", entry]
    local = [entry] if serves else [str(launcher), entry]
    return Recipe(
        kind="Python folder",
        dockerfile=python_dockerfile(folder, options, ["python3", *command]),
        dockerfile_name="(generated for a Python folder)",
        generated=True,
        files={} if serves else launcher_file(),
        run=(python_of(folder), *local),
        language="python",
        program=("python3", *command),
        target="/app",
        rebuild=DEPENDENCIES,
        needs=needs(folder),
    )


def serves_itself(source: str) -> bool:
    """Whether a Python file starts a server when it is run (else it defines an app or handler)."""
    if re.search(r"^if\s+__name__\s*==\s*['\"]__main__['\"]", source, re.M):
        return True
    return bool(re.search(r"^\S.*(serve_forever|run_app|\.run|uvicorn\.run|serve)\(", source, re.M))


def python_of(folder: Path) -> str:
    """The interpreter of the folder's own virtual environment, else ours."""
    for name in (".venv", "venv"):
        if (folder / name / "bin" / "python").exists():
            return str(folder / name / "bin" / "python")
    return sys.executable


def launcher_file() -> dict[str, bytes]:
    """The launcher, where `python_dockerfile` looks for it."""
    return {".knlocal-launcher/serve_python.py": (LAUNCHER / "serve_python.py").read_bytes()}


def python_dockerfile(
    folder: Path,
    options: Options,
    command: Sequence[str],
    *,
    also: Sequence[str] = (),
    args: Sequence[str] = (),
) -> str:
    """A Dockerfile that installs what the folder names, and `also`; build arguments are `args`."""
    lines = [f"FROM {options.base(PYTHON_BASE)}", *(f"ARG {name}" for name in args), _ENV]
    installs = [*_install(folder, also), *([_pip("debugpy")] if options.debug else [])]
    lines += [*([_PIP_ENV] if installs else []), "WORKDIR /app", *installs]
    if "/knlocal/serve_python.py" in command:
        lines.append("COPY .knlocal-launcher /knlocal")
    return "\n".join([*lines, "COPY . .", f"CMD {json_words(command)}", ""])


def _pip(*words: str) -> str:
    return f"RUN {shlex.join([*_PIP, *words])}"


def _install(folder: Path, also: Sequence[str]) -> list[str]:
    """Only what is named, not the folder itself: its code is what lies in /app, and stays so when
    a later save is mounted there."""
    words = needs(folder, also)
    if "requirements.txt" in words:
        text = (folder / "requirements.txt").read_text("utf-8", "replace")
        needs_all = re.search(r"^\s*(-e\b|--editable\b|\.|-[rc]\s+\S*/|file:)", text, re.M)
        files = "." if needs_all else "requirements*.txt constraints*.txt*"
        return [f"COPY {files} ./", _pip(*words)]
    if "." in words:
        return ["COPY . .", _pip(*words)]
    return [_pip(*words)] if words else []


def needs(folder: Path, also: Sequence[str] = ()) -> tuple[str, ...]:
    """What pip has to install for a folder's program."""
    requirements = folder / "requirements.txt"
    if requirements.is_file():
        limits = _limits(requirements.read_text("utf-8", "replace"))
        return ("-r", "requirements.txt", *limits, *also)
    named = dependencies_of(folder / "pyproject.toml")
    return (*(["."] if named is None else named), *also)


def _limits(requirements: str) -> list[str]:
    """parliament-functions 0.1.0 (older `kn func` templates) does not know the SDK's version 2."""
    old = re.search(r"^parliament-functions\b", requirements, re.M)
    named = re.search(r"^cloudevents\b", requirements, re.M)
    return ["cloudevents<2"] if old and not named else []


def dependencies_of(path: Path) -> list[str] | None:
    """What a pyproject.toml says it needs; [] without the file, None when only its build knows."""
    if not path.is_file():
        return []
    try:
        data: Any = tomli.loads(path.read_text("utf-8", "replace"))
    except tomli.TOMLDecodeError as error:
        raise NotASource(f"{path}: not valid TOML: {error}") from None
    project = data.get("project") or {}
    if "dependencies" in (project.get("dynamic") or ()):
        return None
    poetry = ((data.get("tool") or {}).get("poetry") or {}).get("dependencies") or {}
    if "dependencies" not in project and set(poetry) - {"python"}:
        return None
    return [str(one) for one in project.get("dependencies") or ()]
