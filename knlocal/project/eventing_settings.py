"""Eventing's words of `knlocal.toml`: brokers, triggers, channels, flows and sources."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from knlocal.project.tables import (
    BY_SHAPE,
    TABLE,
    TEXT,
    Duration,
    Env,
    EnvValue,
    Table,
    Texts,
    Words,
)


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


Sink = Annotated[Annotated[str, Tag(TEXT)] | Annotated[Reference, Tag(TABLE)], BY_SHAPE]
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


Filter = Annotated[Annotated[str, Tag(TEXT)] | Annotated[dict[str, EnvValue], Tag(TABLE)], BY_SHAPE]


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
    steps: list[Annotated[Annotated[str, Tag(TEXT)] | Annotated[Step, Tag(TABLE)], BY_SHAPE]]
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


Delivery.model_rebuild()
