"""Writing: create, update, patch, delete, through the store's own rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from knlocal.apiserver import negotiation
from knlocal.apiserver.fields.managed import track
from knlocal.apiserver.listing import Reader
from knlocal.apiserver.negotiation import (
    APPLY_PATCH,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
)
from knlocal.apiserver.patches.json_patch import apply_json_patch
from knlocal.apiserver.patches.merge_patch import apply_merge_patch
from knlocal.apiserver.patches.strategic import apply_strategic_patch
from knlocal.apiserver.requests import ApiRequest, ApiWriteOptions
from knlocal.resources.base import Obj
from knlocal.resources.status import (
    BadRequest,
    Invalid,
    NotFound,
    UnsupportedMediaType,
)
from knlocal.store.metadata import Propagation
from knlocal.store.store import Store

Apply = Callable[[ApiRequest, Obj, "Obj | None", bool], Obj]
"""Server-side apply: (request, configuration, object or None, force) → the merged object."""

_DELETE_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"


class Writer:
    """Answers the writing verbs. Each waits until the write is durable."""

    def __init__(self, store: Store, reader: Reader, apply: Apply) -> None:
        self._store = store
        self._reader = reader
        self._apply = apply

    # -- create and update --------------------------------------------------------------------

    async def create(self, request: ApiRequest) -> web.Response:
        options = request.write_options()
        obj = await self._body(request, options)
        self._track(request, obj, None, options)
        stored = self._store.create(_storable(request, obj), options)
        return await self._answer(request, stored, 201)

    async def update(self, request: ApiRequest) -> web.Response:
        options = request.write_options()
        obj = await self._body(request, options)
        name = (obj.get("metadata") or {}).get("name") or ""
        if name != request.target.name:
            raise BadRequest(
                f"the name of the object ({name}) does not match the name on the URL "
                f"({request.target.name})"
                if name
                else "name must be provided"
            )
        self._check_subresource(request)
        target = request.target
        current = self._store.get(request.group_kind, target.namespace, target.name)
        _check_version_is_given(request, obj)
        self._track(request, obj, self._reader.converted(request, current), options)
        stored = self._store.update(
            _storable(request, obj), options, subresource=request.target.subresource
        )
        return await self._answer(request, stored, 200)

    async def _body(self, request: ApiRequest, options: ApiWriteOptions) -> Obj:
        """The object that was sent, checked against the URL."""
        kind = request.kind
        options.decoded = True
        media = negotiation.content_type(request.http.headers)
        body = await negotiation.read_body(request.http)
        obj, twice = negotiation.decode_body(body, media, f"*{kind.version}.{kind.kind}")
        if options.field_validation != "Ignore" and media in ("", negotiation.JSON):
            twice = negotiation.duplicate_fields(body)
        note_duplicates(request, options, twice)
        self._fit_to_url(request, obj)
        return obj

    def _fit_to_url(self, request: ApiRequest, obj: Obj) -> None:
        kind, target = request.kind, request.target
        version, name = obj.get("apiVersion") or kind.api_version, obj.get("kind") or kind.kind
        if version != kind.api_version:
            raise BadRequest(
                f"the API version in the data ({version}) does not match the expected API version "
                f"({kind.api_version})"
            )
        if name != kind.kind:
            raise BadRequest(
                f'{name} in version "{kind.version}" cannot be handled as a {kind.kind}: '
                f"the kind in the data ({name}) does not match the expected kind ({kind.kind})"
            )
        obj["apiVersion"], obj["kind"] = version, name
        metadata = obj.get("metadata")
        if metadata is not None and not isinstance(metadata, dict):
            raise BadRequest("metadata must be an object")
        metadata = obj["metadata"] = dict(metadata or {})
        if not kind.namespaced:
            return
        namespace = metadata.get("namespace")
        if namespace and namespace != target.namespace:
            raise BadRequest(
                "the namespace of the provided object does not match the namespace sent on the "
                "request"
            )
        metadata["namespace"] = target.namespace

    def _check_subresource(self, request: ApiRequest) -> None:
        if request.target.subresource == "status" and not request.kind.has_status:
            raise NotFound("the server could not find the requested resource")

    def _track(
        self, request: ApiRequest, obj: Obj, old: Obj | None, options: ApiWriteOptions
    ) -> None:
        """Knative's kinds get their defaults from webhooks, whose work nobody owns: so ownership
        is settled before. Kubernetes' own defaults belong to the writer, as the hook sees it. A
        status is not defaulted at all."""
        subresource = request.target.subresource
        if subresource == "status" or (request.kind.is_custom and not subresource):
            track(request.kind, obj, old, options, self._store.clock.now(), subresource)
            options.tracked = True

    async def _answer(self, request: ApiRequest, obj: Obj, status: int) -> web.Response:
        await self._store.durable()
        return self._reader.show(request, obj, status)

    # -- patch --------------------------------------------------------------------------------

    async def patch(self, request: ApiRequest) -> web.Response:
        media = negotiation.content_type(request.http.headers)
        allowed = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH]
        if not request.kind.is_custom:
            allowed.append(STRATEGIC_PATCH)
        if media not in allowed:
            raise UnsupportedMediaType(
                "the body of the request was in an unknown format - accepted media types include: "
                + ", ".join(allowed)
            )
        self._check_subresource(request)
        body = await negotiation.read_body(request.http)
        if media == APPLY_PATCH:
            return await self._server_side_apply(request, body)
        patch = _loads(body)
        options = request.write_options()
        target = request.target
        current = self._store.get(request.group_kind, target.namespace, target.name)
        shown = self._reader.converted(request, current)
        changed = self._patched(request, media, shown, patch)
        self._check_patched(request, shown, changed)
        self._track(request, changed, shown, options)
        stored = self._store.update(
            _storable(request, changed), options, subresource=target.subresource
        )
        return await self._answer(request, stored, 200)

    def _patched(self, request: ApiRequest, media: str, obj: Obj, patch: Any) -> Obj:
        if media == JSON_PATCH:
            return apply_json_patch(obj, patch)
        if media == MERGE_PATCH:
            return apply_merge_patch(obj, patch)
        return apply_strategic_patch(obj, patch, request.kind.schema)

    def _check_patched(self, request: ApiRequest, before: Obj, after: Obj) -> None:
        """A patch must not make another object of the one it found."""
        self._fit_to_url(request, after)
        name = after["metadata"].get("name")
        if name != before["metadata"]["name"]:
            raise BadRequest(
                f"the name of the object ({name}) does not match the name on the URL "
                f"({before['metadata']['name']})"
            )

    async def _server_side_apply(self, request: ApiRequest, body: bytes) -> web.Response:
        if not request.query.text("fieldManager"):
            raise Invalid(
                'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: '
                "is required for apply patch",
                group="meta.k8s.io", kind="PatchOptions",
            )  # fmt: skip
        configuration, twice = negotiation.load_yaml(body)
        if not isinstance(configuration, dict):
            raise BadRequest("error decoding YAML: an object was expected")
        options = request.write_options()
        note_duplicates(request, options, twice)
        for name in ("apiVersion", "kind"):
            if not configuration.get(name):
                raise BadRequest(f"error decoding YAML: {name} must be set in an apply patch")
        self._fit_to_url(request, configuration)
        configuration["metadata"].setdefault("name", request.target.name)
        if configuration["metadata"]["name"] != request.target.name:
            raise BadRequest(
                f"the name of the object ({configuration['metadata']['name']}) does not match the "
                f"name on the URL ({request.target.name})"
            )
        target = request.target
        current = self._store.find(request.group_kind, target.namespace, target.name)
        shown = None if current is None else self._reader.converted(request, current)
        merged = self._apply(request, configuration, shown, request.query.flag("force"))
        options.tracked = True
        if current is None:
            if target.subresource:
                raise NotFound(
                    f'{request.kind.resource} "{target.name}" not found',
                    group=request.kind.group, kind=request.kind.plural, name=target.name,
                )  # fmt: skip
            stored = self._store.create(_storable(request, merged), options)
            return await self._answer(request, stored, 201)
        stored = self._store.update(
            _storable(request, merged), options, subresource=target.subresource
        )
        return await self._answer(request, stored, 200)

    # -- delete -------------------------------------------------------------------------------

    async def delete(self, request: ApiRequest) -> web.Response:
        wishes = await self._delete_options(request)
        target, kind = request.target, request.kind
        before = self._store.get(request.group_kind, target.namespace, target.name)
        last = self._delete(request, before, wishes)
        await self._store.durable()
        still_here = self._store.find(request.group_kind, target.namespace, target.name)
        if still_here is not None or wishes["options"].dry_run:
            return self._reader.show(request, last)
        status = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {
                "name": target.name,
                **({"group": kind.group} if kind.group else {}),
                "kind": kind.plural, "uid": before["metadata"]["uid"],
            },
        }  # fmt: skip
        return negotiation.answer(status, warnings=request.warnings)

    async def delete_collection(self, request: ApiRequest) -> web.Response:
        wishes = await self._delete_options(request)
        found = self._reader.selected(request)
        for obj in found:
            try:
                self._delete(request, obj, wishes)
            except NotFound:
                continue  # went with its owner
        await self._store.durable()
        kind = request.kind
        items = [self._reader.converted(request, obj) for obj in found]
        return negotiation.answer(
            {
                "kind": kind.list_name, "apiVersion": kind.api_version,
                "metadata": {"resourceVersion": str(self._store.version)}, "items": items,
            },
            warnings=request.warnings,
        )  # fmt: skip

    def _delete(self, request: ApiRequest, obj: Obj, wishes: dict[str, Any]) -> Obj:
        metadata = obj["metadata"]
        return self._store.delete(
            request.group_kind, metadata.get("namespace") or "", metadata["name"],
            propagation=wishes["propagation"], grace_seconds=wishes["grace"],
            uid=wishes["uid"], resource_version=wishes["version"], options=wishes["options"],
        )  # fmt: skip

    async def _delete_options(self, request: ApiRequest) -> dict[str, Any]:
        """What the body or, without one, the query says."""
        body = await negotiation.read_body(request.http)
        given: Obj = {}
        if body.strip():
            media = negotiation.content_type(request.http.headers)
            given = negotiation.decode_as(body, media, _DELETE_OPTIONS)
        return delete_wishes(request, given)


def delete_wishes(request: ApiRequest, given: Obj) -> dict[str, Any]:
    """The arguments of `Store.delete` that DeleteOptions, or query parameters, ask for."""
    query, options = request.query, request.write_options()
    if given.get("dryRun"):
        if given["dryRun"] != ["All"]:
            raise BadRequest('dryRun: Unsupported value: supported values: "All"')
        options.dry_run = True
    propagation: Propagation | None = given.get("propagationPolicy") or None
    propagation = propagation or query.text("propagationPolicy") or None  # type: ignore[assignment]
    orphan = given.get("orphanDependents")
    if orphan is None and query.text("orphanDependents"):
        orphan = query.flag("orphanDependents")
    if propagation is None and orphan is not None:
        propagation = "Orphan" if orphan else "Background"
    if propagation not in (None, "Background", "Foreground", "Orphan"):
        raise BadRequest(
            f'propagationPolicy: Invalid value: "{propagation}": must be one of Background, '
            "Foreground, Orphan"
        )
    grace = given.get("gracePeriodSeconds")
    if grace is None:
        grace = query.integer("gracePeriodSeconds")
    preconditions = given.get("preconditions") or {}
    return {
        "propagation": propagation, "grace": grace, "uid": preconditions.get("uid"),
        "version": preconditions.get("resourceVersion"), "options": options,
    }  # fmt: skip


def note_duplicates(request: ApiRequest, options: ApiWriteOptions, twice: list[str]) -> None:
    """Fields given twice are refused (Strict) or warned of (Warn)."""
    if not twice or options.field_validation == "Ignore":
        return
    said = [f'duplicate field "{path}"' for path in twice]
    if options.field_validation == "Warn":
        request.warnings += said
        return
    kind = request.kind
    raise BadRequest(
        f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
        f"strict decoding error: {', '.join(said)}"
    )


#: Kubernetes' own kinds that are only replaced by who knows their version, as all custom ones are
#: (`AllowUnconditionalUpdate` of their strategies).
_CONDITIONAL = {
    "CustomResourceDefinition", "EndpointSlice", "Lease", "MutatingWebhookConfiguration",
    "PodDisruptionBudget", "ValidatingWebhookConfiguration",
}  # fmt: skip


def _check_version_is_given(request: ApiRequest, obj: Obj) -> None:
    kind = request.kind
    if not kind.is_custom and kind.kind not in _CONDITIONAL:
        return
    if (obj.get("metadata") or {}).get("resourceVersion"):
        return
    what = "Invalid value: 0x0: must be specified for an update"
    name, field = request.target.name, "metadata.resourceVersion"
    raise Invalid(
        f'{kind.resource} "{name}" is invalid: {field}: {what}',
        group=kind.group, kind=kind.plural, name=name,
        causes=[{"reason": "FieldValueInvalid", "message": what, "field": field}],
    )  # fmt: skip


def _storable(request: ApiRequest, obj: Obj) -> Obj:
    """The store converts between versions of a kind, but does not know a kind's other faces."""
    convert = request.kind.to_storage
    if convert is None or request.group_kind == request.kind.group_kind:
        return obj
    return convert(obj)


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"error decoding patch: {error}") from None
