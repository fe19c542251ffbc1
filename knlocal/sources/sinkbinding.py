"""SinkBinding: tells existing and future workloads where to send events (pkg/webhook/psbinding).

Subjects that exist are changed when the binding is reconciled; new ones, and those that someone
replaces, at admission, which is the only moment for Jobs, as their template never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from knlocal.control.conditions import Conditions
from knlocal.control.controller import Controller, Requeue, Watching
from knlocal.control.destinations import Destinations, Unresolved
from knlocal.resources import labels
from knlocal.resources.base import (
    GroupKind,
    Key,
    Obj,
    copy,
    is_deleting,
    key_of,
    labels_of,
    spec_of,
    split_api_version,
    status_of,
)
from knlocal.resources.status import StatusError
from knlocal.sources.emit import overrides
from knlocal.sources.injection import bind, pod_spec, unbind
from knlocal.store.store import NAMESPACE, AdmissionRequest, Store

SINK_BINDING = GroupKind("sources.knative.dev", "SinkBinding")
FINALIZER = "sinkbindings.sources.knative.dev"
EXCLUDE = "bindings.knative.dev/exclude"
INCLUDE = "bindings.knative.dev/include"
SUBJECTS = (
    GroupKind("apps", "Deployment"),
    GroupKind("apps", "StatefulSet"),
    GroupKind("apps", "DaemonSet"),
    GroupKind("apps", "ReplicaSet"),
    GroupKind("batch", "Job"),
    GroupKind("batch", "CronJob"),
    GroupKind("serving.knative.dev", "Service"),
    GroupKind("serving.knative.dev", "Configuration"),
)
#: Kinds whose pod template never changes after creation.
_IMMUTABLE = {GroupKind("batch", "Job")}


class SinkBindingController(Controller):
    """Resolve the sink → bind the subjects → conditions; undo all of it when the binding goes."""

    kind = SINK_BINDING

    def __init__(self, store: Store, destinations: Destinations) -> None:
        super().__init__(store)
        self.destinations = destinations
        #: Who was bound last, to let go of those that a changed binding no longer names.
        self._bound: dict[Key, set[Key]] = {}

    def watches(self) -> Sequence[Watching]:
        return [Watching(subject, self._bindings_of) for subject in SUBJECTS]

    async def reconcile(self, key: Key) -> Requeue | None:
        binding = self.store.find_key(key)
        self.destinations.begin(key)
        if binding is None:
            self._bound.pop(key, None)
            return None
        if is_deleting(binding):
            self._let_go(binding)
            return None
        self._hold(binding)
        status: dict[str, Any] = dict(status_of(binding))
        conditions = self._conditions(binding)
        problem = self._resolve(binding, key, status)
        # The address is stored before subjects are touched: their admission reads it. Conditions
        # wait for the end, lest each round write two that differ, and so call for the next.
        binding = self.update_status(binding, status) or binding
        self._bind_subjects(binding, conditions)
        if problem:
            conditions.false("SinkProvided", "NotFound", problem)
        else:
            conditions.true("SinkProvided")
        status["observedGeneration"] = binding["metadata"].get("generation", 1)
        status["conditions"] = conditions.result()
        self.update_status(binding, status)
        return None

    def _conditions(self, binding: Obj) -> Conditions:
        conditions = Conditions(
            (
                "SinkBindingAvailable",
                "SinkProvided",
                "OIDCIdentityCreated",
                "OIDCTokenSecretCreated",
                "TrustBundlePropagated",
            ),
            status_of(binding),
            self.clock.now(),
        )
        disabled = "authentication-oidc feature disabled"
        conditions.true("OIDCIdentityCreated", disabled)
        conditions.true("OIDCTokenSecretCreated", disabled)
        conditions.true("TrustBundlePropagated")
        return conditions

    def _resolve(self, binding: Obj, key: Key, status: Obj) -> str:
        """Put the sink's address into the status. Returns why there is none, "" when there is."""
        sink = spec_of(binding).get("sink") or {}
        try:
            address = self.destinations.resolve(
                sink, key.namespace, dependent=key, notify=self.enqueue
            )
        except Unresolved as error:
            status.pop("sinkUri", None)
            status.pop("sinkCACerts", None)
            return str(error)
        status["sinkUri"] = address.url
        if address.ca_certs:
            status["sinkCACerts"] = address.ca_certs
        else:
            status.pop("sinkCACerts", None)
        return ""

    # -- subjects -----------------------------------------------------------------------------

    def _bind_subjects(self, binding: Obj, conditions: Conditions) -> None:
        subject = spec_of(binding).get("subject") or {}
        found = self._subjects(binding)
        self._let_others_go(key_of(binding), {key_of(obj) for obj in found})
        if subject.get("name") and not found:
            kind = self.store.registry.by_version(subject["apiVersion"], subject["kind"])
            resource = kind.resource if kind else subject["kind"].lower()
            conditions.false(
                "SinkBindingAvailable", "SubjectMissing",
                f'{resource} "{subject["name"]}" not found',
            )  # fmt: skip
            return
        try:
            for obj in found:
                self._rewrite(obj, binding)
        except StatusError as error:
            # A Knative Service whose template names its Revision takes no change to it, say.
            conditions.false("SinkBindingAvailable", "BindingFailed", error.message)
            return
        conditions.true("SinkBindingAvailable")

    def _let_others_go(self, binding: Key, now: set[Key]) -> None:
        before = self._bound.get(binding, set())
        self._bound[binding] = now
        for key in before - now:
            obj = self.store.find_key(key)
            if obj is not None:
                # Admission puts in again what other bindings want there.
                self._rewrite(obj, None)

    def _rewrite(self, obj: Obj, binding: Obj | None) -> None:
        """Bring one existing subject in line with a binding; None takes the variables out."""
        key = key_of(obj)
        if key.group_kind in _IMMUTABLE or is_deleting(obj):
            return
        wanted = copy(obj)
        if binding is None:
            unbind(wanted)
        else:
            _apply(wanted, binding)
        if wanted != obj:
            self.store.update(wanted)

    def _subjects(self, binding: Obj) -> list[Obj]:
        subject = spec_of(binding).get("subject") or {}
        group = split_api_version(subject.get("apiVersion", ""))[0]
        candidates = self.store.list(
            GroupKind(group, subject.get("kind", "")), binding["metadata"]["namespace"]
        )
        return [obj for obj in candidates if matches(binding, obj) and not self._excluded(obj)]

    def _excluded(self, obj: Obj) -> bool:
        """Whether an object, or its namespace, wants no binding."""
        place = self.store.find(NAMESPACE, "", obj["metadata"].get("namespace") or "")
        return any(labels_of(one).get(EXCLUDE) == "true" for one in (obj, place or {}))

    def _bindings_of(self, obj: Obj) -> list[Key]:
        bindings = self.store.list(SINK_BINDING, obj["metadata"]["namespace"])
        return [key_of(binding) for binding in bindings if matches(binding, obj)]

    # -- coming and going ---------------------------------------------------------------------

    def _hold(self, binding: Obj) -> None:
        if FINALIZER not in (binding["metadata"].get("finalizers") or ()):
            key = key_of(binding)
            self.store.modify(
                key.group_kind, key.namespace, key.name,
                lambda o: o["metadata"].setdefault("finalizers", []).append(FINALIZER),
            )  # fmt: skip
        namespace = self.store.find(NAMESPACE, "", binding["metadata"]["namespace"])
        if namespace is not None and INCLUDE not in labels_of(namespace):
            self.store.modify(
                NAMESPACE, "", namespace["metadata"]["name"],
                lambda o: o["metadata"].setdefault("labels", {}).__setitem__(INCLUDE, "true"),
            )  # fmt: skip

    def _let_go(self, binding: Obj) -> None:
        if FINALIZER not in (binding["metadata"].get("finalizers") or ()):
            return
        key = key_of(binding)
        try:
            for obj in self._subjects(binding):
                self._rewrite(obj, None)
            self._let_others_go(key, set())
        except StatusError as error:
            # What takes no change must not keep the binding from going.
            self.recorder.warning(binding, "UnbindingFailed", error.message)
        self.store.modify(
            key.group_kind, key.namespace, key.name,
            lambda o: o["metadata"]["finalizers"].remove(FINALIZER),
        )  # fmt: skip

    # -- admission ----------------------------------------------------------------------------

    def admit(self, request: AdmissionRequest) -> None:
        """Admission hook: bind what is being created or replaced."""
        if request.kind.group_kind not in SUBJECTS or pod_spec(request.obj) is None:
            return
        if request.operation == "UPDATE" and request.kind.group_kind in _IMMUTABLE:
            return
        namespace = request.obj["metadata"].get("namespace") or ""
        if self._excluded(request.obj):
            return
        for binding in self.store.list(SINK_BINDING, namespace):
            if not is_deleting(binding) and matches(binding, request.obj):
                _apply(request.obj, self._resolved(binding))

    def _resolved(self, binding: Obj) -> Obj:
        """The binding with its sink's address: one applied together with its subject has not been
        looked at yet, and for a Job there is no second chance."""
        if status_of(binding).get("sinkUri") or status_of(binding).get("conditions"):
            return binding
        sink = spec_of(binding).get("sink") or {}
        try:
            address = self.destinations.resolve(sink, binding["metadata"]["namespace"])
        except Unresolved:
            return binding
        return {**binding, "status": {"sinkUri": address.url, "sinkCACerts": address.ca_certs}}


def matches(binding: Obj, obj: Obj) -> bool:
    """Whether `obj` is a subject of `binding`: same kind, and the name or the labels."""
    subject = spec_of(binding).get("subject") or {}
    group = split_api_version(subject.get("apiVersion", ""))[0]
    if split_api_version(obj.get("apiVersion", ""))[0] != group:
        return False
    if obj.get("kind") != subject.get("kind"):
        return False
    if subject.get("name"):
        return bool(obj["metadata"].get("name") == subject["name"])
    return labels.from_label_selector(subject.get("selector")).matches(labels_of(obj))


def _apply(obj: Obj, binding: Obj) -> None:
    status = status_of(binding)
    if status.get("sinkUri"):
        bind(obj, status["sinkUri"], overrides(spec_of(binding)), status.get("sinkCACerts", ""))
    else:
        unbind(obj)
