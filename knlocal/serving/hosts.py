"""Names and URLs of routes (knative.dev/serving/pkg/reconciler/route/domains; B99 to B101)."""

from __future__ import annotations

from dataclasses import dataclass

from knlocal.resources.base import Obj, annotations_of, labels_of
from knlocal.resources.names import child_name
from knlocal.resources.settings.network import CLUSTER_LOCAL_DOMAIN
from knlocal.serving.config import Config
from knlocal.serving.kinds import CLUSTER_LOCAL, VISIBILITY_LABEL


@dataclass(slots=True)
class Ports:
    """Where the gateway listens: what people type, and what containers use. 80 is not shown."""

    external: int = 80
    internal: int = 80
    external_tls: int = 443


@dataclass(frozen=True, slots=True)
class HostName:
    """The names under which one traffic tag ("" for the route itself) is reached."""

    tag: str
    service: str
    """The placeholder Service's name."""
    namespace: str
    external: str | None
    """None when the route is cluster-local."""

    @property
    def internal(self) -> str:
        return f"{self.service}.{self.namespace}.{CLUSTER_LOCAL_DOMAIN}"

    @property
    def internal_names(self) -> tuple[str, ...]:
        """All that containers may say."""
        short = f"{self.service}.{self.namespace}"
        return (short, f"{short}.svc", self.internal)


def host_name(route: Obj, tag: str, config: Config, *, private: bool = False) -> HostName:
    """The names of a route's tag. `private` makes this one cluster-local.

    Raises TemplateError when config-network's templates do not fit the route.
    """
    metadata = route["metadata"]
    network = config.network
    service = child_name(network.tag_name(metadata["name"], tag), "")
    labels = dict(labels_of(route))
    if private:
        labels[VISIBILITY_LABEL] = CLUSTER_LOCAL
    domain = config.domains.lookup(labels)
    external = None
    if domain != CLUSTER_LOCAL_DOMAIN:
        external = network.host(
            service, metadata["namespace"], domain, labels, annotations_of(route)
        )
        if external.endswith(f".{CLUSTER_LOCAL_DOMAIN}"):
            external = None
    return HostName(tag, service, metadata["namespace"], external)


def url_of(name: HostName, ports: Ports, scheme: str = "http") -> str:
    """The URL in `status.url` and `status.traffic[].url`."""
    if name.external is None:
        return internal_url(name.internal, ports)
    return f"{scheme}://{_with_port(name.external, ports.external, scheme)}"


def internal_url(host: str, ports: Ports) -> str:
    return f"http://{_with_port(host, ports.internal)}"


def _with_port(host: str, port: int, scheme: str = "http") -> str:
    return host if port == (443 if scheme == "https" else 80) else f"{host}:{port}"
