"""Builds the images that Docker tests and benchmarks need, from nothing but the distribution.

No registry is asked: the Python base is bootstrapped from the machine's own package mirror, the
others are static executables `FROM scratch`. Run `python -m tests.images.build [name …]`; in tests
call `ensure("httpd", …)`, which costs one engine call when the image is there already.

Needs: a Docker engine and its client, `debootstrap` (and root, or sudo without a password), and a C
compiler with static libc (`apt-get install debootstrap gcc libc6-dev`; musl-tools when there).
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
LABEL = "dev.knlocal.test.inputs"
PATH_ENV = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
PACKAGES = ("python3", "python3-pip", "python3-venv", "ca-certificates")


class CannotBuild(Exception):
    """A tool is missing or failed; the message says which and what to install."""


def ensure(*names: str) -> dict[str, str]:
    """Build what is missing or out of date; returns the image name of each (`{"httpd": "…:1"}`)."""
    wanted = names or tuple(IMAGES)
    stale = [name for name in wanted if not _is_current(name)]
    if stale:
        with _one_builder():
            for name in stale:
                _build(name)
    return {name: IMAGES[name][0] for name in wanted}


def _build(name: str) -> None:
    image, needs, _, make = IMAGES[name]
    for other in needs:
        if not _is_current(other):
            _build(other)
    if _is_current(name):  # another process was faster
        return
    print(f"building {image}", file=sys.stderr)
    before = _image_id(image)
    make(image, f"LABEL {LABEL}={_fingerprint(name)}")
    if before and before != _image_id(image):  # the one it replaces has no name any more
        subprocess.run(["docker", "rmi", before], capture_output=True)


def _image_id(image: str) -> str:
    shown = subprocess.run(
        ["docker", "image", "inspect", "-f", "{{.Id}}", image], capture_output=True, text=True
    )
    return shown.stdout.strip()


def _is_current(name: str) -> bool:
    image = IMAGES[name][0]
    shown = subprocess.run(
        ["docker", "image", "inspect", "-f", f'{{{{index .Config.Labels "{LABEL}"}}}}', image],
        capture_output=True,
        text=True,
    )
    return shown.returncode == 0 and shown.stdout.strip() == _fingerprint(name)


@functools.cache
def _fingerprint(name: str) -> str:
    """Changes when what the image is made from changes, or what one of its bases is made from."""
    _, needs, inputs, _ = IMAGES[name]
    content = inputs() + "".join(_fingerprint(other) for other in needs).encode()
    return hashlib.sha256(content).hexdigest()[:16]


@contextmanager
def _one_builder() -> Iterator[None]:
    """Test processes run in parallel; only one of them builds."""
    with (Path(tempfile.gettempdir()) / f"knlocal-test-images-{os.getuid()}.lock").open(
        "w"
    ) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(*command: str, feed: bytes | None = None, hint: str = "") -> str:
    try:
        done = subprocess.run(command, input=feed, capture_output=True, timeout=1800)
    except FileNotFoundError:
        raise CannotBuild(f"{command[0]} is not installed. {hint}".strip()) from None
    if done.returncode:
        tail = (done.stderr or done.stdout).decode(errors="replace").strip()[-2000:]
        raise CannotBuild(
            f"{' '.join(command[:3])} … failed ({done.returncode}): {tail} {hint}".strip()
        )
    return done.stdout.decode(errors="replace")


# -- the Python base ------------------------------------------------------------------------------


def _python_inputs() -> bytes:
    recipe = repr((PACKAGES, PATH_ENV, 1)).encode()
    return recipe + _pip_conf().encode() + (CA_BUNDLE.read_bytes() if CA_BUNDLE.exists() else b"")


def _make_python(image: str, label: str) -> None:
    suite, mirror, components, keyring = _distribution()
    hint = "Try: apt-get install debootstrap"
    with tempfile.TemporaryDirectory(prefix="knlocal-image-") as folder:
        root = Path(folder) / "root"
        options = [
            "--variant=minbase",
            f"--include={','.join(PACKAGES)}",
            f"--components={','.join(components)}",
        ] + ([f"--keyring={keyring}"] if keyring else [])
        try:
            _run(*_as_root(), "debootstrap", *options, suite, str(root), mirror, hint=hint)
            extra = Path(folder) / "extra.tar"
            extra.write_bytes(_machine_settings())
            _run(*_as_root(), "tar", "-C", str(root), "-xf", str(extra))
            # Debian guards its system Python against pip; in an image that guard is in the way.
            guards = [str(p) for p in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED")]
            junk = [
                "var/cache/apt",
                "var/lib/apt/lists",
                "usr/share/doc",
                "usr/share/man",
                "usr/share/locale",
            ]
            _run(*_as_root(), "rm", "-rf", *guards, *(str(root / name) for name in junk))
            _run(*_as_root(), "mkdir", "-p", str(root / "var/lib/apt/lists/partial"))
            tar = Path(folder) / "root.tar"
            _run(*_as_root(), "tar", "-C", str(root), "--exclude=./dev/*", "-cf", str(tar), ".")
            _run(
                *(
                    "docker",
                    "import",
                    "-c",
                    f"ENV {PATH_ENV}",
                    "-c",
                    'CMD ["python3"]',
                    "-c",
                    label,
                ),
                *(str(tar), image),
            )
        finally:
            if _as_root():
                subprocess.run([*_as_root(), "rm", "-rf", str(root)], capture_output=True)


def _machine_settings() -> bytes:
    """What lets `pip install` work inside `docker build` here: CA bundle and pip settings."""
    files = {"etc/pip.conf": _pip_conf().encode()}
    if CA_BUNDLE.exists():
        files[str(CA_BUNDLE).lstrip("/")] = CA_BUNDLE.read_bytes()
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as out:
        for name, data in files.items():
            _add(out, name, data, 0o644)
        link = tarfile.TarInfo("usr/bin/python")
        link.type, link.linkname = tarfile.SYMTYPE, "python3"
        out.addfile(link)
    return tar.getvalue()


def _pip_conf() -> str:
    """The machine's pip settings that mean something elsewhere (nothing on its own disk)."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True
    ).stdout
    kept = {"cert": str(CA_BUNDLE)} if CA_BUNDLE.exists() else {}
    for name, value in re.findall(
        r"^(?:global|user|site|:env:)\.\.?([\w-]+)='(.*)'$", listed, re.M
    ):
        wanted = name in {
            "index-url",
            "extra-index-url",
            "trusted-host",
            "proxy",
            "default-timeout",
        }
        values = [part for part in value.split() if not part.startswith(("file:", "/"))]
        if wanted and values:
            kept[name] = " ".join(values)
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in kept.items())


