"""Marks revisions and configurations with the routes that use them (behaviour B106).

`routingState` decides who may be scaled for reachability and who may be collected. Mirrors
knative.dev/serving/pkg/reconciler/labeler.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from knlocal.control.conditions import find_condition
from knlocal.control.controller import Controller, Requeue, Watching
from knlocal.control.events import EventRecorder
from knlocal.resources.base import (
    GroupKind,
    Key,
    Obj,
    annotations_of,
    controller_of,
    is_deleting,
    key_of,
    labels_of,
    spec_of,
    status_of,
    timestamp,
)
from knlocal.serving.kinds import (
    CONFIGURATION,
    REVISION,
    ROUTE,
    ROUTES,
    ROUTING_STATE_LABEL,
    ROUTING_STATE_MODIFIED,
)
from knlocal.store.store import Store


class LabelerController(Controller):
    kind = ROUTE

    def __init__(self, store: Store, recorder: EventRecorder | None = None) -> None:
        super().__init__(store, recorder)
        self._marked: dict[Key, set[tuple[GroupKind, str]]] = defaultdict(set)
        """By route: what carries, or carried, its name."""

    def watches(self) -> Sequence[Watching]:
        return (Watching(CONFIGURATION, self._routes_of), Watching(REVISION, self._routes_of))

    async def start(self) -> None:
        """Routes that went while nobody looked leave no marks."""
        for kind in (REVISION, CONFIGURATION):
            for obj in self.store.list(kind):
                self._routes_of(obj)
        for key in list(self._marked):
            if self.store.find_key(key) is None:
                self._clear(key, keep=set())

    async def reconcile(self, key: Key) -> Requeue | None:
        route = self.store.find_key(key)
        if route is None or is_deleting(route):
            self._clear(key, keep=set())
            return None
        wanted = self._wanted(route)
        for kind, name in sorted(wanted):
            self._mark(kind, key, name, used=True)
        # While traffic moves, those it moves away from are still in use.
        settled = (find_condition(route) or {}).get("status") in ("True", "False")
        if (
            settled
            and status_of(route).get("observedGeneration") == route["metadata"]["generation"]
        ):
            self._clear(key, keep=wanted)
        return None

    def _wanted(self, route: Obj) -> set[tuple[GroupKind, str]]:
        """What the route uses, or will use as soon as it is ready."""
        namespace = route["metadata"]["namespace"]
        found: set[tuple[GroupKind, str]] = set()
        targets = [
            *(status_of(route).get("traffic") or ()),
            *(spec_of(route).get("traffic") or ()),
        ]
        for target in targets:
            configuration_name = target.get("configurationName")
            if name := target.get("revisionName"):
                revision = self.store.find(REVISION, namespace, name)
                if revision is None:
                    continue
                found.add((REVISION, name))
                owner = controller_of(revision)
                if owner and owner["kind"] == "Configuration":
                    configuration_name = owner["name"]
            if not configuration_name:
                continue
            configuration = self.store.find(CONFIGURATION, namespace, configuration_name)
            if configuration is None:
                continue
            found.add((CONFIGURATION, configuration_name))
            latest = status_of(configuration).get("latestCreatedRevisionName")
            if latest and target.get("latestRevision", not target.get("revisionName")):
                found.add((REVISION, latest))
        return found

    def _clear(self, route: Key, keep: set[tuple[GroupKind, str]]) -> None:
        for kind, name in sorted(self._marked.pop(route, ())):
            if (kind, name) in keep:
                self._marked[route].add((kind, name))
            else:
                self._mark(kind, route, name, used=False)

    def _routes_of(self, obj: Obj) -> Iterable[Key]:
        routes = _routes_of(obj)
        for route in routes:
            self._marked[route].add((key_of(obj).group_kind, obj["metadata"]["name"]))
        return routes

    def _mark(self, kind: GroupKind, route: Key, name: str, *, used: bool) -> None:
        obj = self.store.find(kind, route.namespace, name)
        if obj is None or is_deleting(obj):
            return
        if used:
            self._marked[route].add((kind, name))
        routes = {key.name for key in _routes_of(obj)}
        wanted = routes | {route.name} if used else routes - {route.name}
        state = "active" if wanted else "reserve"
        has_state = labels_of(obj).get(ROUTING_STATE_LABEL)
        if wanted == routes and (kind != REVISION or has_state == state):
            return
        now = timestamp(self.clock.now())

        def change(obj: Obj) -> None:
            annotations = obj["metadata"].setdefault("annotations", {})
            if wanted:
                annotations[ROUTES] = ",".join(sorted(wanted))
            else:
                annotations.pop(ROUTES, None)
            if kind == REVISION and has_state != state:
                obj["metadata"].setdefault("labels", {})[ROUTING_STATE_LABEL] = state
                annotations[ROUTING_STATE_MODIFIED] = now

        self.store.modify(kind, route.namespace, name, change)


def _routes_of(obj: Obj) -> list[Key]:
    """The routes named in an object's annotation."""
    names = annotations_of(obj).get(ROUTES, "")
    namespace = obj["metadata"]["namespace"]
    return [Key(*ROUTE, namespace, name) for name in names.split(",") if name]
