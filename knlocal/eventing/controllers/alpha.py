"""RequestReply and EventPolicy (behaviours E76, E77); EventTransform lives with the sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from knlocal.control.conditions import Conditions, find_condition
from knlocal.control.controller import Requeue, Watching, owned_by
from knlocal.eventing.addresses import SYSTEM
from knlocal.eventing.children import ChildError, child, ensure, remove_others
from knlocal.eventing.controller import EventingController
from knlocal.eventing.correlation import SECRET_NAME, CorrelationKeys, serve
from knlocal.eventing.plane import BROKER, TRIGGER, Plane
from knlocal.eventing.requestreply import SERVICE, Conversation, RequestReplyDoor
from knlocal.eventing.resolver import Destinations
from knlocal.gateway import Route, RouteTable
from knlocal.resources.annotations import HOST_URL
from knlocal.resources.base import (
    GroupKind,
    Key,
    Obj,
    is_deleting,
    spec_of,
    split_api_version,
    status_of,
)
from knlocal.resources.ducks import SYSTEM_NAMESPACE
from knlocal.resources.duration import parse_iso8601
from knlocal.resources.names import child_name
from knlocal.store.store import Store

REQUEST_REPLY = GroupKind("eventing.knative.dev", "RequestReply")
EVENT_POLICY = GroupKind("eventing.knative.dev", "EventPolicy")
CONFIG_MAP = GroupKind("", "ConfigMap")
NO_POLICIES = "Event policies not implemented for RequestReply yet"
_LABEL = "eventing.knative.dev/RequestReply"


class RequestReplyController(EventingController):
    """A trigger brings every reply; the door gives it to whoever waits."""

    kind = REQUEST_REPLY
    dependents = ("TriggersReady", "Addressable", "EventPoliciesReady", "BrokerReady")

    def __init__(
        self, store: Store, destinations: Destinations, plane: Plane, routes: RouteTable
    ) -> None:
        super().__init__(store, destinations, plane)
        self._routes = routes
        self._keys = CorrelationKeys(store)
        self.door = RequestReplyDoor(store.clock, self._keys)

    def watches(self) -> Sequence[Watching]:
        return [Watching(TRIGGER, owned_by(REQUEST_REPLY))]

    async def start(self) -> None:
        hosts = self.plane.addresses.hosts(SERVICE, SYSTEM)
        self._routes.put("eventing/request-reply", {host: Route(self.door) for host in hosts})
        serve(self._keys)

    async def stop(self) -> None:
        self._routes.remove("eventing/request-reply")

    async def reconcile(self, key: Key) -> Requeue | None:
        found = self.store.find_key(key)
        self.destinations.begin(key)
        if found is None or is_deleting(found):
            if self.door.conversations.pop((key.namespace, key.name), None):
                self._keys.forget(key.namespace, key.name)
            return None
        spec = spec_of(found)
        status: dict[str, Any] = dict(status_of(found))
        conditions = self.conditions(found)
        conditions.true("EventPoliciesReady", "NotImplemented", NO_POLICIES)
        broker = spec["brokerRef"]["name"]
        self._broker_ready(key, broker, conditions)
        path = f"/{key.namespace}/{key.name}"
        url = self.plane.addresses.inside(SERVICE, SYSTEM, path)
        self._keys.make(key.namespace, key.name)
        self._trigger(found, broker, f"{url}/reply", conditions)
        known = self.door.conversations.get((key.namespace, key.name))
        self.door.conversations[key.namespace, key.name] = Conversation(
            key.namespace,
            key.name,
            lambda: self.plane.exchange_of("Broker", key.namespace, broker),
            parse_iso8601(spec["timeout"]),
            spec["correlationAttribute"],
            spec["replyAttribute"],
            known.waiting if known else {},
        )
        status["address"] = {"name": "http", "url": url}
        outside = self.plane.addresses.outside(SERVICE, SYSTEM, path)
        status["annotations"] = {**(status.get("annotations") or {}), HOST_URL: outside}
        status |= {"desiredReplicas": 1, "readyReplicas": 1}
        conditions.true("Addressable")
        self.finish(found, status, conditions)
        return None

    def _broker_ready(self, key: Key, name: str, conditions: Conditions) -> None:
        self.destinations.track(Key(*BROKER, key.namespace, name), key, self.enqueue)
        broker = self.store.find(BROKER, key.namespace, name)
        if broker is None:
            conditions.false("BrokerReady", "BrokerDoesNotExist", f'Broker "{name}" does not exist')
        else:
            conditions.follow("BrokerReady", find_condition(broker))

    def _trigger(self, found: Obj, broker: str, url: str, conditions: Conditions) -> None:
        spec, metadata = spec_of(found), found["metadata"]
        name, namespace = metadata["name"], metadata["namespace"]
        # The only one of one pod, and named and labelled so.
        arguments = f'{spec["replyAttribute"]}, "{name}", "{namespace}", "{SECRET_NAME}", 0, 1'
        wanted = child(
            found, "eventing.knative.dev/v1", "Trigger", child_name(name, "0-1"),
            {
                "broker": broker,
                "filters": [{"cesql": f"KN_VERIFY_CORRELATION_ID({arguments})"}],
                "subscriber": {"uri": url},
                "delivery": spec.get("delivery"),
            },
            labels={
                f"{_LABEL}.name": name,
                f"{_LABEL}.namespace": namespace,
                f"{_LABEL}.dataPlaneReplicas": "1",
            },
        )  # fmt: skip
        remove_others(self.store, found, {wanted["metadata"]["name"]}, "Trigger")
        wanted["spec"] = {name: value for name, value in wanted["spec"].items() if value}
        try:
            trigger = ensure(self.store, found, wanted, fixed=("broker",))
        except ChildError as error:
            conditions.false("TriggersReady", "TriggerNotOwned", str(error))
        else:
            conditions.follow("TriggersReady", find_condition(trigger))


class EventPolicyController(EventingController):
    """Shown, not enforced: knlocal authenticates no senders."""

    kind = EVENT_POLICY
    dependents = ("AuthenticationEnabled", "SubjectsResolved")

    def watches(self) -> Sequence[Watching]:
        return [Watching(CONFIG_MAP, self._if_features)]

    async def reconcile(self, key: Key) -> Requeue | None:
        policy = self.store.find_key(key)
        self.destinations.begin(key)
        if policy is None or is_deleting(policy):
            return None
        status: dict[str, Any] = dict(status_of(policy))
        conditions = self.conditions(policy)
        flags = self.store.configs.get(f"{SYSTEM_NAMESPACE}/config-features") or {}
        if flags.get("authentication-oidc", "").strip().lower() == "enabled":
            conditions.true("AuthenticationEnabled")
            self._subjects(key, policy, status, conditions)
        else:
            status["from"] = []
            conditions.unknown("SubjectsResolved")
            conditions.false("AuthenticationEnabled", "OIDCAuthenticationDisabled", "")
        self.finish(policy, status, conditions)
        return None

    def _subjects(
        self, key: Key, policy: Obj, status: dict[str, Any], conditions: Conditions
    ) -> None:
        subjects: list[str] = []
        for entry in spec_of(policy).get("from") or []:
            if entry.get("sub"):
                subjects.append(entry["sub"])
                continue
            ref = entry["ref"]
            group = split_api_version(ref["apiVersion"])[0]
            namespace = ref.get("namespace") or key.namespace
            wanted = Key(group, ref["kind"], namespace, ref["name"])
            self.destinations.track(wanted, key, self.enqueue)
            auth = status_of(self.store.find_key(wanted) or {}).get("auth") or {}
            accounts = auth.get("serviceAccountNames") or [auth.get("serviceAccountName")]
            if not any(accounts):
                conditions.false(
                    "SubjectsResolved", "SubjectsNotResolved",
                    f"could not resolve subjects from reference: {wanted.kind} {wanted.name} "
                    "has no service account",
                )  # fmt: skip
                return
            subjects += [f"system:serviceaccount:{namespace}:{name}" for name in accounts if name]
        status["from"] = subjects
        conditions.true("SubjectsResolved")

    def _if_features(self, obj: Obj) -> list[Key]:
        metadata = obj["metadata"]
        features = (metadata["namespace"], metadata["name"]) == (
            SYSTEM_NAMESPACE,
            "config-features",
        )
        return self.all_keys() if features else []
