"""Who may go to a pod now, who waits, and who is sent away: one throttler per revision.

Mirrors knative.dev/serving/pkg/activator/net/throttler.go and pkg/queue/breaker.go: a revision
takes as many requests as its pods have slots; others wait in order, up to a limit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection

from knlocal.clock import Clock
from knlocal.serving.activator.balancing import Pod, policy_for

#: How many requests may wait for a revision (Knative's breakerQueueDepth).
QUEUE_DEPTH = 10_000
#: How many may wait per pod and slot while the activator is out of the path (queue-proxy).
QUEUE_PER_SLOT = 10


class QueueFull(Exception):
    """So many requests wait already that this one is turned away (503)."""


class Unavailable(Exception):
    """The revision cannot serve, and says why (503)."""


class _Waiter:
    __slots__ = ("excluded", "future")

    def __init__(self, future: asyncio.Future[Pod], excluded: Collection[Pod]) -> None:
        self.future = future
        self.excluded = excluded


class Throttler:
    """Slots and the queue of one revision. All methods belong to the event loop's thread."""

    def __init__(self, clock: Clock, container_concurrency: int = 0) -> None:
        self._clock = clock
        self.pods: list[Pod] = []
        """Ready and not draining."""
        self.proxying = True
        """Whether the activator is in the path, and so its long queue."""
        self.failure = ""
        """Why nothing can be served, "" while there is hope."""
        self._waiting: deque[_Waiter] = deque()
        self._capacity = -1
        self.container_concurrency = container_concurrency

    @property
    def container_concurrency(self) -> int:
        """Requests that one pod takes at a time; 0 for any number."""
        return self._capacity

    @container_concurrency.setter
    def container_concurrency(self, value: int) -> None:
        if value != self._capacity:
            self._capacity = value
            self._policy = policy_for(value)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def queue_limit(self) -> int:
        if self.proxying or not self._capacity or not self.pods:
            return QUEUE_DEPTH
        return QUEUE_PER_SLOT * self._capacity * len(self.pods)

    def try_acquire(self, excluded: Collection[Pod] = ()) -> Pod | None:
        """A slot at once, or None. Who came earlier and waits goes first."""
        if self._waiting:
            return None
        pod = self._policy(self.pods, excluded) if self.pods else None
        if pod is not None:
            pod.in_flight += 1
        return pod

    async def acquire(self, seconds: float | None, excluded: Collection[Pod] = ()) -> Pod:
        """Wait for a slot. QueueFull, Unavailable, or TimeoutError after `seconds`."""
        if self.failure and not self.pods:
            raise Unavailable(self.failure)
        if len(self._waiting) >= self.queue_limit:
            raise QueueFull
        waiter = _Waiter(asyncio.get_running_loop().create_future(), excluded)
        self._waiting.append(waiter)
        timer = None
        if seconds is not None:
            timer = self._clock.call_later(seconds, _expire, waiter.future)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            future = waiter.future
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(future.result())  # a slot was given in the same moment
            else:
                self._drop(waiter)
            raise
        except TimeoutError:
            self._drop(waiter)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def release(self, pod: Pod, tunnels: int = 0) -> None:
        """A request has left `pod`; `tunnels` is 1 when it was counted as one."""
        pod.in_flight -= 1
        pod.tunnels -= tunnels
        if pod.draining:
            if pod.in_flight == pod.tunnels:
                _tell_idle(pod)
        elif self._waiting:
            self._serve_waiting()

    def update(self, pods: list[Pod]) -> None:
        """These pods are the ready ones now."""
        self.pods = pods
        if pods:
            self._serve_waiting()
        else:
            self.fail(self.failure)

    def fail(self, why: str) -> None:
        """Send away who waits, and who comes, while no pod is ready; "" lets them wait again."""
        self.failure = why
        if why and not self.pods:
            waiting, self._waiting = self._waiting, deque()
            for waiter in waiting:
                if not waiter.future.done():
                    waiter.future.set_exception(Unavailable(why))

    def _serve_waiting(self) -> None:
        """Give free slots to those who wait, first come first served."""
        passed: list[_Waiter] = []
        while self._waiting:
            waiter = self._waiting.popleft()
            if waiter.future.done():
                continue
            pod = self._policy(self.pods, waiter.excluded) if self.pods else None
            if pod is None:
                passed.append(waiter)
                if not waiter.excluded:
                    break  # nobody else can have more luck
                continue
            pod.in_flight += 1
            waiter.future.set_result(pod)
        self._waiting.extendleft(reversed(passed))

    def _drop(self, waiter: _Waiter) -> None:
        try:
            self._waiting.remove(waiter)
        except ValueError:
            pass


def drain(pod: Pod) -> asyncio.Future[None]:
    """Done when the last request has left `pod`, which gets no new ones any more.

    Tunnels are not waited for: they may last for ever, and a program that is told to stop can say
    goodbye to its WebSockets, as long as the grace period lasts.
    """
    pod.draining = True
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if pod.in_flight == pod.tunnels:
        done.set_result(None)
    else:
        pod.on_idle.append(lambda: None if done.done() else done.set_result(None))
    return done


def _tell_idle(pod: Pod) -> None:
    callbacks, pod.on_idle = pod.on_idle, []
    for callback in callbacks:
        callback()


def _expire(future: asyncio.Future[Pod]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
