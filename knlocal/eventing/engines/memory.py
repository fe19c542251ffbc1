"""The engine in memory: the default, as Knative's InMemoryChannel."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from knlocal.eventing.engines.base import Engine, Full, Kept, Limits, Message, Queue


class MemoryQueue(Queue):
    def __init__(self, uid: str, engine: MemoryEngine) -> None:
        super().__init__(uid)
        self._engine = engine
        self._waiting: deque[Message] = deque()
        self.closed = False

    def put(self, message: Message) -> None:
        self.depth += 1
        self._waiting.append(message)
        if self._idle:
            self.filled()

    def take(self) -> Message | None:
        return self._waiting.popleft() if self._waiting else None

    def done(self, message: Message) -> None:
        if not self.closed:
            self.depth -= 1
            self._engine.release(message)

    def position(self, message: Message) -> int:
        taken = self.depth - len(self._waiting)
        try:
            return taken + self._waiting.index(message)
        except ValueError:
            return -1

    def drop(self) -> None:
        self.closed = True
        for message in self._waiting:
            self._engine.release(message)
        self._waiting.clear()
        self.depth = 0


class MemoryEngine(Engine):
    """Forgets with the daemon."""

    def __init__(self, limits: Limits = Limits()) -> None:
        super().__init__(limits)
        #: Bytes of all events that somebody still waits for, each counted once.
        self.used = 0
        self._queues: dict[str, MemoryQueue] = {}

    def open(self, uid: str) -> Queue:
        queue = self._queues.get(uid)
        if queue is None:
            queue = self._queues[uid] = MemoryQueue(uid, self)
        return queue

    def remove(self, uid: str) -> None:
        queue = self._queues.pop(uid, None)
        if queue is not None:
            queue.drop()

    def known(self) -> list[str]:
        return [uid for uid, queue in self._queues.items() if queue.depth]

    def check(self, message: Message, queues: Sequence[Queue]) -> None:
        limit = self.limits.messages
        for queue in queues:
            if queue.depth >= limit:
                raise Full(f"{limit} events are waiting")
        if self.used + message.size > self.limits.memory:
            raise Full(f"waiting events take {self.used >> 20} MiB, and may take no more")

    def accept(self, message: Message, queues: Sequence[Queue], kept: Kept) -> None:
        message.left = len(queues)
        if queues:
            self.used += message.size
        for queue in queues:
            assert isinstance(queue, MemoryQueue)
            queue.put(message)
        kept(None)

    def release(self, message: Message) -> None:
        message.left -= 1
        if not message.left:
            self.used -= message.size
            # Trails keep the event; its encodings nobody needs any more.
            message.event.cache = None
