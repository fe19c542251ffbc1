"""Tells people which fields of their objects change nothing here: accepted, kept, not simulated.

As a warning to whoever writes the object, and as an Event on it (`kubectl describe` shows both).
"""

from __future__ import annotations

from knlocal.control.events import EventRecorder
from knlocal.resources import unsimulated
from knlocal.resources.base import Obj, controller_of
from knlocal.store.store import SYSTEM_USER, AdmissionRequest, Store
from knlocal.store.watch import WatchEvent

REASON = "NotSimulated"


class ParityNotes:
    """Follows a store. Objects that controllers make are nobody's to change: not told about."""

    def __init__(self, store: Store, *, processes: bool) -> None:
        self._processes = processes
        self._recorder = EventRecorder(store, "knlocal")
        store.admission.append(self._admit)
        self.stop = store.subscribe(self._changed)

    def _admit(self, request: AdmissionRequest) -> None:
        if request.options.user == SYSTEM_USER or controller_of(request.obj):
            return
        request.options.warnings += [sentence(field) for field in self._found(request.obj)]

    def _changed(self, event: WatchEvent) -> None:
        if event.type == "DELETED" or controller_of(event.obj) or not _is_new(event):
            return
        for field in self._found(event.obj):
            self._recorder.normal(event.obj, REASON, sentence(field))

    def _found(self, obj: Obj) -> list[unsimulated.Unsimulated]:
        return unsimulated.of(obj, processes=self._processes)


def sentence(field: unsimulated.Unsimulated) -> str:
    where = field.path or "this kind of object"
    return f"{where} is accepted but has no effect here: {field.why}"


def _is_new(event: WatchEvent) -> bool:
    def generation(obj: Obj | None) -> object:
        return (obj or {}).get("metadata", {}).get("generation")

    return event.old is None or generation(event.obj) != generation(event.old)
