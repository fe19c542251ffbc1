"""Cluster-local names for local processes, which resolve names as the machine does: the name goes
into the path of a URL that this gateway answers on loopback.

    http://hello.default.svc.cluster.local/x  →  http://127.0.0.1:8081/-/hello.default.svc…/x
"""

from __future__ import annotations

import re
from typing import Final

from knlocal.gateway.dispatch import PLAIN, dispatch
from knlocal.gateway.http import Request
from knlocal.gateway.names import is_cluster_local
from knlocal.gateway.routes import RouteTable

PREFIX: Final = "/-/"
_URL: Final = re.compile(r"http://([a-z0-9.-]+)((?::\d+)?)((?:[/?].*)?)", re.DOTALL)


def by_path(url: str, host: str, port: int) -> str:
    """`url` as a process on this machine can use it, with the gateway at `host` and `port`; what is
    no URL of a cluster-local name comes back as it is."""
    match = _URL.fullmatch(url)
    if match is None or not is_cluster_local(match[1]):
        return url
    name, own_port, rest = match.groups()
    if rest.startswith("?"):
        rest = f"/{rest}"
    return f"http://{host}:{port}{PREFIX}{name}{own_port}{rest}"


class ByPath:
    """The handler behind such URLs."""

    def __init__(self, routes: RouteTable) -> None:
        self._routes = routes

    async def __call__(self, request: Request) -> None:
        if "origin" in request.headers or "sec-fetch-site" in request.headers:
            # Programs send neither. A web page must not get at what only the cluster shall reach.
            return await request.respond(403, PLAIN, "not for browsers\n")
        authority, slash, rest = request.target.removeprefix(PREFIX).partition("/")
        authority, question, query = authority.partition("?")
        host = authority.partition(":")[0]
        if not request.target.startswith(PREFIX) or not is_cluster_local(host):
            shape = f"{PREFIX}<name>.<namespace>.svc.cluster.local/…"
            return await request.respond(404, PLAIN, f"404: the path must be {shape}\n")
        request.target = f"/{question}{query}{slash}{rest}" if question else f"/{rest}"
        request.host = host
        request.authority = request.headers["Host"] = authority
        await dispatch(self._routes, request)
        return None
