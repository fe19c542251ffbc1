"""Questions that are asked by creating an object which is never stored: may I, who am I, and
tokens for service accounts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from knlocal.apiserver import negotiation
from knlocal.apiserver.rbac import Authorizer
from knlocal.apiserver.requests import ApiRequest
from knlocal.apiserver.tokens import DEFAULT_AUDIENCE, Tokens
from knlocal.apiserver.users import User
from knlocal.control.rbac import Attributes, cluster_role_rules
from knlocal.resources.base import Obj, timestamp
from knlocal.resources.core.table import definition
from knlocal.resources.kinds import Kind
from knlocal.resources.status import BadRequest
from knlocal.store.store import Store

Handler = Callable[[ApiRequest], Awaitable[web.StreamResponse]]

_AUTHORIZATION, _AUTHENTICATION = "authorization.k8s.io", "authentication.k8s.io"


def review_kind(group: str, name: str, *, namespaced: bool = False) -> Kind:
    package = group.partition(".")[0]
    return Kind(
        group, "v1", name, f"{name.lower()}s", definition(f"io.k8s.api.{package}.v1.{name}"),
        namespaced=namespaced, verbs=("create",), has_status=False, is_custom=False,
    )  # fmt: skip


class Reviews:
    """The review kinds and what answers them."""

    def __init__(self, store: Store, authorizer: Authorizer, tokens: Tokens) -> None:
        self._store = store
        self._authorizer = authorizer
        self._tokens = tokens

    def handlers(self) -> list[tuple[Kind, Handler]]:
        return [
            (review_kind(_AUTHORIZATION, "SelfSubjectAccessReview"), self._self_access),
            (review_kind(_AUTHORIZATION, "SubjectAccessReview"), self._access),
            (
                review_kind(_AUTHORIZATION, "LocalSubjectAccessReview", namespaced=True),
                self._access,
            ),
            (review_kind(_AUTHORIZATION, "SelfSubjectRulesReview"), self._self_rules),
            (review_kind(_AUTHENTICATION, "TokenReview"), self._token),
            (review_kind(_AUTHENTICATION, "SelfSubjectReview"), self._self),
        ]

    async def _read(self, request: ApiRequest, name: str = "") -> Obj:
        """The review that was sent; `name` for one that has no kind of its own in the path."""
        package = (_AUTHENTICATION if name else request.kind.group).partition(".")[0]
        definition = f"io.k8s.api.{package}.v1.{name or request.kind.kind}"
        body = await negotiation.read_body(request.http)
        media = negotiation.content_type(request.http.headers)
        return negotiation.decode_as(body, media, definition)

    def _answer(self, request: ApiRequest, obj: Obj, status: Obj) -> web.Response:
        shown = {
            "kind": request.kind.kind,
            "apiVersion": request.kind.api_version,
            "metadata": {"creationTimestamp": None, **(obj.get("metadata") or {})},
            **({"spec": obj.get("spec") or {}} if "spec" in obj else {}),
            "status": status,
        }
        return negotiation.answer(shown, status=201)

    # -- may I, may they ----------------------------------------------------------------------

    async def _self_access(self, request: ApiRequest) -> web.StreamResponse:
        obj = await self._read(request)
        return self._answer(request, obj, self._decide(request.user, obj.get("spec") or {}))

    async def _access(self, request: ApiRequest) -> web.StreamResponse:
        obj = await self._read(request)
        spec = obj.get("spec") or {}
        user = User(
            str(spec.get("user") or ""), str(spec.get("uid") or ""),
            _with_service_account_groups(spec), spec.get("extra") or {},
        )  # fmt: skip
        if not user.name and not user.groups:
            raise BadRequest("spec.user: Invalid value: at least one of user or group must be set")
        return self._answer(request, obj, self._decide(user, spec))

    def _decide(self, user: User, spec: Obj) -> Obj:
        wanted = _attributes(spec)
        if self._authorizer.allowed(user, wanted):
            return {"allowed": True}
        return {"allowed": False, "reason": ""}

    async def _self_rules(self, request: ApiRequest) -> web.StreamResponse:
        obj = await self._read(request)
        namespace = str((obj.get("spec") or {}).get("namespace") or "")
        rules = list(self._authorizer.rules(request.user, namespace))
        if request.user.is_admin:
            all_of_it = cluster_role_rules(self._store, "cluster-admin")
            rules = [*all_of_it, *(rule for rule in rules if rule not in all_of_it)]
        status = {
            "resourceRules": [rule for rule in rules if "nonResourceURLs" not in rule],
            "nonResourceRules": [rule for rule in rules if "nonResourceURLs" in rule],
            "incomplete": False,
        }
        return self._answer(request, obj, status)

    # -- who ----------------------------------------------------------------------------------

    async def _token(self, request: ApiRequest) -> web.StreamResponse:
        obj = await self._read(request)
        spec = obj.get("spec") or {}
        audiences = spec.get("audiences") or [DEFAULT_AUDIENCE]
        user = self._tokens.user(str(spec.get("token") or ""), audiences)
        if user is None:
            error = "[invalid bearer token, token lookup failed]"
            return self._answer(request, obj, {"user": {}, "error": error})
        status = {"authenticated": True, "user": user.to_info(), "audiences": audiences}
        return self._answer(request, obj, status)

    async def _self(self, request: ApiRequest) -> web.StreamResponse:
        obj = await self._read(request)
        return self._answer(request, obj, {"userInfo": request.user.to_info()})

    # -- tokens -------------------------------------------------------------------------------

    async def service_account_token(self, request: ApiRequest) -> web.StreamResponse:
        """`POST …/serviceaccounts/<name>/token`: a signed, expiring token."""
        obj = await self._read(request, "TokenRequest")
        account = self._store.get(
            request.kind.group_kind, request.target.namespace, request.target.name
        )
        spec = obj.get("spec") or {}
        seconds = spec.get("expirationSeconds") or 3600
        if seconds < 600:
            raise BadRequest(
                f"spec.expirationSeconds: Invalid value: {seconds}: may not specify a duration "
                "less than 10 minutes"
            )
        audiences = spec.get("audiences") or [DEFAULT_AUDIENCE]
        token, expires = self._tokens.issue(account, audiences, seconds)
        now = timestamp(self._store.clock.now())
        shown = {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {
                "name": request.target.name, "namespace": request.target.namespace,
                "creationTimestamp": now,
            },
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds},
            "status": {"token": token, "expirationTimestamp": expires},
        }  # fmt: skip
        return negotiation.answer(shown, status=201)


def _attributes(spec: Obj) -> Attributes:
    path = spec.get("nonResourceAttributes")
    if path:
        return Attributes(str(path.get("verb") or ""), path=str(path.get("path") or ""))
    given: dict[str, Any] = spec.get("resourceAttributes") or {}
    return Attributes(
        *(str(given.get(name) or "") for name in (
            "verb", "group", "resource", "subresource", "namespace", "name",
        ))
    )  # fmt: skip


def _with_service_account_groups(spec: Obj) -> tuple[str, ...]:
    return tuple(spec.get("groups") or ())
