"""What an upstream gets to see of a request's headers."""

from __future__ import annotations

import itertools
import random
import re
import uuid
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Final

from multidict import CIMultiDict, istr

from knlocal.gateway.http import Request
from knlocal.gateway.http1 import CONTENT_LENGTH, HOP_BY_HOP, HOST, Pairs, tokens

_NOT_PASSED: Final = HOP_BY_HOP | {HOST, CONTENT_LENGTH, "x-forwarded-for"}

_CONNECTION: Final = istr("Connection")
_XFF: Final = istr("X-Forwarded-For")
_XFP: Final = istr("X-Forwarded-Proto")
_XFH: Final = istr("X-Forwarded-Host")
_FORWARDED: Final = istr("Forwarded")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~\w-]+", re.ASCII)
_REQUEST_ID: Final = istr("X-Request-Id")
_TE: Final = istr("TE")
# Request ids look like UUIDs and differ between processes; a random one each time would cost more.
_ID_START: Final = f"{uuid.uuid4()}"[:24]
_ids = itertools.count(random.getrandbits(40))


def request_headers(
    request: Request, set_headers: Mapping[str, str] | None, remove_headers: Collection[str]
) -> Pairs:
    """What the upstream gets to see: end-to-end headers, and where the request came from."""
    headers = request.headers
    dropped: Collection[str] = _NOT_PASSED
    if remove_headers or set_headers:
        dropped = _dropped(frozenset(remove_headers), tuple(set_headers or ()))
    if _CONNECTION in headers:
        dropped = {*dropped, *tokens(",".join(headers.getall(_CONNECTION)))}
    pairs = [pair for pair in headers.items() if pair[0].lower() not in dropped]
    _add_origin(request, headers, pairs)
    if _TE in headers and "trailers" in headers[_TE].lower():
        pairs.append(("TE", "trailers"))
    if request.upgrade:
        pairs.append(("Connection", "Upgrade"))
        pairs.append(("Upgrade", request.upgrade))
    if set_headers:
        pairs.extend(set_headers.items())
    return pairs


@lru_cache(maxsize=64)
def _dropped(removed: frozenset[str], set_anew: tuple[str, ...]) -> frozenset[str]:
    """Callers give the same few names all the time."""
    return _NOT_PASSED.union(name.lower() for name in (*removed, *set_anew))


def _add_origin(request: Request, headers: CIMultiDict[str], pairs: Pairs) -> None:
    """X-Forwarded-*, Forwarded (serving pkg/http/proxy) and X-Request-Id (Envoy)."""
    if _REQUEST_ID not in headers:
        pairs.append(("X-Request-Id", f"{_ID_START}{next(_ids):012x}"))
    if not (_XFF in headers or _XFP in headers or _XFH in headers or _FORWARDED in headers):
        pairs.extend(_origin(request.peer, request.scheme, request.authority))
        return
    client = ", ".join(hop for hop in [*headers.getall(_XFF, ()), request.peer] if hop)
    pairs.append(("X-Forwarded-For", client))
    scheme = headers.get(_XFP, request.scheme)
    host = headers.get(_XFH, request.authority)
    if _XFP not in headers:
        pairs.append(("X-Forwarded-Proto", scheme))
    if _XFH not in headers:
        pairs.append(("X-Forwarded-Host", host))
    if _FORWARDED not in headers:
        pairs.append(("Forwarded", _forwarded(client, host, scheme)))


@lru_cache(maxsize=1024)
def _origin(client: str, scheme: str, host: str) -> tuple[tuple[str, str], ...]:
    """For a request that came straight from a client: the same for all of its requests."""
    return (
        ("X-Forwarded-For", client),
        ("X-Forwarded-Proto", scheme),
        ("X-Forwarded-Host", host),
        ("Forwarded", _forwarded(client, host, scheme)),
    )


def _forwarded(hops: str, host: str, scheme: str) -> str:
    """ "for=192.0.2.1;host=h;proto=http, for=…", as Knative builds it from X-Forwarded-*."""
    first, *others = [_node(hop.strip()) for hop in hops.split(",")]
    shown = host if _TOKEN.fullmatch(host) else f'"{host}"'  # a port's colon is no token (RFC 7239)
    forwarded = f"for={first};host={shown};proto={scheme}"
    return ", ".join([forwarded, *(f"for={hop}" for hop in others)])


def _node(hop: str) -> str:
    return f'"[{hop}]"' if ":" in hop else hop
