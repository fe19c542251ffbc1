"""Finding the engine, and the registry credentials: the only importer of the Docker SDK.

Which engine, in this order (as the docker client decides): `DOCKER_HOST`, `DOCKER_CONTEXT`, the
current context of the docker configuration, then the sockets where engines usually listen.

The SDK is synchronous and slow to import, so it is imported when first needed, and its calls run on
a small pool of threads.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import stat
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from knlocal.runtime.api import EngineUnavailable, RegistryAuth
from knlocal.runtime.docker_http import Endpoint
from knlocal.runtime.realtime import CLOCK

T = TypeVar("T")

#: Threads for SDK calls: they read files, or run a credential helper.
THREADS = 4
#: Seconds an SDK call may take.
DEADLINE = 60.0


class DockerSDK:
    """The parts of the Docker SDK that knlocal uses, off the event loop and with deadlines."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="docker-sdk")

    async def endpoint(self) -> Endpoint:
        """Where the engine is. EngineUnavailable when nothing says where."""
        return await self._run(_find_endpoint, dict(os.environ))

    async def registry_auth(self, image: str) -> RegistryAuth | str | None:
        """What `docker login` left for the image's registry (a string is an identity token)."""
        return await self._run(_registry_auth, image)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, function: Callable[..., T], *args: Any) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with CLOCK.timeout(DEADLINE):
                return await loop.run_in_executor(self._threads, function, *args)
        except TimeoutError:
            raise EngineUnavailable(
                f"Reading the docker configuration took longer than {DEADLINE:.0f} s."
            ) from None


def _find_endpoint(environ: Mapping[str, str]) -> Endpoint:
    if host := environ.get("DOCKER_HOST"):
        return _from_environment(host, environ)
    context = environ.get("DOCKER_CONTEXT") or _current_context(environ)
    if context and context != "default":
        return _from_context(context)
    for path in _usual_sockets(environ):
        if _is_socket(path):
            return Endpoint(socket=path, source="the usual place")
    if sys.platform == "win32":
        return Endpoint(socket=r"\\.\pipe\docker_engine", source="the usual place")
    raise EngineUnavailable(
        "No container engine found: DOCKER_HOST is not set and no socket is at"
        f" {' or '.join(_usual_sockets(environ))}. Start Docker, or use the process runtime."
    )


def _usual_sockets(environ: Mapping[str, str]) -> list[str]:
    sockets = ["/var/run/docker.sock"]
    if run := environ.get("XDG_RUNTIME_DIR"):
        sockets.append(f"{run}/docker.sock")
    if home := environ.get("HOME"):
        sockets += [f"{home}/.docker/run/docker.sock", f"{home}/.docker/desktop/docker.sock"]
    return sockets


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        return False


def _from_environment(host: str, environ: Mapping[str, str]) -> Endpoint:
    tls = None
    if environ.get("DOCKER_TLS_VERIFY") or environ.get("DOCKER_TLS"):
        folder = Path(
            environ.get("DOCKER_CERT_PATH")
            or Path(environ.get("HOME", "~")).expanduser() / ".docker"
        )
        tls = _tls(
            *(str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem")),
            verify=bool(environ.get("DOCKER_TLS_VERIFY")),
        )
    return _parse(host, tls, "DOCKER_HOST")


def _from_context(name: str) -> Endpoint:
    from docker.context import ContextAPI
    from docker.errors import DockerException

    try:
        found = ContextAPI.get_context(name)
    except (DockerException, OSError, ValueError, KeyError) as broken:
        raise EngineUnavailable(f'The docker context "{name}" cannot be read: {broken}') from broken
    if found is None or not found.Host:
        raise EngineUnavailable(
            f'The docker context "{name}" does not exist. See: docker context ls'
        )
    tls = None
    if config := found.TLSConfig:
        cert, key = config.cert or ("", "")
        tls = _tls(config.ca_cert or "", cert, key, verify=bool(config.verify))
    return _parse(str(found.Host), tls, f'the docker context "{name}"')


def _current_context(environ: Mapping[str, str]) -> str:
    # Read here: importing the SDK takes longer than everything else at the start.
    folder = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME") or "/") / ".docker")
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return ""
    return str(config.get("currentContext") or "") if isinstance(config, dict) else ""


def _parse(host: str, tls: ssl.SSLContext | None, source: str) -> Endpoint:
    url = urlsplit(host if "://" in host else f"tcp://{host}")
    if url.scheme in {"unix", "http+unix"}:
        return Endpoint(socket=url.netloc + url.path or "/var/run/docker.sock", source=source)
    if url.scheme == "npipe":
        return Endpoint(socket=host.removeprefix("npipe://").replace("/", "\\"), source=source)
    if url.scheme in {"tcp", "http", "https"} and url.hostname:
        if url.scheme == "https" and tls is None:
            tls = ssl.create_default_context()
        return Endpoint(
            host=url.hostname, port=url.port or (2376 if tls else 2375), tls=tls, source=source
        )
    raise EngineUnavailable(
        f'{source} says "{host}"; knlocal speaks to engines at unix://… and tcp://… only.'
    )


def _tls(ca: str, cert: str, key: str, *, verify: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca if ca and os.path.exists(ca) else None)
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if cert and os.path.exists(cert):
            context.load_cert_chain(cert, key or None)
    except (OSError, ssl.SSLError) as broken:
        raise EngineUnavailable(f"Docker's TLS files cannot be used: {broken}") from broken
    return context


def _registry_auth(image: str) -> RegistryAuth | str | None:
    from docker import auth
    from docker.errors import DockerException

    try:
        registry, _ = auth.resolve_repository_name(image)
        found = auth.load_config().resolve_authconfig(registry)
    except (DockerException, OSError, ValueError):
        return None  # as without a login: the registry will say what it thinks
    if not found:
        return None
    if token := found.get("IdentityToken") or found.get("identitytoken"):
        return str(token)
    return RegistryAuth(
        str(found.get("Username") or found.get("username") or ""),
        str(found.get("Password") or found.get("password") or ""),
    )
