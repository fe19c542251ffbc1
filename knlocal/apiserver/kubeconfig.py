"""The private kubeconfig of a project: where the API is, its CA, and the token."""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from knlocal.apiserver.certificates import write_private
from knlocal.resources.base import Obj

NAME = "knlocal"


def kubeconfig(server: str, ca_pem: bytes, token: str, namespace: str = "default") -> Obj:
    """The kubeconfig as data. `server` is the URL of the API; no CA or token for plain HTTP."""
    cluster: Obj = {"server": server}
    if server.startswith("https:"):
        cluster["certificate-authority-data"] = base64.b64encode(ca_pem).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": cluster}],
        "users": [{"name": NAME, "user": {"token": token} if token else {}}],
        "contexts": [
            {"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": namespace}}
        ],
        "current-context": NAME,
        "preferences": {},
    }


def write_kubeconfig(path: Path, config: Obj) -> None:
    """Write it readable by its owner only."""
    write_private(path, yaml.safe_dump(config, sort_keys=False).encode())
