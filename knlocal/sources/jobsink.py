"""JobSink: each event starts a Job that finds the event in a file (knative.dev/eventing
cmd/jobsink, pkg/reconciler/jobsink; behaviours E71–E73)."""

from __future__ import annotations

import base64
import hashlib
from typing import Any
from urllib.parse import quote, unquote

from knlocal.control.conditions import Conditions
from knlocal.control.controller import Controller, Requeue
from knlocal.events import Event, to_json
from knlocal.gateway import Request, Route, RouteTable
from knlocal.journal import Journal
from knlocal.resources.base import (
    GroupKind,
    Key,
    Obj,
    copy,
    is_deleting,
    owner_reference,
    spec_of,
    status_of,
)
from knlocal.resources.names import child_name
from knlocal.resources.status import AlreadyExists, BadRequest, StatusError
from knlocal.sources.addresses import SYSTEM, Addresses, put_address
from knlocal.sources.door import read_event, say
from knlocal.sources.policies import policies_off
from knlocal.sources.trace import refuse, trace
from knlocal.store.store import AdmissionRequest, Store, WriteOptions

JOB_SINK = GroupKind("sinks.knative.dev", "JobSink")
JOB = GroupKind("batch", "Job")
SERVICE = "job-sink"
NAME_LABEL = "sinks.knative.dev/job-sink-name"
ID_LABEL = "sinks.knative.dev/job-sink-id"
VOLUME = "jobsink-event"
MOUNT_PATH = "/etc/jobsink-event"
EVENT_KEY = "event"
EVENT_PATH = "K_EVENT_PATH"


class JobSinkController(Controller):
    """A JobSink is nothing but an address; its door makes the Jobs."""

    kind = JOB_SINK

    def __init__(
        self, store: Store, routes: RouteTable, addresses: Addresses, journal: Journal | None
    ) -> None:
        super().__init__(store)
        self._routes = routes
        self._addresses = addresses
        self._door = JobSinkDoor(store, addresses, journal)

    async def start(self) -> None:
        hosts = self._addresses.hosts(SERVICE, SYSTEM)
        self._routes.put("sources/job-sink", {host: Route(self._door) for host in hosts})

    async def stop(self) -> None:
        self._routes.remove("sources/job-sink")

    async def reconcile(self, key: Key) -> Requeue | None:
        sink = self.store.find_key(key)
        if sink is None or is_deleting(sink):
            return None
        conditions = Conditions(
            ("Addressable", "EventPoliciesReady"), status_of(sink), self.clock.now()
        )
        status: dict[str, Any] = dict(status_of(sink))
        put_address(status, self._addresses, SERVICE, SYSTEM, f"/{key.namespace}/{key.name}")
        conditions.true("Addressable")
        policies_off(conditions)
        status["job"] = {"selector": f"{NAME_LABEL}={key.name}"}
        status["observedGeneration"] = sink["metadata"].get("generation", 1)
        status["conditions"] = conditions.result()
        self.update_status(sink, status)
        return None

    def admit(self, request: AdmissionRequest) -> None:
        """Admission hook: the Job of a JobSink must be one that could be created (E71)."""
        sink = request.obj
        job = spec_of(sink).get("job")
        if request.kind.group_kind != JOB_SINK or request.subresource or not job:
            return
        if is_deleting(sink) or (request.old and spec_of(request.old) == spec_of(sink)):
            return
        metadata = sink["metadata"]
        trial = _job(sink, metadata.get("name") or "", {})
        trial["metadata"].pop("ownerReferences")
        options = WriteOptions(user=request.options.user, dry_run=True, field_validation="Strict")
        try:
            self.store.create(trial, options)
        except AlreadyExists:
            pass  # Jobs get other names than this
        except StatusError as error:
            raise BadRequest(
                f'admission webhook "{request.kind.webhook}" denied the request: '
                f"validation failed: {error.message}: spec.job"
            ) from None


