"""What every source does alike: resolve its sink, tell its state, register its event types.

A new source kind is one file: a `SourceController` with its `kind`, its conditions, and the hooks
below; and one line in `knlocal.sources.feature`, or an entry point in a package of its own.
docs/sources.md walks through one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from knlocal.control.conditions import Conditions
from knlocal.control.controller import Controller, Requeue
from knlocal.control.destinations import Address, Destinations, Unresolved
from knlocal.resources.base import (
    GroupKind,
    Key,
    Obj,
    is_deleting,
    owner_reference,
    spec_of,
    status_of,
    uid_of,
)
from knlocal.resources.kinds import Kind
from knlocal.resources.status import BadRequest, Invalid
from knlocal.sources.emit import Emitter
from knlocal.store.store import Store

EVENT_TYPE = GroupKind("eventing.knative.dev", "EventType")
_REFERENCE = ("apiVersion", "kind", "name", "namespace")


class SourceController(Controller):
    """Resolve the sink → `run` the source (or stop it) → write conditions, sinkUri, ceAttributes →
    keep EventTypes for what the source can send (behaviours E8, E70)."""

    #: The kind itself, where it is not one of Knative's that knlocal has anyway.
    definition: Kind | None = None
    #: Dependent conditions, `SinkProvided` among them.
    conditions: tuple[str, ...] = ("SinkProvided", "Deployed", "OIDCIdentityCreated")
    #: The condition that says whether the sink leads anywhere…
    sink_condition = "SinkProvided"
    #: …and the one that says whether the source itself runs.
    running_condition = "Deployed"

    def __init__(self, store: Store, destinations: Destinations, emitter: Emitter) -> None:
        super().__init__(store)
        self.destinations = destinations
        self.emitter = emitter
        if self.definition is not None:
            store.registry.add(self.definition)

    # -- hooks --------------------------------------------------------------------------------

    def event_types(self, obj: Obj) -> list[dict[str, str]]:
        """`ceAttributes`: the {type, source} pairs that this object sends."""
        return []

    async def run(self, obj: Obj, sink: str, conditions: Conditions) -> Requeue | None:
        """Bring the running source in line with `obj`, and tell how it went in `conditions`."""
        raise NotImplementedError

    async def halt(self, key: Key) -> None:
        """Stop what runs for `key`; called when it is gone or has no sink."""

    # -- the flow -----------------------------------------------------------------------------

    async def reconcile(self, key: Key) -> Requeue | None:
        obj = self.store.find_key(key)
        self.destinations.begin(key)
        if obj is None or is_deleting(obj):
            await self.halt(key)
            return None
        conditions = Conditions(self.conditions, status_of(obj), self.clock.now())
        if "OIDCIdentityCreated" in self.conditions:
            conditions.true("OIDCIdentityCreated", "authentication-oidc feature disabled")
        status: dict[str, Any] = dict(status_of(obj))
        address = self._resolve_sink(obj, key, conditions)
        again: Requeue | None = None
        if address is None:
            await self.halt(key)
            for name in ("sinkUri", "sinkCACerts", "sinkAudience", "ceAttributes"):
                status.pop(name, None)
        else:
            status["sinkUri"] = address.url
            _put(status, "sinkCACerts", address.ca_certs)
            _put(status, "sinkAudience", address.audience)
            try:
                again = await self.run(obj, address.url, conditions)
            except (BadRequest, Invalid) as error:
                conditions.false(self.running_condition, "DeploymentFailed", error.message)
            runs = conditions.is_true(self.running_condition)
            status["ceAttributes"] = self.event_types(obj) if runs else []
        status |= self.extra_status(obj)
        status["observedGeneration"] = obj["metadata"].get("generation", 1)
        status["conditions"] = conditions.result()
        sent = status.get("ceAttributes") or []
        if not sent:
            status.pop("ceAttributes", None)
        self.update_status(obj, status)
        try:
            self._keep_event_types(obj, sent)
        except (BadRequest, Invalid) as error:
            # A source without EventTypes sends its events all the same.
            self.recorder.warning(obj, "EventTypeFailed", error.message)
        return again

    def extra_status(self, obj: Obj) -> Mapping[str, Any]:
        """More fields of the status."""
        return {}

    def _resolve_sink(self, obj: Obj, key: Key, conditions: Conditions) -> Address | None:
        sink = spec_of(obj).get("sink") or {}
        try:
            address = self.destinations.resolve(
                sink, key.namespace, dependent=key, notify=self.enqueue
            )
        except Unresolved as error:
            conditions.false(self.sink_condition, "NotFound", str(error))
            return None
        conditions.true(self.sink_condition)
        return address

    # -- event types --------------------------------------------------------------------------

    def _keep_event_types(self, source: Obj, sent: list[dict[str, str]]) -> None:
        """One EventType per {type, source} while the sink is a reference; others go."""
        reference = (spec_of(source).get("sink") or {}).get("ref")
        wanted: dict[str, Obj] = {}
        if reference:
            for pair in sent:
                event_type = self._event_type(source, reference, pair)
                wanted[event_type["metadata"]["name"]] = event_type
        owned = {
            child["metadata"]["name"]: child
            for child in self.store.children(uid_of(source))
            if child["kind"] == EVENT_TYPE.kind
        }
        namespace = source["metadata"]["namespace"]
        for name in owned.keys() - wanted.keys():
            self.store.delete(EVENT_TYPE, namespace, name)
        for name, event_type in wanted.items():
            if name not in owned:
                self.store.create(event_type)
            elif owned[name]["spec"].get("reference") != event_type["spec"]["reference"]:
                self.store.update({**event_type, "metadata": owned[name]["metadata"]})

    def _event_type(self, source: Obj, reference: Obj, pair: dict[str, str]) -> Obj:
        described = self._described(pair["type"])
        schema = described.get("schema", "")
        text = f"{pair['type']}{pair['source']}{schema}{uid_of(source)}"
        metadata = source["metadata"]
        spec: dict[str, Any] = {
            "type": pair["type"],
            "source": pair["source"],
            "reference": {
                "namespace": metadata["namespace"],
                **{name: reference[name] for name in _REFERENCE if reference.get(name)},
            },
        }
        if described.get("description"):
            spec["description"] = described["description"]
        if schema:
            spec["schema"] = schema
        return {
            "apiVersion": "eventing.knative.dev/v1beta2",
            "kind": "EventType",
            "metadata": {
                "name": hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(),
                "namespace": metadata["namespace"],
                "labels": {
                    "eventing.knative.dev/source": source["kind"].lower(),
                    "eventing.knative.dev/sourceName": metadata["name"],
                },
                "ownerReferences": [owner_reference(source)],
            },
            "spec": spec,
        }

    def _described(self, type_: str) -> dict[str, str]:
        """What the kind's CRD says about an event type (annotation registry.knative.dev)."""
        kind = self.store.registry.stored(self.kind)
        text = kind.crd_annotations.get("registry.knative.dev/eventTypes", "[]") if kind else "[]"
        for entry in json.loads(text):
            if entry.get("type") == type_:
                return dict(entry)
        return {}


def _put(status: dict[str, Any], name: str, value: str) -> None:
    if value:
        status[name] = value
    else:
        status.pop(name, None)
