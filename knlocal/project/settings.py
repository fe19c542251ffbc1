"""The words of `knlocal.toml`, typed. `config.py` reads the file, `objects.py` makes objects of it.

One model per kind of table. Field names are what people write; their docstrings are the reference.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

_DURATION = re.compile(r"^(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+$")
_NAME = re.compile(r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")


def _duration(value: str) -> str:
    if value != "0" and not _DURATION.match(value):
        raise ValueError(f"{value!r} is no duration; write it like '30s', '1m30s' or '500ms'")
    return "0s" if value == "0" else value


def _seconds(value: Any) -> Any:
    """A bare number of seconds is a duration too."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value}s"
    return value


def _words(value: Any) -> Any:
    """A command line in one string becomes its words."""
    return shlex.split(value) if isinstance(value, str) else value


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _text(value: Any) -> Any:
    """Environment variables are text; a number or truth value is written as people would."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else value


Duration = Annotated[str, BeforeValidator(_seconds), AfterValidator(_duration)]
Words = Annotated[list[str], BeforeValidator(_words)]
Texts = Annotated[list[str], BeforeValidator(_several)]
EnvValue = Annotated[str, BeforeValidator(_text)]
Env = dict[str, EnvValue]
Percent = Annotated[int, Field(ge=0, le=100)]
Port = Annotated[int, Field(ge=0, le=65535)]

#: Alternatives that are told apart by being text or a table; the tags never show in messages.
TEXT, TABLE = "<text>", "<table>"
_BY_SHAPE = Discriminator(lambda value: TEXT if isinstance(value, str) else TABLE)


class Table(BaseModel):
    """A TOML table: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


# -- the project ----------------------------------------------------------------------------------


class Project(Table):
    """`[project]`"""

    name: str = ""
    namespace: str = "default"
    manifests: Texts = []
    runtime: Literal["auto", "docker", "process"] = "auto"
    state_dir: str = ".knlocal"
    watch: bool = True


class Gateway(Table):
    """`[gateway]`: where people and containers reach services."""

    host: str = "127.0.0.1"
    port: Port = 8080
    internal_port: Port = 80
    tls_port: Port | None = 8443
    """For domains that bring a certificate (DomainMapping with spec.tls); another when taken."""
    domain: str = "localhost"


class Api(Table):
    """`[api]`: the Kubernetes API. Port 0 takes a free one and keeps it."""

    port: Port = 0
    in_cluster: bool = False


class Build(Table):
    """`[build]` for all services, or `build = { … }` of one."""

    builder: Literal["docker", "buildkit", "buildpacks", "kaniko"] | None = None
    base_image: str | None = None
    dockerfile: str | None = None
    context: str | None = None
    target: str | None = None
    args: Env = {}
    parallel: Annotated[int, Field(ge=1, le=32)] = 2


class Logs(Table):
    """`[logs]`: what the daemon tells about itself."""

    level: Literal["debug", "info", "warning", "error"] = "warning"


# -- services -------------------------------------------------------------------------------------


class Scale(Table):
    """`scale = { … }`: how many pods, and when. Mirrors the autoscaling annotations of Knative."""

    min: Annotated[int, Field(ge=0)] | None = None
    max: Annotated[int, Field(ge=0)] | None = None
    initial: Annotated[int, Field(ge=0)] | None = None
    activation: Annotated[int, Field(ge=1)] | None = None
    concurrency: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Requests that one pod may have in hand, a hard limit (containerConcurrency); 0: no limit."""
    target: Annotated[float, Field(gt=0)] | None = None
    """What the autoscaler aims at per pod, in the unit of `metric`."""
    utilization: Annotated[float, Field(ge=1, le=100)] | None = None
    metric: Literal["concurrency", "rps", "cpu", "memory"] | None = None
    autoscaler: Literal["kpa", "hpa"] | None = None
    burst: Annotated[float, Field(ge=-1)] | None = None
    window: Duration | None = None
    panic_window: Annotated[float, Field(ge=1, le=100)] | None = None
    panic_threshold: Annotated[float, Field(ge=110, le=1000)] | None = None
    down_delay: Duration | None = None
    keep: Duration | None = None
    """How long the last pod stays before zero (scale-to-zero-pod-retention-period)."""
    idle: Literal["stop", "freeze"] | None = None


class TrafficTarget(Table):
    """One line of `traffic`: "latest" or a revision's name."""

    revision: str = "latest"
    percent: Percent | None = None
    tag: str | None = None


