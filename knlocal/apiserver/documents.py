"""Everything read-only that describes the server: version, health, discovery, OpenAPI."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable

from aiohttp import web

from knlocal import __version__
from knlocal.apiserver import negotiation, openapi_protobuf
from knlocal.apiserver.discovery import Discovery
from knlocal.apiserver.openapi import OpenAPI
from knlocal.apiserver.tokens import Tokens
from knlocal.resources.base import Obj
from knlocal.resources.core import KUBERNETES_VERSION
from knlocal.resources.kinds import Kind
from knlocal.resources.status import MethodNotAllowed, NotAcceptable

_HEALTH = ("/healthz", "/livez", "/readyz")
_CHECKS = ("ping", "log", "store")
_AGGREGATED = "APIGroupDiscoveryList"


class Documents:
    """Answers made from the kinds; made anew when kinds come or go."""

    def __init__(self, kinds: Callable[[], Iterable[Kind]], tokens: Tokens) -> None:
        self._kinds = kinds
        self._tokens = tokens
        self._seen: tuple[int, ...] = ()
        self._discovery = Discovery(())
        self._openapi = OpenAPI(())

    def handle(self, request: web.BaseRequest, url: str) -> web.Response | None:
        """The document at the request's path; None when there is none."""
        self._refresh()
        path = request.path.rstrip("/") or "/"
        if path == "/":
            found = self._paths()
        elif path == "/version":
            found = version()
        elif path == "/.well-known/openid-configuration":
            found = self._tokens.discovery()
        elif path == "/openid/v1/jwks":
            found = self._tokens.key_set()
        elif path in _HEALTH or path.rpartition("/")[0] in _HEALTH:
            return _health(path, request)
        elif path.startswith("/openapi"):
            return self._open_api(path, request)
        else:
            found_or_none = self._discover(path, request, url)
            if isinstance(found_or_none, web.Response) or found_or_none is None:
                return found_or_none
            found = found_or_none
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed(
                "the server does not allow this method on the requested resource"
            )
        return negotiation.answer(found)

    def _refresh(self) -> None:
        kinds = list(self._kinds())
        seen = tuple(id(kind) for kind in kinds)
        if seen != self._seen:
            self._seen = seen
            self._discovery, self._openapi = Discovery(kinds), OpenAPI(kinds)

    def _discover(self, path: str, request: web.BaseRequest, url: str) -> Obj | web.Response | None:
        parts = path.strip("/").split("/")
        if path in ("/api", "/apis"):
            aggregated = self._aggregated(request, core=path == "/api")
            if aggregated is not None:
                return aggregated
            if path == "/api":
                return self._discovery.core_versions(url.partition("//")[2])
            return self._discovery.group_list()
        if parts[0] == "api" and len(parts) == 2:
            return self._discovery.resource_list("", parts[1])
        if parts[0] == "apis" and len(parts) == 2:
            group = self._discovery.group(parts[1])
            return group and {"kind": "APIGroup", "apiVersion": "v1", **group}
        if parts[0] == "apis" and len(parts) == 3:
            return self._discovery.resource_list(parts[1], parts[2])
        return None

    def _aggregated(self, request: web.BaseRequest, *, core: bool) -> web.Response | None:
        for media in negotiation.accepted(request.headers):
            version = media.parameters.get("v", "")
            if media.name == negotiation.JSON and media.transform() == _AGGREGATED:
                if version not in ("v2", "v2beta1"):
                    continue
                shown = self._discovery.aggregated(f"apidiscovery.k8s.io/{version}", core=core)
                response = negotiation.answer(shown)
                # Clients read this answer as the old document unless its type says all of it.
                response.headers["Content-Type"] = (
                    f"application/json;g=apidiscovery.k8s.io;v={version};as={_AGGREGATED}"
                )
                return response
            if media.name in (negotiation.JSON, "*/*") and not media.transform():
                return None
        return None

    def _open_api(self, path: str, request: web.BaseRequest) -> web.Response | None:
        names = {media.name for media in negotiation.accepted(request.headers)}
        if path == "/openapi/v2" and openapi_protobuf.ACCEPTED & names:
            response = web.Response(body=self._openapi.swagger_protobuf())
            response.headers["Content-Type"] = openapi_protobuf.CONTENT_TYPE
            return response
        if not names & {negotiation.JSON, "*/*", "application/*"}:
            raise NotAcceptable("only application/json is served here")
        if path == "/openapi/v3":
            return negotiation.answer(self._openapi.index())
        body = None
        if path == "/openapi/v2":
            body = self._openapi.swagger()
        elif path.startswith("/openapi/v3/"):
            body = self._openapi.document(path.removeprefix("/openapi/v3/"))
        if body is None:
            return None
        return web.Response(body=body, content_type=negotiation.JSON)

    def _paths(self) -> Obj:
        paths = ["/api", "/api/v1", "/apis"]
        for group in self._discovery.groups():
            if group:
                paths.append(f"/apis/{group}")
                paths += [f"/apis/{group}/{v}" for v in self._discovery.versions(group)]
        return {"paths": sorted([*paths, *_HEALTH, "/openapi/v2", "/openapi/v3", "/version"])}


def _health(path: str, request: web.BaseRequest) -> web.Response | None:
    """Who answers is healthy; `?verbose` and the single checks are read by people and probes."""
    asked, _, check = path.removeprefix("/").partition("/")
    if check:
        return web.Response(text="ok") if check in _CHECKS else None
    if "verbose" not in request.query:
        return web.Response(text="ok")
    lines = [f"[+]{name} ok" for name in _CHECKS]
    return web.Response(text="\n".join([*lines, f"{asked} check passed", ""]))


def version() -> Obj:
    """`GET /version`."""
    major, minor = KUBERNETES_VERSION.removeprefix("v").split(".")[:2]
    return {
        "major": major,
        "minor": minor,
        "gitVersion": KUBERNETES_VERSION,
        "gitCommit": f"knlocal-{__version__}",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "CPython",
        "platform": f"{platform.system().lower()}/{_architecture()}",
    }


def _architecture() -> str:
    machine = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
