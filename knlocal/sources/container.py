"""ContainerSource: any image that sends events to $K_SINK, kept running by a Deployment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from knlocal.control.conditions import Conditions, find_condition
from knlocal.control.controller import Controller, Requeue, Watching, owned_by
from knlocal.resources.base import (
    GroupKind,
    Key,
    Obj,
    copy,
    is_deleting,
    key_of,
    owner_reference,
    spec_of,
    status_of,
)
from knlocal.resources.names import child_name
from knlocal.resources.status import StatusError
from knlocal.sources.sinkbinding import SINK_BINDING

CONTAINER_SOURCE = GroupKind("sources.knative.dev", "ContainerSource")
DEPLOYMENT = GroupKind("apps", "Deployment")
LABEL = "sources.knative.dev/containerSource"


class ContainerSourceController(Controller):
    """A SinkBinding first; once it knows the sink, a Deployment, so that no container ever runs
    without one; then status from both (behaviour E64)."""

    kind = CONTAINER_SOURCE

    def watches(self) -> Sequence[Watching]:
        owned = owned_by(CONTAINER_SOURCE)
        return [Watching(SINK_BINDING, owned), Watching(DEPLOYMENT, owned)]

    async def reconcile(self, key: Key) -> Requeue | None:
        source = self.store.find_key(key)
        if source is None or is_deleting(source):
            return None
        conditions = Conditions(
            ("SinkBindingReady", "ReceiveAdapterReady"), status_of(source), self.clock.now()
        )
        try:
            binding = self._bring(_sink_binding(source))
        except StatusError as error:
            conditions.false("SinkBindingReady", "SinkBindingFailed", error.message)
            status: dict[str, Any] = {
                **status_of(source),
                "observedGeneration": source["metadata"].get("generation", 1),
                "conditions": conditions.result(),
            }
            self.update_status(source, status)
            raise
        deployment = None
        if status_of(binding).get("sinkUri"):
            try:
                deployment = self._bring(_deployment(source))
            except StatusError as error:
                conditions.false("ReceiveAdapterReady", "DeploymentFailed", error.message)
                self._tell(source, binding, None, conditions)
                raise
        self._tell(source, binding, deployment, conditions)
        return None

    def _bring(self, wanted: Obj) -> Obj:
        """Create the child, or bring its spec to what is wanted."""
        key = key_of(wanted)
        found = self.store.find_key(key)
        if found is None:
            return self.store.create(wanted)
        new = copy(found)
        new["spec"] = {**found["spec"], **wanted["spec"]}
        return self.store.update(new)

    def _tell(
        self, source: Obj, binding: Obj, deployment: Obj | None, conditions: Conditions
    ) -> None:
        status: dict[str, Any] = dict(status_of(source))
        sink = status_of(binding).get("sinkUri")
        conditions.follow("SinkBindingReady", find_condition(binding))
        available = find_condition(deployment, "Available")
        if available is not None and available["status"] == "True":
            conditions.true("ReceiveAdapterReady")
        elif deployment is not None:
            name = deployment["metadata"]["name"]
            conditions.unknown(
                "ReceiveAdapterReady", "DeploymentUnavailable",
                f"The Deployment '{name}' is unavailable.",
            )  # fmt: skip
        elif not sink:
            conditions.unknown("ReceiveAdapterReady", "SinkMissing", "waiting for the sink")
        if sink:
            status["sinkUri"] = sink
        else:
            status.pop("sinkUri", None)
        status["observedGeneration"] = source["metadata"].get("generation", 1)
        status["conditions"] = conditions.result()
        self.update_status(source, status)


def _child(source: Obj, suffix: str, api_version: str, kind: str) -> Obj:
    metadata = source["metadata"]
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": child_name(metadata["name"], suffix),
            "namespace": metadata["namespace"],
            "labels": {LABEL: metadata["name"]},
            "ownerReferences": [owner_reference(source)],
        },
    }


def _sink_binding(source: Obj) -> Obj:
    spec = spec_of(source)
    binding = _child(source, "-sinkbinding", "sources.knative.dev/v1", "SinkBinding")
    binding["spec"] = {
        **{k: spec[k] for k in ("sink", "ceOverrides") if k in spec},
        "subject": {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "namespace": source["metadata"]["namespace"],
            "name": child_name(source["metadata"]["name"], "-deployment"),
        },
    }
    return binding


def _deployment(source: Obj) -> Obj:
    template = copy(spec_of(source).get("template") or {})
    _fill_words(template)
    metadata = template.setdefault("metadata", {})
    name = source["metadata"]["name"]
    metadata["labels"] = {**(metadata.get("labels") or {}), LABEL: name}
    deployment = _child(source, "-deployment", "apps/v1", "Deployment")
    deployment["spec"] = {
        "replicas": 1,
        "selector": {"matchLabels": {LABEL: name}},
        "template": template,
    }
    return deployment


def _fill_words(template: Obj) -> None:
    """The template is not typed, so an argument may be null; Go reads that as the empty string."""
    pod = template.get("spec") or {}
    for container in (*(pod.get("initContainers") or ()), *(pod.get("containers") or ())):
        for field in ("command", "args"):
            if isinstance(container, dict) and isinstance(container.get(field), list):
                container[field] = ["" if word is None else word for word in container[field]]
