"""Reading: get, list (selectors, pages, tables) and the start of a watch."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from knlocal.apiserver import negotiation
from knlocal.apiserver.requests import ApiRequest
from knlocal.apiserver.table import partial_metadata, table
from knlocal.apiserver.watches import EncodedObjects, WatchPlan, WatchStream
from knlocal.resources import labels
from knlocal.resources.base import Obj, copy
from knlocal.resources.status import BadRequest, Invalid, Timeout
from knlocal.store.store import Store

ONE = ("Table", "PartialObjectMetadata")
#: Named here because the method `Reader.list` hides the built-in inside the class.
Objects = list[Obj]
MANY = ("Table", "PartialObjectMetadataList", "PartialObjectMetadata")


class Reader:
    """Answers `get`, `list` and `watch` from the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._encoded = EncodedObjects()

    # -- one object ---------------------------------------------------------------------------

    def get(self, request: ApiRequest) -> web.Response:
        self._check_version(request)
        target = request.target
        obj = self._store.get(request.group_kind, target.namespace, target.name)
        return self.show(request, obj)

    def show(self, request: ApiRequest, obj: Obj, status: int = 200) -> web.Response:
        """One object in the requested version and form, with the warnings collected so far."""
        media = negotiation.choose(request.http.headers, ONE)
        shown: Any = self.converted(request, obj)
        if media.transform() == "Table":
            version = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            now = self._store.clock.now()
            shown = table(request.kind, [shown], now, self._include(request), version)
        elif media.transform():
            shown = partial_metadata(shown)
        return negotiation.answer(shown, media, status=status, warnings=request.warnings)

    def converted(self, request: ApiRequest, obj: Obj) -> Obj:
        convert = request.kind.from_storage
        return obj if convert is None else convert(copy(obj))

    # -- lists --------------------------------------------------------------------------------

    def list(self, request: ApiRequest) -> web.Response:
        self._check_version(request)
        media = negotiation.choose(request.http.headers, MANY)
        found = self.selected(request)
        metadata: Obj = {"resourceVersion": str(self._store.version)}
        found = self._page(request, found, metadata)
        kind = request.kind
        if kind.from_storage is not None:
            found = [kind.from_storage(copy(obj)) for obj in found]
        if media.transform() == "Table":
            now = self._store.clock.now()
            shown = table(kind, found, now, self._include(request), metadata)
        elif media.transform():
            shown = {
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata, "items": [partial_metadata(obj) for obj in found],
            }  # fmt: skip
        else:
            shown = {
                "kind": kind.list_name, "apiVersion": kind.api_version, "metadata": metadata,
                "items": found,
            }  # fmt: skip
        return negotiation.answer(shown, media, warnings=request.warnings)

    def selected(self, request: ApiRequest) -> Objects:
        """The objects that the request's selectors choose, by namespace and name."""
        matches, exact_name = self._selection(request)
        group_kind = request.group_kind
        if exact_name and request.namespace is not None:
            obj = self._store.find(group_kind, request.namespace, exact_name)
            return [obj] if obj is not None and matches(obj) else []
        return [obj for obj in self._store.list(group_kind, request.namespace) if matches(obj)]

    def _selection(self, request: ApiRequest) -> tuple[Callable[[Obj], bool], str | None]:
        by_label = labels.parse(request.query.text("labelSelector"))
        by_field = labels.parse_fields(
            request.query.text("fieldSelector"), request.kind.group, request.kind.kind
        )
        name = request.target.name  # an old-style watch of one object
        namespace = request.namespace

        def matches(obj: Obj) -> bool:
            metadata = obj["metadata"]
            if namespace is not None and (metadata.get("namespace") or "") != namespace:
                return False
            if name and metadata.get("name") != name:
                return False
            if by_label and not by_label.matches(metadata.get("labels")):
                return False
            return not by_field or by_field.matches(obj)

        return matches, by_field.exact("metadata.name")

    def _page(self, request: ApiRequest, found: Objects, metadata: Obj) -> Objects:
        limit = request.query.integer("limit") or 0
        token = request.query.text("continue")
        if token:
            version, after = _read_token(token)
            metadata["resourceVersion"] = version
            found = [obj for obj in found if _place(obj) > after]
        if limit <= 0 or len(found) <= limit:
            return found
        page = found[:limit]
        metadata["continue"] = _make_token(metadata["resourceVersion"], _place(page[-1]))
        if not request.query.text("labelSelector") and not request.query.text("fieldSelector"):
            metadata["remainingItemCount"] = len(found) - limit
        return page

    def _check_version(self, request: ApiRequest) -> None:
        version = _version(request)
        if version is not None and version > self._store.version:
            raise Timeout(
                f"Too large resource version: {version}, current: {self._store.version}",
                causes=[
                    {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
                ],
                retry_after_seconds=1,
            )

    def _include(self, request: ApiRequest) -> str:
        include = request.query.text("includeObject") or "Metadata"
        if include not in ("None", "Metadata", "Object"):
            raise BadRequest(f'unrecognized includeObject value: "{include}"')
        return include

    # -- watches ------------------------------------------------------------------------------

    async def watch(self, request: ApiRequest) -> web.StreamResponse:
        """Stream changes; the answer's headers go out at once."""
        media = negotiation.choose(request.http.headers, MANY)
        plan, version = self._watch_plan(request, media.transform())
        group_kind = request.group_kind
        with self._store.watch(group_kind, request.namespace, version) as changes:
            response = web.StreamResponse()
            response.headers["Content-Type"] = negotiation.JSON
            response.headers["Cache-Control"] = "no-cache, private"
            response.enable_chunked_encoding()
            await response.prepare(request.http)
            stream = WatchStream(plan, changes, self._encoded, self._store.clock)
            await stream.run(response)
            await response.write_eof()
        return response

    def _watch_plan(self, request: ApiRequest, transform: str) -> tuple[WatchPlan, int | None]:
        query = request.query
        send_initial = query.text("sendInitialEvents")
        match = query.text("resourceVersionMatch")
        _check_initial_events(send_initial, match, bookmarks=query.flag("allowWatchBookmarks"))
        version = _version(request)
        matches, _ = self._selection(request)
        # Without a version to start from, the client is first told what there is.
        wants_initial = send_initial == "true" or (not version and send_initial != "false")
        initial = self.selected(request) if wants_initial else None
        timeout = query.integer("timeoutSeconds")
        plan = WatchPlan(
            request.kind, matches, initial, self._store.version,
            float(timeout) if timeout else None, query.flag("allowWatchBookmarks"),
            send_initial == "true", transform, self._include(request),
        )  # fmt: skip
        since = None if wants_initial or not version else version
        return plan, since


def _check_initial_events(send: str, match: str, *, bookmarks: bool) -> None:
    problem = ""
    if send and match != "NotOlderThan":
        problem = (
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting "
            "resourceVersionMatch to NotOlderThan"
        )
    elif send and not bookmarks:
        problem = (
            "allowWatchBookmarks: Forbidden: sendInitialEvents requires setting "
            "allowWatchBookmarks to true"
        )
    elif match and not send:
        problem = (
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless "
            "sendInitialEvents is provided"
        )
    if problem:
        field, _, message = problem.partition(": ")
        raise Invalid(
            f'ListOptions.meta.k8s.io "" is invalid: {problem}',
            group="meta.k8s.io", kind="ListOptions",
            causes=[{"reason": "FieldValueForbidden", "message": message, "field": field}],
        )  # fmt: skip


def _version(request: ApiRequest) -> int | None:
    text = request.query.text("resourceVersion")
    if not text:
        return None
    if not text.isdigit():
        raise BadRequest(
            f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": '
            "invalid syntax"
        )
    return int(text)


def _place(obj: Obj) -> tuple[str, str]:
    return obj["metadata"].get("namespace") or "", obj["metadata"]["name"]


def _make_token(version: str, after: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([version, *after])).decode().rstrip("=")


def _read_token(token: str) -> tuple[str, tuple[str, str]]:
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        version, namespace, name = orjson.loads(raw)
        return str(version), (str(namespace), str(name))
    except (ValueError, TypeError, binascii.Error):
        raise BadRequest(f"continue key is not valid: {token!r}") from None
