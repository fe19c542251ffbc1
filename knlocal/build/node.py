"""Plain Node folders: how package.json says they start, and an image with what they need."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from knlocal.build.recipe import (
    DEPENDENCIES,
    NotASource,
    Options,
    Recipe,
    in_shell,
    json_words,
)

NODE_BASE = "node:22-slim"


def node_folder(folder: Path, options: Options) -> Recipe | None:
    """A folder with a `package.json` that says what to start."""
    if not (folder / "package.json").is_file():
        return None
    command = start_command(folder)
    if command is None:
        return None
    builds = must_build(folder)
    return Recipe(
        kind="Node folder",
        dockerfile=node_dockerfile(folder, options, command, builds=builds),
        dockerfile_name="(generated for a Node folder)",
        generated=True,
        run=None if builds else tuple(locally(command)),
        language="node",
        program=tuple(command),
        target=None if builds else "/app",
        rebuild=DEPENDENCIES,
    )


def package_of(folder: Path) -> dict[str, Any]:
    """package.json. Raises NotASource."""
    path = folder / "package.json"
    try:
        found = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise NotASource(f"{path}: not valid JSON: {error}") from None
    return found if isinstance(found, dict) else {}


def start_command(folder: Path) -> list[str] | None:
    package = package_of(folder)
    scripts = package.get("scripts") or {}
    start = scripts.get("start")
    if "prestart" in scripts:
        return ["npm", "start", "--silent"]
    if isinstance(start, str) and re.fullmatch(r"node [\w./-]+", start):
        return shlex.split(start)
    if isinstance(start, str):
        return in_shell(start) or ["npm", "start", "--silent"]
    for name in (package.get("main"), "server.js", "index.js", "app.js"):
        if isinstance(name, str) and (folder / name).is_file():
            return ["node", name]
    return None


def must_build(folder: Path) -> bool:
    """Whether what it starts is made by its build script (TypeScript, bundlers)."""
    scripts = package_of(folder).get("scripts") or {}
    if not isinstance(scripts.get("build"), str):
        return False
    if (folder / "tsconfig.json").is_file():
        return True
    started = re.findall(r"[\w./-]+\.[cm]?js\b", str(scripts.get("start", "")))
    return any(not (folder / name).is_file() for name in started)


def locally(command: Sequence[str], *, builds: bool = False) -> list[str]:
    """The same in the folder itself, where npm puts the programs of packages."""
    line = command[2] if command[:2] == ["sh", "-c"] else shlex.join(command)
    if builds:  # in a copy: a snapshot of the source stays what it is
        return ["sh", "-c", _BUILT.replace("%COMMAND%", line.removeprefix("exec "))]
    if command[:2] != ["sh", "-c"]:
        return list(command)
    return ["sh", "-c", f'PATH="$PWD/node_modules/.bin:$PATH"; {line}']


_BUILT = """\
D=$(mktemp -d) && cp -R . "$D" && cd "$D" && npm run build --silent || exit
PATH="$PWD/node_modules/.bin:$PATH"
trap 'kill -TERM "$P"' TERM INT
(%COMMAND%) & P=$!
wait "$P"; wait "$P"; C=$?
rm -rf "$D"
exit "$C"
"""


def node_dockerfile(
    folder: Path,
    options: Options,
    command: Sequence[str],
    *,
    builds: bool = False,
    args: Sequence[str] = (),
    files: Sequence[str] = (),
) -> str:
    """A Dockerfile that installs what package.json names. `files` are COPY lines."""
    lock = (folder / "package-lock.json").is_file()
    install = "npm ci" if lock else "npm install"
    package = package_of(folder)
    lines = [f"FROM {options.base(NODE_BASE)}", *(f"ARG {name}" for name in args), "WORKDIR /app"]
    if builds:
        lines += ["COPY package*.json ./", f"RUN {install}", "COPY . .", "RUN npm run build"]
        lines += ["ENV NODE_ENV=production PATH=/app/node_modules/.bin:$PATH", *files]
        return "\n".join([*lines, f"CMD {json_words(command)}", ""])
    lines.append("ENV NODE_ENV=production PATH=/node_modules/.bin:$PATH")
    if package.get("dependencies"):
        # One folder up, where Node looks too: /app holds nothing but the source.
        lines += ["COPY package*.json /", f"RUN cd / && {install} --omit=dev"]
    return "\n".join([*lines, *files, "COPY . .", f"CMD {json_words(command)}", ""])
