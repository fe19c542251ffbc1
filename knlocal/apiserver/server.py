"""The Kubernetes-compatible API over the store: `ApiServer` listens, guards and dispatches."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from aiohttp import web

from knlocal.apiserver import negotiation
from knlocal.apiserver.auth import authenticate, check_host, impersonate
from knlocal.apiserver.certificates import load_authority, server_context
from knlocal.apiserver.cluster_roles import ClusterRoles
from knlocal.apiserver.custom_resources import CustomResources
from knlocal.apiserver.documents import Documents
from knlocal.apiserver.kubeconfig import kubeconfig
from knlocal.apiserver.pods import NoPods, PodAccess
from knlocal.apiserver.rbac import Authorizer
from knlocal.apiserver.resources import ResourceRoutes
from knlocal.apiserver.tokens import Tokens
from knlocal.apiserver.users import ADMIN_USER, User
from knlocal.control.rbac import Attributes
from knlocal.resources.base import Obj
from knlocal.resources.status import StatusError
from knlocal.store.database import StateError
from knlocal.store.store import Store

log = logging.getLogger(__name__)

#: Bytes of a request line or header field.
LONGEST_HEAD = 1024 * 1024

Handler = Callable[[web.BaseRequest, User], Awaitable[web.StreamResponse]]
"""A handler mounted beside the Kubernetes API: it gets the authenticated user."""


class ApiServer:
    """The API. `folder` keeps its private files (CA, token); `pods` reaches into containers."""

    SHUTDOWN_SECONDS = 0.5

    def __init__(
        self,
        store: Store,
        folder: Path,
        *,
        pods: PodAccess | None = None,
        extra_names: Collection[str] = (),
    ) -> None:
        self._store = store
        self._extra_names = tuple(extra_names)
        self._folder = folder
        self.authority = load_authority(folder, store.clock)
        self.tokens = Tokens(folder, store, store.clock)
        self.authorizer = Authorizer(store)
        self._resources = ResourceRoutes(store, self.authorizer, self.tokens, pods or NoPods())
        self._custom = CustomResources(store)
        self._roles = ClusterRoles(store)
        self._documents = Documents(self._resources.kinds, self.tokens)
        self._mounts: dict[str, Handler] = {}
        self._runners: list[web.ServerRunner] = []
        self._tls: ssl.SSLContext | None = None
        self.address = ("", 0)

    # -- starting and stopping ----------------------------------------------------------------

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen with TLS; port 0 picks a free one. May be called again for more addresses."""
        self._custom.start()
        self._roles.start()
        names = (*self._extra_names, host)
        self._tls = server_context(self._folder, self.authority, self._store.clock, names)
        bound = await self._listen(host, port, self._tls, plain=False)
        if not self.address[1]:
            self.address = bound

    async def start_plain(self, host: str, port: int) -> tuple[str, int]:
        """Listen without TLS and without a token, as administrator: only on a loopback address,
        and only where somebody asked for it. Raises ValueError for other addresses."""
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(f"the API without a token listens on loopback only, not on {host}")
        return await self._listen(host, port, None, plain=True)

    async def _listen(
        self, host: str, port: int, tls: ssl.SSLContext | None, *, plain: bool
    ) -> tuple[str, int]:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return await self._handle(request, plain=plain)

        # Commands of `kubectl exec` and selectors travel in the URL: as long as Go's servers take.
        server = web.Server(
            handle, handler_cancellation=True, access_log=None,
            max_line_size=LONGEST_HEAD, max_field_size=LONGEST_HEAD,
        )  # fmt: skip
        runner = web.ServerRunner(server, shutdown_timeout=self.SHUTDOWN_SECONDS)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, host, port, ssl_context=tls).start()
        bound = runner.addresses[0]
        return str(bound[0]), int(bound[1])

    async def close(self) -> None:
        """Stop listening; open watches and streams end."""
        self._roles.stop()
        self._custom.stop()
        runners, self._runners = self._runners, []
        for runner in runners:
            await runner.cleanup()

    @property
    def url(self) -> str:
        host, port = self.address
        return f"https://{f'[{host}]' if ':' in host else host}:{port}"

    def kubeconfig(self, namespace: str = "default") -> Obj:
        """What points kubectl and kn here."""
        return kubeconfig(self.url, self.authority.pem, self.tokens.admin, namespace)

    def mount(self, prefix: str, handler: Handler) -> None:
        """Serve what is below `prefix` ("/knlocal/v1/") with `handler`, behind the same guard."""
        self._mounts[prefix] = handler

    # -- one request --------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest, *, plain: bool) -> web.StreamResponse:
        try:
            check_host(request.headers, self._extra_names)
            user = ADMIN_USER if plain else self._authenticate(request)
            user = impersonate(user, request.headers)
            return await self._dispatch(request, user)
        except StatusError as error:
            return refusal(error)
        except (ConnectionError, asyncio.CancelledError):
            raise  # the client went away
        except StateError as error:
            log.error("%s", error)
            return refusal(_Internal(str(error)))
        except Exception:
            log.exception("cannot answer %s %s", request.method, request.path)
            return refusal(_Internal("Internal error occurred; knlocal's log says more"))

    def _authenticate(self, request: web.BaseRequest) -> User:
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport else None
        return authenticate(request.headers, certificate, self.tokens)

    async def _dispatch(self, request: web.BaseRequest, user: User) -> web.StreamResponse:
        for prefix, handler in self._mounts.items():
            if request.path.startswith(prefix):
                self.authorizer.check(user, Attributes(request.method.lower(), path=request.path))
                return await handler(request, user)
        response = await self._resources.handle(request, user)
        if response is not None:
            return response
        self.authorizer.check(user, Attributes(request.method.lower(), path=request.path))
        document = self._documents.handle(request, self.url)
        return document if document is not None else not_found()


class _Internal(StatusError):
    code, reason = 500, "InternalError"


def refusal(error: StatusError) -> web.Response:
    """A `Status` as an answer."""
    response = negotiation.answer(error.to_status(), status=error.code)
    seconds: Any = error.details.get("retryAfterSeconds")
    if seconds:
        response.headers["Retry-After"] = str(seconds)
    if error.code == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def not_found() -> web.Response:
    """Not a Status, on purpose: clients read from it that the whole API is not there."""
    return web.Response(status=404, text="404 page not found\n")
