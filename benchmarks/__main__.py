"""All figures in one table: `python -m benchmarks [--times N] [NAME …]`, what `make bench` calls.

Each module runs in a process of its own, so that none sees another's memory. Exits with 1 when a
target is missed, 2 for a wrong command line. A module that lacks something here is skipped, and
says what it lacks.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

from benchmarks._measure import Row, rows_of

MODULES = ("wake", "gateway", "serving", "up", "api", "eventing", "inner_loop", "testing")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODULES)}")
    parser.add_argument("--times", type=int, default=20, help="rounds of each figure (20)")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in MODULES]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(MODULES)}")
    missed = False
    heading = False
    for name in given.names or MODULES:
        if lacks := missing(name):
            print(f"skipped {name}: {lacks}", file=sys.stderr, flush=True)
            continue
        print(f"running {name} …", file=sys.stderr, flush=True)
        try:
            rows = in_a_process(name, given.times)
        except Exception as error:
            print(f"failed {name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            missed = True
            continue
        if not heading:
            print("| what | knlocal | compared with | ratio | target | met |")
            print("|---|---|---|---|---|---|")
            heading = True
        for row in rows:
            print(row.markdown(f"{name}: "), flush=True)
        missed = missed or any(not row.met for row in rows)
    return int(missed)


def missing(name: str) -> str:
    """What this machine lacks for a module; "" when nothing."""
    for tool in importlib.import_module(f"benchmarks.{name}").NEEDS:
        if shutil.which(tool) is None:
            return f"needs {tool}, which is not installed"
        if tool == "docker":
            asked = subprocess.run(["docker", "info"], capture_output=True, text=True)
            if asked.returncode:
                return f"needs a Docker engine: {asked.stderr.strip().splitlines()[-1:]}"
    return ""


def in_a_process(name: str, times: int) -> list[Row]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(rows_of, name, times).result()


if __name__ == "__main__":
    sys.exit(main())
