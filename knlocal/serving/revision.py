"""Revision: digests, then a Deployment and a PodAutoscaler, and what they say about its health.

Mirrors knative.dev/serving/pkg/reconciler/revision (behaviours B77 to B93).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from knlocal.control.conditions import Conditions, find_condition
from knlocal.control.controller import Controller, Requeue, Retry, Watching, owned_by
from knlocal.control.events import EventRecorder
from knlocal.control.pace import Urgency
from knlocal.resources.base import (
    Key,
    Obj,
    copy,
    is_deleting,
    labels_of,
    spec_of,
    status_of,
)
from knlocal.resources.names import child_name
from knlocal.serving.activator.registry import pod_is_ready
from knlocal.serving.autoscaling.scale_bounds import first_replicas
from knlocal.serving.children import NotOwned, ensure
from knlocal.serving.config import Config, is_config
from knlocal.serving.image_resolver import ImageResolver, ImageUnresolved, resolve_all
from knlocal.serving.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    IMAGE,
    POD,
    POD_AUTOSCALER,
    QUEUE_PROXY,
    REVISION,
    REVISION_LABEL,
)
from knlocal.serving.revision_scaling import (
    CONDITIONS,
    make_pod_autoscaler,
    take_autoscaler_status,
)
from knlocal.serving.template import (
    child_annotations,
    child_labels,
    deployment_name,
    make_deployment,
)
from knlocal.store.store import Store

#: Images whose digest could not be found are asked for again with this growing pause.
_RESOLVE_AGAIN = (1.0, 30.0)

#: Seconds after which a revision says that it is still looking for its digests.
_TELL_RESOLVING = 0.05

FailureHook = Callable[[str, str, str], object]
"""Called with namespace, name and why a revision's pods cannot serve now ("" when they may)."""


