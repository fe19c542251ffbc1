"""Which version a list shows, and which page of it
(k8s.io/apimachinery: ValidateListOptions; k8s.io/apiserver/pkg/storage: continue tokens)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import orjson

from knlocal.apiserver.requests import ApiRequest
from knlocal.resources.base import Obj
from knlocal.resources.status import BadRequest, Gone, Invalid
from knlocal.store.objects import Place
from knlocal.store.store import Snapshot

_TOO_OLD = "The resourceVersion for the provided list is too old."
_CONTINUE_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start "
    "a new list without the continue parameter, or use the continue token in this response to "
    "retrieve the remainder of the results. Continuing with the provided token results in an "
    "inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class Paging:
    """What a client asks of a list beside its selectors."""

    version: int | None
    """The version to show exactly; None for the present one."""
    limit: int
    """Objects per page; 0 for all."""
    after: Place | None
    """Where the page before ended."""
    selects: bool
    """With selectors nobody counts what is left."""

    @classmethod
    def of(cls, request: ApiRequest) -> Paging:
        """Raises Invalid for options that contradict each other, BadRequest for nonsense."""
        query = request.query
        version, match = wanted_version(request), query.text("resourceVersionMatch")
        token, limit = query.text("continue"), max(0, query.integer("limit") or 0)
        _check_options(match, version, token, query.text("sendInitialEvents"))
        # A page of a version is of that very version, whatever it says about matching.
        exact = match == "Exact" or (not match and limit and version)
        after: Place | None = None
        if token:
            version, after = _read_token(token)
        selects = bool(query.text("labelSelector") or query.text("fieldSelector"))
        return cls(version if exact or token else None, limit, after, selects)

    def page(self, found: Snapshot, metadata: Obj) -> Snapshot:
        """The part of `found` that this page shows; `metadata` learns how to go on."""
        after = self.after
        if after is not None:
            found = [one for one in found if one[0] > after]
        if not self.limit or len(found) <= self.limit:
            return found
        page = found[: self.limit]
        metadata["continue"] = _make_token(metadata["resourceVersion"], page[-1][0])
        if not self.selects:
            metadata["remainingItemCount"] = len(found) - self.limit
        return page

    def expired(self, latest: int) -> Gone:
        """The answer when the version is not known any more: a list that was begun can go on in
        the version of now, with the token that comes with the refusal."""
        if self.after is None:
            return Gone(_TOO_OLD)
        return Gone(_CONTINUE_TOO_OLD, metadata={"continue": _make_token(str(latest), self.after)})


def wanted_version(request: ApiRequest) -> int | None:
    """`resourceVersion` of a request, if it has one. Raises BadRequest."""
    text = request.query.text("resourceVersion")
    if not text:
        return None
    if not text.isdigit():
        raise BadRequest(
            f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": '
            "invalid syntax"
        )
    return int(text)


def _check_options(match: str, version: int | None, token: str, send_initial: str) -> None:
    field = "resourceVersionMatch"
    if send_initial:
        raise forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list")
    if not match:
        return
    if version is None:
        raise forbidden(field, f"{field} is forbidden unless resourceVersion is provided")
    if token:
        raise forbidden(field, f"{field} is forbidden when continue is provided")
    if match not in ("Exact", "NotOlderThan"):
        supported = '"", "Exact", "NotOlderThan"'
        raise _refused(
            field, "FieldValueNotSupported",
            f'Unsupported value: "{match}": supported values: {supported}',
        )  # fmt: skip
    if match == "Exact" and not version:
        raise forbidden(field, f'{field} "exact" is forbidden for resourceVersion "0"')


def forbidden(field: str, why: str) -> Invalid:
    """The refusal of a list option."""
    return _refused(field, "FieldValueForbidden", f"Forbidden: {why}")


def _refused(field: str, reason: str, message: str) -> Invalid:
    return Invalid(
        f'ListOptions.meta.k8s.io "" is invalid: {field}: {message}',
        group="meta.k8s.io", kind="ListOptions",
        causes=[{"reason": reason, "message": message, "field": field}],
    )  # fmt: skip


def _make_token(version: str, after: Place) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([version, *after])).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, Place]:
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        version, namespace, name = orjson.loads(raw)
        return int(version), (str(namespace), str(name))
    except (ValueError, TypeError, binascii.Error):
        raise BadRequest(f"continue key is not valid: {token!r}") from None
