"""The `proxy` subresource of pods and services: plain HTTP to what runs, through the API."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from knlocal.apiserver.pods import CONNECT_SECONDS, PodAccess
from knlocal.apiserver.requests import ApiRequest
from knlocal.resources.base import GroupKind, Obj, spec_of
from knlocal.resources.status import BadRequest, Unavailable
from knlocal.store.store import POD, Store

_SERVICE, _ENDPOINTS = GroupKind("", "Service"), GroupKind("", "Endpoints")
#: RFC 9110 section 7.6.1; the credentials are for this server only.
_NOT_FORWARDED = frozenset({
    "authorization", "connection", "host", "keep-alive", "proxy-authenticate",
    "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip


class _Place(NamedTuple):
    """`[scheme:]name[:port]`, as the path names pods and services to reach."""

    scheme: str
    name: str
    port: str


class Proxies:
    """Answers `…/pods/<name>:<port>/proxy/<path>`, and the same of services."""

    def __init__(self, store: Store, access: PodAccess) -> None:
        self._store = store
        self._access = access

    def handlers(
        self,
    ) -> dict[tuple[str, str, str], Callable[[ApiRequest], Awaitable[web.StreamResponse]]]:
        return {("", "pods", "proxy"): self.pod, ("", "services", "proxy"): self.service}

    async def pod(self, request: ApiRequest) -> web.StreamResponse:
        place = _place(request.target.name)
        pod = self._store.get(POD, request.target.namespace, place.name)
        port = int(place.port) if place.port.isdigit() else _container_port(pod, place.port)
        return await self._forward(request, place.scheme, await self._access.address(pod, port))

    async def service(self, request: ApiRequest) -> web.StreamResponse:
        place = _place(request.target.name)
        namespace = request.target.namespace
        service = self._store.get(_SERVICE, namespace, place.name)
        port = _service_port(service, place)
        endpoints = self._store.find(_ENDPOINTS, namespace, place.name) or {}
        ready = [
            (address, int(known["port"]))
            for subset in endpoints.get("subsets") or ()
            for known in subset.get("ports") or ()
            if (known.get("name") or "") == port
            for address in subset.get("addresses") or ()
        ]
        if not ready:
            raise Unavailable(f'no endpoints available for service "{request.target.name}"')
        address, number = random.choice(ready)
        target = address.get("targetRef") or {}
        if target.get("kind") != "Pod":
            return await self._forward(request, place.scheme, (address["ip"], number))
        pod = self._store.get(POD, namespace, target["name"])
        return await self._forward(request, place.scheme, await self._access.address(pod, number))

    async def _forward(
        self, request: ApiRequest, scheme: str, address: tuple[str, int]
    ) -> web.StreamResponse:
        http = request.http
        # /api/v1/namespaces/<namespace>/<plural>/<name>/proxy/<rest>
        steps = http.rel_url.raw_path.split("/", 8)
        query = http.rel_url.raw_query_string
        if len(steps) < 9 and http.method in ("GET", "HEAD"):
            moved = f"{http.rel_url.raw_path}/" + (f"?{query}" if query else "")
            return web.Response(status=301, headers={"Location": moved})
        host, port = address
        place = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/"
        url = place + "".join(steps[8:]) + (f"?{query}" if query else "")
        body = http.content if http.body_exists else None
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
            try:
                answer = await session.request(
                    http.method, URL(url, encoded=True), ssl=False, allow_redirects=False,
                    headers=_passed_on(http.headers), data=body,
                )  # fmt: skip
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise Unavailable(f"error trying to reach service: {error}") from None
            async with answer:
                return await _passed_back(http, answer)


async def _passed_back(http: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=_passed_on(answer.headers))
    await response.prepare(http)
    try:
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
    except aiohttp.ClientError as error:
        raise ConnectionResetError(f"the answer broke off: {error}") from None
    await response.write_eof()
    return response


def _passed_on(headers: Mapping[str, str]) -> CIMultiDict[str]:
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        if name.lower() not in _NOT_FORWARDED:
            kept.add(name, value)
    return kept


def _place(name: str) -> _Place:
    parts = name.split(":")
    if len(parts) == 1:
        return _Place("http", name, "")
    if len(parts) == 2:
        return _Place("http", *parts)
    if len(parts) == 3 and parts[0] in ("", "http", "https"):
        return _Place(parts[0] or "http", parts[1], parts[2])
    raise BadRequest(f'invalid request "{name}": it must be [http:|https:]name[:port]')


def _container_port(pod: Obj, name: str) -> int:
    """The port of that name; without a name the first one there is, or 80."""
    ports = [port for c in spec_of(pod).get("containers") or () for port in c.get("ports") or ()]
    if not name:
        return int(ports[0]["containerPort"]) if ports else 80
    for port in ports:
        if port.get("name") == name:
            return int(port["containerPort"])
    raise BadRequest(f'pod {pod["metadata"]["name"]} has no port named "{name}"')


def _service_port(service: Obj, place: _Place) -> str:
    """The name of the service's port that a number, a name or nothing means."""
    ports = spec_of(service).get("ports") or []
    if not place.port and len(ports) == 1:
        return str(ports[0].get("name") or "")
    for port in ports:
        if place.port in (port.get("name") or "", str(port.get("port"))):
            return str(port.get("name") or "")
    raise Unavailable(f'no service port "{place.port}" found for service "{place.name}"')
