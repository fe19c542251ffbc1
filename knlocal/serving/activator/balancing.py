"""Which ready pod gets a request (knative.dev/serving/pkg/activator/net/lb_policy.go).

Unlimited pods: the less loaded of two picked at random. Few slots per pod: the first pod that has
one, which keeps the others free to go. Otherwise in turn.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection

from knlocal.gateway import Endpoint

_FIRST_AVAILABLE_LIMIT = 3


class Pod:
    """One pod as the request path sees it."""

    __slots__ = (
        *("capacity", "draining", "endpoint", "in_flight", "ip", "name", "on_idle", "tunnels"),
        "uid",
    )

    def __init__(
        self, name: str, uid: str, endpoint: Endpoint, capacity: int = 0, ip: str = ""
    ) -> None:
        self.name = name
        self.uid = uid
        self.endpoint = endpoint
        self.capacity = capacity
        """Requests at a time; 0 for any number."""
        self.ip = ip
        """What the pod's own programs see, for logs."""
        self.in_flight = 0
        self.tunnels = 0
        """Of those in flight, the ones that asked for an upgrade (WebSockets)."""
        self.draining = False
        self.on_idle: list[Callable[[], object]] = []
        """Called once, when the last request of a draining pod has left (but for tunnels)."""

    @property
    def free(self) -> bool:
        return self.capacity == 0 or self.in_flight < self.capacity

    def __repr__(self) -> str:
        return f"Pod({self.name}, {self.in_flight} in flight)"


Policy = Callable[[list[Pod], Collection[Pod]], Pod | None]
"""Picks a pod with a free slot that is not among the excluded ones, or None. Never waits."""


def policy_for(capacity: int) -> Policy:
    """The policy for pods that take `capacity` requests at a time (0: any number)."""
    if capacity == 0:
        return less_loaded_of_two
    if capacity <= _FIRST_AVAILABLE_LIMIT:
        return first_available
    return RoundRobin()


def less_loaded_of_two(pods: list[Pod], excluded: Collection[Pod] = ()) -> Pod | None:
    if excluded:
        pods = [pod for pod in pods if pod not in excluded]
    count = len(pods)
    if count <= 1:
        return pods[0] if pods else None
    if count == 2:
        one, other = pods
    else:
        first = int(random.random() * count)
        second = int(random.random() * (count - 1))
        one, other = pods[first], pods[second + (second >= first)]
    return other if one.in_flight > other.in_flight else one


def first_available(pods: list[Pod], excluded: Collection[Pod] = ()) -> Pod | None:
    for pod in pods:
        if pod.free and pod not in excluded:
            return pod
    return None


class RoundRobin:
    """Each pod in turn, passing over full ones."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0

    def __call__(self, pods: list[Pod], excluded: Collection[Pod] = ()) -> Pod | None:
        count = len(pods)
        for step in range(count):
            index = (self._next + step) % count
            pod = pods[index]
            if pod.free and pod not in excluded:
                self._next = index + 1
                return pod
        return None
