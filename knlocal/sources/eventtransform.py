"""EventTransform: rewrites events by a JSONata expression (knative.dev/eventing
pkg/reconciler/eventtransform and its transform-jsonata image; behaviour E75).

Without a sink the rewritten event is the answer, so that a transformation can stand between a
broker and itself; with one it is sent on, and the sink's answer comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import orjson
from multidict import CIMultiDict

from knlocal.control.conditions import Conditions
from knlocal.control.controller import Controller, Requeue, Watching, owned_by
from knlocal.control.destinations import Destinations, Unresolved
from knlocal.events import Event, InvalidEvent, decode, has_event, to_json
from knlocal.events.event import canonical
from knlocal.gateway import BodyTooLarge, HttpClient, HttpClientError, Request, Route, RouteTable
from knlocal.resources.base import GroupKind, Key, Obj, is_deleting, spec_of, status_of
from knlocal.resources.names import child_name
from knlocal.resources.status import BadRequest, Invalid
from knlocal.sources.addresses import Addresses, drop_address, put_address
from knlocal.sources.door import MAX_EVENT, say
from knlocal.sources.expression import Expression, ExpressionError
from knlocal.sources.policies import policies_off
from knlocal.sources.shown import (
    DEPLOYMENT,
    show_config_map,
    show_deployment,
    show_service,
)
from knlocal.store.store import Store

EVENT_TRANSFORM = GroupKind("eventing.knative.dev", "EventTransform")
LABEL = "eventing.knative.dev/event-transform-jsonata"
NAME_LABEL = "eventing.knative.dev/event-transform-name"
_PARTS = ("JsonataDeploymentReady", "JsonataSinkBindingReady")
_FOLDER, _FILE = "/etc/jsonata", "jsonata-expression"
_REPLY_FILE = f"{_FILE}-reply"
_PASSED_ON = ("traceparent", "tracestate", "x-request-id")
#: Seconds for a sink to answer.
_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Transformation:
    """What one EventTransform does. `reply` rewrites the sink's answer; `discard` drops it."""

    expression: Expression
    sink: str = ""
    reply: Expression | None = None
    discard: bool = False


class EventTransformController(Controller):
    """Parse the expressions → resolve the sink → serve the transformation's host."""

    kind = EVENT_TRANSFORM

    def __init__(
        self,
        store: Store,
        destinations: Destinations,
        client: HttpClient,
        routes: RouteTable,
        addresses: Addresses,
    ) -> None:
        super().__init__(store)
        self.destinations = destinations
        self._client = client
        self._routes = routes
        self._addresses = addresses
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="jsonata")

    def watches(self) -> Sequence[Watching]:
        return [Watching(DEPLOYMENT, owned_by(EVENT_TRANSFORM))]

    async def stop(self) -> None:
        for transform in self.store.list(EVENT_TRANSFORM):
            self._routes.remove(
                _owner(transform["metadata"]["namespace"], transform["metadata"]["name"])
            )
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def reconcile(self, key: Key) -> Requeue | None:
        transform = self.store.find_key(key)
        self.destinations.begin(key)
        if transform is None or is_deleting(transform):
            self._routes.remove(_owner(key.namespace, key.name))
            return None
        conditions = Conditions(
            ("TransformationReady", "Addressable", "EventPoliciesReady"),
            status_of(transform),
            self.clock.now(),
        )
        policies_off(conditions)
        status: dict[str, Any] = dict(status_of(transform))
        transformation = self._transformation(key, transform, status, conditions)
        self._tell_parts(conditions)
        if transformation is None:
            self._withdraw(key, status, conditions)
        else:
            try:
                self._serve(key, transform, transformation, status, conditions)
            except (BadRequest, Invalid) as error:
                conditions.false("JsonataDeploymentReady", "DeploymentFailed", error.message)
                self._tell_parts(conditions)
                self._withdraw(key, status, conditions)
        status["observedGeneration"] = transform["metadata"].get("generation", 1)
        status["conditions"] = conditions.result()
        self.update_status(transform, status)
        return None

    # -- what it does -------------------------------------------------------------------------

    def _transformation(
        self, key: Key, transform: Obj, status: Obj, conditions: Conditions
    ) -> Transformation | None:
        spec = spec_of(transform)
        sink = self._sink(key, spec, status, conditions)
        reply = spec.get("reply") or {}
        try:
            expression = _parse(spec.get("jsonata"), "spec.jsonata.expression")
            on_reply = reply.get("jsonata")
            transformation = Transformation(
                expression,
                sink or "",
                _parse(on_reply, "spec.reply.jsonata.expression") if on_reply else None,
                bool(reply.get("discard")),
            )
        except ExpressionError as error:
            conditions.false("JsonataDeploymentReady", "InvalidExpression", str(error))
            return None
        conditions.true("JsonataDeploymentReady")
        return transformation if sink is not None else None

    def _sink(self, key: Key, spec: Obj, status: Obj, conditions: Conditions) -> str | None:
        """The sink's URL, "" when none is wanted, None when it leads nowhere (yet)."""
        status.pop("sinkUri", None)
        if not spec.get("sink"):
            conditions.true("JsonataSinkBindingReady")
            return ""
        try:
            address = self.destinations.resolve(
                spec["sink"], key.namespace, dependent=key, notify=self.enqueue
            )
        except Unresolved as error:
            conditions.false("JsonataSinkBindingReady", "NotFound", str(error))
            return None
        conditions.true("JsonataSinkBindingReady")
        status["sinkUri"] = address.url
        return address.url

    @staticmethod
    def _tell_parts(conditions: Conditions) -> None:
        """TransformationReady is made of the two that belong to JSONata."""
        for part in _PARTS:
            if not conditions.is_true(part):
                conditions.follow("TransformationReady", conditions.get(part))
                return
        conditions.true("TransformationReady")

    # -- where it is reached ------------------------------------------------------------------

    def _serve(
        self,
        key: Key,
        transform: Obj,
        transformation: Transformation,
        status: Obj,
        conditions: Conditions,
    ) -> None:
        service = child_name(key.name, "-jsonata")
        labels = {LABEL: "true", NAME_LABEL: key.name}
        files = {_FILE: transformation.expression.text}
        env = {"JSONATA_TRANSFORM_FILE_NAME": f"{_FOLDER}/{_FILE}"}
        if transformation.sink:
            env["K_SINK"] = transformation.sink
        if spec_of(transform).get("reply"):
            env["JSONATA_DISCARD_RESPONSE_BODY"] = canonical(transformation.discard)
        if transformation.reply is not None:
            files[_REPLY_FILE] = transformation.reply.text
            env["JSONATA_RESPONSE_TRANSFORM_FILE_NAME"] = f"{_FOLDER}/{_REPLY_FILE}"
        show_config_map(self.store, transform, service, labels, files)
        show_service(self.store, transform, service, labels, {"http": (80, 8080)})
        shown = show_deployment(
            self.store, transform, service, labels, "jsonata-event-transform", env
        )
        status["jsonata"] = {"deployment": status_of(shown)}
        door = TransformDoor(transformation, self._client, self._executor)
        hosts = self._addresses.hosts(service, key.namespace)
        self._routes.put(_owner(key.namespace, key.name), {host: Route(door) for host in hosts})
        put_address(status, self._addresses, service, key.namespace, "")
        conditions.true("Addressable")

    def _withdraw(self, key: Key, status: Obj, conditions: Conditions) -> None:
        self._routes.remove(_owner(key.namespace, key.name))
        drop_address(status)
        conditions.false("Addressable", "WaitingForServiceEndpoints", "URL is empty")


