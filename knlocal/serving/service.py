"""Service: makes a Configuration and a Route of its own name, and shows what becomes of them.

Mirrors knative.dev/serving/pkg/reconciler/service (behaviours B61 to B69).
"""

from __future__ import annotations

from collections.abc import Sequence

from knlocal.control.conditions import Conditions, find_condition
from knlocal.control.controller import Controller, Requeue, Watching, owned_by
from knlocal.control.pace import Urgency
from knlocal.resources.base import (
    Key,
    Obj,
    annotations_of,
    copy,
    is_deleting,
    key_of,
    labels_of,
    spec_of,
    status_of,
    uid_of,
)
from knlocal.serving.children import NotOwned, ensure
from knlocal.serving.kinds import (
    CONFIGURATION,
    LAST_APPLIED,
    ROLLOUT_DURATION,
    ROUTE,
    ROUTES,
    SERVICE,
    SERVICE_LABEL,
    SERVICE_UID_LABEL,
)
from knlocal.serving.revision_names import NameTaken, named_revision

CONDITIONS = ("ConfigurationsReady", "RoutesReady")
_NOT_READY_YET = "Traffic is not yet migrated to the latest revision."


class ServiceController(Controller):
    kind = SERVICE
    urgency = Urgency.PODS

    def watches(self) -> Sequence[Watching]:
        return (
            Watching(CONFIGURATION, owned_by(SERVICE)),
            Watching(ROUTE, owned_by(SERVICE)),
        )

    async def reconcile(self, key: Key) -> Requeue | None:
        service = self.store.find_key(key)
        if service is None or is_deleting(service):
            return None
        status = copy(status_of(service))
        conditions = Conditions(CONDITIONS, status, self.clock.now())
        try:
            configuration = self._configuration(service, status, conditions)
            if configuration is not None:
                self._route(service, configuration, status, conditions)
        except NotOwned as foreign:
            which = "ConfigurationsReady" if foreign.kind == "Configuration" else "RoutesReady"
            conditions.false(which, "NotOwned", str(foreign))
        status["observedGeneration"] = service["metadata"]["generation"]
        status["conditions"] = conditions.result()
        self.update_status(service, status)
        return None

    # -- stages -------------------------------------------------------------------------------

    def _configuration(self, service: Obj, status: Obj, conditions: Conditions) -> Obj | None:
        """The Configuration; None while the Route must not follow it yet."""
        desired = make_configuration(service)
        existing = self.store.find_key(key_of(desired))
        if existing is not None:
            # From now on the labeler says who uses it.
            desired["metadata"]["annotations"].pop(ROUTES)
            routes = annotations_of(existing).get(ROUTES)
            desired["metadata"]["annotations"] |= {ROUTES: routes} if routes else {}
        configuration = ensure(self.store, self.recorder, service, desired)
        template_name = (spec_of(service)["template"].get("metadata") or {}).get("name")
        if not _observed(configuration):
            conditions.unknown(
                "ConfigurationsReady",
                "OutOfDate",
                "The Configuration is still working to reflect the latest desired specification.",
            )
            # The Route waits, so that a bad name never takes traffic away from a good revision.
            return None if template_name else configuration
        _take_configuration_status(configuration, status, conditions)
        try:
            named_revision(self.store, configuration)
        except NameTaken:
            conditions.false(
                "RoutesReady",
                "RevisionNameTaken",
                f'The revision name "{template_name}" is taken by a conflicting Revision, '
                "so traffic will not be migrated",
            )
            return None
        return configuration

    def _route(self, service: Obj, configuration: Obj, status: Obj, conditions: Conditions) -> None:
        route = ensure(self.store, self.recorder, service, make_route(service))
        if not _observed(route):
            conditions.unknown(
                "RoutesReady",
                "OutOfDate",
                "The Route is still working to reflect the latest desired specification.",
            )
            return
        for field in ("url", "address", "traffic"):
            if field in status_of(route):
                status[field] = status_of(route)[field]
            else:
                status.pop(field, None)
        ready = find_condition(route)
        if ready is not None:
            conditions.follow("RoutesReady", ready)
        if conditions.is_true("RoutesReady") and not _traffic_is_latest(route, configuration):
            conditions.unknown("RoutesReady", "TrafficNotMigrated", _NOT_READY_YET)


def make_configuration(service: Obj) -> Obj:
    """The Configuration of a Service (behaviour B67)."""
    metadata = service["metadata"]
    annotations = {
        name: value
        for name, value in annotations_of(service).items()
        if name != LAST_APPLIED and name not in ROLLOUT_DURATION.spellings
    }
    return {
        "apiVersion": service["apiVersion"],
        "kind": "Configuration",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": labels_of(service)
            | {SERVICE_LABEL: metadata["name"], SERVICE_UID_LABEL: uid_of(service)},
            "annotations": annotations | {ROUTES: metadata["name"]},
        },
        "spec": {"template": spec_of(service)["template"]},
    }


def make_route(service: Obj) -> Obj:
    """The Route of a Service: its traffic, where "latest" names the Configuration."""
    metadata = service["metadata"]
    traffic = [
        target if target.get("revisionName") else {**target, "configurationName": metadata["name"]}
        for target in spec_of(service).get("traffic") or ()
    ]
    return {
        "apiVersion": service["apiVersion"],
        "kind": "Route",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": labels_of(service) | {SERVICE_LABEL: metadata["name"]},
            "annotations": {
                name: value
                for name, value in annotations_of(service).items()
                if name != LAST_APPLIED
            },
        },
        "spec": {"traffic": traffic},
    }


def _observed(child: Obj) -> bool:
    return bool(status_of(child).get("observedGeneration") == child["metadata"].get("generation"))


def _take_configuration_status(configuration: Obj, status: Obj, conditions: Conditions) -> None:
    for field in ("latestReadyRevisionName", "latestCreatedRevisionName"):
        if field in status_of(configuration):
            status[field] = status_of(configuration)[field]
        else:
            status.pop(field, None)
    ready = find_condition(configuration)
    if ready is not None:
        conditions.follow("ConfigurationsReady", ready)


def _traffic_is_latest(route: Obj, configuration: Obj) -> bool:
    """Whether what the Route serves is what it was asked to, with the latest ready revision."""
    latest = status_of(configuration).get("latestReadyRevisionName")
    name = configuration["metadata"]["name"]

    def essence(target: Obj, *, wanted: bool) -> tuple[str | None, str, int]:
        revision = target.get("revisionName")
        if wanted and target.get("configurationName") == name:
            revision = latest
        return revision, target.get("tag") or "", int(target.get("percent") or 0)

    want = [essence(target, wanted=True) for target in spec_of(route).get("traffic") or ()]
    got = [essence(target, wanted=False) for target in status_of(route).get("traffic") or ()]
    return want == got
