"""The request log: one line per request, in the log of the pod's queue-proxy (behaviour C63).

Source: knative.dev/serving/pkg/http/request_log.go.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote

from multidict import CIMultiDict, MultiDict, MultiMapping

from knlocal.clock import Clock
from knlocal.resources.base import Obj, labels_of, status_of, uid_of
from knlocal.resources.gotemplate import Template, TemplateError
from knlocal.resources.settings import Observability
from knlocal.serving.activator.revision import Served
from knlocal.serving.kinds import CONFIGURATION_LABEL, REVISION_LABEL, SERVICE_LABEL

log = logging.getLogger(__name__)

#: Lines kept per pod.
KEPT = 2000
#: As whom the kubelet asks.
KUBE_PROBE = "kube-probe/1.32"
#: What Go leaves as it is in a path (net/url shouldEscape).
_UNESCAPED = "/$&+,:;=@"


class Line(NamedTuple):
    moment: datetime
    text: str


class Header(Mapping[str, Any]):
    """Go's http.Header: lists of values by canonical name, none being an empty list; and the
    methods `Get` and `Values`, which templates call on it. With another `spell`, url.Values."""

    def __init__(
        self, headers: MultiMapping[str], spell: Callable[[str], str] | None = None
    ) -> None:
        self._spell = spell or _canonical
        self._values: dict[str, list[str]] = {}
        for name, value in headers.items():
            self._values.setdefault(self._spell(name), []).append(value)

    def first(self, name: str) -> str:
        return (self._values.get(self._spell(name)) or [""])[0]

    def all(self, name: str) -> list[str]:
        return self._values.get(self._spell(name), [])

    def get(self, key: str, default: object = None) -> Any:
        return {"Get": self.first, "Values": self.all}.get(key) or self[key]

    def __getitem__(self, key: str) -> list[str]:
        return self._values.get(key, [])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True, slots=True)
class UrlValues:
    """Go's url.URL, as it is in a server's requests: the path and the query."""

    _target: str
    Scheme: str = ""
    Opaque: str = ""
    Host: str = ""
    Fragment: str = ""

    def __str__(self) -> str:
        return self._target

    @property
    def Path(self) -> str:
        return unquote(self.EscapedPath())

    @property
    def RawPath(self) -> str:
        """The path as it was sent, where that is not what Go would write for it."""
        escaped = self.EscapedPath()
        return "" if escaped == quote(self.Path, safe=_UNESCAPED) else escaped

    @property
    def RawQuery(self) -> str:
        return self._target.partition("?")[2]

    def EscapedPath(self) -> str:
        return self._target.partition("?")[0]

    def RequestURI(self) -> str:
        return self._target

    def String(self) -> str:
        return self._target

    def Query(self) -> Header:
        return Header(MultiDict(parse_qsl(self.RawQuery, keep_blank_values=True)), str)


@dataclass(frozen=True, slots=True)
class RequestValues:
    """What templates see as `.Request`, under Go's names."""

    Method: str
    RequestURI: str
    ContentLength: int
    UserAgent: str
    RemoteAddr: str
    Referer: str
    Proto: str
    Host: str
    Header: Header
    TLS: bool | None = None

    @property
    def URL(self) -> UrlValues:
        return UrlValues(self.RequestURI)

    @property
    def ProtoMajor(self) -> int:
        return 2 if self.Proto.startswith("HTTP/2") else 1

    @property
    def ProtoMinor(self) -> int:
        return int(self.Proto.endswith(".1"))

    def FormValue(self, name: str) -> str:
        return self.URL.Query().first(name)


@dataclass(frozen=True, slots=True)
class ResponseValues:
    Code: int
    Size: int
    Latency: float


@dataclass(frozen=True, slots=True)
class RevisionValues:
    Name: str
    Namespace: str
    Service: str
    Configuration: str
    PodName: str
    PodIP: str


@dataclass(frozen=True, slots=True)
class LogValues:
    Request: RequestValues
    Response: ResponseValues
    Revision: RevisionValues
    TraceID: str = ""