class TransformDoor:
    """`POST /` with an event, or with any JSON or text."""

    def __init__(
        self, what: Transformation, client: HttpClient, executor: ThreadPoolExecutor
    ) -> None:
        self._what = what
        self._client = client
        self._executor = executor

    async def __call__(self, request: Request) -> None:
        if request.method == "GET" and request.path in ("/healthz", "/readyz"):
            return await request.respond(200, (), "OK")
        if request.method != "POST":
            return await say(request, 405, f"{request.method} is not allowed here, POST is")
        try:
            body = await request.read(MAX_EVENT)
        except BodyTooLarge:
            return await say(request, 413, f"the event is larger than {MAX_EVENT} bytes")
        if request.headers.get("content-type", "").startswith("application/cloudevents-batch"):
            return await say(request, 400, "Unsupported batch input")
        try:
            await self._transform(request, body)
        except (ExpressionError, HttpClientError) as error:
            await say(request, 500, str(error))
        return None

    async def _transform(self, request: Request, body: bytes) -> None:
        what = self._what
        document = as_document(request.headers, body)
        transformed = await what.expression.evaluate(document, self._executor)
        headers = [("Content-Type", content_type_of(transformed))]
        if not what.sink:
            await request.respond(200, headers, transformed)
            return
        headers += [(name, request.headers[name]) for name in _PASSED_ON if name in request.headers]
        answer = await self._client.request("POST", what.sink, headers, transformed, _TIMEOUT)
        if what.discard:
            await request.respond(answer.status)
        elif what.reply is None:
            await request.respond(answer.status, _content(answer.headers), answer.body)
        else:
            document = as_document(answer.headers, answer.body)
            reply = await what.reply.evaluate(document, self._executor)
            await request.respond(answer.status, [("Content-Type", content_type_of(reply))], reply)


def as_document(headers: CIMultiDict[str], body: bytes) -> Any:
    """What an expression sees: an event in the JSON format, or else the body, as JSON or text."""
    if has_event(headers):
        try:
            return _event_document(decode(headers, body))
        except InvalidEvent:
            pass
    return _json_or_text(body)


def content_type_of(transformed: bytes) -> str:
    """A field `contenttype` says it; an event is in the JSON format; anything else is JSON."""
    document = orjson.loads(transformed)
    if isinstance(document, dict):
        if document.get("contenttype"):
            return str(document["contenttype"])
        if "specversion" in document:
            return "application/cloudevents+json"
    return "application/json"


def _event_document(event: Event) -> Any:
    """Data without a content type is JSON when it reads as JSON, as for Knative's image."""
    document = orjson.loads(to_json(event))
    if event.data is not None and "data_base64" in document and not event.content:
        try:
            document["data"] = _json_or_text(event.data, strict=True)
        except UnicodeDecodeError:
            return document
        del document["data_base64"]
    return document


def _json_or_text(body: bytes, *, strict: bool = False) -> Any:
    try:
        return orjson.loads(body)
    except ValueError:
        return body.decode(errors="strict" if strict else "replace")


def _content(headers: CIMultiDict[str]) -> list[tuple[str, str]]:
    """The headers that belong to an answer's content, an event's attributes among them."""
    return [
        (name, value)
        for name, value in headers.items()
        if name.lower() == "content-type" or name.lower().startswith("ce-")
    ]


def _parse(jsonata: Obj | None, path: str) -> Expression:
    try:
        return Expression(str((jsonata or {}).get("expression") or ""))
    except ExpressionError as error:
        raise ExpressionError(f"{path}: {error}") from error


def _owner(namespace: str, name: str) -> str:
    return f"sources/event-transform/{namespace}/{name}"