def _distribution() -> tuple[str, str, list[str], str]:
    """Suite, mirror, components and keyring of the machine's own package sources."""
    release = Path("/etc/os-release").read_text() if Path("/etc/os-release").exists() else ""
    found = re.search(r'^VERSION_CODENAME="?([\w-]+)', release, re.M)
    if not found:
        raise CannotBuild(
            "the Python test image can only be made on Debian or Ubuntu (no VERSION_CODENAME)"
        )
    suite = found.group(1)
    for uri, suites, components, keyring in _apt_sources():
        if suite in suites and "main" in components:
            return suite, uri, components, keyring
    raise CannotBuild(f"no package source for {suite}/main in /etc/apt")


def _apt_sources() -> Iterator[tuple[str, list[str], list[str], str]]:
    folder = Path("/etc/apt")
    for path in sorted(folder.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            lines = re.findall(r"^([\w-]+):[ \t]*(.*)$", stanza, re.M)
            fields = {key.lower(): value for key, value in lines}
            for uri in fields.get("uris", "").split():
                keyring = fields.get("signed-by", "")
                yield (
                    *(uri, fields.get("suites", "").split(), fields.get("components", "").split()),
                    keyring if keyring.startswith("/") else "",
                )
    for path in [folder / "sources.list", *sorted(folder.glob("sources.list.d/*.list"))]:
        if not path.exists():
            continue
        for options, uri, suite, rest in re.findall(
            r"^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+(.*)$", path.read_text(), re.M
        ):
            keyring = re.search(r"signed-by=(/\S+)", options)
            yield uri, [suite], rest.split(), keyring.group(1) if keyring else ""


def _as_root() -> list[str]:
    return [] if os.geteuid() == 0 else ["sudo", "-n"]


# -- static executables ---------------------------------------------------------------------------


def _httpd_inputs() -> bytes:
    return (HERE / "httpd.c").read_bytes() + b"1"


def _make_httpd(image: str, label: str) -> None:
    compiler = "musl-gcc" if shutil.which("musl-gcc") else "gcc"
    with tempfile.TemporaryDirectory(prefix="knlocal-image-") as folder:
        program = Path(folder) / "httpd"
        _run(
            *(compiler, "-O2", "-static", "-s", "-o", str(program), str(HERE / "httpd.c")),
            hint="Try: apt-get install gcc libc6-dev",
        )
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as out:
            _add(out, "httpd", program.read_bytes(), 0o755)
            tmp = tarfile.TarInfo("tmp")
            tmp.type, tmp.mode = tarfile.DIRTYPE, 0o1777
            out.addfile(tmp)
    _run(
        *("docker", "import", "-c", 'ENTRYPOINT ["/httpd"]', "-c", "EXPOSE 8080", "-c", label),
        *("-", image),
        feed=tar.getvalue(),
    )


def _add(out: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    out.addfile(entry, io.BytesIO(data))


# -- images on top of those -----------------------------------------------------------------------


def _layer(dockerfile: str, *files: str) -> tuple[Callable[[], bytes], Callable[[str, str], None]]:
    def inputs() -> bytes:
        return dockerfile.encode() + b"".join((HERE / name).read_bytes() for name in files)

    def make(image: str, label: str) -> None:
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as out:
            _add(out, "Dockerfile", f"{dockerfile}\n{label}\n".encode(), 0o644)
            for name in files:
                _add(out, name, (HERE / name).read_bytes(), 0o644)
        # An older engine without the buildx plugin still builds with its own builder.
        _run(
            "env",
            "DOCKER_BUILDKIT=0",
            "docker",
            "build",
            "-q",
            "-t",
            image,
            "-",
            feed=context.getvalue(),
        )

    return inputs, make


#: name → image, the images it is made from, what its content depends on, how to make it.
IMAGES: dict[str, tuple[str, tuple[str, ...], Callable[[], bytes], Callable[[str, str], None]]] = {
    "python": ("knlocal-test/python:3", (), _python_inputs, _make_python),
    "httpd": ("knlocal-test/httpd:1", (), _httpd_inputs, _make_httpd),
    "crash": (
        *("knlocal-test/crash:1", ("httpd",)),
        *_layer('FROM knlocal-test/httpd:1\nCMD ["crash", "3"]'),
    ),
    "flood": (
        *("knlocal-test/flood:1", ("httpd",)),
        *_layer('FROM knlocal-test/httpd:1\nCMD ["flood"]'),
    ),
    "pyserver": (
        *("knlocal-test/pyserver:1", ("python",)),
        *_layer(
            'FROM knlocal-test/python:3\nCOPY server.py /server.py\nCMD ["python3", "/server.py"]',
            "server.py",
        ),
    ),
    "conformance": (
        *("knlocal-test/conformance:1", ("python",)),
        *_layer(
            "FROM knlocal-test/python:3\nCOPY conformance.py /server.py\nUSER 65532\n"
            'ENTRYPOINT ["python3", "-u", "/server.py"]',
            "conformance.py",
        ),
    ),
}


def main() -> int:
    try:
        for image in ensure(*sys.argv[1:]).values():
            print(image)
    except KeyError as unknown:
        print(f"no such image: {unknown}. There are: {', '.join(IMAGES)}", file=sys.stderr)
        return 64
    except CannotBuild as why:
        print(why, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
