"""PodAutoscaler: what was decided becomes the Deployment's replicas, and status for all to see.

Mirrors knative.dev/serving/pkg/reconciler/autoscaling/kpa (kpa.go, scaler.go; behaviours D17 to
D24). Deciding happens on a tick every two seconds, for revisions that have or want pods only:
revisions at zero cost nothing until a request pokes them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from knlocal.clock import Timer
from knlocal.control.conditions import Conditions, find_condition
from knlocal.control.controller import Controller, Requeue, Watching, owned_by
from knlocal.control.events import EventRecorder
from knlocal.control.pace import Urgency
from knlocal.resources import settings
from knlocal.resources.base import (
    Key,
    Obj,
    annotations_of,
    copy,
    is_deleting,
    key_of,
    labels_of,
    parse_timestamp,
    spec_of,
    status_of,
)
from knlocal.resources.serving import keys
from knlocal.serving.activator.registry import Activator
from knlocal.serving.activator.revision import RevisionBackend
from knlocal.serving.autoscaling import horizontal
from knlocal.serving.autoscaling.kpa import (
    Decider,
    DeciderSpec,
    Decision,
    Observation,
    activator_count,
    seconds_annotation,
)
from knlocal.serving.autoscaling.metric import ensure_metric
from knlocal.serving.autoscaling.scale_bounds import (
    initial_scale,
    scale_bounds,
)
from knlocal.serving.autoscaling.scale_status import (
    UNKNOWN,
    Scale,
    active_is,
    show_scale,
    show_service,
)
from knlocal.serving.children import NotOwned, child_metadata, ensure
from knlocal.serving.config import Config, is_config
from knlocal.serving.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    HORIZONTAL_POD_AUTOSCALER,
    POD,
    POD_AUTOSCALER,
    REVISION_LABEL,
    SERVERLESS_SERVICE,
)
from knlocal.store.store import Store

log = logging.getLogger(__name__)

TICK_SECONDS = 2.0
SECOND_LOOK_SECONDS = 0.1
#: How much longer than its progress deadline a revision may take to activate (behaviour D21).
ACTIVATION_BUFFER = 30.0
CONDITIONS = ("Active", "ScaleTargetInitialized", "SKSReady")


@dataclass(slots=True)
class Scaling:
    """One revision's autoscaling, between ticks."""

    key: Key
    decider: Decider
    backend: RevisionBackend
    decision: Decision | None = None
    """None until there was something to decide on."""

    @property
    def desired(self) -> int:
        return UNKNOWN if self.decision is None else self.decision.desired


