"""Ingresses (kingress) that people make themselves: hosts and paths that lead to Services.

Those of Routes and DomainMappings only show what the gateway does for their owners (`ingress`);
these are served here, by the contract that Knative's networking layers keep. Source:
knative.dev/networking test/conformance/ingress and pkg/ingress.
"""

from __future__ import annotations

import hashlib
import json
import random
from base64 import b64decode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from knlocal.control.conditions import Conditions
from knlocal.control.controller import Controller, Requeue, Watching
from knlocal.gateway import Handler, Request, RouteTable
from knlocal.gateway import Route as GatewayRoute
from knlocal.gateway.routes import BOTH, INSIDE
from knlocal.gateway.tls import Certificates, KeyPair
from knlocal.resources.base import (
    Key,
    Obj,
    annotations_of,
    copy,
    is_deleting,
    key_of,
    spec_of,
    status_of,
)
from knlocal.resources.settings.network import CLUSTER_LOCAL_DOMAIN
from knlocal.serving.config import Config
from knlocal.serving.ingress import CONDITIONS, balancers
from knlocal.serving.kinds import INGRESS, INGRESS_CLASS, INGRESS_CLASS_BEFORE, SECRET, SERVING
from knlocal.store.store import Store

_PLAIN = (("Content-Type", "text/plain; charset=utf-8"),)
_PROBE, _HASH = "K-Network-Probe", "K-Network-Hash"


class UserIngressController(Controller):
    kind = INGRESS

    def __init__(
        self,
        store: Store,
        config: Config,
        routes: RouteTable,
        certificates: Certificates | None = None,
    ) -> None:
        super().__init__(store)
        self._config = config
        self._routes = routes
        self._certificates = certificates

    def watches(self) -> Sequence[Watching]:
        return (Watching(SECRET, self._of_secret),)

    async def reconcile(self, key: Key) -> Requeue | None:
        ingress = self.store.find_key(key)
        if ingress is None or is_deleting(ingress) or not self._is_ours(ingress):
            self._forget(key)
            return None
        status = copy(status_of(ingress))
        conditions = Conditions(CONDITIONS, status, self.clock.now())
        conflicts = self._routes.put(_owner(key), self._hosts(ingress))
        wrong = self._serve_certificates(ingress)
        conditions.true("LoadBalancerReady")
        if conflicts:
            conditions.false("NetworkConfigured", "HostInUse", str(conflicts[0]))
        elif wrong:
            conditions.false("NetworkConfigured", "CertificateUnusable", wrong)
        else:
            conditions.true("NetworkConfigured")
        status |= balancers()
        status["observedGeneration"] = ingress["metadata"]["generation"]
        status["conditions"] = conditions.result()
        self.update_status(ingress, status)
        return None

    def _is_ours(self, ingress: Obj) -> bool:
        """Made by nobody of Knative's own, and of the class that the gateway stands for."""
        owners = ingress["metadata"].get("ownerReferences") or ()
        if any(str(o.get("apiVersion", "")).startswith(f"{SERVING}/") for o in owners):
            return False
        annotations = annotations_of(ingress)
        wanted = annotations.get(INGRESS_CLASS) or annotations.get(INGRESS_CLASS_BEFORE)
        return wanted == self._config.network.ingress_class

    def _forget(self, key: Key) -> None:
        self._routes.remove(_owner(key))
        if self._certificates is not None:
            self._certificates.remove(_owner(key))

    # -- hosts --------------------------------------------------------------------------------

    def _hosts(self, ingress: Obj) -> dict[str, GatewayRoute]:
        spec = spec_of(ingress)
        found: dict[str, GatewayRoute] = {}
        hash_ = spec_hash(ingress)
        redirect = spec.get("httpOption") == "Redirected" and bool(spec.get("tls"))
        for rule in spec.get("rules") or ():
            paths = [_Path(path) for path in (rule.get("http") or {}).get("paths") or ()]
            # The longest path counts first, and of the same those that ask for headers.
            paths.sort(key=lambda one: (len(one.path), len(one.headers)), reverse=True)
            inside = rule.get("visibility") == "ClusterLocal"
            handler = self._handler(paths, hash_, redirect=redirect and not inside)
            route = GatewayRoute(handler, INSIDE if inside else BOTH)
            found |= dict.fromkeys(rule.get("hosts") or (), route)
        return found

    def _handler(self, paths: Sequence[_Path], hash_: str, *, redirect: bool) -> Handler:
        async def handle(request: Request) -> None:
            if redirect and request.scheme == "http":
                location = f"https://{request.host}{request.target}"
                await request.respond(301, [("Location", location)])
                return
            chosen = next((path for path in paths if path.matches(request)), None)
            split = chosen.pick() if chosen else None
            if chosen is None or split is None:
                await request.respond(404, _PLAIN, "404 page not found\n")
                return
            for name, value in (chosen.append | (split.get("appendHeaders") or {})).items():
                request.headers[name] = value
            if _PROBE in request.headers:
                request.headers[_HASH] = hash_
            if chosen.rewrite_host:
                request.authority = request.host = chosen.rewrite_host
            await self._pass_on(request, split)

        return handle

    async def _pass_on(self, request: Request, split: Obj) -> None:
        name, namespace = split.get("serviceName"), split.get("serviceNamespace")
        host = f"{name}.{namespace}.{CLUSTER_LOCAL_DOMAIN}"
        route = self._routes.find(host, "internal")
        if route is None:
            await request.respond(503, _PLAIN, f"service {namespace}/{name} is not served\n")
            return
        request.to_port = split.get("servicePort") or 0
        await route.handler(request)

    # -- certificates -------------------------------------------------------------------------

    def _serve_certificates(self, ingress: Obj) -> str:
        """Have the TLS door show what the Ingress brings; what is wrong with it, or ""."""
        if self._certificates is None:
            return ""
        pairs: dict[str, KeyPair] = {}
        wrong = ""
        for entry in spec_of(ingress).get("tls") or ():
            place, name = _secret(ingress, entry)
            secret = self.store.find(SECRET, place, name)
            data = (secret or {}).get("data") or {}
            if secret is None:
                wrong = f'secret "{name}" not found'
                continue
            try:
                pair = KeyPair(b64decode(data["tls.crt"]), b64decode(data["tls.key"]))
            except KeyError as missing:
                wrong = f'secret "{name}" has no {missing.args[0]}'
            except ValueError as problem:
                wrong = f'secret "{name}": {problem}'
            else:
                pairs |= dict.fromkeys(entry.get("hosts") or (), pair)
        try:
            self._certificates.put(_owner(key_of(ingress)), pairs)
        except ValueError as problem:
            wrong = str(problem)
        return wrong

    def _of_secret(self, secret: Obj) -> Iterable[Key]:
        place = (secret["metadata"]["namespace"], secret["metadata"]["name"])
        if secret.get("type") != "kubernetes.io/tls":
            return ()
        return [
            key_of(ingress)
            for ingress in self.store.list(INGRESS)
            if any(_secret(ingress, entry) == place for entry in spec_of(ingress).get("tls") or ())
        ]


