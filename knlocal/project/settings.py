"""The words of `knlocal.toml`, typed. `config.py` reads the file, `objects.py` makes objects of it.

One model per kind of table. Field names are what people write; their docstrings are the reference.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from knlocal.project.eventing_settings import (
    Broker,
    Channel,
    Parallel,
    Sequence,
    Source,
    Subscription,
    Trigger,
)
from knlocal.project.tables import Duration, Env, EnvValue, Percent, Port, Table, Texts, Words

_NAME = re.compile(r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")


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


def is_name(name: str) -> bool:
    """Whether `name` can name an object that becomes a host name (RFC 1035 label)."""
    return bool(_NAME.match(name))
