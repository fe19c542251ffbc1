"""The eventing tables of `knlocal.toml` as objects: brokers, triggers, channels, flows, sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from knlocal.project import envfile
from knlocal.project.errors import Problem, ProjectError, did_you_mean
from knlocal.project.eventing_settings import (
    ApiServerSource,
    Broker,
    Channel,
    ContainerSource,
    Delivery,
    Parallel,
    PingSource,
    Reference,
    Sequence,
    SinkBinding,
    Step,
    Subscription,
    Trigger,
)
from knlocal.project.settings import Settings
from knlocal.resources import duration
from knlocal.resources.annotations import DURABLE
from knlocal.resources.base import Obj

EVENTING = "eventing.knative.dev/v1"
MESSAGING = "messaging.knative.dev/v1"
FLOWS = "flows.knative.dev/v1"
SOURCES = "sources.knative.dev/v1"

#: What may stand before the colon of a sink.
_REFERENCES: Mapping[str, tuple[str, str]] = {
    "service": ("serving.knative.dev/v1", "Service"),
    "ksvc": ("serving.knative.dev/v1", "Service"),
    "route": ("serving.knative.dev/v1", "Route"),
    "broker": (EVENTING, "Broker"),
    "channel": (MESSAGING, "Channel"),
    "imc": (MESSAGING, "InMemoryChannel"),
    "sequence": (FLOWS, "Sequence"),
    "parallel": (FLOWS, "Parallel"),
    "jobsink": ("sinks.knative.dev/v1alpha1", "JobSink"),
    "svc": ("v1", "Service"),
}
_KINDS = {kind: api_version for api_version, kind in _REFERENCES.values() if api_version != "v1"}

Where = tuple[str, Obj]


def eventing_objects(settings: Settings) -> Iterator[Where]:
    """Where each object was declared, and the object; what others refer to comes first."""
    makers: list[tuple[str, Mapping[str, Any], Callable[[Settings, str, Any, str], Obj]]] = [
        ("brokers", settings.brokers, _broker),
        ("channels", settings.channels, _channel),
        ("sequences", settings.sequences, _sequence),
        ("parallels", settings.parallels, _parallel),
        ("subscriptions", settings.subscriptions, _subscription),
        ("triggers", settings.triggers, _trigger),
        ("sources", settings.sources, _source),
    ]
    for table, entries, make in makers:
        for name, entry in entries.items():
            where = f"{table}.{name}"
            yield where, make(settings, name, entry, where)


def destination(sink: str | Reference, where: str) -> Obj:
    """A sink as Knative's Destination. Raises ProjectError for words that mean nothing."""
    if isinstance(sink, Reference):
        api_version = sink.api_version or _KINDS.get(sink.kind)
        if api_version is None:
            raise _problem(where, f"api_version of {sink.kind!r} is not known", "add api_version")
        ref = {"apiVersion": api_version, "kind": sink.kind, "name": sink.name}
        if sink.namespace:
            ref["namespace"] = sink.namespace
        return {"ref": ref, **({"uri": sink.uri} if sink.uri else {})}
    if urlsplit(sink).scheme in ("http", "https"):
        return {"uri": sink}
    word, colon, rest = sink.partition(":")
    if not colon:
        word, rest = "service", sink
    if word not in _REFERENCES:
        raise _problem(where, f"unknown sink {sink!r}", did_you_mean(word, _REFERENCES, "known"))
    api_version, kind = _REFERENCES[word]
    name, slash, path = rest.partition("/")
    if not name:
        raise _problem(where, f"sink {sink!r} has no name", f"write it like {word}:NAME")
    ref = {"apiVersion": api_version, "kind": kind, "name": name}
    return {"ref": ref, **({"uri": f"/{path}"} if slash else {})}


def _problem(where: str, what: str, hint: str) -> ProjectError:
    return ProjectError(Problem("knlocal.toml", what, f"[{where}]", hint))