class RevisionController(Controller):
    kind = REVISION
    urgency = Urgency.PODS

    def __init__(
        self,
        store: Store,
        config: Config,
        resolver: ImageResolver,
        on_failure: FailureHook = lambda _namespace, _name, _why: None,
        recorder: EventRecorder | None = None,
    ) -> None:
        super().__init__(store, recorder)
        self._config = config
        self._resolver = resolver
        self._on_failure = on_failure
        self._unresolved: dict[str, float] = {}

    def watches(self) -> Sequence[Watching]:
        return (
            Watching(DEPLOYMENT, owned_by(REVISION)),
            Watching(POD_AUTOSCALER, owned_by(REVISION)),
            Watching(POD, _of_unready_pod),
            Watching(CONFIG_MAP, self._of_config),
        )

    async def reconcile(self, key: Key) -> Requeue | None:
        revision = self.store.find_key(key)
        if revision is None or is_deleting(revision):
            return None
        was_ready = (find_condition(revision) or {}).get("status") == "True"
        status = copy(status_of(revision))
        conditions = Conditions(CONDITIONS, status, self.clock.now())
        self._log_url(revision, status)
        retry = await self._digests(revision, status, conditions)
        revision = self.store.find_key(key)
        if revision is None or is_deleting(revision):
            return None
        if retry is None:
            shown = {**revision, "status": status}
            try:
                self._deployment(shown, conditions)
                self._images(shown)
                self._pod_autoscaler(shown, status, conditions)
            except NotOwned as foreign:
                conditions.false("ResourcesAvailable", "NotOwned", str(foreign))
        self._write(revision, status, conditions)
        if not was_ready and conditions.is_true():
            self.recorder.normal(
                revision, "RevisionReady", "Revision becomes ready upon all resources being ready"
            )
        if retry is not None:
            raise retry
        return None

    def _write(self, revision: Obj, status: Obj, conditions: Conditions) -> None:
        status["observedGeneration"] = revision["metadata"]["generation"]
        status["conditions"] = conditions.result()
        self.update_status(revision, status)

    # -- stages -------------------------------------------------------------------------------

    def _log_url(self, revision: Obj, status: Obj) -> None:
        template = self._config.observability.logging_url_template
        status.pop("logUrl", None)
        if template:
            status["logUrl"] = template.replace("${REVISION_UID}", revision["metadata"]["uid"])

    async def _digests(self, revision: Obj, status: Obj, conditions: Conditions) -> Retry | None:
        """Resolve the images once. Returns why (and when) to come again if that did not work."""
        uid = revision["metadata"]["uid"]
        if _has_digests(revision, status):
            self._unresolved.pop(uid, None)
            return None
        timer = None
        if uid not in self._unresolved:
            for condition in CONDITIONS:
                conditions.unknown(condition, "ResolvingDigests")
            # Most digests are known at once: no need to tell of it then.
            timer = self.clock.call_later(
                _TELL_RESOLVING, self._write, revision, copy(status), conditions
            )
        try:
            found = await resolve_all(
                revision, self._resolver, self._config, self.store, self.clock
            )
        except ImageUnresolved as error:
            pause = min(self._unresolved.get(uid, _RESOLVE_AGAIN[0] / 2) * 2, _RESOLVE_AGAIN[1])
            self._unresolved[uid] = pause
            conditions.false("ContainerHealthy", "ContainerMissing", str(error))
            return Retry(str(error), after=pause)
        finally:
            if timer is not None:
                timer.cancel()
        self._unresolved.pop(uid, None)
        status.update(found)
        for condition in CONDITIONS:
            known = conditions.get(condition) or {}
            if known.get("reason") in ("ResolvingDigests", "ContainerMissing"):
                conditions.unknown(condition, "Deploying")
        return None

    def _deployment(self, revision: Obj, conditions: Conditions) -> None:
        namespace = revision["metadata"]["namespace"]
        existing = self.store.find(DEPLOYMENT, namespace, deployment_name(revision))
        if existing is None:
            for condition in CONDITIONS:
                if not conditions.is_true(condition):
                    conditions.unknown(condition, "Deploying")
        desired = make_deployment(
            revision, self._config, first_replicas(revision, self._config.autoscaler)
        )
        if existing is not None:
            _keep_what_others_decide(desired, existing)
        deployment = ensure(self.store, self.recorder, revision, desired, merge=True)
        wanted = int(spec_of(deployment).get("replicas", 1))
        failing = ""
        if wanted > 0:
            _take_progress(deployment, conditions)
            if not status_of(deployment).get("availableReplicas"):
                _tell_waiting(conditions, "")
                failing = self._diagnose(deployment, conditions)
        if status_of(deployment).get("readyReplicas"):
            conditions.true("ContainerHealthy")
        self._on_failure(namespace, revision["metadata"]["name"], failing)

    def _pods(self, owner: Obj) -> list[Obj]:
        """The pods of a Deployment, through its ReplicaSets."""
        found = []
        for child in self.store.children(owner["metadata"]["uid"]):
            found += [child] if child["kind"] == "Pod" else self._pods(child)
        return found

    def _diagnose(self, deployment: Obj, conditions: Conditions) -> str:
        """Why no pod is available, from the first pod; returns what its container died of."""
        pods = [pod for pod in self._pods(deployment) if not is_deleting(pod)]
        if not pods:
            return ""
        scheduled = find_condition(pods[0], "PodScheduled") or {}
        if scheduled.get("status") == "False":
            conditions.false(
                "ResourcesAvailable", scheduled.get("reason", ""), scheduled.get("message", "")
            )
        pod_status = status_of(pods[0])
        for status in (
            *(pod_status.get("initContainerStatuses") or ()),
            *(pod_status.get("containerStatuses") or ()),
        ):
            if status.get("name") == QUEUE_PROXY:
                continue
            ended = (status.get("lastState") or {}).get("terminated")
            waiting = (status.get("state") or {}).get("waiting")
            if ended and not _init_done(status):
                message = ended.get("message") or ""
                if not message and not ended.get("exitCode"):
                    message = "container exited with no error"
                why = f"Container failed with: {message}"
                conditions.false("ContainerHealthy", f"ExitCode{ended.get('exitCode', 0)}", why)
                # While it runs again it may well become ready: requests wait for that.
                return why if waiting else ""
            if waiting and _timed_out(deployment):
                conditions.false(
                    "ResourcesAvailable", waiting.get("reason", ""), waiting.get("message", "")
                )
                return f"{waiting.get('reason', '')}: {waiting.get('message', '')}"
            if waiting and waiting.get("message"):
                _tell_waiting(conditions, f"{waiting.get('reason', '')}: {waiting['message']}")
        return ""

    def _images(self, revision: Obj) -> None:
        """An Image (caching.internal.knative.dev) per container: what a cluster would pre-pull."""
        spec, metadata = spec_of(revision), revision["metadata"]
        digests = {
            s["name"]: s.get("imageDigest")
            for field in ("containerStatuses", "initContainerStatuses")
            for s in status_of(revision).get(field) or ()
        }
        for container in (*spec["containers"], *(spec.get("initContainers") or ())):
            name = child_name(metadata["name"], f"-cache-{container['name']}")
            if self.store.find(IMAGE, metadata["namespace"], name) is not None:
                continue
            wanted: dict[str, Any] = {
                "image": digests.get(container["name"]) or container.get("image", "")
            }
            for field in ("serviceAccountName", "imagePullSecrets"):
                if spec.get(field):
                    wanted[field] = spec[field]
            image = {
                "apiVersion": "caching.internal.knative.dev/v1alpha1",
                "kind": "Image",
                "metadata": {
                    "name": name,
                    "namespace": metadata["namespace"],
                    "labels": child_labels(revision),
                    "annotations": child_annotations(revision),
                },
                "spec": wanted,
            }
            ensure(self.store, self.recorder, revision, image)

    def _pod_autoscaler(self, revision: Obj, status: Obj, conditions: Conditions) -> None:
        metadata = revision["metadata"]
        existing = self.store.find(POD_AUTOSCALER, metadata["namespace"], metadata["name"])
        class_ = self._config.autoscaler.pod_autoscaler_class
        wanted = make_pod_autoscaler(revision, conditions, existing, class_)
        autoscaler = ensure(self.store, self.recorder, revision, wanted)
        take_autoscaler_status(autoscaler, status, conditions)

    # -- who must be looked at again ----------------------------------------------------------

    def _of_config(self, config: Obj) -> Iterable[Key]:
        names = ("config-observability", "config-deployment", "config-autoscaler", "knlocal-config")
        return self.all_keys() if is_config(config, *names) else ()