class Probe(Table):
    """`readiness`, `liveness`, `startup`: one of path, tcp, exec, grpc."""

    path: str | None = None
    tcp: bool | None = None
    exec: Words | None = None
    grpc: bool | None = None
    port: Port | None = None
    period: Annotated[int, Field(ge=0)] | None = None
    timeout: Annotated[int, Field(ge=1)] | None = None
    delay: Annotated[int, Field(ge=0)] | None = None
    failures: Annotated[int, Field(ge=1)] | None = None
    successes: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Probe:
        ways = [self.path is not None, bool(self.tcp), self.exec is not None, bool(self.grpc)]
        if sum(ways) > 1:
            raise ValueError("give one of path, tcp, exec and grpc, not several")
        return self


class Volume(Table):
    """A folder in the container, from a ConfigMap, a Secret, a claim, or empty."""

    path: str
    configmap: str | None = None
    secret: str | None = None
    claim: str | None = None
    empty: bool | None = None
    memory: bool | None = None
    read_only: bool | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Volume:
        given = [self.configmap, self.secret, self.claim, self.empty]
        if sum(bool(value) for value in given) != 1:
            raise ValueError("give exactly one of configmap, secret, claim and empty = true")
        return self


class Container(Table):
    """What runs: the main container of a service, or `[services.NAME.containers.OTHER]`."""

    image: str | None = None
    source: str | None = None
    run: Words | None = None
    """The command that the process runtime starts in the source folder."""
    build: Build | None = None
    command: Words | None = None
    args: Words | None = None
    env: Env = {}
    env_file: Texts = []
    env_from: Texts = []
    """Names of ConfigMaps, or "secret:NAME"."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    protocol: Literal["http1", "h2c"] | None = None
    workdir: str | None = None
    user: Annotated[int, Field(ge=0)] | None = None
    cpu: EnvValue | None = None
    memory: EnvValue | None = None
    volumes: list[Volume] = []
    readiness: Probe | None = None
    liveness: Probe | None = None
    startup: Probe | None = None
    pull: Literal["always", "missing", "never"] | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Container:
        if self.image and self.source:
            raise ValueError("give either image or source, not both")
        if not (self.image or self.source or self.run):
            raise ValueError('needs an image (image = "…") or a folder to build (source = "./…")')
        return self


class Earlier(Table):
    """`[services.NAME.revisions.REVISION]`: an earlier revision to split traffic with. What it
    does not say is as in the service."""

    image: str | None = None
    source: str | None = None
    env: Env = {}


class Service(Container):
    """`[services.NAME]`"""

    namespace: str | None = None
    scale: Scale = Scale()
    traffic: list[TrafficTarget] = []
    timeout: Duration | None = None
    visibility: Literal["public", "cluster-local"] | None = None
    revision: str | None = None
    """A name of your own for the Revision (as in bring-your-own revision names)."""
    revisions: dict[str, Earlier] = {}
    service_account: str | None = None
    pull_secrets: Texts = []
    domains: Texts = []
    containers: dict[str, Container] = {}
    init: dict[str, Container] = {}
    labels: Env = {}
    annotations: Env = {}
    template_annotations: Env = {}
    debug: bool = False
    watch: bool = True

    @model_validator(mode="after")
    def _traffic_adds_up(self) -> Service:
        if self.traffic:
            given = [target.percent for target in self.traffic]
            total = sum(percent or 0 for percent in given)
            if any(percent is not None for percent in given) and total != 100:
                raise ValueError(f"traffic: the percentages add up to {total}, not to 100")
            if len(self.traffic) > 1 and all(percent is None for percent in given):
                raise ValueError("traffic: give each target a percent; together they make 100")
            tags = [target.tag for target in self.traffic if target.tag]
            if len(tags) != len(set(tags)):
                raise ValueError("traffic: each tag may be used once")
        return self


# -- eventing -------------------------------------------------------------------------------------


class Delivery(Table):
    """How hard to try: Knative's delivery spec."""

    retry: Annotated[int, Field(ge=0)] | None = None
    backoff: Literal["linear", "exponential"] | None = None
    delay: Duration | None = None
    attempt_timeout: Duration | None = None
    dead_letter: Sink | None = None


class Reference(Table):
    """`{ kind, name, … }`: any object that has an address."""

    kind: str
    name: str
    api_version: str | None = None
    namespace: str | None = None
    uri: str | None = None


Sink = Annotated[Annotated[str, Tag(TEXT)] | Annotated[Reference, Tag(TABLE)], _BY_SHAPE]
"""A service's name, "broker:NAME", "channel:NAME", …, a URL, or a Reference table."""


class Broker(Delivery):
    """`[brokers.NAME]`"""

    namespace: str | None = None
    class_: str | None = Field(None, alias="class")
    """"memory" (the default), "durable", or a broker class as Knative names them."""
    config: str | None = None
    """The name of a ConfigMap."""
    labels: Env = {}
    annotations: Env = {}


