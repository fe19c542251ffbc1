"""Builds and becomes a Go function's program, for the process runtime.

    python3 serve_go.py http|cloudevent

Runs in the function's folder, which it leaves as it is; what was built once is kept by content.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from knlocal.build.golang import MAIN, build_command, main_go


def main() -> None:
    invoke, folder = sys.argv[1], Path.cwd()
    program = main_go(folder, invoke)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "knlocal" / "go"
    binary = cache / digest(folder, program)
    if not binary.exists():
        build(folder, program, binary)
    os.execv(binary, [str(binary)])


def digest(folder: Path, program: str) -> str:
    content = hashlib.sha256(program.encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content.update(str(path.relative_to(folder)).encode() + b"\0")
            content.update(path.read_bytes())
    return content.hexdigest()[:24]


def build(folder: Path, program: str, binary: Path) -> None:
    binary.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="knlocal-go-", dir=binary.parent) as draft:
        source = Path(draft) / "src"
        shutil.copytree(folder, source)
        (source / MAIN).mkdir(exist_ok=True)
        (source / MAIN / "main.go").write_text(program)
        made = Path(draft) / "function"
        done = subprocess.run(build_command(str(made)), cwd=source, check=False)
        if done.returncode:
            sys.exit(done.returncode)
        made.replace(binary)


if __name__ == "__main__":
    main()
