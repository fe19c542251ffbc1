"""DomainMapping and ClusterDomainClaim: a custom domain for something that has an address.

Mirrors knative.dev/serving/pkg/reconciler/domainmapping (behaviours B111 to B116).
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from knlocal.control.conditions import Conditions
from knlocal.control.controller import Controller, Requeue, Watching
from knlocal.control.events import EventRecorder
from knlocal.gateway import Handler, Request, RouteTable
from knlocal.gateway import Route as GatewayRoute
from knlocal.gateway.tls import Certificates, KeyPair
from knlocal.resources.base import (
    GroupKind,
    Key,
    Obj,
    annotations_of,
    copy,
    is_deleting,
    key_of,
    labels_of,
    spec_of,
    split_api_version,
    status_of,
)
from knlocal.resources.settings.network import CLUSTER_LOCAL_DOMAIN
from knlocal.serving.config import Config, is_config
from knlocal.serving.hosts import Ports
from knlocal.serving.ingress import show_ingress
from knlocal.serving.kinds import (
    CLUSTER_DOMAIN_CLAIM,
    CONFIG_MAP,
    DOMAIN_MAPPING,
    DOMAIN_MAPPING_NAMESPACE_LABEL,
    DOMAIN_MAPPING_UID_LABEL,
    HTTP_PROTOCOL,
    INGRESS_CLASS,
    K8S_SERVICE,
    LAST_APPLIED,
    ROUTE,
    SECRET,
    SERVICE,
)
from knlocal.store.store import Store

CONDITIONS = ("CertificateProvisioned", "DomainClaimed", "IngressReady", "ReferenceResolved")


class Unresolved(Exception):
    """The reference leads nowhere that a domain could be mapped to."""


class DomainMappingController(Controller):
    kind = DOMAIN_MAPPING

    def __init__(
        self,
        store: Store,
        config: Config,
        routes: RouteTable,
        ports: Ports,
        certificates: Certificates | None = None,
        recorder: EventRecorder | None = None,
    ) -> None:
        super().__init__(store, recorder)
        self._config = config
        self._routes = routes
        self._ports = ports
        self._certificates = certificates

    def watches(self) -> Sequence[Watching]:
        return (
            Watching(CLUSTER_DOMAIN_CLAIM, self._claimants),
            Watching(SERVICE, self._references),
            Watching(ROUTE, self._references),
            Watching(K8S_SERVICE, self._references),
            Watching(SECRET, self._of_secret),
            Watching(CONFIG_MAP, self._of_config),
        )

    async def reconcile(self, key: Key) -> Requeue | None:
        mapping = self.store.find_key(key)
        if mapping is None or is_deleting(mapping):
            self._forget(key)
            self._release(key.name)
            return None
        status = copy(status_of(mapping))
        conditions = Conditions(CONDITIONS, status, self.clock.now())
        self._show_url(mapping, status)
        self._show_certificate(mapping, conditions)
        if self._claim(mapping, conditions):
            self._map(mapping, conditions)
        else:
            self._forget(key)
        status["observedGeneration"] = mapping["metadata"]["generation"]
        status["conditions"] = conditions.result()
        self.update_status(mapping, status)
        return None

    async def start(self) -> None:
        for claim in self.store.list(CLUSTER_DOMAIN_CLAIM):
            self._release(claim["metadata"]["name"])

    def _release(self, domain: str) -> None:
        """Delete a claim that was made for a mapping which is gone, so that others may have it."""
        claim = self.store.find(CLUSTER_DOMAIN_CLAIM, "", domain)
        uid = labels_of(claim or {}).get(DOMAIN_MAPPING_UID_LABEL)
        if claim is None or not uid:
            return
        holder = self.store.find(DOMAIN_MAPPING, spec_of(claim).get("namespace") or "", domain)
        if holder is None or holder["metadata"]["uid"] != uid or is_deleting(holder):
            self.store.delete(CLUSTER_DOMAIN_CLAIM, "", domain)

    # -- stages -------------------------------------------------------------------------------

    def _show_url(self, mapping: Obj, status: Obj) -> None:
        secure = bool(_secret_name(mapping))
        scheme, usual = ("https", 443) if secure else ("http", 80)
        port = self._ports.external_tls if secure else self._ports.external
        host = mapping["metadata"]["name"]
        status["url"] = f"{scheme}://{host}" if port == usual else f"{scheme}://{host}:{port}"
        status["address"] = {"url": status["url"]}

    def _show_certificate(self, mapping: Obj, conditions: Conditions) -> None:
        if _secret_name(mapping):
            conditions.true(
                "CertificateProvisioned",
                "CertificateExternallyProvided",
                "TLS certificate was provided externally",
            )
        else:
            conditions.true(
                "CertificateProvisioned", "TLSNotEnabled", "external-domain-tls is not enabled"
            )

    def _claim(self, mapping: Obj, conditions: Conditions) -> bool:
        """Whether the domain belongs to the mapping's namespace (behaviour B112)."""
        name, namespace = mapping["metadata"]["name"], mapping["metadata"]["namespace"]
        claim = self.store.find(CLUSTER_DOMAIN_CLAIM, "", name)
        if claim is None and not self._config.network.autocreate_cluster_domain_claims:
            conditions.false(
                "DomainClaimed",
                "DomainClaimFailed",
                f'no ClusterDomainClaim found for domain "{name}"',
            )
            return False
        if claim is None:
            claim = self.store.create(
                {
                    "apiVersion": "networking.internal.knative.dev/v1alpha1",
                    "kind": "ClusterDomainClaim",
                    "metadata": {
                        "name": name,
                        # No owner reference: what is cluster-wide cannot belong to a namespace.
                        "labels": {DOMAIN_MAPPING_UID_LABEL: mapping["metadata"]["uid"]},
                    },
                    "spec": {"namespace": namespace},
                }
            )
        if spec_of(claim).get("namespace") != namespace or is_deleting(claim):
            conditions.false(
                "DomainClaimed",
                "DomainAlreadyClaimed",
                "The domain name is already in use by another DomainMapping",
            )
            return False
        conditions.true("DomainClaimed")
        return True

    def _map(self, mapping: Obj, conditions: Conditions) -> None:
        """Have the gateway answer the domain as it answers the target's own name."""
        key = key_of(mapping)
        try:
            host = self._resolve(mapping)
        except Unresolved as problem:
            conditions.false("ReferenceResolved", "ResolveFailed", str(problem))
            self._forget(key)
            return
        conditions.true("ReferenceResolved")
        redirect = bool(_secret_name(mapping)) and self._redirects(mapping)
        handler = GatewayRoute(_pass_on(self._routes, host, redirect=redirect))
        conflicts = self._routes.put(_owner(key), {key.name: handler})
        self._ingress(mapping, host)
        wrong = self._serve_certificate(mapping)
        if conflicts:
            conditions.unknown("IngressReady", "DomainInUse", str(conflicts[0]))
        elif wrong:
            conditions.false("IngressReady", "CertificateUnusable", wrong)
        else:
            conditions.true("IngressReady")

    def _serve_certificate(self, mapping: Obj) -> str:
        """Have the TLS door show the mapping's own certificate; what is wrong with it, or ""."""
        key, name = key_of(mapping), _secret_name(mapping)
        if self._certificates is None:
            return ""
        if not name:
            self._certificates.remove(_owner(key))
            return ""
        secret = self.store.find(SECRET, key.namespace, name)
        if secret is None:
            self._certificates.remove(_owner(key))
            return f'secret "{name}" not found'
        data = secret.get("data") or {}
        try:
            pair = KeyPair(b64decode(data["tls.crt"]), b64decode(data["tls.key"]))
            self._certificates.put(_owner(key), {key.name: pair})
        except KeyError as missing:
            return f'secret "{name}" has no {missing.args[0]}'
        except ValueError as wrong:
            return f'secret "{name}": {wrong}'
        return ""

    def _redirects(self, mapping: Obj) -> bool:
        """Whether plain HTTP is sent to HTTPS (behaviour C8)."""
        own = next(
            (annotations_of(mapping)[k] for k in HTTP_PROTOCOL if k in annotations_of(mapping)), ""
        )
        return (own or self._config.network.http_protocol).lower() == "redirected"

    def _forget(self, key: Key) -> None:
        self._routes.remove(_owner(key))
        if self._certificates is not None:
            self._certificates.remove(_owner(key))

    def _resolve(self, mapping: Obj) -> str:
        """The cluster-local host of the reference (behaviour B113)."""
        reference = spec_of(mapping).get("ref") or {}
        namespace = mapping["metadata"]["namespace"]
        group = split_api_version(reference.get("apiVersion") or "")[0]
        kind, name = reference.get("kind") or "", reference.get("name") or ""
        place = reference.get("namespace") or namespace
        target = self.store.find(GroupKind(group, kind), place, name)
        if target is None:
            stored = self.store.registry.stored(GroupKind(group, kind))
            resource = stored.resource if stored else kind
            raise Unresolved(
                f"resolving reference: failed to get object {place}/{name}: "
                f'{resource} "{name}" not found'
            )
        if (group, kind) == ("", "Service"):
            return f"{name}.{place}.{CLUSTER_LOCAL_DOMAIN}"
        url = ((status_of(target).get("address") or {}).get("url")) or ""
        if not url:
            raise Unresolved(
                f"resolving reference: address not set for "
                f"&ObjectReference{{Kind:{kind},Namespace:{place},Name:{name},"
                f"APIVersion:{reference.get('apiVersion')},}}"
            )
        parts = urlsplit(url)
        if parts.path not in ("", "/"):
            raise Unresolved(f'resolved URI "{url}" contains a path')
        host = parts.hostname or ""
        if not host.endswith(f".{CLUSTER_LOCAL_DOMAIN}"):
            raise Unresolved(
                f'resolved URI "{url}" must be of the form '
                f"{{name}}.{{namespace}}.{CLUSTER_LOCAL_DOMAIN}"
            )
        if host.split(".")[1] != namespace:
            raise Unresolved(f'resolved URI "{url}" must be in same namespace as DomainMapping')
        return host

    def _ingress(self, mapping: Obj, target: str) -> None:
        metadata = mapping["metadata"]
        annotations = {k: v for k, v in annotations_of(mapping).items() if k != LAST_APPLIED}
        annotations.setdefault(INGRESS_CLASS, self._config.network.ingress_class)
        service = target.split(".")[0]
        split = {
            "serviceName": service,
            "serviceNamespace": metadata["namespace"],
            "servicePort": 80,
            "percent": 100,
        }
        secret = _secret_name(mapping)
        tls = []
        if secret:
            tls = [
                {
                    "hosts": [metadata["name"]],
                    "secretName": secret,
                    "secretNamespace": metadata["namespace"],
                }
            ]
        show_ingress(
            self.store,
            self.recorder,
            mapping,
            dict(labels_of(mapping))
            | {
                DOMAIN_MAPPING_UID_LABEL: metadata["uid"],
                DOMAIN_MAPPING_NAMESPACE_LABEL: metadata["namespace"],
            },
            annotations,
            [
                {
                    "hosts": [metadata["name"]],
                    "visibility": "ExternalIP",
                    "http": {"paths": [{"rewriteHost": target, "splits": [split]}]},
                }
            ],
            tls,
        )

    # -- who must be looked at again ----------------------------------------------------------

    def _claimants(self, claim: Obj) -> Iterable[Key]:
        name = claim["metadata"]["name"]
        return [key for key in self.all_keys() if key.name == name]

    def _references(self, obj: Obj) -> Iterable[Key]:
        name = obj["metadata"]["name"]
        for mapping in self.store.list(DOMAIN_MAPPING):
            reference = spec_of(mapping).get("ref") or {}
            if (reference.get("kind"), reference.get("name")) == (obj["kind"], name):
                yield key_of(mapping)

    def _of_secret(self, secret: Obj) -> Iterable[Key]:
        if secret.get("type") != "kubernetes.io/tls":
            return ()
        place = (secret["metadata"]["namespace"], secret["metadata"]["name"])
        return [
            key_of(mapping)
            for mapping in self.store.list(DOMAIN_MAPPING)
            if (mapping["metadata"]["namespace"], _secret_name(mapping)) == place
        ]

    def _of_config(self, config: Obj) -> Iterable[Key]:
        return self.all_keys() if is_config(config, "config-network") else ()


def _secret_name(mapping: Obj) -> str:
    return str((spec_of(mapping).get("tls") or {}).get("secretName") or "")


def _pass_on(routes: RouteTable, host: str, *, redirect: bool = False) -> Handler:
    """Answers as `host` does inside the cluster, whoever serves it by then; the Host that user
    code sees stays the custom domain."""

    async def handle(request: Request) -> None:
        if redirect and request.scheme == "http":
            location = f"https://{request.host}{request.target}"
            await request.respond(301, [("Location", location)])
            return
        route = routes.find(host, "internal")
        if route is None:
            await request.respond(503, [("Content-Type", "text/plain")], f"{host} is not served\n")
        else:
            await route.handler(request)

    return handle


def _owner(key: Key) -> str:
    return f"serving/domainmapping/{key.namespace}/{key.name}"