class JobSinkDoor:
    """`POST /<namespace>/<name>` starts a Job; `GET` of the Location it answered says how it went.

    An event that comes again, by its source and id, starts nothing.
    """

    def __init__(self, store: Store, addresses: Addresses, journal: Journal | None) -> None:
        self._store = store
        self._addresses = addresses
        self._journal = journal

    async def __call__(self, request: Request) -> None:
        if request.method == "GET":
            await self._tell(request)
        elif request.method == "POST":
            await self._take(request)
        else:
            await say(request, 400, f"{request.method} is not allowed here, POST and GET are")

    # -- events -------------------------------------------------------------------------------

    async def _take(self, request: Request) -> None:
        parts = request.path.removesuffix("/").split("/")
        if len(parts) != 3 or not all(parts[1:]):
            return await say(
                request, 400, f"malformed path {request.path}: it must be /<namespace>/<jobsink>"
            )
        event = await read_event(request)
        if event is None:
            return None
        key = Key(*JOB_SINK, parts[1], parts[2])
        sink = self._store.find_key(key)
        if sink is None:
            return await say(request, 400, f"there is no JobSink {key.name} in {key.namespace}")
        url = self._addresses.inside(SERVICE, SYSTEM, f"/{key.namespace}/{key.name}")
        name = job_name(key.name, event.source, event.id)
        known = self._store.find(JOB, key.namespace, name)
        if known is None:
            try:
                self._start(sink, name, _traced(event, request))
            except StatusError as error:
                refuse(self._journal, key, url, event, f"500: {error.message}")
                return await say(request, 500, error.message)
        told = "" if known is None else "it had come before"
        trace(self._journal, key, url, event, f"job {key.namespace}/{name}", "delivered", told)
        location = location_of(key.namespace, key.name, event.source, event.id)
        return await request.respond(202, [("Location", location)])

    def _start(self, sink: Obj, name: str, event: Event) -> None:
        """The Job first, as the owner of the Secret with the event: its pod waits for that."""
        marks = {ID_LABEL: event_hash(event.source, event.id), NAME_LABEL: sink["metadata"]["name"]}
        job = self._store.create(_job(sink, name, marks))
        try:
            self._store.create(_secret(job, marks, event))
        except AlreadyExists:
            pass
        except StatusError:
            self._store.delete(JOB, job["metadata"]["namespace"], name, propagation="Background")
            raise

    # -- how it went --------------------------------------------------------------------------

    async def _tell(self, request: Request) -> None:
        parts = request.path.removesuffix("/").split("/")
        if len(parts) != 9:
            shape = "/namespaces/<namespace>/name/<jobsink>/sources/<source>/ids/<id>"
            return await say(request, 400, f"malformed path {request.path}: it must be {shape}")
        namespace, name, source, event_id = (unquote(parts[n]) for n in (2, 4, 6, 8))
        job = self._store.find(JOB, namespace, job_name(name, source, event_id))
        if job is None:
            return await say(request, 500, "no such event has started a Job, or the Job is gone")
        for condition in status_of(job).get("conditions") or ():
            if condition["status"] != "True":
                continue
            if condition["type"] == "Failed":
                return await request.respond(400, [("Reason", "Failed")])
            if condition["type"] == "Complete":
                return await request.respond(200, [("Reason", "Complete")])
        location = location_of(namespace, name, source, event_id)
        return await request.respond(202, [("Location", location)])


def event_hash(source: str, event_id: str) -> str:
    """What tells events apart, as a label's value."""
    return hashlib.md5(f"{source}-{event_id}".encode(), usedforsecurity=False).hexdigest()


def job_name(sink: str, source: str, event_id: str) -> str:
    return child_name(f"{sink}-", event_hash(source, event_id))


def location_of(namespace: str, sink: str, source: str, event_id: str) -> str:
    """Where to ask how the Job of an event went."""
    source, event_id = quote(source, safe=""), quote(event_id, safe="")
    return f"/namespaces/{namespace}/name/{sink}/sources/{source}/ids/{event_id}"


def _job(sink: Obj, name: str, marks: dict[str, str]) -> Obj:
    """The Job for one event, of the JobSink's template."""
    job = copy(spec_of(sink)["job"])
    job |= {"apiVersion": "batch/v1", "kind": "Job"}
    job.pop("status", None)
    metadata = job["metadata"] = dict(job.get("metadata") or {})
    metadata |= {"name": name, "namespace": sink["metadata"].get("namespace") or ""}
    metadata.pop("generateName", None)
    metadata["labels"] = {**(metadata.get("labels") or {}), **marks}
    if sink["metadata"].get("uid"):
        reference = owner_reference(sink) | {"blockOwnerDeletion": False}
        metadata["ownerReferences"] = [*(metadata.get("ownerReferences") or ()), reference]
    pod = ((job.get("spec") or {}).get("template") or {}).get("spec")
    if isinstance(pod, dict):
        _mount_event(pod, name)
    return job


def _mount_event(pod: Obj, secret: str) -> None:
    for container in (*(pod.get("initContainers") or ()), *(pod.get("containers") or ())):
        mounts = container.setdefault("volumeMounts", [])
        mount = next((m for m in mounts if m.get("name") == VOLUME), None)
        if mount is None:
            mount = {"name": VOLUME, "readOnly": True, "mountPath": MOUNT_PATH}
            mounts.append(mount)
        env = container.setdefault("env", [])
        if not any(variable.get("name") == EVENT_PATH for variable in env):
            env.append({"name": EVENT_PATH, "value": mount["mountPath"]})
    volumes = pod.setdefault("volumes", [])
    if not any(volume.get("name") == VOLUME for volume in volumes):
        volumes.append({"name": VOLUME, "secret": {"secretName": secret}})


def _traced(event: Event, request: Request) -> Event:
    """The event with the trace that it came with, for the program that reads it from a file
    (CloudEvents' distributed tracing extension)."""
    names = ("traceparent", "tracestate")
    if "traceparent" not in request.headers or any(name in event.attributes for name in names):
        return event
    return event.with_attributes(
        {name: request.headers[name] for name in names if request.headers.get(name)}
    )


def _secret(job: Obj, marks: dict[str, str], event: Event) -> Obj:
    metadata = job["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": dict(marks),
            "ownerReferences": [owner_reference(job) | {"blockOwnerDeletion": False}],
        },
        "immutable": True,
        "type": "Opaque",
        "data": {EVENT_KEY: base64.b64encode(to_json(event)).decode()},
    }
