"""Configuration: a new Revision for each new template, and which of them is the latest ready one.

Mirrors knative.dev/serving/pkg/reconciler/configuration (behaviours B70 to B76).
"""

from __future__ import annotations

from collections.abc import Sequence

from knlocal.control.conditions import Conditions, find_condition, is_ready
from knlocal.control.controller import Controller, Requeue, Watching, owned_by
from knlocal.control.pace import Urgency
from knlocal.resources.base import (
    Key,
    Obj,
    annotations_of,
    copy,
    is_deleting,
    labels_of,
    owner_reference,
    spec_of,
    status_of,
    timestamp,
    uid_of,
)
from knlocal.resources.status import StatusError
from knlocal.serving.kinds import (
    CONFIGURATION,
    CONFIGURATION_GENERATION_LABEL,
    CONFIGURATION_LABEL,
    CONFIGURATION_UID_LABEL,
    CREATOR,
    LAST_MODIFIER,
    REVISION,
    ROUTES,
    ROUTING_STATE_LABEL,
    ROUTING_STATE_MODIFIED,
    SERVICE_LABEL,
    SERVICE_UID_LABEL,
)
from knlocal.serving.revision_names import (
    NameTaken,
    generation_of,
    named_revision,
    revision_name,
    template_name,
)


class ConfigurationController(Controller):
    kind = CONFIGURATION
    urgency = Urgency.PODS

    def watches(self) -> Sequence[Watching]:
        return (Watching(REVISION, owned_by(CONFIGURATION)),)

    async def reconcile(self, key: Key) -> Requeue | None:
        configuration = self.store.find_key(key)
        if configuration is None or is_deleting(configuration):
            return None
        status = copy(status_of(configuration))
        conditions = Conditions(("Ready",), status, self.clock.now())
        failure: Exception | None = None
        try:
            latest = self._latest_created(configuration)
        except (NameTaken, StatusError) as error:
            failure = error
            conditions.false(
                "Ready", "RevisionFailed", f"Revision creation failed with message: {error}."
            )
        else:
            self._show_created(configuration, latest, status, conditions)
            self._show_ready(configuration, latest, status, conditions)
        status["observedGeneration"] = configuration["metadata"]["generation"]
        status["conditions"] = conditions.result()
        self.update_status(configuration, status)
        if isinstance(failure, StatusError):
            raise failure
        return None

    # -- stages -------------------------------------------------------------------------------

    def _latest_created(self, configuration: Obj) -> Obj:
        """The revision of the current generation, made when there is none yet."""
        revision = named_revision(self.store, configuration)
        if revision is None and not template_name(configuration):
            generation = configuration["metadata"]["generation"]
            of_generation = [
                r for r in self._revisions(configuration) if generation_of(r) == generation
            ]
            revision = of_generation[0] if of_generation else None
        if revision is not None:
            return revision
        revision = self.store.create(make_revision(configuration, timestamp(self.clock.now())))
        name = revision["metadata"]["name"]
        self.recorder.normal(configuration, "Created", f'Created Revision "{name}"')
        return revision

    def _show_created(
        self, configuration: Obj, latest: Obj, status: Obj, conditions: Conditions
    ) -> None:
        name = latest["metadata"]["name"]
        status["latestCreatedRevisionName"] = name
        if status.get("latestReadyRevisionName") != name:
            conditions.unknown("Ready")
        ready = find_condition(latest)
        if ready is None or ready["status"] != "False":
            if not conditions.is_true():
                conditions.unknown("Ready")
            return
        message = ready.get("message", "")
        conditions.false(
            "Ready", "RevisionFailed", f'Revision "{name}" failed with message: {message}.'
        )
        known = find_condition(configuration)
        if known is None or known.get("message") != (conditions.get("Ready") or {}).get("message"):
            what = "ready" if status.get("latestReadyRevisionName") == name else "created"
            self.recorder.warning(
                configuration,
                f"Latest{what.capitalize()}Failed",
                f'Latest {what} revision "{name}" has failed',
            )

    def _show_ready(
        self, configuration: Obj, latest: Obj, status: Obj, conditions: Conditions
    ) -> None:
        """Find the newest ready revision; it never goes back, but for a rollback by name."""
        before = status.get("latestReadyRevisionName")
        found = self._newest_ready(configuration, latest, before)
        if found is None:
            gone = before and self._revision(configuration, before) is None
            if gone and before != latest["metadata"]["name"]:
                conditions.false("Ready", "RevisionDeleted", f'Revision "{before}" was deleted.')
            return
        name = found["metadata"]["name"]
        status["latestReadyRevisionName"] = name
        if name == latest["metadata"]["name"]:
            conditions.true("Ready")
        if not before:
            self.recorder.normal(configuration, "ConfigurationReady", "Configuration becomes ready")
        if before != name:
            self.recorder.normal(
                configuration, "LatestReadyUpdate", f'LatestReadyRevisionName updated to "{name}"'
            )

    def _newest_ready(self, configuration: Obj, latest: Obj, before: str | None) -> Obj | None:
        first = last = generation_of(latest)
        known = self._revision(configuration, before) if before else None
        if known is not None:
            first = generation_of(known)
        if last < first:  # a rollback to an older revision by its name
            return latest if is_ready(latest) else known if is_ready(known) else None
        candidates = [
            revision
            for revision in self._revisions(configuration)
            if (known is None or generation_of(revision) >= first)
            and generation_of(revision) <= last
            and is_ready(revision)
        ]
        name = latest["metadata"]["name"]  # an imported revision may claim the same generation
        return max(
            candidates,
            key=lambda it: (generation_of(it), it["metadata"]["name"] == name),
            default=None,
        )

    # -- reading ------------------------------------------------------------------------------

    def _revisions(self, configuration: Obj) -> list[Obj]:
        """The Configuration's own revisions (imported ones included)."""
        return [
            child
            for child in self.store.children(uid_of(configuration))
            if child["kind"] == "Revision" and not is_deleting(child)
        ]

    def _revision(self, configuration: Obj, name: str | None) -> Obj | None:
        namespace = configuration["metadata"]["namespace"]
        return self.store.find(REVISION, namespace, name) if name else None


def make_revision(configuration: Obj, now: str) -> Obj:
    """The Revision of a Configuration's current generation (behaviour B75)."""
    metadata = configuration["metadata"]
    template = copy(spec_of(configuration)["template"])
    own = template.get("metadata") or {}
    labels = dict(own.get("labels") or {}) | {
        CONFIGURATION_LABEL: metadata["name"],
        CONFIGURATION_GENERATION_LABEL: str(metadata["generation"]),
        CONFIGURATION_UID_LABEL: metadata["uid"],
        ROUTING_STATE_LABEL: "pending",
    }
    for name in (SERVICE_LABEL, SERVICE_UID_LABEL):
        if name in labels_of(configuration):
            labels[name] = labels_of(configuration)[name]
    about = annotations_of(configuration)
    annotations = dict(own.get("annotations") or {})
    if about.get(ROUTES):
        annotations[ROUTES] = about[ROUTES]
    creator = about.get(LAST_MODIFIER) or about.get(CREATOR)
    if creator:
        annotations[CREATOR] = creator
    annotations[ROUTING_STATE_MODIFIED] = now
    return {
        "apiVersion": configuration["apiVersion"],
        "kind": "Revision",
        "metadata": {
            "name": revision_name(configuration),
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner_reference(configuration)],
        },
        "spec": template.get("spec") or {},
    }
