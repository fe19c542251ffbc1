"""IntegrationSink: the log sink, which knlocal is itself; AWS sinks need their images (E74)."""

from __future__ import annotations

import logging
from typing import Any

from knlocal.control.conditions import Conditions
from knlocal.control.controller import Controller, Requeue
from knlocal.events import Event, to_json
from knlocal.events.event import canonical
from knlocal.gateway import Request, Route, RouteTable
from knlocal.journal import Journal
from knlocal.resources.base import GroupKind, Key, Obj, is_deleting, spec_of, status_of
from knlocal.resources.names import child_name
from knlocal.resources.status import BadRequest, Invalid
from knlocal.sources.addresses import Addresses, drop_address, put_address
from knlocal.sources.door import read_event, say
from knlocal.sources.policies import policies_off
from knlocal.sources.shown import DEPLOYMENT, SERVICE, hide, show_deployment, show_service
from knlocal.sources.trace import trace
from knlocal.store.store import Store

INTEGRATION_SINK = GroupKind("sinks.knative.dev", "IntegrationSink")
_IMAGES = {
    "s3": "aws-s3-sink", "sqs": "aws-sqs-sink", "sns": "aws-sns-sink",
    "eventbridge": "aws-eventbridge-sink",
}  # fmt: skip
_LEVELS = {
    "TRACE": logging.DEBUG, "DEBUG": logging.DEBUG, "INFO": logging.INFO,
    "WARN": logging.WARNING, "ERROR": logging.ERROR,
}  # fmt: skip
#: The ports of its Service, and those of its pods.
_PORTS = {"http": (80, 8080), "https": (443, 8443)}
#: Bytes of an event's data that go into the log.
_SHOWN = 10_000


class IntegrationSinkController(Controller):
    """Serves each log sink's host; tells of the others what they would need."""

    kind = INTEGRATION_SINK

    def __init__(
        self, store: Store, routes: RouteTable, addresses: Addresses, journal: Journal | None
    ) -> None:
        super().__init__(store)
        self._routes = routes
        self._addresses = addresses
        self._journal = journal

    async def stop(self) -> None:
        for sink in self.store.list(INTEGRATION_SINK):
            self._routes.remove(_owner(sink["metadata"]["namespace"], sink["metadata"]["name"]))

    async def reconcile(self, key: Key) -> Requeue | None:
        sink = self.store.find_key(key)
        if sink is None or is_deleting(sink):
            self._routes.remove(_owner(key.namespace, key.name))
            return None
        conditions = Conditions(
            ("Addressable", "DeploymentReady", "EventPoliciesReady", "TrustBundlePropagated"),
            status_of(sink),
            self.clock.now(),
        )
        policies_off(conditions)
        conditions.true("TrustBundlePropagated")
        status: dict[str, Any] = dict(status_of(sink))
        if spec_of(sink).get("log") is not None:
            try:
                self._serve(key, sink, status, conditions)
            except (BadRequest, Invalid) as error:
                conditions.false("DeploymentReady", "DeploymentFailed", error.message)
        else:
            self._decline(key, sink, status, conditions)
        status["observedGeneration"] = sink["metadata"].get("generation", 1)
        status["conditions"] = conditions.result()
        self.update_status(sink, status)
        return None

    def _serve(self, key: Key, sink: Obj, status: Obj, conditions: Conditions) -> None:
        service = _service(key)
        door = LogSinkDoor(key, spec_of(sink)["log"], self._url(key), self._journal)
        hosts = self._addresses.hosts(service, key.namespace)
        self._routes.put(_owner(key.namespace, key.name), {host: Route(door) for host in hosts})
        labels = {"app.kubernetes.io/name": key.name, "sinks.knative.dev/sink": "integration-sink"}
        show_deployment(self.store, sink, service, labels, "sink", _environment(spec_of(sink)))
        show_service(self.store, sink, service, labels, _PORTS)
        put_address(status, self._addresses, service, key.namespace, "")
        conditions.true("DeploymentReady")
        conditions.true("Addressable")

    def _decline(self, key: Key, sink: Obj, status: Obj, conditions: Conditions) -> None:
        self._routes.remove(_owner(key.namespace, key.name))
        hide(self.store, sink, _service(key), DEPLOYMENT, SERVICE)
        drop_address(status)
        aws = spec_of(sink).get("aws") or {}
        service = next((name for name in _IMAGES if aws.get(name) is not None), "")
        message = (
            f"spec.aws.{service} is not simulated: it needs Knative's image "
            f"{_IMAGES.get(service, '')}, and AWS. Where both can be had, run the image as a "
            "Knative Service and send events there"
        )
        conditions.false("DeploymentReady", "NotSimulated", message)
        conditions.false("Addressable", "NotSimulated", message)

    def _url(self, key: Key) -> str:
        return self._addresses.inside(_service(key), key.namespace)


class LogSinkDoor:
    """Writes each event to the log, and answers 204."""

    def __init__(self, key: Key, spec: Obj, url: str, journal: Journal | None) -> None:
        self._key = key
        self._url = url
        self._journal = journal
        self._log = logging.getLogger(f"knlocal.sinks.{spec.get('loggerName') or 'log-sink'}")
        self._level = _LEVELS.get(str(spec.get("level") or "INFO").upper(), logging.INFO)
        self._shows_headers = spec.get("showHeaders", True)
        self._shows_body = spec.get("showBody", True)

    async def __call__(self, request: Request) -> None:
        if request.method != "POST":
            return await say(request, 405, f"{request.method} is not allowed here, POST is")
        event = await read_event(request)
        if event is None:
            return None
        place = f"{self._key.namespace}/{self._key.name}"
        self._log.log(self._level, "IntegrationSink %s: %s", place, self._shown(event))
        trace(self._journal, self._key, self._url, event, "log", "delivered")
        return await request.respond(204)

    def _shown(self, event: Event) -> str:
        data = event.data if self._shows_body else None
        if data is not None and len(data) > _SHOWN:
            data = None
        attributes = event.attributes
        if not self._shows_headers:
            names = ("specversion", "id", "source", "type", "datacontenttype")
            attributes = {name: attributes[name] for name in names if name in attributes}
        return to_json(Event(attributes, data, event.mode, event.content)).decode()


def _environment(spec: Obj) -> dict[str, str]:
    """What Knative tells the image of a log sink."""
    return {
        f"CAMEL_KAMELET_LOG_SINK_{name.upper()}": canonical(value)
        for name, value in spec["log"].items()
    }


def _service(key: Key) -> str:
    return child_name(key.name, "-deployment")


def _owner(namespace: str, name: str) -> str:
    return f"sources/integration-sink/{namespace}/{name}"