@dataclass(slots=True)
class RequestLog:
    """Writes lines for served requests, and keeps the latest of each pod."""

    clock: Clock
    _lines: dict[str, deque[Line]] = field(default_factory=dict)
    _followers: dict[str, list[Callable[[Line], object]]] = field(default_factory=dict)
    _template: Template | None = None
    _text: str = ""

    def configure(self, settings: Observability) -> None:
        """Use another template from now on."""
        if settings.request_log_template != self._text:
            self._text = settings.request_log_template
            self._template = Template(self._text, "requestLog") if self._text else None

    def write(self, served: Served) -> None:
        if served.pod is not None and self._template is not None:
            self._write(served.pod.uid, values_of(served))

    def write_probe(self, pod: Obj, *, ok: bool, seconds: float) -> None:
        """A probe of the kubelet, as queue-proxy would have answered it for the container."""
        if self._template is not None:
            self._write(uid_of(pod), probe_values(pod, ok=ok, seconds=seconds))

    def _write(self, uid: str, values: LogValues) -> None:
        assert self._template is not None
        try:
            text = self._template.render(values)
        except TemplateError as error:
            text = f"Failed to execute request log template: {error}"
        line = Line(self.clock.now(), text.rstrip("\n"))
        self._lines.setdefault(uid, deque(maxlen=KEPT)).append(line)
        for follower in self._followers.get(uid, ()):
            follower(line)

    def lines(self, pod_uid: str) -> list[Line]:
        """What the queue-proxy of a pod has logged."""
        return list(self._lines.get(pod_uid, ()))

    def follow(self, pod_uid: str, follower: Callable[[Line], object]) -> Callable[[], None]:
        """Call `follower` with each new line; returns what ends that."""
        followers = self._followers.setdefault(pod_uid, [])
        followers.append(follower)
        return lambda: followers.remove(follower) if follower in followers else None

    def forget(self, pod_uid: str) -> None:
        """The pod is gone."""
        self._lines.pop(pod_uid, None)
        self._followers.pop(pod_uid, None)


def values_of(served: Served) -> LogValues:
    """The template's data for one request."""
    request, revision, pod = served.request, served.revision, served.pod
    headers = request.headers
    return LogValues(
        Request=RequestValues(
            Method=request.method,
            RequestURI=request.target,
            ContentLength=_length(headers.get("Content-Length")),
            UserAgent=headers.get("User-Agent", ""),
            RemoteAddr=request.peer,
            Referer=headers.get("Referer", ""),
            Proto={"HTTP/2": "HTTP/2.0"}.get(request.protocol, request.protocol),
            Host=request.authority,
            Header=Header(headers),
        ),
        Response=ResponseValues(served.status, served.bytes_out, served.seconds),
        Revision=RevisionValues(
            revision.name,
            revision.namespace,
            revision.service,
            revision.configuration,
            pod.name if pod else "",
            pod.ip if pod else "",
        ),
        TraceID=_trace_id(headers),
    )


def probe_values(pod: Obj, *, ok: bool, seconds: float) -> LogValues:
    """The template's data for a probe of a pod (pkg/queue/health/health_state.go answers it)."""
    labels, address = labels_of(pod), status_of(pod).get("podIP") or ""
    headers = CIMultiDict({"User-Agent": KUBE_PROBE, "K-Network-Probe": "queue"})
    body = "queue" if ok else "queue not ready"
    return LogValues(
        Request=RequestValues(
            Method="GET",
            RequestURI="/",
            ContentLength=0,
            UserAgent=KUBE_PROBE,
            RemoteAddr=status_of(pod).get("hostIP") or "",
            Referer="",
            Proto="HTTP/1.1",
            Host=address,
            Header=Header(headers),
        ),
        Response=ResponseValues(200 if ok else 503, len(body), seconds),
        Revision=RevisionValues(
            labels.get(REVISION_LABEL, ""),
            pod["metadata"]["namespace"],
            labels.get(SERVICE_LABEL, ""),
            labels.get(CONFIGURATION_LABEL, ""),
            pod["metadata"]["name"],
            address,
        ),
    )


def _length(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return -1


def _trace_id(headers: CIMultiDict[str]) -> str:
    """From W3C trace context, else from B3."""
    parts = headers.get("traceparent", "").split("-")
    if len(parts) == 4:
        return parts[1]
    return headers.get("X-B3-Traceid", "")


def _canonical(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))
