"""A host's handler: picks a revision by weight (and tag header) and passes the request on."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Final

from multidict import istr

from knlocal.gateway import Handler, Request
from knlocal.resources.base import Key
from knlocal.serving.activator.revision import RevisionBackend
from knlocal.serving.kinds import DEFAULT_ROUTE_HEADER, TAG_HEADER

TAG: Final = istr(TAG_HEADER)
DEFAULT_ROUTE: Final = istr(DEFAULT_ROUTE_HEADER)

PLAIN_TEXT: Final = (("Content-Type", "text/plain; charset=utf-8"),)

Split = Sequence[tuple[RevisionBackend, int]]
"""Revisions with their shares; only their proportion matters."""


class WeightedTargets:
    """A random choice among revisions, by weight. Never changed: a new split is a new object."""

    __slots__ = ("_bounds", "_only", "_revisions", "_total")

    def __init__(self, split: Split) -> None:
        split = [(revision, weight) for revision, weight in split if weight > 0]
        self._revisions = [revision for revision, _ in split]
        self._bounds = list(accumulate(weight for _, weight in split))
        self._total = self._bounds[-1] if self._bounds else 0
        self._only = self._revisions[0] if len(self._revisions) == 1 else None

    def pick(self) -> RevisionBackend | None:
        """A revision, or None when nothing gets any traffic."""
        if self._only is not None:
            return self._only
        if not self._revisions:
            return None
        return self._revisions[bisect_right(self._bounds, random.random() * self._total)]


class HostHandler:
    """Answers the requests of one host. Replaced as a whole when the route changes."""

    __slots__ = ("_by_tag", "_default_headers", "_redirect", "_tag_headers", "_targets")

    def __init__(
        self,
        split: Split,
        *,
        tag: str = "",
        by_tag: Mapping[str, Split] | None = None,
        tag_header_routing: bool = False,
        redirect_to_https: bool = False,
    ) -> None:
        """`by_tag` holds the tags that the header Knative-Serving-Tag may ask for on this (main)
        host; it counts only with the feature tag-header-based-routing."""
        self._targets = WeightedTargets(split)
        self._redirect = redirect_to_https
        self._by_tag: dict[str, WeightedTargets] = {}
        self._tag_headers: dict[str, dict[str, str]] = {}
        self._default_headers: dict[str, str] | None = None
        if tag_header_routing and tag:
            self._default_headers = {TAG: tag}
        elif tag_header_routing:
            for name, targets in (by_tag or {}).items():
                self._by_tag[name] = WeightedTargets(targets)
                self._tag_headers[name] = {TAG: name}
            self._default_headers = {DEFAULT_ROUTE: "true"}

    async def handle(self, request: Request) -> None:
        if self._redirect and request.scheme == "http":
            location = f"https://{request.host}{request.target}"
            await request.respond(301, [("Location", location)])
            return
        targets, set_headers = self._targets, self._default_headers
        if self._by_tag and (tag := request.headers.get(TAG)) in self._by_tag:
            assert tag is not None
            targets, set_headers = self._by_tag[tag], self._tag_headers[tag]
        revision = targets.pick()
        if revision is None:
            await request.respond(404, PLAIN_TEXT, "404 page not found\n")
            return
        await revision.serve(request, set_headers)


def not_ready(route: Key, why: str) -> Handler:
    """Answers the hosts of a Route that serves nothing yet: 404, and what it waits for."""
    text = f"404: {route.namespace}/{route.name} is not ready\n{why}\n"

    async def handle(request: Request) -> None:
        await request.respond(404, PLAIN_TEXT, text)

    return handle
