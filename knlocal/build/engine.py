"""The engine's HTTP API as far as builds need it: asynchronous, so that giving up a build ends it.

Where the engine is and how to log in to registries comes from the Docker SDK (`DOCKER_HOST`,
`DOCKER_TLS_VERIFY`, `DOCKER_CERT_PATH`, the user's Docker configuration).
"""

from __future__ import annotations

import base64
import json
import os
import ssl
from collections.abc import AsyncGenerator, Mapping
from typing import IO, Any
from urllib.parse import quote

import aiohttp

#: Seconds: to connect and for a question; and for silence in the middle of a build.
QUICK, SILENCE = 15.0, 900.0


class EngineSilent(Exception):
    """The engine does not answer. The message says why."""


class EngineRefused(Exception):
    """The engine answered with an error; the message is its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Engine:
    """A client; close it."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._base = ""

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector, self._base = _connector()
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=QUICK, sock_read=SILENCE)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str) -> Any:
        """JSON (or text) of a GET. Raises EngineRefused, EngineSilent."""
        session = self._open()
        quick = aiohttp.ClientTimeout(total=QUICK)
        try:
            async with session.get(self._base + path, timeout=quick) as response:
                body = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EngineSilent(_why(error)) from None
        _check(response.status, body)
        return json.loads(body) if body[:1] in (b"{", b"[") else body.decode()

    async def image(self, name: str) -> Mapping[str, Any] | None:
        """What the engine knows about an image; None when it has none of this name."""
        try:
            found: Mapping[str, Any] = await self.get(f"/images/{quote(name, safe='/:@')}/json")
        except EngineRefused as refused:
            if refused.status in (400, 404):
                return None
            raise
        return found

    async def delete(self, path: str) -> None:
        """A DELETE. Raises EngineRefused, EngineSilent."""
        session = self._open()
        quick = aiohttp.ClientTimeout(total=QUICK)
        try:
            async with session.delete(self._base + path, timeout=quick) as response:
                _check(response.status, await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EngineSilent(_why(error)) from None

    async def build(
        self, context: IO[bytes], params: Mapping[str, str]
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        """The messages of a build, as they come. The build ends when the iterator is closed."""
        session = self._open()
        headers = {"Content-Type": "application/x-tar", **_registry_logins()}
        try:
            async with session.post(
                f"{self._base}/build", params=params, data=context, headers=headers
            ) as response:
                if response.status >= 300:
                    _check(response.status, await response.read())
                rest = b""
                async for block in response.content.iter_any():
                    *lines, rest = (rest + block).split(b"\n")
                    for line in lines:
                        if line.strip():
                            yield json.loads(line)
                if rest.strip():
                    yield json.loads(rest)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise EngineSilent(_why(error)) from None


def _connector() -> tuple[aiohttp.BaseConnector, str]:
    settings: Mapping[str, Any] = {}
    if os.environ.get("DOCKER_HOST") or os.environ.get("DOCKER_CERT_PATH"):
        from docker.utils import kwargs_from_env  # slow to import

        settings = kwargs_from_env()
    url = str(settings.get("base_url") or "unix:///var/run/docker.sock")
    scheme, _, place = url.partition("://")
    if scheme in ("unix", "http+unix"):
        return aiohttp.UnixConnector("/" + place.lstrip("/")), "http://docker"
    if scheme in ("tcp", "http", "https"):
        tls = settings.get("tls")
        if not tls:
            return aiohttp.TCPConnector(), f"http://{place}"
        context = ssl.create_default_context(cafile=tls.ca_cert or None)
        if tls.cert:
            context.load_cert_chain(*tls.cert)
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return aiohttp.TCPConnector(ssl=context), f"https://{place}"
    raise EngineSilent(f"DOCKER_HOST {url!r} is not supported: use unix:// or tcp://")


def _registry_logins() -> dict[str, str]:
    """The user's registry logins: a private base image needs them."""
    try:
        from docker import auth  # slow to import

        config: Any = auth.load_config()
        found = config.get_all_credentials()
    except Exception:  # a broken Docker configuration must not stop a build from public images
        return {}
    if not found:
        return {}
    text = base64.urlsafe_b64encode(json.dumps(found).encode()).decode()
    return {"X-Registry-Config": text}


def _check(status: int, body: bytes) -> None:
    if status >= 300:
        try:
            message = str(json.loads(body)["message"])
        except (ValueError, KeyError, TypeError):
            message = body.decode("utf-8", "replace").strip()
        raise EngineRefused(status, message)


def _why(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
