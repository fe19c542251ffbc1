"""The names under which what lives in this room is reached. The daemon gives the real ones."""

from __future__ import annotations

from typing import Protocol

from knlocal.resources.annotations import HOST_URL
from knlocal.resources.base import Obj

SYSTEM = "knative-eventing"


class Addresses(Protocol):
    """Where the gateway answers for services of Knative's own."""

    def inside(self, service: str, namespace: str, path: str = "") -> str:
        """The URL inside containers."""

    def outside(self, service: str, namespace: str, path: str = "/") -> str:
        """The URL on the host."""

    def hosts(self, service: str, namespace: str) -> list[str]:
        """Every host name of the service, for the route table."""


def put_address(status: Obj, addresses: Addresses, service: str, namespace: str, path: str) -> None:
    """Write `status.address`, and the host's own URL beside it."""
    status["address"] = {"name": "http", "url": addresses.inside(service, namespace, path)}
    outside = addresses.outside(service, namespace, path or "/")
    status["annotations"] = {**(status_annotations(status)), HOST_URL: outside}


def drop_address(status: Obj) -> None:
    """The object cannot be reached any more."""
    status.pop("address", None)
    kept = {k: v for k, v in status_annotations(status).items() if k != HOST_URL}
    if kept:
        status["annotations"] = kept
    else:
        status.pop("annotations", None)


def status_annotations(status: Obj) -> dict[str, str]:
    return dict(status.get("annotations") or {})
