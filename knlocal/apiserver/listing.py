"""Reading: get, list (selectors, pages, tables) and the start of a watch."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from knlocal.apiserver import negotiation
from knlocal.apiserver.pages import Paging, forbidden, wanted_version
from knlocal.apiserver.requests import ApiRequest
from knlocal.apiserver.streams.messages import send_events
from knlocal.apiserver.streams.upgrade import wants_websocket
from knlocal.apiserver.table import partial_metadata, table
from knlocal.apiserver.watches import Matches, WatchPlan, WatchStream
from knlocal.resources import labels
from knlocal.resources.base import Obj, copy
from knlocal.resources.status import BadRequest, Gone, Timeout
from knlocal.store.store import Snapshot, Store

ONE = ("Table", "PartialObjectMetadata")
#: Named here because the method `Reader.list` hides the built-in inside the class.
Objects = list[Obj]
MANY = ("Table", "PartialObjectMetadataList", "PartialObjectMetadata")


class Reader:
    """Answers `get`, `list` and `watch` from the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

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
        paging = Paging.of(request)
        version = self._store.version if paging.version is None else paging.version
        metadata: Obj = {"resourceVersion": str(version)}
        page = paging.page(self._selected(request, paging), metadata)
        kind = request.kind
        if not media.transform() and media.name != negotiation.YAML and not kind.from_storage:
            return self._as_stored(request, metadata, page)
        found = [self._store.decoded(json) for _, json in page]
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

    def _as_stored(self, request: ApiRequest, metadata: Obj, page: Snapshot) -> web.Response:
        """A list of objects as they lie in the store: their JSON is passed on."""
        head = orjson.dumps(
            {
                "kind": request.kind.list_name, "apiVersion": request.kind.api_version,
                "metadata": metadata,
            }
        )  # fmt: skip
        body = b'%s,"items":[%s]}' % (head[:-1], b",".join(json for _, json in page))
        return negotiation.raw_answer(body, warnings=request.warnings)

    def selected(self, request: ApiRequest) -> Objects:
        """The objects that the request's selectors choose, by namespace and name."""
        return [self._store.decoded(json) for _, json in self._selected(request)]

    def _selected(self, request: ApiRequest, paging: Paging | None = None) -> Snapshot:
        matches, exact_name = self._selection(request)
        version = paging.version if paging else None
        try:
            found = self._store.snapshot(request.group_kind, request.namespace, version)
        except Gone:
            assert paging is not None
            raise paging.expired(self._store.version) from None
        if exact_name:
            found = [one for one in found if one[0][1] == exact_name]
        if matches is None:
            return found
        return [one for one in found if matches(self._store.decoded(one[1]))]

    def _selection(self, request: ApiRequest) -> tuple[Matches | None, str | None]:
        """What chooses objects of the request's namespace (None: all of them), and the one name
        that they can have, if there is one."""
        by_label = labels.parse(request.query.text("labelSelector"))
        by_field = labels.parse_fields(
            request.query.text("fieldSelector"), request.kind.group, request.kind.kind
        )
        name = request.target.name  # an old-style watch of one object
        if not (name or by_label or by_field):
            return None, None

        def matches(obj: Obj) -> bool:
            metadata = obj["metadata"]
            if name and metadata.get("name") != name:
                return False
            if by_label and not by_label.matches(metadata.get("labels")):
                return False
            return not by_field or by_field.matches(obj)

        return matches, by_field.exact("metadata.name")

    def _check_version(self, request: ApiRequest) -> None:
        version = wanted_version(request)
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
            stream = WatchStream(plan, changes, self._store.clock)
            if wants_websocket(request.http):
                return await send_events(request.http, stream.run)
            response = web.StreamResponse()
            response.headers["Content-Type"] = negotiation.JSON
            response.headers["Cache-Control"] = "no-cache, private"
            response.enable_chunked_encoding()
            await response.prepare(request.http)
            await stream.run(response)
            await response.write_eof()
        return response

    def _watch_plan(self, request: ApiRequest, transform: str) -> tuple[WatchPlan, int | None]:
        query = request.query
        send_initial = query.text("sendInitialEvents")
        match = query.text("resourceVersionMatch")
        _check_initial_events(send_initial, match, bookmarks=query.flag("allowWatchBookmarks"))
        version = wanted_version(request)
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
    match_field = "resourceVersionMatch"
    if send and match != "NotOlderThan":
        raise forbidden(
            match_field, f"sendInitialEvents requires setting {match_field} to NotOlderThan"
        )
    if send and not bookmarks:
        raise forbidden(
            "allowWatchBookmarks", "sendInitialEvents requires setting allowWatchBookmarks to true"
        )
    if match and not send:
        raise forbidden(
            match_field,
            f"{match_field} is forbidden for watch unless sendInitialEvents is provided",
        )
