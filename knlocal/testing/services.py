"""Calling services as a client would, from plain and asynchronous tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import ClientSession, ClientTimeout

from knlocal.testing.matching import hidden, seconds

if TYPE_CHECKING:
    from knlocal.testing.project import LocalProject

__tracebackhide__ = hidden


@dataclass(frozen=True, slots=True)
class Answered:
    """What a service answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        return orjson.loads(self.body)


class ServiceClient:
    """One service, by its host name through the gateway: a service at zero wakes for it.

    `get`, `post`, … block; `aget`, `apost`, … are awaited.
    """

    def __init__(self, project: LocalProject, host: str, of: tuple[str, str]) -> None:
        """`of`: namespace and name of the service."""
        self._project = project
        self._of = of
        self.host = host

    @property
    def url(self) -> str:
        """What a browser would be given."""
        return f"http://{self.host}:{self._project.port}"

    def request(self, method: str, path: str = "/", **how: Any) -> Answered:
        """`how`: headers, params, data (bytes or str), json, within ("30s", real time)."""
        limit = seconds(how.get("within", "60s"))
        return self._project.run(self._request(method, path, **how), limit + 10)

    async def arequest(self, method: str, path: str = "/", **how: Any) -> Answered:
        return await self._project.aio(self._request(method, path, **how))

    def get(self, path: str = "/", **how: Any) -> Answered:
        return self.request("GET", path, **how)

    def post(self, path: str = "/", **how: Any) -> Answered:
        return self.request("POST", path, **how)

    def put(self, path: str = "/", **how: Any) -> Answered:
        return self.request("PUT", path, **how)

    def delete(self, path: str = "/", **how: Any) -> Answered:
        return self.request("DELETE", path, **how)

    async def aget(self, path: str = "/", **how: Any) -> Answered:
        return await self.arequest("GET", path, **how)

    async def apost(self, path: str = "/", **how: Any) -> Answered:
        return await self.arequest("POST", path, **how)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        data: bytes | str | None = None,
        json: Any = None,
        within: float | str = "60s",
    ) -> Answered:
        self._project.check_service(*self._of)
        sent = dict(headers or {})
        sent["Host"] = f"{self.host}:{self._project.port}"
        if json is not None:
            data = orjson.dumps(json)
            sent.setdefault("Content-Type", "application/json")
        timeout = ClientTimeout(total=seconds(within))
        async with (
            ClientSession(timeout=timeout) as session,
            session.request(
                method,
                f"http://127.0.0.1:{self._project.port}{path}",
                headers=sent,
                params=params,
                data=data.encode() if isinstance(data, str) else data,
                allow_redirects=False,
            ) as answer,
        ):
            return Answered(answer.status, answer.headers.copy(), await answer.read())
