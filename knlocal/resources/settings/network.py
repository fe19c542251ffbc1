"""config-network and config-domain (knative.dev/networking/pkg/config; serving's route config)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from knlocal.resources.gotemplate import Template, TemplateError
from knlocal.resources.settings.parsing import (
    EXAMPLE_KEY,
    SettingsError,
    as_choice,
    as_yaml,
    read,
    setting,
)

CLUSTER_DOMAIN = "cluster.local"
CLUSTER_LOCAL_DOMAIN = f"svc.{CLUSTER_DOMAIN}"
VISIBILITY_LABEL = "networking.knative.dev/visibility"
VISIBILITY_CLUSTER_LOCAL = "cluster-local"


@dataclass(frozen=True, slots=True)
class DomainTemplateValues:
    """What `domain-template` sees."""

    Name: str
    Namespace: str
    Domain: str
    Annotations: Mapping[str, str] = field(default_factory=dict)
    Labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TagTemplateValues:
    """What `tag-template` sees."""

    Name: str
    Tag: str


def _flag(text: str) -> bool:
    return text.strip().lower() == "enabled"


@dataclass(frozen=True, slots=True)
class Network:
    """`rollout_duration` is in seconds."""

    ingress_class: str = setting(
        "ingress-class",
        "kourier.ingress.networking.knative.dev",
        "Ingress class.",
        legacy=("ingress.class",),
    )
    certificate_class: str = setting(
        "certificate-class",
        "cert-manager.certificate.networking.knative.dev",
        "Certificate class.",
        legacy=("certificate.class",),
    )
    domain_template: str = setting(
        "domain-template",
        "{{.Name}}.{{.Namespace}}.{{.Domain}}",
        "Go template of a route's host.",
        legacy=("domainTemplate",),
    )
    tag_template: str = setting(
        "tag-template",
        "{{.Tag}}-{{.Name}}",
        "Go template of the name part of a tag's host.",
        legacy=("tagTemplate",),
    )
    rollout_duration: int = setting(
        "rollout-duration",
        0,
        "Seconds over which the latest revision takes over the traffic; 0: at once.",
        legacy=("rolloutDuration",),
    )
    autocreate_cluster_domain_claims: bool = setting(
        "autocreate-cluster-domain-claims",
        False,
        "Whether a DomainMapping makes its ClusterDomainClaim itself.",
        legacy=("autocreateClusterDomainClaims",),
    )
    default_external_scheme: str = setting(
        "default-external-scheme",
        "http",
        "Scheme of external URLs.",
        legacy=("defaultExternalScheme",),
    )
    external_domain_tls: bool = setting(
        "external-domain-tls",
        False,
        "Certificates for external domains.",
        parse=_flag,
        legacy=("autoTLS", "auto-tls"),
        shown="disabled",
    )
    cluster_local_domain_tls: bool = setting(
        "cluster-local-domain-tls",
        False,
        "Certificates for cluster-local domains.",
        parse=_flag,
        shown="disabled",
    )
    system_internal_tls: bool = setting(
        "system-internal-tls",
        False,
        "Encryption between Knative's own components.",
        parse=_flag,
        legacy=("internal-encryption",),
        shown="disabled",
    )
    http_protocol: str = setting(
        "http-protocol",
        "enabled",
        'Plain HTTP: "enabled", "redirected" or "disabled".',
        parse=as_choice("enabled", "disabled", "redirected"),
        legacy=("httpProtocol",),
    )
    mesh_compatibility_mode: str = setting(
        "mesh-compatibility-mode",
        "auto",
        'How pods are reached: "auto", "enabled" (cluster IP) or "disabled" (pod IP).',
        parse=as_choice("auto", "enabled", "disabled"),
    )
    enable_mesh_pod_addressability: bool = setting(
        "enable-mesh-pod-addressability", False, "Whether pods can be reached within a mesh."
    )
    namespace_wildcard_cert_selector: object = setting(
        "namespace-wildcard-cert-selector",
        None,
        "Namespaces that get wildcard certificates: a label selector, YAML.",
        parse=as_yaml,
    )

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> Network:
        found = read(cls, data)
        if found.rollout_duration < 0:
            raise SettingsError(
                f"rollout-duration must be a positive integer, but was {found.rollout_duration}"
            )
        _check_domain_template(found.domain_template)
        _check_tag_template(found.tag_template)
        return found

    def host(
        self,
        name: str,
        namespace: str,
        domain: str,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> str:
        """A route's external host. `name` is already the tag's name where one is meant.

        Raises TemplateError when the template does not fit the annotations.
        """
        values = DomainTemplateValues(name, namespace, domain, annotations or {}, labels or {})
        return _template(self.domain_template, "domain-template").render(values)

    def tag_name(self, route: str, tag: str) -> str:
        """The name part of a tag's host ("blue-hello"); the route's own name without a tag."""
        if not tag:
            return route
        return _template(self.tag_template, "tag-template").render(TagTemplateValues(route, tag))


@lru_cache(maxsize=20)
def _template(text: str, name: str) -> Template:
    return Template(text, name)


def _check_domain_template(text: str) -> None:
    sample = DomainTemplateValues("foo", "bar", "baz.com", _Anything(), _Anything())
    try:
        host = _template(text, "domain-template").render(sample)
    except TemplateError as error:
        raise SettingsError(str(error)) from None
    # Every host must tell name and namespace apart, and hold no empty part.
    if not host or not all(part for part in host.split(".")) or "://" in host:
        raise SettingsError(f'invalid domain name template: "{text}" (it gives "{host}")')


def _check_tag_template(text: str) -> None:
    try:
        name = _template(text, "tag-template").render(TagTemplateValues("foo", "v2"))
    except TemplateError as error:
        raise SettingsError(str(error)) from None
    if not name or name.startswith(".") or name.endswith(".") or "://" in name:
        raise SettingsError(f'invalid tag template: "{text}" (it gives "{name}")')


class _Anything(dict[str, str]):
    """Labels and annotations for a trial run: every key has a value."""

    def get(self, key: str, default: Any = None) -> Any:
        return "sample"

    def __missing__(self, key: str) -> str:
        return "sample"


@dataclass(frozen=True, slots=True)
class Domains:
    """config-domain: domains, each with the labels that a route needs to get it."""

    selectors: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> Domains:
        selectors: dict[str, Mapping[str, str]] = {}
        for domain, text in data.items():
            if domain == EXAMPLE_KEY:
                continue
            try:
                body = as_yaml(text) or {}
                selector = body.get("selector") or {}
                selectors[domain] = {str(key): str(value) for key, value in selector.items()}
            except Exception as error:
                raise SettingsError(f'failed to parse "{domain}": {error}') from None
        if all(selectors.values()):
            selectors.setdefault(CLUSTER_LOCAL_DOMAIN, {})
        return cls(selectors)

    def lookup(self, labels: Mapping[str, str]) -> str:
        """The domain for a route's labels: the most specific selector wins, then the alphabet."""
        if labels.get(VISIBILITY_LABEL) == VISIBILITY_CLUSTER_LOCAL:
            return CLUSTER_LOCAL_DOMAIN
        fitting = [
            (-len(selector), domain)
            for domain, selector in self.selectors.items()
            if all(labels.get(key) == value for key, value in selector.items())
        ]
        return min(fitting)[1] if fitting else CLUSTER_LOCAL_DOMAIN
