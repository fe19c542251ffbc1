"""Faults on demand: on the way to a service, a trigger's or a subscription's subscriber; and pods.

    knlocal.faults.trigger("created").fail(503, times=2)
    knlocal.faults.service("orders").delay("2s", share=0.3)

Which of several events a `share` hits is decided by a seed, printed when a test fails, so that a
run can be repeated (`--knlocal-seed`).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from knlocal.eventing.dispatcher import Deliver
from knlocal.eventing.subscription import Answer, Subscription
from knlocal.events import Event
from knlocal.gateway import Handler, Request
from knlocal.resources.base import GroupKind
from knlocal.testing.matching import hidden, seconds

if TYPE_CHECKING:
    from knlocal.testing.host import Host
    from knlocal.testing.project import LocalProject

__tracebackhide__ = hidden

SERVICE = GroupKind("serving.knative.dev", "Service")
ROUTE = GroupKind("serving.knative.dev", "Route")
TRIGGER = GroupKind("eventing.knative.dev", "Trigger")
SUBSCRIPTION = GroupKind("messaging.knative.dev", "Subscription")

What = Literal["delay", "fail", "drop", "duplicate", "reorder"]


@dataclass(slots=True)
class Fault:
    """One thing that goes wrong, `left` times (None: always), for a `share` of what passes."""

    what: What
    status: int = 503
    seconds: float = 0.0
    left: int | None = None
    share: float = 1.0
    hit: int = 0
    held: Callable[[], Awaitable[object]] | None = None

    def strikes(self, dice: random.Random) -> bool:
        if self.left == 0 or (self.share < 1 and dice.random() >= self.share):
            return False
        if self.left is not None:
            self.left -= 1
        self.hit += 1
        return True

    def __str__(self) -> str:
        often = f" for {self.share:.0%}" if self.share < 1 else ""
        return f"{self.what}{often}, hit {self.hit} times"


class Edge:
    """The way to one service, trigger or subscription. Faults add up; `clear` ends them all."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.faults: list[Fault] = []

    def delay(self, by: float | str, **when: float) -> Fault:
        """Wait, on knlocal's clock, before passing it on."""
        return self._add(Fault("delay", seconds=seconds(by)), **when)

    def fail(self, status: int = 503, **when: float) -> Fault:
        """Answer with an error instead of passing it on."""
        return self._add(Fault("fail", status), **when)

    def drop(self, **when: float) -> Fault:
        """Lose it on the way: an event seems accepted, a request's connection breaks."""
        return self._add(Fault("drop"), **when)

    def duplicate(self, **when: float) -> Fault:
        """Deliver an event twice."""
        return self._add(Fault("duplicate"), **when)

    def reorder(self, **when: float) -> Fault:
        """Hold an event back until the next one has been delivered."""
        return self._add(Fault("reorder"), **when)

    def clear(self) -> None:
        self.faults.clear()

    def _add(self, fault: Fault, *, times: float | None = None, share: float = 1.0) -> Fault:
        fault.left = None if times is None else int(times)
        fault.share = share
        self.faults.append(fault)
        return fault


class Faults:
    """`project.faults`. The same seed and the same order of events give the same faults.

    A fault on something the project does not have would never strike: such a name fails at once.
    """

    def __init__(self, project: LocalProject, seed: int) -> None:
        self.seed = seed
        self._project = project
        self._dice = random.Random(seed)
        self._edges: dict[str, Edge] = {}

    def service(self, name: str) -> Edge:
        """Requests to a service through the gateway, whoever sends them. Events that are dropped
        break the connection; duplicate and reorder have no meaning here."""
        return self._edge(name, SERVICE, ROUTE)

    def trigger(self, name: str) -> Edge:
        """Deliveries of a trigger."""
        return self._edge(name, TRIGGER)

    def subscription(self, name: str) -> Edge:
        """Deliveries of a channel's subscription."""
        return self._edge(name, SUBSCRIPTION)

    def kill_pod(self, service: str) -> int:
        """Delete every pod of a service at once, without grace; returns how many there were."""
        project = self._project
        store = project.daemon.store
        project.check(service, project.namespace, SERVICE)
        pods = [
            pod
            for pod in store.list(project.POD, project.namespace)
            if pod["metadata"]["labels"].get("serving.knative.dev/service") == service
        ]

        async def kill() -> None:
            for pod in pods:
                name = pod["metadata"]["name"]
                store.delete(project.POD, project.namespace, name, grace_seconds=0)

        project.run(kill())
        return len(pods)

    def clear(self) -> None:
        """End all faults."""
        self._edges.clear()

    def _edge(self, name: str, *kinds: GroupKind) -> Edge:
        place = self._project.namespace
        self._project.check(name, place, *kinds)
        known_as = f"{kinds[0].kind.lower()} {place}/{name}"
        return self._edges.setdefault(known_as, Edge(known_as))

    def __str__(self) -> str:
        lines = [f"{e.name}: {fault}" for e in self._edges.values() for fault in e.faults]
        return "\n".join([f"seed {self.seed}", *lines]) if lines else ""

    # -- where they strike --------------------------------------------------------------------

    async def on_delivery(self, deliver: Deliver, subscription: Subscription) -> Answer:
        """Stands in for one delivery to a subscriber."""
        edge = self._edges.get(subscription.name.lower())
        twice = False
        for fault in list(edge.faults) if edge else ():
            if fault.held is not None:
                held, fault.held = fault.held, None
                answer = await deliver()
                await held()
                return answer
            if not fault.strikes(self._dice):
                continue
            if fault.what == "delay":
                await self._project.daemon.clock.sleep(fault.seconds)
            elif fault.what == "fail":
                return Answer(fault.status, {}, b"injected by a fault")
            elif fault.what == "drop":
                return Answer(202, {}, b"")
            elif fault.what == "duplicate":
                twice = True
            else:
                fault.held = deliver
                return Answer(202, {}, b"")
        if twice:
            await deliver()
        return await deliver()

    async def on_request(self, request: Request, handler: Handler) -> None:
        """Stands in for the handler of a request to a service of the project."""
        name = request.host.partition(".")[0]
        edge = self._edges.get(f"service {self._project.namespace}/{name}")
        for fault in list(edge.faults) if edge else ():
            if not fault.strikes(self._dice):
                continue
            if fault.what == "delay":
                await self._project.daemon.clock.sleep(fault.seconds)
            elif fault.what == "fail":
                await request.respond(fault.status, (), "injected by a fault\n")
                return
            elif fault.what == "drop":
                request.abort()
                return
        await handler(request)


class FaultSwitch:
    """Hands what passes through a host's daemon to the faults of the project it belongs to."""

    def __init__(self, host: Host) -> None:
        self._projects: dict[str, Faults] = {}
        host.daemon.routes.around = self._request
        host.daemon.eventing.dispatcher.around = self._delivery

    def add(self, namespace: str, faults: Faults) -> None:
        self._projects[namespace] = faults

    def remove(self, namespace: str) -> None:
        self._projects.pop(namespace, None)

    async def _delivery(
        self, deliver: Deliver, subscription: Subscription, _event: Event
    ) -> Answer:
        faults = self._projects.get(subscription.namespace)
        if faults is None:
            return await deliver()
        return await faults.on_delivery(deliver, subscription)

    async def _request(self, request: Request, handler: Handler) -> None:
        namespace = request.host.partition(".")[2].partition(".")[0]
        faults = self._projects.get(namespace)
        if faults is None:
            await handler(request)
        else:
            await faults.on_request(request, handler)
