"""When a container's probes are asked, and what their answers add up to.

Kubernetes' rules (pkg/kubelet/prober): the startup probe gates the others; `failureThreshold`
failures, one per `periodSeconds`, make a verdict. Two liberties, both for the wake's sake: while
nobody listens on the port yet it is tried again after milliseconds (Kubernetes allows probing an
unready container faster than its period), and a period of 0 is Knative's aggressive probing: every
50 ms until ready, every 10 s from then on (knative.dev/serving pkg/queue/readiness).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from knlocal.clock import Clock
from knlocal.runtime.api import EngineUnavailable, RuntimeFailure
from knlocal.workloads.probe_checks import Answer, Check, Exec, Ports, Target, ask, parse_check

Which = Literal["Startup", "Readiness", "Liveness"]

#: Knative's aggressive probing: seconds between two questions, patience, period once ready.
AGGRESSIVE_SECONDS = 0.05
AGGRESSIVE_TIMEOUT = 1.0
STEADY_PERIOD = 10.0
#: While nobody listens: the first wait, and the longest as time goes by (from, wait).
_KNOCK_FIRST = 0.002
#: For so long after the start nobody is blamed for not listening yet.
_PATIENCE = 0.5
_KNOCK_MOST = ((0.0, 0.005), (1.0, 0.02), (5.0, 0.1), (30.0, 1.0))


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """One probe, its numbers in seconds."""

    check: Check
    initial_delay: float
    timeout: float
    period: float
    """0 is aggressive."""
    success_threshold: int
    failure_threshold: int

    @property
    def steady_period(self) -> float:
        return self.period or STEADY_PERIOD


def parse_probe(probe: Mapping[str, Any] | None, ports: Ports) -> ProbeSpec | None:
    """A container's probe; None when there is none, or nothing it could ask."""
    if probe is None:
        return None
    check = parse_check(probe, ports)
    if check is None:
        return None
    period = float(probe.get("periodSeconds") or 0)
    return ProbeSpec(
        check=check,
        initial_delay=float(probe.get("initialDelaySeconds") or 0),
        timeout=float(probe.get("timeoutSeconds") or AGGRESSIVE_TIMEOUT),
        period=period,
        success_threshold=max(1, int(probe.get("successThreshold") or 1)),
        failure_threshold=max(1, int(probe.get("failureThreshold") or 3)),
    )


@dataclass(frozen=True, slots=True)
class Probes:
    """The probes of one container."""

    startup: ProbeSpec | None = None
    readiness: ProbeSpec | None = None
    liveness: ProbeSpec | None = None


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the prober tells. All are called on the event loop and must not block."""

    started: Callable[[], None]
    ready: Callable[[bool], None]
    failed: Callable[[Which], None]
    """Startup or liveness has failed for good: the container must be restarted."""
    unhealthy: Callable[[Which, str], None]
    """A failure worth an Event."""
    asked: Callable[[Which, bool, float], None] = lambda _which, _ok, _seconds: None
    """A question that counted: how it went, and how long the answer took."""


class Prober:
    """Asks the probes of one run of one container, until `stop`. `ready` is where it stands: a
    container that was ready before the daemon looked stays so until its probe says otherwise."""

    def __init__(
        self,
        probes: Probes,
        target: Target,
        verdicts: Verdicts,
        clock: Clock,
        *,
        ready: bool = False,
    ) -> None:
        self._probes = probes
        self._target = target
        self._verdicts = verdicts
        self._clock = clock
        self._ready = ready
        self._task = asyncio.create_task(self._run(), name="probes")

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def cancel(self) -> None:
        """As `stop`, without waiting for it."""
        self._task.cancel()

    async def _run(self) -> None:
        if self._probes.startup and not await self._start_up(self._probes.startup):
            self._verdicts.failed("Startup")
            return
        self._verdicts.started()
        async with asyncio.TaskGroup() as group:
            if self._probes.readiness:
                group.create_task(self._watch_readiness(self._probes.readiness))
            else:
                self._verdicts.ready(True)
            if self._probes.liveness:
                group.create_task(self._watch_liveness(self._probes.liveness))

    async def _start_up(self, probe: ProbeSpec) -> bool:
        """True once it has passed, False when it has failed for good."""
        failures = 0
        async for passed in self._verdict_stream(
            "Startup", probe, eager=True, period=probe.period or 1.0
        ):
            if passed:
                return True
            failures += 1
            if failures >= probe.failure_threshold:
                return False
        return False

    async def _watch_readiness(self, probe: ProbeSpec) -> None:
        successes = failures = 0
        async for passed in self._verdict_stream(
            "Readiness", probe, eager=True, period=probe.steady_period
        ):
            successes, failures = (successes + 1, 0) if passed else (0, failures + 1)
            if not self._ready and successes >= probe.success_threshold:
                self._ready = True
                self._verdicts.ready(True)
            elif self._ready and failures >= probe.failure_threshold:
                self._ready = False
                self._verdicts.ready(False)

    async def _watch_liveness(self, probe: ProbeSpec) -> None:
        failures = 0
        async for passed in self._verdict_stream(
            "Liveness", probe, eager=False, period=probe.steady_period
        ):
            failures = 0 if passed else failures + 1
            if failures >= probe.failure_threshold:
                self._verdicts.failed("Liveness")
                return

    async def _verdict_stream(
        self,
        which: Which,
        probe: ProbeSpec,
        *,
        eager: bool,
        period: float,
    ) -> AsyncIterator[bool]:
        """True for each success, False for failures at most once per period: the eager attempts
        in between do not count. Eagerness ends when the container is ready."""
        # The kubelet's own first look falls somewhere in the first period.
        await self._clock.sleep(probe.initial_delay or (0 if eager else period))
        began = self._clock.monotonic()
        counted: float | None = None
        knock = _KNOCK_FIRST
        while True:
            asked = self._clock.monotonic()
            answer = await self._ask(probe)
            now = self._clock.monotonic()
            wait = period
            if answer is not None and answer.ok:
                self._verdicts.asked(which, True, now - asked)
                yield True
                if eager and not probe.period and not self._ready:
                    wait = AGGRESSIVE_SECONDS
            elif answer is not None:
                hasty = eager and not self._ready
                early = hasty and not answer.reached and now - began < _PATIENCE
                if not early and (counted is None or now - counted >= period * 0.99):
                    counted = now
                    self._verdicts.asked(which, False, now - asked)
                    self._verdicts.unhealthy(which, answer.message)
                    yield False
                if hasty and not answer.reached:
                    wait = min(knock, _longest_knock(now - began), period)
                    knock *= 1.5
                elif hasty and not probe.period:
                    wait = AGGRESSIVE_SECONDS * (4 if isinstance(probe.check, Exec) else 1)
            await self._clock.sleep(wait)

    async def _ask(self, probe: ProbeSpec) -> Answer | None:
        """None when the question could not be asked (the engine is away)."""
        try:
            return await ask(probe.check, self._target, probe.timeout, self._clock)
        except EngineUnavailable:
            return None
        except RuntimeFailure as error:
            return Answer(False, error.message)


def _longest_knock(seconds: float) -> float:
    return max(wait for since, wait in _KNOCK_MOST if seconds >= since)
