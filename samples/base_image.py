"""Prints the base image that the samples are built from here; `make up` asks it.

The usual one when it is here or can be fetched; where no registry answers, the Python image that
the tests bootstrap from the machine's own package mirror.
"""

from __future__ import annotations

import subprocess
import sys

USUAL = "python:3.12-slim"
LOCAL = "knlocal-test/python:3"


def main() -> None:
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except DockerException:
        return  # no engine: the samples run as local processes
    for image in (USUAL, LOCAL):
        if client.images.list(name=image):
            print(image)
            return
    print(f"fetching {USUAL}", file=sys.stderr)
    try:
        client.images.pull(USUAL)
        print(USUAL)
        return
    except (DockerException, OSError) as error:
        print(f"no registry answers ({str(error).splitlines()[0][:120]});", file=sys.stderr)
    print(f"making {LOCAL} from this machine's package mirror instead", file=sys.stderr)
    made = subprocess.run([sys.executable, "-m", "tests.images.build", "python"], check=False)
    print(LOCAL if made.returncode == 0 else USUAL)


if __name__ == "__main__":
    main()