def delivery(table: Delivery, where: str) -> Obj:
    """`retry`, `backoff`, … as a delivery spec; {} when nothing was said."""
    result: Obj = {}
    if table.dead_letter is not None:
        result["deadLetterSink"] = destination(table.dead_letter, f"{where} dead_letter")
    if table.retry is not None:
        result["retry"] = table.retry
        # Knative asks for policy and delay wherever it retries.
        result["backoffPolicy"] = table.backoff or "exponential"
        result["backoffDelay"] = _iso(table.delay or "200ms")
    elif table.backoff or table.delay:
        result |= {"backoffPolicy": table.backoff or "exponential"}
        result |= {"backoffDelay": _iso(table.delay or "200ms")}
    if table.attempt_timeout:
        result["timeout"] = _iso(table.attempt_timeout)
    return result


def _iso(text: str) -> str:
    return duration.format_iso8601(duration.parse(text))


def _object(
    settings: Settings, api_version: str, kind: str, name: str, table: Any, spec: Obj,
    annotations: Mapping[str, str] | None = None,
) -> Obj:  # fmt: skip
    metadata: Obj = {"name": name, "namespace": table.namespace or settings.project.namespace}
    if table.labels:
        metadata["labels"] = dict(table.labels)
    if both := {**(annotations or {}), **table.annotations}:
        metadata["annotations"] = both
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


def _with_delivery(spec: Obj, table: Delivery, where: str) -> Obj:
    found = delivery(table, where)
    return spec | ({"delivery": found} if found else {})


#: Short words for broker classes; others are taken as they are.
_CLASSES = {"memory": None, "durable": "Durable"}


def _broker(settings: Settings, name: str, table: Broker, where: str) -> Obj:
    found = _CLASSES.get(table.class_ or "memory", table.class_)
    annotations = {"eventing.knative.dev/broker.class": found} if found else {}
    spec: Obj = {}
    if table.config:
        spec["config"] = {"apiVersion": "v1", "kind": "ConfigMap", "name": table.config}
    spec = _with_delivery(spec, table, where)
    return _object(settings, EVENTING, "Broker", name, table, spec, annotations)


def _trigger(settings: Settings, name: str, table: Trigger, where: str) -> Obj:
    spec: Obj = {"broker": table.broker}
    if isinstance(table.filter, str):
        spec["filters"] = [{"cesql": table.filter}]
    elif table.filter:
        spec["filter"] = {"attributes": dict(table.filter)}
    if table.filters:
        spec["filters"] = spec.get("filters", []) + list(table.filters)
    spec["subscriber"] = destination(table.sink, f"{where} sink")
    annotations = {"eventing.knative.dev/delivery.order": table.order} if table.order else {}
    spec = _with_delivery(spec, table, where)
    return _object(settings, EVENTING, "Trigger", name, table, spec, annotations)


def _channel(settings: Settings, name: str, table: Channel, where: str) -> Obj:
    kind = table.kind or "Channel"
    spec = _with_delivery({}, table, where)
    marks = {DURABLE: "true"} if table.durable else {}
    if kind in ("Channel", "InMemoryChannel"):
        return _object(settings, MESSAGING, kind, name, table, spec, marks)
    spec["channelTemplate"] = {"apiVersion": MESSAGING, "kind": kind}
    return _object(settings, MESSAGING, "Channel", name, table, spec, marks)


def _subscription(settings: Settings, name: str, table: Subscription, where: str) -> Obj:
    if isinstance(table.channel, str):
        word, colon, rest = table.channel.partition(":")
        named = f"{word}:{rest}" if colon else f"channel:{word}"
        ref = destination(named, f"{where} channel")["ref"]
    else:
        ref = destination(table.channel, f"{where} channel")["ref"]
    spec: Obj = {"channel": ref}
    if table.sink is not None:
        spec["subscriber"] = destination(table.sink, f"{where} sink")
    if table.reply is not None:
        spec["reply"] = destination(table.reply, f"{where} reply")
    spec = _with_delivery(spec, table, where)
    return _object(settings, MESSAGING, "Subscription", name, table, spec)


