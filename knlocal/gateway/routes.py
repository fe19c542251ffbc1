"""Which handler answers a host: the table that features fill and the gateway reads on each request.

A host belongs to whoever claimed it first; a later claim waits as a conflict and takes over when
the holder lets go, so nobody steals a running host and nobody has to ask twice.
"""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from knlocal.gateway.http import Exposure, Handler, Request

BOTH: frozenset[Exposure] = frozenset(get_args(Exposure))
INSIDE: frozenset[Exposure] = frozenset({"internal"})


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """Who answers a host, and for which doors ("external": people, "internal": containers).

    `at_once` may take a POST whose body is all here, to answer it (`Request.respond_now`) now or
    later without a task of its own; it returns False, and has done nothing, for what needs
    `handler`.
    """

    handler: Handler
    exposures: frozenset[Exposure] = BOTH
    at_once: Callable[[Request], bool] | None = None


@dataclass(frozen=True, slots=True)
class Conflict:
    """`owner` wants `host`, but `holder` claimed it first."""

    host: str
    exposure: Exposure
    owner: str
    holder: str

    def __str__(self) -> str:
        return (
            f"host {self.host!r} ({self.exposure}) is already served for {self.holder}; "
            f"{self.owner} gets it when {self.holder} gives it up"
        )


def normal_host(host: str) -> str:
    """`host` as the table keys it: lower case, without port and trailing dot."""
    host = host.strip().lower()
    if host.startswith("["):
        host = host.partition("]")[0] + "]"
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    return host.removesuffix(".")


class RouteTable:
    """Host → Route for each exposure. Look-ups cost one dictionary access."""

    def __init__(self) -> None:
        #: Called with each request and its handler instead of the handler: where faults go in.
        self.around: Callable[[Request, Handler], Awaitable[None]] | None = None
        #: The namespace of the pod at an address, where a bare Service name has its meaning; "" for
        #: what is no pod.
        self.namespace_of: Callable[[str], str] = lambda _address: ""
        self._found: dict[Exposure, dict[str, Route]] = {"external": {}, "internal": {}}
        # Every claim on a (host, exposure), the holder first.
        self._claims: dict[tuple[str, Exposure], dict[str, Route]] = {}
        self._owned: dict[str, frozenset[tuple[str, Exposure]]] = {}
        self._listeners: list[Callable[[], object]] = []
        self._similar: dict[tuple[str, Exposure], list[str]] = {}

    def put(self, owner: str, routes: Mapping[str, Route]) -> list[Conflict]:
        """Replace all that `owner` serves by `routes`, at once. Returns what it must wait for."""
        wanted = {
            (normal_host(host), exposure): route
            for host, route in routes.items()
            for exposure in route.exposures
        }
        for key in self._owned.get(owner, frozenset()) - wanted.keys():
            self._withdraw(owner, key)
        for key, route in wanted.items():
            self._claims.setdefault(key, {})[owner] = route
            self._settle(key)
        if wanted:
            self._owned[owner] = frozenset(wanted)
        else:
            self._owned.pop(owner, None)
        self._similar.clear()
        for listener in self._listeners:
            listener()
        return [conflict for key in wanted for conflict in self._conflicts_of(key, owner)]

    def remove(self, owner: str) -> None:
        """Forget everything `owner` serves or waits for."""
        self.put(owner, {})

    def find(self, host: str, exposure: Exposure) -> Route | None:
        """The route for `host` (any case, port and trailing dot ignored), or None."""
        found = self._found[exposure]
        return found.get(host) or found.get(normal_host(host))

    def owner_of(self, host: str, exposure: Exposure) -> str | None:
        """Who serves `host`, or None."""
        return next(iter(self._claims.get((normal_host(host), exposure), ())), None)

    def hosts(self, exposure: Exposure) -> list[str]:
        """Every host served at `exposure`, sorted."""
        return sorted(self._found[exposure])

    @property
    def conflicts(self) -> list[Conflict]:
        """Every claim that waits for another owner's host."""
        return [
            conflict
            for key, claims in self._claims.items()
            if len(claims) > 1
            for conflict in self._conflicts_of(key)
        ]

    def similar(self, host: str, exposure: Exposure, limit: int = 3) -> list[str]:
        """Hosts a person may have meant by `host`, best first."""
        host = normal_host(host)
        known = self._similar.get((host, exposure))
        if known is None:
            if len(self._similar) >= 256:
                self._similar.clear()
            known = self._similar[host, exposure] = self._compare(host, exposure)
        return known[:limit]

    def _compare(self, host: str, exposure: Exposure) -> list[str]:
        first = host.partition(".")[0]
        # Comparing with each of a thousand hosts would take a while: the nearest by cheap signs.
        near = sorted(
            self._found[exposure],
            key=lambda known: (
                known.partition(".")[0] != first,
                first not in known,
                known[:2] != host[:2],
                abs(len(known) - len(host)),
            ),
        )
        return difflib.get_close_matches(host, near[:100], 10, cutoff=0.5)

    def subscribe(self, listener: Callable[[], object]) -> None:
        """Call `listener()` after every change."""
        self._listeners.append(listener)

    def _withdraw(self, owner: str, key: tuple[str, Exposure]) -> None:
        claims = self._claims.get(key, {})
        claims.pop(owner, None)
        self._settle(key)

    def _settle(self, key: tuple[str, Exposure]) -> None:
        host, exposure = key
        claims = self._claims[key]
        if claims:
            self._found[exposure][host] = next(iter(claims.values()))
        else:
            del self._claims[key]
            self._found[exposure].pop(host, None)

    def _conflicts_of(
        self, key: tuple[str, Exposure], only: str | None = None
    ) -> Iterable[Conflict]:
        holder, *waiting = self._claims[key]
        for owner in waiting:
            if only in (None, owner):
                yield Conflict(key[0], key[1], owner, holder)
