"""Which names belong to the cluster that knlocal plays."""

from __future__ import annotations

from typing import Final

CLUSTER_DOMAIN: Final = "cluster.local"


def is_cluster_local(host: str) -> bool:
    """True for "name.namespace.svc" and "name.namespace.svc.cluster.local" (lower case)."""
    return host.endswith((".svc", f".svc.{CLUSTER_DOMAIN}"))


def full_names(host: str) -> list[str]:
    """`host` as a container's resolver would try it: the name itself, then with the search
    domains that make "name.namespace" and "name.namespace.svc" work."""
    names = [host]
    if host.endswith(".svc"):
        names.append(f"{host}.{CLUSTER_DOMAIN}")
    elif host.count(".") == 1:
        names.append(f"{host}.svc.{CLUSTER_DOMAIN}")
    return names
