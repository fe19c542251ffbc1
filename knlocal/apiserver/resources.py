"""From a path to what answers it: stored kinds, their subresources, kinds that are not stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from knlocal.apiserver import negotiation
from knlocal.apiserver.fields.apply import ServerSideApply
from knlocal.apiserver.fields.managed import tracking_hook
from knlocal.apiserver.listing import Reader
from knlocal.apiserver.metrics import Metrics
from knlocal.apiserver.pods import PodAccess, PodStreams
from knlocal.apiserver.proxy import Proxies
from knlocal.apiserver.rbac import Authorizer
from knlocal.apiserver.requests import (
    ApiRequest,
    NoSuchSubresource,
    Query,
    Target,
    parse_path,
)
from knlocal.apiserver.reviews import Reviews
from knlocal.apiserver.scale import Scales
from knlocal.apiserver.tokens import Tokens
from knlocal.apiserver.users import User
from knlocal.apiserver.writing import Writer
from knlocal.control.rbac import Attributes
from knlocal.resources.core.events import EVENTS_V1
from knlocal.resources.kinds import Kind, KindRegistry
from knlocal.resources.status import MethodNotAllowed
from knlocal.store.store import NAMESPACE, Store

Handler = Callable[[ApiRequest], Awaitable[web.StreamResponse]]


class ResourceRoutes:
    """Everything below `/api/v1/…` and `/apis/<group>/<version>/…` that names a resource."""

    def __init__(
        self, store: Store, authorizer: Authorizer, tokens: Tokens, pods: PodAccess
    ) -> None:
        self._store = store
        self._authorizer = authorizer
        self._reader = Reader(store)
        self._writer = Writer(store, self._reader, ServerSideApply(store.clock))
        store.admission.append(tracking_hook(store.clock))
        #: Kinds that the API shows and the store does not keep.
        self._others = KindRegistry([EVENTS_V1])
        self._collections: dict[Kind, Handler] = {}
        reviews = Reviews(store, authorizer, tokens)
        metrics = Metrics(store, pods)
        for kind, handler in (*reviews.handlers(), *metrics.handlers()):
            self._others.add(kind)
            self._collections[kind] = handler
        streams = PodStreams(store, pods)
        self._subresources: dict[tuple[str, str, str], Handler] = {
            ("", "serviceaccounts", "token"): reviews.service_account_token,
            ("", "namespaces", "finalize"): self._finalize,
            **{("", "pods", name): handler for name, handler in streams.handlers().items()},
            **Proxies(store, pods).handlers(),
        }
        self._scales = Scales(store)

    def kinds(self) -> list[Kind]:
        """All kinds that are served, in a lasting order."""
        return [*self._store.registry, *self._others]

    async def handle(self, request: web.BaseRequest, user: User) -> web.StreamResponse | None:
        """The answer; None when the path names no resource that is served."""
        target = parse_path(request.path)
        if target is None:
            return None
        kind = self._store.registry.by_path(target.group, target.version, target.plural)
        kind = kind or self._others.by_path(target.group, target.version, target.plural)
        if kind is None or (target.namespace and not kind.namespaced):
            return None
        call = ApiRequest(request, target, kind, user, Query(request.query))
        self._authorize(call)
        if target.subresource and target.subresource != "status":
            return await self._subresource(call)
        if kind in self._collections:
            if call.verb not in kind.verbs:
                raise _not_allowed()
            return await self._collections[kind](call)
        return await self._verb(call)

    def _authorize(self, call: ApiRequest) -> None:
        target = call.target
        self._authorizer.check(
            call.user,
            Attributes(
                call.verb, target.group, target.plural, target.subresource, target.namespace,
                target.name,
            ),
        )  # fmt: skip

    async def _subresource(self, call: ApiRequest) -> web.StreamResponse:
        target = call.target
        if target.subresource == "scale":
            return await self._scales.handle(call)
        handler = self._subresources.get((target.group, target.plural, target.subresource))
        if handler is None:
            raise NoSuchSubresource(_NOT_HERE.get(target.subresource, NoSuchSubresource.usual))
        return await handler(call)

    async def _verb(self, call: ApiRequest) -> web.StreamResponse:
        verb, target = call.verb, call.target
        named = bool(target.name)
        if verb not in call.kind.verbs or not self._fits(verb, target, call.kind):
            raise _not_allowed()
        match verb:
            case "watch":
                return await self._reader.watch(call)
            case "list":
                return self._reader.list(call)
            case "get":
                return self._reader.get(call)
            case "create":
                return await self._writer.create(call)
            case "update":
                return await self._writer.update(call)
            case "patch":
                return await self._writer.patch(call)
            case "delete" if named:
                return await self._writer.delete(call)
        return await self._writer.delete_collection(call)

    @staticmethod
    def _fits(verb: str, target: Target, kind: Kind) -> bool:
        """Whether the path has what the verb needs: a name, a namespace."""
        has_place = bool(target.namespace) or not kind.namespaced
        if verb == "create":
            return has_place and not target.name
        if verb in ("update", "patch", "delete"):
            return has_place and bool(target.name)
        if verb == "get":
            return has_place
        return verb != "deletecollection" or has_place

    async def _finalize(self, call: ApiRequest) -> web.StreamResponse:
        """`PUT /api/v1/namespaces/<name>/finalize`: the spec's finalizers are replaced."""
        if call.http.method != "PUT":
            raise _not_allowed()
        body = await negotiation.read_body(call.http)
        media = negotiation.content_type(call.http.headers)
        sent = negotiation.decode_as(body, media, "io.k8s.api.core.v1.Namespace")
        finalizers = (sent.get("spec") or {}).get("finalizers") or []
        stored = self._store.modify(
            NAMESPACE, "", call.target.name,
            lambda obj: obj.__setitem__("spec", {"finalizers": finalizers} if finalizers else {}),
            call.write_options(),
        )  # fmt: skip
        await self._store.durable()
        return self._reader.show(call, stored)


#: Why a subresource that people ask for is missing, and what to try.
_NOT_HERE = {
    "ephemeralcontainers": "containers cannot be added to a running pod here; try `kubectl exec`, "
    "or a copy of the pod: `kubectl debug POD --copy-to=NAME --image=IMAGE`",
    "resize": "containers keep the resources they started with; change the pod's template",
}


def _not_allowed() -> MethodNotAllowed:
    return MethodNotAllowed("the server does not allow this method on the requested resource")