def _template(channel: str | None) -> Obj:
    kind = channel or "InMemoryChannel"
    return {"channelTemplate": {"apiVersion": MESSAGING, "kind": kind}} if channel else {}


def _sequence(settings: Settings, name: str, table: Sequence, where: str) -> Obj:
    steps = []
    for number, step in enumerate(table.steps, 1):
        place = f"{where} steps[{number}]"
        if isinstance(step, Step):
            steps.append(_with_delivery(destination(step.sink, place), step, place))
        else:
            steps.append(destination(step, place))
    spec: Obj = {**_template(table.channel), "steps": steps}
    if table.reply is not None:
        spec["reply"] = destination(table.reply, f"{where} reply")
    return _object(settings, FLOWS, "Sequence", name, table, spec)


def _parallel(settings: Settings, name: str, table: Parallel, where: str) -> Obj:
    branches = []
    for number, branch in enumerate(table.branches, 1):
        place = f"{where} branches[{number}]"
        entry: Obj = {"subscriber": destination(branch.sink, place)}
        if branch.filter is not None:
            entry = {"filter": destination(branch.filter, place), **entry}
        if branch.reply is not None:
            entry["reply"] = destination(branch.reply, place)
        branches.append(_with_delivery(entry, branch, place))
    spec: Obj = {**_template(table.channel), "branches": branches}
    if table.reply is not None:
        spec["reply"] = destination(table.reply, f"{where} reply")
    return _object(settings, FLOWS, "Parallel", name, table, spec)


def _source(settings: Settings, name: str, table: Any, where: str) -> Obj:
    spec: Obj = {"sink": destination(table.sink, f"{where} sink")}
    if table.overrides:
        spec["ceOverrides"] = {"extensions": dict(table.overrides)}
    if isinstance(table, PingSource):
        fields = {
            "schedule": table.schedule, "timezone": table.timezone, "data": table.data,
            "dataBase64": table.data_base64, "contentType": table.content_type,
        }  # fmt: skip
        spec |= {key: value for key, value in fields.items() if value is not None}
        return _object(settings, SOURCES, "PingSource", name, table, spec)
    if isinstance(table, ContainerSource):
        spec["template"] = {"spec": _source_pod(settings, table)}
        return _object(settings, SOURCES, "ContainerSource", name, table, spec)
    if isinstance(table, ApiServerSource):
        spec["resources"] = [
            {
                "apiVersion": watched.api_version,
                "kind": watched.kind,
                **({"selector": {"matchLabels": dict(watched.labels)}} if watched.labels else {}),
            }
            for watched in table.resources
        ]
        if table.mode:
            spec["mode"] = table.mode
        if table.service_account:
            spec["serviceAccountName"] = table.service_account
        return _object(settings, SOURCES, "ApiServerSource", name, table, spec)
    assert isinstance(table, SinkBinding)
    subject = table.subject
    spec["subject"] = {
        "apiVersion": subject.api_version,
        "kind": subject.kind,
        **({"name": subject.name} if subject.name else {}),
        **({"namespace": subject.namespace} if subject.namespace else {}),
        **({"selector": {"matchLabels": dict(subject.labels)}} if subject.labels else {}),
    }
    return _object(settings, SOURCES, "SinkBinding", name, table, spec)


def _source_pod(settings: Settings, table: ContainerSource) -> Obj:
    env: dict[str, str] = {}
    for file in table.env_file:
        env |= envfile.load(settings.root / file, settings.root)
    env |= table.env
    container: Obj = {"name": "source", "image": table.image}
    optional = {
        "command": table.command,
        "args": table.args,
        "env": [{"name": key, "value": value} for key, value in env.items()],
    }
    pod: Obj = {"containers": [container | {k: v for k, v in optional.items() if v}]}
    if table.service_account:
        pod["serviceAccountName"] = table.service_account
    return pod
