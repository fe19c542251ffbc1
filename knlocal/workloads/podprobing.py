"""The probes of a pod's containers: who is asked what, and what the answers do to the pod."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from knlocal.resources.base import labels_of
from knlocal.workloads.containers import Container
from knlocal.workloads.podplan import DEFAULT_PORT, container_ports, serving_container
from knlocal.workloads.podrun import PodRun
from knlocal.workloads.probe_checks import Ports, Target
from knlocal.workloads.probes import (
    STEADY_PERIOD,
    Prober,
    Probes,
    ProbeSpec,
    Verdicts,
    Which,
    parse_probe,
)
from knlocal.workloads.terms import SERVING_REVISION


class PodProbing:
    """One prober per running container. `failed` is told of a container that must be restarted."""

    def __init__(self, run: PodRun, failed: Callable[[Container, Which], None]) -> None:
        self._run = run
        self._failed = failed
        self._probers: dict[str, Prober] = {}

    def begin(self, container: Container) -> None:
        """Probe a container that runs; without probes it is ready at once. Of one that is paused
        only whether it lives is asked."""
        self.stop(container)
        if container.role == "init":
            return
        probes = self._probes(container)
        if container.paused:
            probes = Probes(liveness=probes.liveness if container.started else None)
        elif probes == Probes():
            container.started = container.ready = True
        if probes == Probes():
            return
        run = self._run
        verdicts = Verdicts(
            started=lambda: self._started(container),
            ready=lambda ready: self._ready(container, ready),
            failed=lambda which: self._failed(container, which),
            unhealthy=lambda which, message: run.recorder.warning(
                run.pod, "Unhealthy", f"{which} probe failed: {message}"
            ),
            asked=lambda which, ok, seconds: run.node.probed(
                run.pod, container.name, which, ok, seconds
            ),
        )
        self._probers[container.name] = Prober(
            probes,
            self.target(container),
            verdicts,
            run.node.machine_clock,
            ready=container.ready,
        )

    def resume(self, container: Container) -> None:
        """Probe a container that was found running, unless that goes on already."""
        if container.name not in self._probers:
            self.begin(container)

    def stop(self, container: Container) -> None:
        prober = self._probers.pop(container.name, None)
        if prober is not None:
            prober.cancel()

    def stop_all(self) -> None:
        for prober in self._probers.values():
            prober.cancel()
        self._probers.clear()

    def target(self, container: Container) -> Target:
        """Where a container's probes and hooks go."""
        run, runtime, state = self._run, self._run.node.runtime, self._run.state
        assert state is not None

        def address(port: int) -> tuple[str, int]:
            return runtime.address(state, port)

        return Target(
            ip=state.ip,
            address=address,
            execute=lambda command, seconds: runtime.exec(
                run.id, container.name, command, timeout_seconds=seconds
            ),
            proxied=runtime.name == "docker" and address(DEFAULT_PORT)[0].startswith("127."),
        )

    def ports(self, container: Container) -> Ports:
        """How the probes of a container name ports. No port means the serving port (Knative)."""
        serving = serving_container([c.spec for c in self._run.containers if c.role == "app"])
        own = container_ports(container.spec)
        default = own[0] if own else DEFAULT_PORT if container.spec is serving else 0
        numbers = {
            str(port.get("name") or ""): int(port.get("containerPort") or DEFAULT_PORT)
            for port in container.spec.get("ports") or ()
        }
        http2 = frozenset(number for name, number in numbers.items() if name in ("h2c", "grpc"))
        named = {name: number for name, number in numbers.items() if name}
        return Ports(named, default, http2)

    # -- inside -------------------------------------------------------------------------------

    def _probes(self, container: Container) -> Probes:
        spec, ports = container.spec, self.ports(container)
        return Probes(
            startup=None if container.started else parse_probe(spec.get("startupProbe"), ports),
            readiness=self._readiness(parse_probe(spec.get("readinessProbe"), ports)),
            liveness=parse_probe(spec.get("livenessProbe"), ports),
        )

    def _readiness(self, probe: ProbeSpec | None) -> ProbeSpec | None:
        """Serving pods without a period of their own are probed aggressively, as queue-proxy
        does; Kubernetes' defaulting has turned their 0 into 10."""
        serving = labels_of(self._run.pod).get(SERVING_REVISION)
        if probe and serving and probe.period == STEADY_PERIOD:
            return replace(probe, period=0.0)
        return probe

    def _started(self, container: Container) -> None:
        if not container.running:
            return
        container.started = True
        if container.role == "sidecar":
            self._run.poke()  # the next container may start
        if container.spec.get("startupProbe"):
            self._run.publish()

    def _ready(self, container: Container, ready: bool) -> None:
        if not container.running:
            return
        lost = container.ready and not ready
        container.ready = ready and not container.paused
        self._run.publish()
        if lost:
            self._run.look()  # perhaps it is not the program's fault
