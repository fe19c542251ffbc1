"""The URLs of brokers and channels, inside containers and from the host (behaviours E16, E46)."""

from __future__ import annotations

from dataclasses import dataclass

BROKER_INGRESS = "broker-ingress"
SYSTEM = "knative-eventing"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the gateway listens: `internal_port` for containers, `external_port` for people, who
    use names below `domain`."""

    external_port: int = 8080
    internal_port: int = 80
    domain: str = "localhost"

    def inside(self, service: str, namespace: str, path: str = "") -> str:
        port = "" if self.internal_port == 80 else f":{self.internal_port}"
        return f"http://{service}.{namespace}.svc.cluster.local{port}{path}"

    def outside(self, service: str, namespace: str, path: str = "/") -> str:
        port = "" if self.external_port == 80 else f":{self.external_port}"
        return f"http://{service}.{namespace}.{self.domain}{port}{path}"

    def hosts(self, service: str, namespace: str) -> list[str]:
        """Every name under which the gateway answers for a service of eventing's."""
        base = f"{service}.{namespace}"
        return [f"{base}.svc.cluster.local", f"{base}.svc", base, f"{base}.{self.domain}"]

    def broker(self, namespace: str, name: str) -> str:
        return self.inside(BROKER_INGRESS, SYSTEM, f"/{namespace}/{name}")

    def broker_outside(self, namespace: str, name: str) -> str:
        return self.outside(BROKER_INGRESS, SYSTEM, f"/{namespace}/{name}")

    def channel(self, namespace: str, name: str) -> str:
        return self.inside(channel_service(name), namespace)

    def channel_outside(self, namespace: str, name: str) -> str:
        return self.outside(channel_service(name), namespace)


def channel_service(name: str) -> str:
    return f"{name}-kn-channel"