def _has_digests(revision: Obj, status: Obj) -> bool:
    spec = spec_of(revision)
    return len(status.get("containerStatuses") or ()) == len(spec["containers"]) and len(
        status.get("initContainerStatuses") or ()
    ) == len(spec.get("initContainers") or ())


def _keep_what_others_decide(desired: Obj, existing: Obj) -> None:
    """The autoscaler owns the replicas, the selector cannot change, and what only shows the
    settings of the moment (queue-proxy) is no reason to start new pods."""
    spec = spec_of(existing)
    desired["spec"]["replicas"] = spec.get("replicas", 1)
    desired["spec"]["selector"] = spec["selector"]
    shown = {
        c["name"]: c
        for c in spec["template"]["spec"].get("containers") or ()
        if c["name"] == QUEUE_PROXY
    }
    pod = desired["spec"]["template"]["spec"]
    pod["containers"] = [shown.get(c["name"], c) for c in pod["containers"]]


def _take_progress(deployment: Obj, conditions: Conditions) -> None:
    """ResourcesAvailable mirrors Progressing and ReplicaFailure (TransformDeploymentStatus)."""
    failure = find_condition(deployment, "ReplicaFailure") or {}
    progressing = find_condition(deployment, "Progressing") or {}
    for condition, bad in ((failure, "True"), (progressing, "False")):
        if condition.get("status") == bad:
            conditions.false(
                "ResourcesAvailable", condition.get("reason", ""), condition.get("message", "")
            )
            return
    # What was wrong with the Deployment is over; the PodAutoscaler says whether all is well.
    known = conditions.get("ResourcesAvailable") or {}
    if progressing.get("status") == "True" and known.get("status") == "False":
        conditions.unknown("ResourcesAvailable", "Deploying")


def _tell_waiting(conditions: Conditions, message: str) -> None:
    """What a revision that is still being deployed waits for. Knative says nothing until the
    progress deadline has passed; that it is not known yet whether it will work stays so here."""
    known = conditions.get("ResourcesAvailable") or {}
    if known.get("reason") == "Deploying" and known.get("message", "") != message:
        conditions.unknown("ResourcesAvailable", "Deploying", message)


def _timed_out(deployment: Obj) -> bool:
    progressing = find_condition(deployment, "Progressing") or {}
    return (
        progressing.get("status") == "False"
        and progressing.get("reason") == "ProgressDeadlineExceeded"
    )


def _init_done(status: Obj) -> bool:
    """An init container that failed before, but has completed since."""
    ended = (status.get("state") or {}).get("terminated")
    return bool(ended and ended.get("exitCode") == 0 and ended.get("reason") == "Completed")


def _of_unready_pod(pod: Obj) -> Iterable[Key]:
    """Pods that are not ready may say why their revision does not come up."""
    name = labels_of(pod).get(REVISION_LABEL)
    if not name or is_deleting(pod) or pod_is_ready(pod):
        return ()
    return (Key(*REVISION, pod["metadata"]["namespace"], name),)
