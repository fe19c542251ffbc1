"""`events.k8s.io/v1`: the newer face of core/v1 Events, which are what the store keeps."""

from __future__ import annotations

from knlocal.resources.base import GroupKind, Obj
from knlocal.resources.core.table import definition
from knlocal.resources.kinds import Kind

CORE_EVENT = GroupKind("", "Event")

_RENAMED = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedCount": "count",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedSource": "source",
}
_BACK = {old: new for new, old in _RENAMED.items()}


def to_core_event(obj: Obj) -> Obj:
    """The same Event as core/v1 has it."""
    return {_RENAMED.get(name, name): value for name, value in obj.items()} | {"apiVersion": "v1"}


def _from_core(obj: Obj) -> Obj:
    renamed = {_BACK.get(name, name): value for name, value in obj.items()}
    return renamed | {"apiVersion": "events.k8s.io/v1"}


EVENTS_V1 = Kind(
    "events.k8s.io", "v1", "Event", "events", definition("io.k8s.api.events.v1.Event"),
    short_names=("ev",), has_status=False, is_custom=False, storage=False,
    to_storage=to_core_event, from_storage=_from_core,
)  # fmt: skip
"""Not in the store's registry: the API server turns it into core Events and back."""
