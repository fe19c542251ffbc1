"""Old revisions go (knative.dev/serving/pkg/reconciler/gc; behaviours B108 to B110)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from knlocal.control.controller import Controller, Requeue, Watching, owned_by
from knlocal.control.events import EventRecorder
from knlocal.resources.base import (
    Key,
    Obj,
    annotations_of,
    is_deleting,
    labels_of,
    parse_timestamp,
    status_of,
    uid_of,
)
from knlocal.resources.settings import Gc
from knlocal.resources.status import NotFound
from knlocal.serving.config import Config, is_config
from knlocal.serving.kinds import (
    CONFIG_MAP,
    CONFIGURATION,
    LAST_PINNED,
    NO_GC,
    REVISION,
    ROUTING_STATE_LABEL,
    ROUTING_STATE_MODIFIED,
)
from knlocal.store.store import Store


class RevisionCollector(Controller):
    """Deletes revisions that no route has used for long, by Configuration."""

    kind = CONFIGURATION

    def __init__(self, store: Store, config: Config, recorder: EventRecorder | None = None) -> None:
        super().__init__(store, recorder)
        self._config = config

    def watches(self) -> Sequence[Watching]:
        return (
            Watching(REVISION, owned_by(CONFIGURATION)),
            Watching(CONFIG_MAP, self._of_config),
        )

    async def reconcile(self, key: Key) -> Requeue | None:
        configuration = self.store.find_key(key)
        if configuration is None or is_deleting(configuration):
            return None
        settings = self._config.gc
        revisions = [
            child
            for child in self.store.children(uid_of(configuration))
            if child["kind"] == "Revision" and not is_deleting(child)
        ]
        if len(revisions) <= settings.min_non_active_revisions or _is_off(settings):
            return None
        unused = [r for r in revisions if not _is_active(r, configuration)]
        unused.sort(key=_last_active, reverse=True)
        now = self.clock.now().timestamp()
        stale = 0
        soonest: float | None = None
        most = settings.max_non_active_revisions
        for index, revision in enumerate(unused):
            wait = _seconds_until_stale(revision, settings, now)
            if wait is not None and wait <= 0:
                stale += 1
            elif wait is not None:
                soonest = wait if soonest is None else min(soonest, wait)
            if stale > settings.min_non_active_revisions or (most is not None and index >= most):
                self._collect(revision)
        return Requeue(soonest) if soonest is not None else None

    def _collect(self, revision: Obj) -> None:
        metadata = revision["metadata"]
        try:
            self.store.delete(
                REVISION,
                metadata["namespace"],
                metadata["name"],
                uid=metadata["uid"],
                propagation="Background",
            )
        except NotFound:
            pass  # someone else was quicker

    def _of_config(self, config: Obj) -> Iterable[Key]:
        return self.all_keys() if is_config(config, "config-gc") else ()


def _is_off(settings: Gc) -> bool:
    return (
        settings.max_non_active_revisions is None
        and settings.retain_since_create_time is None
        and settings.retain_since_last_active_time is None
    )


def _is_active(revision: Obj, configuration: Obj) -> bool:
    """Never to be collected: the latest ready one, preserved ones, and whatever the labeler has
    not called unused."""
    latest = status_of(configuration).get("latestReadyRevisionName")
    if revision["metadata"]["name"] == latest:
        return True
    if annotations_of(revision).get(NO_GC, "").lower() == "true":
        return True
    return labels_of(revision).get(ROUTING_STATE_LABEL) != "reserve"


def _last_active(revision: Obj) -> float:
    for name in (ROUTING_STATE_MODIFIED, LAST_PINNED):
        try:
            return parse_timestamp(annotations_of(revision)[name]).timestamp()
        except (KeyError, ValueError):
            continue
    return _created(revision)


def _created(revision: Obj) -> float:
    return parse_timestamp(revision["metadata"]["creationTimestamp"]).timestamp()


def _seconds_until_stale(revision: Obj, settings: Gc, now: float) -> float | None:
    """When both retention times are over; None when both are off."""
    ends = []
    if settings.retain_since_create_time is not None:
        ends.append(_created(revision) + settings.retain_since_create_time)
    if settings.retain_since_last_active_time is not None:
        ends.append(_last_active(revision) + settings.retain_since_last_active_time)
    return max(ends) - now if ends else None