@dataclass(slots=True, init=False)
class _Path:
    """One path of a rule: what it takes, and who gets it."""

    path: str
    headers: dict[str, str]
    append: dict[str, str]
    rewrite_host: str
    splits: list[Obj]
    weights: list[int]

    def __init__(self, spec: Obj) -> None:
        self.path = spec.get("path") or ""
        wanted: dict[str, Obj] = spec.get("headers") or {}
        self.headers = {name: match.get("exact") or "" for name, match in wanted.items()}
        self.append = dict(spec.get("appendHeaders") or {})
        self.rewrite_host = spec.get("rewriteHost") or ""
        self.splits = list(spec.get("splits") or ())
        self.weights = [int(split.get("percent") or 0) for split in self.splits]

    def matches(self, request: Request) -> bool:
        return request.path.startswith(self.path) and all(
            request.headers.get(name) == value for name, value in self.headers.items()
        )

    def pick(self) -> Obj | None:
        if not any(self.weights):
            return None
        return random.choices(self.splits, self.weights)[0]


# --- the hash ------------------------------------------------------------------------------------

#: The fields of an Ingress's spec in the order in which Go writes them.
_ORDER = (
    "tls", "rules", "httpOption", "hosts", "secretName", "secretNamespace", "visibility", "http",
    "paths", "path", "rewriteHost", "headers", "splits", "serviceNamespace", "serviceName",
    "servicePort", "percent", "appendHeaders",
)  # fmt: skip
_MAPS = ("headers", "appendHeaders")


def spec_hash(ingress: Obj) -> str:
    """Which version of an Ingress the gateway serves, as probes are told (pkg/ingress ComputeHash:
    the SHA-256 of the spec as Go writes it, of the namespace and of the name)."""
    text = json.dumps(_ordered(spec_of(ingress)), separators=(",", ":"), ensure_ascii=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    metadata = ingress["metadata"]
    return hashlib.sha256(f"{text}{metadata['namespace']}{metadata['name']}".encode()).hexdigest()


def _ordered(value: Any, field: str = "") -> Any:
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    if not isinstance(value, dict):
        return value
    if field in _MAPS:
        return {name: value[name] for name in sorted(value)}
    return {name: _ordered(value[name], name) for name in _ORDER if name in value}


def _secret(ingress: Obj, entry: Obj) -> tuple[str, str]:
    namespace = entry.get("secretNamespace") or ingress["metadata"]["namespace"]
    return namespace, str(entry.get("secretName") or "")


def _owner(key: Key) -> str:
    return f"serving/ingress/{key.namespace}/{key.name}"
