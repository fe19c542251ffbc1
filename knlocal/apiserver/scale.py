"""The `scale` subresource: autoscaling/v1 Scale of whatever has replicas."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from knlocal.apiserver import negotiation
from knlocal.apiserver.negotiation import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH
from knlocal.apiserver.patches.json_patch import apply_json_patch
from knlocal.apiserver.patches.merge_patch import apply_merge_patch
from knlocal.apiserver.requests import ApiRequest, NoSuchSubresource
from knlocal.resources.base import Obj, copy
from knlocal.resources.core.cells import selector_text
from knlocal.resources.kinds import Kind
from knlocal.resources.status import (
    BadRequest,
    Invalid,
    MethodNotAllowed,
    UnsupportedMediaType,
)
from knlocal.store.store import Store

_VERSION = "autoscaling/v1"


class Scales:
    """Reads and writes `spec.replicas` through Scale objects."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def handle(self, request: ApiRequest) -> web.StreamResponse:
        if not request.kind.has_scale:
            raise NoSuchSubresource(NoSuchSubresource.usual)
        target = request.target
        obj = self._store.get(request.kind.group_kind, target.namespace, target.name)
        match request.http.method:
            case "GET":
                return negotiation.answer(_scale(obj, request.kind))
            case "PUT":
                scale = await self._sent(request)
            case "PATCH":
                scale = await self._patched(request, _scale(obj, request.kind))
            case _:
                raise MethodNotAllowed(
                    "the server does not allow this method on the requested resource"
                )
        return await self._write(request, obj, scale)

    async def _sent(self, request: ApiRequest) -> Obj:
        body = await negotiation.read_body(request.http)
        media = negotiation.content_type(request.http.headers)
        return negotiation.decode_body(body, media, "*v1.Scale")[0]  # checked when it is written

    async def _patched(self, request: ApiRequest, scale: Obj) -> Obj:
        media = negotiation.content_type(request.http.headers)
        body = await negotiation.read_body(request.http)
        if media == APPLY_PATCH:
            return apply_merge_patch(scale, negotiation.load_yaml(body)[0])
        if media not in (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH):
            raise UnsupportedMediaType(f"the body of the request was in an unknown format: {media}")
        try:
            patch = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"error decoding patch: {error}") from None
        if media == JSON_PATCH:
            return apply_json_patch(scale, patch)
        patched = apply_merge_patch(scale, patch)
        if media == STRATEGIC_PATCH:  # read by its fields, whatever the sender calls the object
            patched |= {"kind": scale["kind"], "apiVersion": scale["apiVersion"]}
        return patched

    async def _write(self, request: ApiRequest, obj: Obj, scale: Any) -> web.Response:
        if not isinstance(scale, dict):
            raise BadRequest("a Scale is an object")
        if scale.get("kind", "Scale") != "Scale" or scale.get("apiVersion", _VERSION) != _VERSION:
            raise BadRequest(
                f"cannot handle {scale.get('kind')} in version {scale.get('apiVersion')} as a "
                f"Scale in version {_VERSION}"
            )
        negotiation.check_shape(scale, "io.k8s.api.autoscaling.v1.Scale")
        replicas = (scale.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
            name = request.target.name
            message = f"Invalid value: {replicas}: must be greater than or equal to 0"
            raise Invalid(
                f'Scale.autoscaling "{name}" is invalid: spec.replicas: {message}',
                group="autoscaling", kind="Scale", name=name,
                causes=[
                    {"reason": "FieldValueInvalid", "message": message, "field": "spec.replicas"}
                ],
            )  # fmt: skip
        changed = copy(obj)
        _put(changed, request.kind.scale_paths[0], replicas)
        sent = scale.get("metadata") or {}
        for field in ("resourceVersion", "uid"):
            if sent.get(field):
                changed["metadata"][field] = sent[field]
        stored = self._store.update(changed, request.write_options())
        await self._store.durable()
        return negotiation.answer(_scale(stored, request.kind), warnings=request.warnings)


def _scale(obj: Obj, kind: Kind) -> Obj:
    metadata = obj["metadata"]
    wanted, present, labels = kind.scale_paths
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    if labels:
        selector = str(_at(obj, labels) or "")
    else:
        chosen = _at(obj, ".spec.selector")
        selector = selector_text(chosen) if chosen and not isinstance(chosen, str) else ""
    return {
        "kind": "Scale",
        "apiVersion": _VERSION,
        "metadata": {name: metadata[name] for name in kept if name in metadata},
        "spec": {"replicas": _at(obj, wanted) or 0},
        "status": {
            "replicas": _at(obj, present) or 0,
            **({"selector": selector} if selector else {}),
        },
    }


def _at(obj: Any, path: str) -> Any:
    for name in path.strip(".").split("."):
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj


def _put(obj: Obj, path: str, value: Any) -> None:
    *above, last = path.strip(".").split(".")
    for name in above:
        obj = obj.setdefault(name, {})
    obj[last] = value
