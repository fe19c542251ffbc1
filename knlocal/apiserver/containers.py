"""Which container a request means, and what its log request asks for, with Kubernetes' refusals."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from knlocal.apiserver.requests import ApiRequest
from knlocal.resources.base import Obj, parse_timestamp
from knlocal.resources.status import BadRequest, Invalid
from knlocal.runtime.api import LogOptions


def log_options(request: ApiRequest, now: datetime) -> tuple[LogOptions, int | None]:
    """PodLogOptions, understood: what to read, and how many bytes of it at most. Raises Invalid
    for numbers that make no sense."""
    query = request.query
    tail, limit = query.integer("tailLines"), query.integer("limitBytes")
    seconds, since_time = query.integer("sinceSeconds"), query.text("sinceTime")
    if tail is not None and tail < 0:
        raise _invalid(request, "tailLines", tail, "must be greater than or equal to 0")
    if limit is not None and limit < 1:
        raise _invalid(request, "limitBytes", limit, "must be greater than 0")
    if seconds is not None and since_time:
        raise BadRequest("at most one of `sinceTime` or `sinceSeconds` may be specified")
    if seconds is not None and seconds < 1:
        raise _invalid(request, "sinceSeconds", seconds, "must be greater than 0")
    since = now - timedelta(seconds=seconds) if seconds is not None else None
    if since_time:
        try:
            since = parse_timestamp(since_time)
        except ValueError:
            raise BadRequest(f'sinceTime: parsing time "{since_time}" failed') from None
    options = LogOptions(
        query.flag("follow"), tail, since, query.flag("timestamps"), query.flag("previous")
    )
    return options, limit


def _invalid(request: ApiRequest, field: str, value: int, what: str) -> Invalid:
    message = f"Invalid value: {value}: {what}"
    name = request.target.name
    return Invalid(
        f'PodLogOptions "{name}" is invalid: {field}: {message}', kind="PodLogOptions", name=name,
        causes=[{"reason": "FieldValueInvalid", "message": message, "field": field}],
    )  # fmt: skip


def choose_container(pod: Obj, wanted: str) -> str:
    """The container's name: as wanted, or the only one. Raises BadRequest."""
    spec, name = pod.get("spec") or {}, pod["metadata"]["name"]
    containers = [c["name"] for c in spec.get("containers") or ()]
    initial = [c["name"] for c in spec.get("initContainers") or ()]
    if wanted:
        if wanted not in (*containers, *initial):
            raise BadRequest(f"container {wanted} is not valid for pod {name}")
        return wanted
    annotations = pod["metadata"].get("annotations") or {}
    default = annotations.get("kubectl.kubernetes.io/default-container")
    if default in containers:
        return str(default)
    if len(containers) == 1:
        return str(containers[0])
    choice = " ".join(containers)
    text = f"a container name must be specified for pod {name}, choose one of: [{choice}]"
    if initial:
        text += f" or one of the init containers: [{' '.join(initial)}]"
    raise BadRequest(text)


def running_container(pod: Obj, container: str, *, previous: bool) -> None:
    """Raise BadRequest when the container has not started yet, or (for `previous`) never ended."""
    name = pod["metadata"]["name"]
    status = _container_status(pod, container)
    if previous:
        if not status.get("restartCount") and not (status.get("lastState") or {}).get("terminated"):
            raise BadRequest(
                f'previous terminated container "{container}" in pod "{name}" not found'
            )
        return
    waiting = (status.get("state") or {}).get("waiting")
    ended = (status.get("lastState") or {}).get("terminated")
    if waiting is not None and ended is None:
        reason = waiting.get("reason") or "ContainerCreating"
        why = {
            "ErrImagePull": "image can't be pulled",
            "ImagePullBackOff": "trying and failing to pull image",
        }.get(reason, reason)
        raise BadRequest(f'container "{container}" in pod "{name}" is waiting to start: {why}')


def _container_status(pod: Obj, container: str) -> dict[str, Any]:
    status = pod.get("status") or {}
    for field in ("containerStatuses", "initContainerStatuses"):
        for known in status.get(field) or ():
            if known.get("name") == container:
                return dict(known)
    return {}
