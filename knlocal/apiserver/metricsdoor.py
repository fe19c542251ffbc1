"""`/metrics`: Prometheus text under Knative's metric names, behind the API's guard."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from knlocal.apiserver.server import Handler
from knlocal.apiserver.users import User
from knlocal.resources.status import MethodNotAllowed

METRICS_PATH = "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics_door(render: Callable[[], str]) -> Handler:
    """A handler that answers GET with what `render` returns."""

    async def handle(request: web.BaseRequest, _user: User) -> web.StreamResponse:
        if request.method != "GET":
            raise MethodNotAllowed(f"{request.method} is not for {METRICS_PATH}")
        return web.Response(body=render().encode(), headers={"Content-Type": CONTENT_TYPE})

    return handle