class PodAutoscalerController(Controller):
    kind = POD_AUTOSCALER
    urgency = Urgency.TRAFFIC

    def __init__(
        self,
        store: Store,
        config: Config,
        activator: Activator,
        recorder: EventRecorder | None = None,
    ) -> None:
        super().__init__(store, recorder)
        self._config = config
        self._activator = activator
        self.scalings: dict[tuple[str, str], Scaling] = {}
        self._ticking: dict[tuple[str, str], Scaling] = {}
        self._timer: Timer | None = None
        self._stopped = False
        self.decided: list[Callable[[Scaling], object]] = []
        """Told after each decision (metrics, dashboards)."""

    def watches(self) -> Sequence[Watching]:
        return (
            Watching(SERVERLESS_SERVICE, owned_by(POD_AUTOSCALER)),
            Watching(HORIZONTAL_POD_AUTOSCALER, owned_by(POD_AUTOSCALER)),
            Watching(DEPLOYMENT, _of_revision_child),
            Watching(POD, _of_revision_child),
            Watching(CONFIG_MAP, self._of_config),
        )

    async def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def accepts(self, obj: Obj) -> bool:
        """Classes of others are theirs to scale."""
        own = (settings.KPA, settings.HPA)
        return _class_of(obj, self._config.autoscaler) in own

    async def reconcile(self, key: Key) -> Requeue | None:
        self.look(key)
        return None

    # -- when ---------------------------------------------------------------------------------

    def poke(self, revision: Key) -> None:
        """A request waits for a revision without pods: decide at once (behaviour C10)."""
        place = (revision.namespace, revision.name)
        scaling = self.scalings.get(place)
        if scaling is not None and place not in self._ticking:
            self._decide_and_look(scaling)
            self._watch(scaling)
            # Whoever comes with the first request (a burst) shall not wait for the next tick.
            self.clock.call_later(SECOND_LOOK_SECONDS, self._decide_and_look, scaling)

    def pods_found(self, revision: Key) -> None:
        """Pods take requests now that could not be reached before."""
        self.look(Key(*POD_AUTOSCALER, revision.namespace, revision.name))

    def _tick(self) -> None:
        self._timer = None
        for scaling in list(self._ticking.values()):
            self._decide_and_look(scaling)
        self._plan_tick()

    def _decide_and_look(self, scaling: Scaling) -> None:
        if self._stopped:
            return
        try:
            self._decide(scaling)
            self.look(scaling.key)
        except Exception:
            log.exception("cannot scale %s", scaling.key)

    def _plan_tick(self) -> None:
        if self._timer is None and self._ticking and not self._stopped:
            self._timer = self.clock.call_later(TICK_SECONDS, self._tick)

    def _watch(self, scaling: Scaling) -> None:
        self._ticking[scaling.key.namespace, scaling.key.name] = scaling
        self._plan_tick()

    def _decide(self, scaling: Scaling) -> None:
        spec, statistics = scaling.decider.spec, scaling.backend.statistics
        statistics.tick()
        stable, panic = statistics.averages(spec.metric)
        seen = Observation(stable, panic, len(scaling.backend.throttler.pods))
        scaling.decision = scaling.decider.decide(seen, self.clock.monotonic())
        for told in self.decided:
            told(scaling)

    # -- what: one look at one PodAutoscaler --------------------------------------------------

    def look(self, key: Key) -> None:
        """Bring replicas, ServerlessService and status in line with the last decision."""
        autoscaler = self.store.find_key(key)
        place = (key.namespace, key.name)
        if autoscaler is None or is_deleting(autoscaler) or not self.accepts(autoscaler):
            self.scalings.pop(place, None)
            self._ticking.pop(place, None)
            return
        status = copy(status_of(autoscaler))
        conditions = Conditions(CONDITIONS, status, self.clock.now())
        if _class_of(autoscaler, self._config.autoscaler) == settings.HPA:
            self._follow_horizontal(autoscaler, status, conditions)
            return
        horizontal.remove_autoscaler(self.store, autoscaler)
        deployment = self.store.find(
            DEPLOYMENT, key.namespace, spec_of(autoscaler)["scaleTargetRef"]["name"]
        )
        scaling = self._scaling(autoscaler)
        ready = len(scaling.backend.throttler.pods)
        want = self._want(autoscaler, scaling, conditions, deployment)
        try:
            serverless = self._serverless_service(autoscaler, scaling, conditions, want, ready)
            ensure_metric(self.store, self.recorder, autoscaler, scaling.decider.spec)
        except NotOwned as foreign:
            conditions.false("SKSReady", "NotOwned", str(foreign))
        else:
            show_service(serverless, status, conditions)
        scale = Scale(want, ready)
        show_scale(autoscaler, status, conditions, scale, self._config.autoscaler)
        self._write(autoscaler, status, conditions)
        replicas = spec_of(deployment).get("replicas", 1) if deployment else 0
        if want > 0 or replicas > 0 or (want == UNKNOWN and not active_is(conditions, "False")):
            self._watch(scaling)
        else:
            self._ticking.pop(place, None)

    def _write(self, autoscaler: Obj, status: Obj, conditions: Conditions) -> None:
        status["observedGeneration"] = autoscaler["metadata"]["generation"]
        status["conditions"] = conditions.result()
        self.update_status(autoscaler, status)

    def _follow_horizontal(self, autoscaler: Obj, status: Obj, conditions: Conditions) -> None:
        """The class hpa: Kubernetes' own autoscaler scales, by CPU or memory; never to zero."""
        key = key_of(autoscaler)
        self.scalings.pop((key.namespace, key.name), None)
        self._ticking.pop((key.namespace, key.name), None)
        self._activator.revision(key.namespace, key.name).throttler.proxying = False
        conditions.true("Active")
        try:
            scaled = horizontal.ensure_autoscaler(
                self.store, self.recorder, autoscaler, self._config.autoscaler
            )
            serverless = self._ensure_serverless(autoscaler, "Serve", 0)
        except NotOwned as foreign:
            conditions.false("Active", "NotOwned", str(foreign))
        else:
            show_service(serverless, status, conditions)
            if conditions.is_true("SKSReady"):
                conditions.true("ScaleTargetInitialized")
            status["desiredScale"] = int(status_of(scaled).get("desiredReplicas") or 0)
            status["actualScale"] = int(status_of(scaled).get("currentReplicas") or 0)
        self._write(autoscaler, status, conditions)

    def _scaling(self, autoscaler: Obj) -> Scaling:
        key = key_of(autoscaler)
        place = (key.namespace, key.name)
        spec = DeciderSpec.of(
            annotations_of(autoscaler),
            int(spec_of(autoscaler).get("containerConcurrency") or 0),
            self._config.autoscaler,
            reachable=spec_of(autoscaler).get("reachability") != "Unreachable",
        )
        scaling = self.scalings.get(place)
        if scaling is None:
            backend = self._activator.revision(*place)
            decider = Decider(spec, len(backend.throttler.pods), self.clock.monotonic())
            scaling = self.scalings[place] = Scaling(key, decider, backend)
            backend.statistics.resize(spec.stable_window, spec.panic_window, spec.aggregation)
            return scaling
        scaling.backend = self._activator.revision(*place)
        before = scaling.decider.spec
        if before != spec:
            scaling.decider.spec = spec
            if _windows(before) != _windows(spec):
                scaling.backend.statistics.resize(*_windows(spec))
        return scaling

    # -- the scale ----------------------------------------------------------------------------

    def _want(
        self,
        autoscaler: Obj,
        scaling: Scaling,
        conditions: Conditions,
        deployment: Obj | None,
    ) -> int:
        """The scale, within bounds and the rules for the last pod, applied to the Deployment."""
        config = self._config.autoscaler
        desired = scaling.desired
        if desired < 0 and not active_is(conditions, "Unknown"):
            return desired
        least, most = scale_bounds(autoscaler, config)
        initialized = conditions.is_true("ScaleTargetInitialized")
        reachable = spec_of(autoscaler).get("reachability") != "Unreachable"
        if not initialized and reachable:
            least = max(least, initial_scale(autoscaler, config))
        desired = max(desired, least)
        if most and desired > most:
            desired = most
        apply = True
        if desired <= 0:
            desired, apply = self._to_zero(autoscaler, scaling, conditions, deployment)
        if apply and deployment is not None:
            self._scale(deployment, desired)
        return desired

    def _to_zero(
        self,
        autoscaler: Obj,
        scaling: Scaling,
        conditions: Conditions,
        deployment: Obj | None,
    ) -> tuple[int, bool]:
        """The last pod's way out: (scale, whether to apply it). Behaviours D20 and D21."""
        config = self._config.autoscaler
        if not config.enable_scale_to_zero:
            return 1, True
        since = self._since(find_condition(autoscaler, "Active"))
        if active_is(conditions, "Unknown"):
            deadline = spec_of(deployment or {}).get("progressDeadlineSeconds", 600)
            if since >= deadline + ACTIVATION_BUFFER:
                return 0, True
            return UNKNOWN, False
        if active_is(conditions, "True"):
            if since >= scaling.decider.spec.stable_window:
                return 0, False  # marks it inactive; the pod goes at one of the next looks
            return 1, True
        retention = 0.0
        if spec_of(autoscaler).get("reachability") != "Unreachable":
            retention = seconds_annotation(
                annotations_of(autoscaler),
                keys.SCALE_TO_ZERO_POD_RETENTION_PERIOD,
                config.scale_to_zero_pod_retention_period,
            )
        grace = config.scale_to_zero_grace_period
        if since >= max(grace, retention):
            return 0, True
        serverless = self.store.find(SERVERLESS_SERVICE, scaling.key.namespace, scaling.key.name)
        proxied = find_condition(serverless, "ActivatorEndpointsPopulated")
        proxying = proxied is not None and proxied["status"] == "True"
        if since >= retention and proxying and self._since(proxied) >= grace:
            return 0, True
        return 0, False

    def _since(self, condition: Obj | None) -> float:
        """Seconds since a condition changed; 0 when it is not there."""
        moment = (condition or {}).get("lastTransitionTime")
        if not moment:
            return 0.0
        return (self.clock.now() - parse_timestamp(moment)).total_seconds()

    def _scale(self, deployment: Obj, replicas: int) -> None:
        if spec_of(deployment).get("replicas", 1) != replicas and not is_deleting(deployment):
            key = key_of(deployment)
            self.store.modify(
                DEPLOYMENT, key.namespace, key.name,
                lambda obj: obj["spec"].__setitem__("replicas", replicas),
            )  # fmt: skip

    # -- what others see ----------------------------------------------------------------------

    def _serverless_service(
        self,
        autoscaler: Obj,
        scaling: Scaling,
        conditions: Conditions,
        want: int,
        ready: int,
    ) -> Obj:
        if scaling.decision is not None:
            excess = scaling.decision.excess_burst_capacity
        else:
            excess = scaling.decider.expected_excess(
                initial_scale(autoscaler, self._config.autoscaler)
            )
        inactive = want == UNKNOWN and active_is(conditions, "False")
        proxy = want == 0 or excess < 0 or inactive
        scaling.backend.throttler.proxying = proxy or not scaling.backend.throttler.pods
        existing = self.store.find(SERVERLESS_SERVICE, scaling.key.namespace, scaling.key.name)
        activators = 2 if existing is None else activator_count(ready, scaling.decider.spec)
        return self._ensure_serverless(autoscaler, "Proxy" if proxy else "Serve", activators)

    def _ensure_serverless(self, autoscaler: Obj, mode: str, activators: int) -> Obj:
        metadata = child_metadata(autoscaler)
        metadata["annotations"].pop(keys.METRIC.key, None)
        return ensure(
            self.store,
            self.recorder,
            autoscaler,
            {
                "apiVersion": "networking.internal.knative.dev/v1alpha1",
                "kind": "ServerlessService",
                "metadata": metadata,
                "spec": {
                    "mode": mode,
                    "objectRef": spec_of(autoscaler)["scaleTargetRef"],
                    "protocolType": spec_of(autoscaler).get("protocolType", "http1"),
                    "numActivators": activators,
                },
            },
        )

    def _of_config(self, config: Obj) -> Iterable[Key]:
        return self.all_keys() if is_config(config, "config-autoscaler") else ()


def _windows(spec: DeciderSpec) -> tuple[float, float, str]:
    return spec.stable_window, spec.panic_window, spec.aggregation


def _class_of(autoscaler: Obj, config: settings.Autoscaler) -> str:
    return keys.CLASS.value(annotations_of(autoscaler)) or config.pod_autoscaler_class


def _of_revision_child(obj: Obj) -> Iterable[Key]:
    """Deployments and pods of a revision concern the PodAutoscaler of its name."""
    name = labels_of(obj).get(REVISION_LABEL)
    return (Key(*POD_AUTOSCALER, obj["metadata"].get("namespace") or "", name),) if name else ()
