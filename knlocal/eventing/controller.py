"""What eventing's controllers do alike: resolve destinations, tell conditions, write the status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knlocal.control.conditions import Conditions
from knlocal.control.controller import Controller
from knlocal.eventing.plane import Plane
from knlocal.eventing.resolver import Address, Destinations, Unresolved
from knlocal.resources.base import Key, Obj, status_of
from knlocal.store.store import Store

#: Reasons that Knative gives while the features are off (behaviour E12).
OIDC_OFF = "authentication-oidc feature disabled"
POLICIES_OFF = "OIDCDisabled"
POLICIES_OFF_MESSAGE = 'Feature "authentication-oidc" must be enabled to support Authorization'

DEAD_LETTER_FIELDS = ("deadLetterSinkUri", "deadLetterSinkCACerts", "deadLetterSinkAudience")


class EventingController(Controller):
    """`dependents` are the conditions that Ready is made of."""

    dependents: tuple[str, ...] = ()
    #: Why DeadLetterSinkResolved is not true; Triggers spell it differently.
    dead_letter_reason = "Unable to get the DeadLetterSink's URI"

    def __init__(self, store: Store, destinations: Destinations, plane: Plane) -> None:
        super().__init__(store)
        self.destinations = destinations
        self.plane = plane

    def conditions(self, obj: Obj) -> Conditions:
        return Conditions(self.dependents, status_of(obj), self.clock.now())

    def resolve(self, key: Key, destination: Mapping[str, Any]) -> Address:
        """The address now; changes of what it refers to have `key` looked at again."""
        return self.destinations.resolve(
            destination, key.namespace, dependent=key, notify=self.enqueue
        )

    def resolve_dead_letter(
        self, key: Key, obj: Obj, status: dict[str, Any], conditions: Conditions
    ) -> bool:
        """DeadLetterSinkResolved and the status' fields; False when it leads nowhere."""
        for name in DEAD_LETTER_FIELDS:
            status.pop(name, None)
        sink = ((obj.get("spec") or {}).get("delivery") or {}).get("deadLetterSink")
        if not sink:
            conditions.true(
                "DeadLetterSinkResolved", "DeadLetterSinkNotConfigured",
                "No dead letter sink is configured.",
            )  # fmt: skip
            return True
        try:
            address = self.resolve(key, sink)
        except Unresolved as error:
            conditions.false("DeadLetterSinkResolved", self.dead_letter_reason, str(error))
            return False
        put_address(status, "deadLetterSink", address)
        conditions.true("DeadLetterSinkResolved")
        return True

    def finish(self, obj: Obj, status: dict[str, Any], conditions: Conditions) -> Obj | None:
        status["observedGeneration"] = obj["metadata"].get("generation", 1)
        status["conditions"] = conditions.result()
        return self.update_status(obj, status)


def put_address(status: dict[str, Any], prefix: str, address: Address) -> None:
    """`<prefix>Uri`, and what belongs to it when there is any."""
    status[f"{prefix}Uri"] = address.url
    for suffix, value in (("CACerts", address.ca_certs), ("Audience", address.audience)):
        if value:
            status[f"{prefix}{suffix}"] = value
        else:
            status.pop(f"{prefix}{suffix}", None)


def oidc_off(conditions: Conditions) -> None:
    conditions.true("OIDCIdentityCreated", OIDC_OFF)


def policies_off(conditions: Conditions) -> None:
    conditions.true("EventPoliciesReady", POLICIES_OFF, POLICIES_OFF_MESSAGE)