Filter = Annotated[
    Annotated[str, Tag(TEXT)] | Annotated[dict[str, EnvValue], Tag(TABLE)], _BY_SHAPE
]


class Trigger(Delivery):
    """`[triggers.NAME]`"""

    namespace: str | None = None
    broker: str = "default"
    filter: Filter | None = None
    """Attributes that must be equal, or a CESQL expression."""
    filters: list[dict[str, Any]] = []
    """Knative's filter dialects, as in YAML."""
    sink: Sink
    order: Literal["ordered", "unordered"] | None = None
    labels: Env = {}
    annotations: Env = {}


class Channel(Delivery):
    """`[channels.NAME]`"""

    namespace: str | None = None
    kind: str | None = None
    """"InMemoryChannel", or another channel kind behind a plain Channel."""
    durable: bool = False
    """Events are on disk before they are accepted."""
    labels: Env = {}
    annotations: Env = {}


class Subscription(Delivery):
    """`[subscriptions.NAME]`"""

    namespace: str | None = None
    channel: Sink
    sink: Sink | None = None
    reply: Sink | None = None
    labels: Env = {}
    annotations: Env = {}


class Step(Delivery):
    """One step of a sequence, when it is more than a name."""

    sink: Sink


class Sequence(Table):
    """`[sequences.NAME]`"""

    namespace: str | None = None
    steps: list[Annotated[Annotated[str, Tag(TEXT)] | Annotated[Step, Tag(TABLE)], _BY_SHAPE]]
    reply: Sink | None = None
    channel: str | None = None
    labels: Env = {}
    annotations: Env = {}


class Branch(Delivery):
    """One branch of a parallel."""

    filter: Sink | None = None
    sink: Sink
    reply: Sink | None = None


class Parallel(Table):
    """`[parallels.NAME]`"""

    namespace: str | None = None
    branches: list[Branch]
    reply: Sink | None = None
    channel: str | None = None
    labels: Env = {}
    annotations: Env = {}


class WatchedKind(Table):
    """What an API server source looks at."""

    kind: str
    api_version: str = "v1"
    labels: Env = {}


class Subject(Table):
    """What a sink binding changes."""

    kind: str
    api_version: str
    name: str | None = None
    namespace: str | None = None
    labels: Env = {}


class SourceTable(Table):
    """What all `[sources.NAME]` share."""

    namespace: str | None = None
    sink: Sink
    overrides: Env = {}
    """Extension attributes set on every event (ceOverrides)."""
    labels: Env = {}
    annotations: Env = {}


class PingSource(SourceTable):
    """`kind = "ping"`"""

    kind: Literal["ping"]
    schedule: str = "* * * * *"
    timezone: str | None = None
    data: str | None = None
    data_base64: str | None = None
    content_type: str | None = None


class ContainerSource(SourceTable):
    """`kind = "container"`"""

    kind: Literal["container"]
    image: str
    command: Words | None = None
    args: Words | None = None
    env: Env = {}
    env_file: Texts = []
    service_account: str | None = None


class ApiServerSource(SourceTable):
    """`kind = "apiserver"`"""

    kind: Literal["apiserver"]
    resources: list[WatchedKind]
    mode: Literal["Reference", "Resource"] | None = None
    service_account: str | None = None


class SinkBinding(SourceTable):
    """`kind = "binding"`"""

    kind: Literal["binding"]
    subject: Subject


Source = Annotated[
    PingSource | ContainerSource | ApiServerSource | SinkBinding, Field(discriminator="kind")
]


class Settings(Table):
    """The whole file."""

    project: Project = Project()
    gateway: Gateway = Gateway()
    api: Api = Api()
    build: Build = Build()
    logs: Logs = Logs()
    settings: dict[str, dict[str, EnvValue]] = {}
    """`[settings.autoscaler]` is ConfigMap config-autoscaler; `[settings.eventing-features]` is
    config-features of knative-eventing."""
    services: dict[str, Service] = {}
    brokers: dict[str, Broker] = {}
    triggers: dict[str, Trigger] = {}
    channels: dict[str, Channel] = {}
    subscriptions: dict[str, Subscription] = {}
    sequences: dict[str, Sequence] = {}
    parallels: dict[str, Parallel] = {}
    sources: dict[str, Source] = {}

    #: Filled in by the loader, not written by people.
    root: Annotated[Path, Field(exclude=True)] = Path(".")

    @property
    def state_dir(self) -> Path:
        return self.root / self.project.state_dir


Delivery.model_rebuild()


def is_name(name: str) -> bool:
    """Whether `name` can name an object that becomes a host name (RFC 1035 label)."""
    return bool(_NAME.match(name))
