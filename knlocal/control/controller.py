"""What a controller is, and how one tells the framework to come back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from knlocal.control.events import EventRecorder
from knlocal.control.pace import Urgency
from knlocal.resources.base import GroupKind, Key, Obj, controller_of, key_of, split_api_version
from knlocal.store.store import Store


class Retry(Exception):
    """Reconciling could not finish now and shall be tried again `after` seconds (None: with the
    framework's growing back-off). Not logged as an error."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


@dataclass(frozen=True, slots=True)
class Requeue:
    """A result of `reconcile`: all is well, but look again `after` seconds."""

    after: float


ToKeys = Callable[[Obj], Iterable[Key]]


@dataclass(frozen=True, slots=True)
class Watching:
    """Another kind that matters to a controller: each changed object, its old form too, is turned
    into the keys of primary objects to look at again."""

    group_kind: GroupKind
    to_keys: ToKeys


def owned_by(primary: GroupKind) -> ToKeys:
    """Maps a child to its controlling owner, when that is of kind `primary`."""

    def to_keys(obj: Obj) -> Iterable[Key]:
        reference = controller_of(obj)
        if reference and reference["kind"] == primary.kind:
            group = split_api_version(reference["apiVersion"])[0]
            if group == primary.group:
                namespace = obj["metadata"].get("namespace") or ""
                return [Key(*primary, namespace, reference["name"])]
        return []

    return to_keys


class Controller(ABC):
    """Brings what runs in line with objects of one kind.

    `reconcile` is called with the key of an object that changed (or is gone: read it from the
    store), one call at a time per object, many objects in parallel. It may be called at any time
    for no reason, so it compares before it acts.
    """

    kind: GroupKind
    urgency: ClassVar[Urgency] = Urgency.REST
    """Whether its work comes first when there is much."""

    def __init__(self, store: Store, recorder: EventRecorder | None = None) -> None:
        self.store = store
        self.clock = store.clock
        self.recorder = recorder or EventRecorder(store, type(self).__name__)
        #: Has an object looked at, for reasons outside the store; the manager sets it.
        self.enqueue: Callable[[Key], None] = lambda _key: None

    @property
    def name(self) -> str:
        return type(self).__name__

    def watches(self) -> Sequence[Watching]:
        """Other kinds to look at, beside the primary one."""
        return ()

    def accepts(self, obj: Obj) -> bool:
        """False for primary objects that are someone else's business (another class, say)."""
        return True

    async def start(self) -> None:  # noqa: B027
        """Before the first reconcile."""

    async def stop(self) -> None:  # noqa: B027
        """After the last reconcile."""

    @abstractmethod
    async def reconcile(self, key: Key) -> Requeue | None: ...

    # -- what most controllers need -----------------------------------------------------------

    def all_keys(self, _obj: Obj | None = None) -> list[Key]:
        """Every primary object: for a watched kind that concerns all (a ConfigMap)."""
        return [*self.store.keys(self.kind)]

    def update_status(self, obj: Obj, status: Obj) -> Obj | None:
        """Write `status` when it differs from what `obj` has in the store."""
        return self.store.set_status(key_of(obj), status)
