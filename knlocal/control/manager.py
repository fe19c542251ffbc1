"""Runs controllers: store changes become keys, keys become sequential work."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable

from knlocal.control.controller import Controller, Retry, ToKeys
from knlocal.control.queue import Work, WorkQueue
from knlocal.resources.base import GroupKind, Key, Obj, key_of
from knlocal.resources.status import Conflict, NotFound, StatusError
from knlocal.store.store import Store
from knlocal.store.watch import WatchEvent

log = logging.getLogger(__name__)


class Manager:
    """Start it after all controllers are added; every object that exists is then looked at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._controllers: list[Controller] = []
        self._queues: dict[Controller, WorkQueue] = {}
        self._routes: dict[GroupKind, list[tuple[Controller, ToKeys]]] = defaultdict(list)
        self._unsubscribe: Callable[[], object] = lambda: None

    def add(self, *controllers: Controller) -> None:
        for controller in controllers:
            self._controllers.append(controller)
            self._routes[controller.kind].append((controller, _primary(controller)))
            for watching in controller.watches():
                self._routes[watching.group_kind].append((controller, watching.to_keys))

    async def start(self) -> None:
        for controller in self._controllers:
            await controller.start()
            self._queues[controller] = WorkQueue(
                controller.name,
                self._store.clock,
                _guarded(controller),
                urgency=controller.urgency,
            )
            controller.enqueue = self._queues[controller].add
        self._unsubscribe = self._store.subscribe(self._changed)
        for controller in self._controllers:
            for obj in self._store.list(controller.kind):
                if controller.accepts(obj):
                    self._queues[controller].add(key_of(obj))

    async def stop(self) -> None:
        """Stopping twice is no error."""
        self._unsubscribe()
        self._unsubscribe = lambda: None
        for queue in self._queues.values():
            await queue.close()
        for controller in reversed(self._controllers):
            await controller.stop()
        self._queues.clear()

    @property
    def busy(self) -> bool:
        return any(queue.busy for queue in self._queues.values())

    async def settled(self) -> None:
        """Return when no controller has work in hand (work planned for later does not count)."""
        while self.busy:  # noqa: ASYNC110 (nothing to wait on: a turn of the loop is the event)
            await asyncio.sleep(0)

    def enqueue(self, controller: Controller, key: Key, after: float = 0) -> None:
        """Have a controller look at an object, for reasons outside the store."""
        if controller in self._queues:
            self._queues[controller].add(key, after)

    def _changed(self, event: WatchEvent) -> None:
        group_kind = key_of(event.obj).group_kind
        for controller, to_keys in self._routes.get(group_kind, ()):
            queue = self._queues.get(controller)
            if queue is None:
                continue
            keys = dict.fromkeys(to_keys(event.obj))
            if event.old is not None:
                keys |= dict.fromkeys(to_keys(event.old))
            for key in keys:
                queue.add(key)


def _primary(controller: Controller) -> ToKeys:
    def to_keys(obj: Obj) -> list[Key]:
        return [key_of(obj)] if controller.accepts(obj) else []

    return to_keys


def _guarded(controller: Controller) -> Work:
    """`reconcile` with its failures told: expected ones quietly, others as log and Event."""

    async def work(key: Key) -> float | None:
        try:
            result = await controller.reconcile(key)
        except (Conflict, NotFound, Retry) as error:
            log.debug("%s: %s: %s", controller.name, key, error)
            raise
        except StatusError as error:
            log.warning("%s: %s: %s", controller.name, key, error)
            _record(controller, key, error)
            raise
        except Exception as error:
            log.exception("%s: cannot reconcile %s", controller.name, key)
            _record(controller, key, error)
            raise
        return result.after if result else None

    return work


def _record(controller: Controller, key: Key, error: Exception) -> None:
    obj = controller.store.find_key(key)
    if obj is not None:
        controller.recorder.warning(obj, "InternalError", str(error) or type(error).__name__)
