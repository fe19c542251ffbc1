"""A request to the handler of its host, and what the client gets when that does not go well."""

from __future__ import annotations

import logging
from typing import Final

from knlocal.gateway.http import BodyTooLarge, ClientGone, Request
from knlocal.gateway.names import CLUSTER_DOMAIN
from knlocal.gateway.routes import Route, RouteTable
from knlocal.gateway.upstream import NotSent, UpstreamError

log = logging.getLogger(__name__)

PLAIN: Final = (("Content-Type", "text/plain; charset=utf-8"),)


async def dispatch(routes: RouteTable, request: Request) -> str:
    """Answer `request`. Returns why its handler failed, "" when it did not."""
    route = routes.find(request.host, request.exposure) or _neighbour(routes, request)
    if route is None:
        await request.respond(404, PLAIN, _unknown(routes, request))
        return ""
    try:
        if routes.around is None:
            await route.handler(request)
        else:
            await routes.around(request, route.handler)
    except ClientGone:
        raise
    except BodyTooLarge:
        return await _fail(request, 413, "the request body is too large")
    except (NotSent, UpstreamError) as error:
        return await _fail(request, 502, str(error))
    except Exception as error:
        log.exception("the handler for %s failed", request.host)
        return await _fail(request, 500, "internal error", f"{type(error).__name__}: {error}")
    if not request.finished:
        log.error("the handler for %s left a request unanswered", request.host)
        return await _fail(request, 500, "internal error", "no answer")
    return ""


def _neighbour(routes: RouteTable, request: Request) -> Route | None:
    """A Service of the caller's own namespace, called by its bare name as a pod may."""
    if request.exposure != "internal" or not request.host or "." in request.host:
        return None
    namespace = routes.namespace_of(request.peer)
    full = f"{request.host}.{namespace}.svc.{CLUSTER_DOMAIN}"
    return routes.find(full, "internal") if namespace else None


async def _fail(request: Request, status: int, message: str, detail: str = "") -> str:
    if request.finished:
        pass
    elif request.started:
        request.abort()
    else:
        await request.respond(status, PLAIN, message + "\n")
    return detail or message


def _unknown(routes: RouteTable, request: Request) -> str:
    if not request.host:
        return "404: the request names no host; knlocal routes by the Host header\n"
    lines = [f"404: no service answers for {request.host!r} here"]
    near = routes.similar(request.host, request.exposure)
    if near:
        lines.append("Hosts like it: " + ", ".join(near))
    elif routes.hosts(request.exposure):
        lines.append("`knlocal get ksvc,routes,domainmappings` lists what is served")
    else:
        lines.append("Nothing is served yet: `knlocal get ksvc` shows what is starting")
    return "\n".join(lines) + "\n"
