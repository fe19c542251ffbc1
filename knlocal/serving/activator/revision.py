"""One revision on the request path: queue, pods, timeouts, and the passing on itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from knlocal.clock import Clock
from knlocal.gateway import NotSent, Pool, Request, Timeouts, forward
from knlocal.gateway.forward import NO_TIMEOUTS
from knlocal.gateway.upstream import Protocol
from knlocal.serving.activator import probes
from knlocal.serving.activator.balancing import Pod
from knlocal.serving.activator.metrics import Labels, RevisionMetrics
from knlocal.serving.activator.throttler import QueueFull, Throttler, Unavailable
from knlocal.serving.autoscaling.statistics import RevisionStatistics

#: Headers between Knative's own components, which no user code sees (behaviour C5).
INTERNAL_HEADERS: Final = frozenset(
    {
        "k-network-probe",
        "k-network-hash",
        "k-proxy-request",
        "k-passthrough-lb",
        "k-original-host",
        "k-kubelet-probe",
        "knative-serving-revision",
        "knative-serving-namespace",
    }
)
PLAIN_TEXT: Final = (
    ("Content-Type", "text/plain; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
)
QUEUE_FULL: Final = "pending request queue full\n"
TIMEOUT: Final = "activator request timeout"
#: A ready pod that refuses a connection may just be restarting its container: so many pauses.
REFUSED_PAUSES: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True, slots=True)
class RevisionSettings:
    """What the request path takes from a Revision's spec. Seconds; None for no limit."""

    namespace: str
    name: str
    service: str = ""
    configuration: str = ""
    container_concurrency: int = 0
    timeouts: Timeouts = NO_TIMEOUTS
    protocol: Protocol = "http1"
    may_be_h2c: bool = False
    """The port has no name that says what it speaks."""
    user_port: int = 8080

    @property
    def metric_labels(self) -> Labels:
        return (
            ("namespace_name", self.namespace),
            ("service_name", self.service),
            ("configuration_name", self.configuration),
            ("revision_name", self.name),
        )

    @property
    def patience(self) -> float | None:
        """How long a request may wait for a pod: until the first of its timeouts."""
        limits = (self.timeouts.total, self.timeouts.response_start, self.timeouts.idle)
        return min((limit for limit in limits if limit), default=None)


@dataclass(slots=True)
class Served:
    """How a request went, for logs and trails."""

    request: Request
    revision: RevisionSettings
    pod: Pod | None
    status: int
    seconds: float
    """From the arrival to the end."""
    waited: float
    """Of these, for a pod."""
    bytes_out: int
    probe: bool = False


class RevisionBackend:
    """A revision that requests can be sent to, whether it has pods at the moment or not."""

    def __init__(
        self,
        settings: RevisionSettings,
        clock: Clock,
        pool: Pool,
        poke: Callable[[RevisionBackend], object],
        told: Callable[[Served], object] | None = None,
    ) -> None:
        self._clock = clock
        self._pool = pool
        self._poke = poke
        self.told = told
        """Called after each request; None when nobody wants to know."""
        self.throttler = Throttler(clock, settings.container_concurrency)
        self.statistics = RevisionStatistics(clock.monotonic)
        self.known: dict[str, Pod] = {}
        """Pods by uid: ready, or draining."""
        self.gone = False
        """The Revision is deleted."""
        self.metrics = RevisionMetrics(settings.metric_labels)
        self.settings = settings

    @property
    def settings(self) -> RevisionSettings:
        return self._settings

    @settings.setter
    def settings(self, settings: RevisionSettings) -> None:
        self._settings = settings
        self._timeouts = settings.timeouts
        self.metrics.labels = settings.metric_labels
        self.throttler.container_concurrency = settings.container_concurrency

    # -- the path of a request ----------------------------------------------------------------

    async def serve(self, request: Request, set_headers: Mapping[str, str] | None = None) -> None:
        """Answer `request` from one of the pods, waking one up when there is none."""
        if probes.is_probe(request.headers):
            await probes.answer(request, self.throttler)
            return
        if self.gone:
            await request.respond(404, PLAIN_TEXT, "404 page not found\n")
            return
        clock = self._clock
        statistics, throttler = self.statistics, self.throttler
        began = passed_on = clock.monotonic()
        timeouts = self._timeouts
        status, bytes_out = 0, 0
        refusing: list[Pod] = []
        statistics.arrived()
        tunnels = 1 if request.upgrade else 0
        pod = throttler.try_acquire()
        try:
            if pod is None:
                pod = await self._wait(began, ())
                passed_on = clock.monotonic()
                timeouts = _left(timeouts, passed_on - began)
            while True:
                pod.tunnels += tunnels
                try:
                    result = await forward(
                        request,
                        pod.endpoint,
                        pool=self._pool,
                        clock=clock,
                        timeouts=timeouts,
                        set_headers=set_headers,
                        remove_headers=INTERNAL_HEADERS,
                    )
                    status, bytes_out = result.status, result.bytes_out
                    return
                except NotSent as refused:
                    throttler.release(pod, tunnels)
                    refusing.append(pod)
                    pod = None
                    pod = await self._another(began, refusing, refused)
                    passed_on = clock.monotonic()
                    timeouts = _left(self._timeouts, passed_on - began)
        except QueueFull:
            status = await self._refuse(request, 503, QUEUE_FULL)
        except Unavailable as failure:
            status = await self._refuse(request, 503, f"{failure}\n")
        except TimeoutError:
            status = await self._refuse(request, 504, TIMEOUT)
        except NotSent as refused:
            status = await self._refuse(request, 502, f"{refused}\n")
        finally:
            if pod is not None:
                throttler.release(pod, tunnels)
            statistics.left()
            if status:
                now = clock.monotonic()
                self.metrics.record(status, (now - began) * 1e3, (now - passed_on) * 1e3)
                if self.told is not None:
                    self.told(
                        Served(
                            request, self._settings, pod, status, now - began,
                            passed_on - began, bytes_out,
                        )
                    )  # fmt: skip

    async def _wait(self, began: float, excluded: Collection[Pod]) -> Pod:
        """A slot on a pod, as long as the request's timeouts allow."""
        if not self.throttler.pods:
            self._poke(self)
        patience = self._settings.patience
        if patience is not None:
            patience -= self._clock.monotonic() - began
        return await self.throttler.acquire(patience, excluded)

    async def _another(self, began: float, refusing: list[Pod], refused: NotSent) -> Pod:
        """Another pod for a request of which nothing was sent yet. When all refuse, they get a
        moment to restart their containers; at last the refusal stands."""
        pod = self.throttler.try_acquire(refusing)
        if pod is not None:
            return pod
        rounds = refusing.count(refusing[-1])
        if rounds > len(REFUSED_PAUSES):
            raise refused
        await self._clock.sleep(REFUSED_PAUSES[rounds - 1])
        return self.throttler.try_acquire() or await self._wait(began, ())

    @staticmethod
    async def _refuse(request: Request, status: int, text: str) -> int:
        await request.respond(status, PLAIN_TEXT, text)
        return status


def _left(timeouts: Timeouts, waited: float) -> Timeouts:
    """The timeouts of a request that has waited: in tenths of a second, so that few differ."""
    if waited < 0.05:
        return timeouts

    def rest(limit: float | None) -> float | None:
        return max(0.1, math.ceil((limit - waited) * 10) / 10) if limit else limit

    return Timeouts(rest(timeouts.total), rest(timeouts.response_start), rest(timeouts.idle))
