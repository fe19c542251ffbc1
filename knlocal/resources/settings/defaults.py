"""config-defaults of serving (knative.dev/serving/pkg/apis/config/defaults.go)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from knlocal.resources import gotemplate
from knlocal.resources.settings.parsing import (
    SettingsError,
    as_int,
    as_quantity,
    as_tri_state,
    read,
    setting,
)


@dataclass(frozen=True, slots=True)
class ObjectMetaValues:
    """What a container name template sees: the parent's ObjectMeta, under Go's names."""

    Name: str = ""
    GenerateName: str = ""
    Namespace: str = ""
    Labels: Mapping[str, str] = field(default_factory=dict)
    Annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Defaults:
    """Quantities are in their canonical spelling, "" when not set."""

    revision_timeout_seconds: int = setting(
        "revision-timeout-seconds", 300, "Default of timeoutSeconds."
    )
    max_revision_timeout_seconds: int = setting(
        "max-revision-timeout-seconds", 600, "Largest timeoutSeconds allowed."
    )
    revision_response_start_timeout_seconds: int = setting(
        "revision-response-start-timeout-seconds",
        300,
        "Default of responseStartTimeoutSeconds; revision-timeout-seconds unless set.",
    )
    revision_idle_timeout_seconds: int = setting(
        "revision-idle-timeout-seconds", 0, "Default of idleTimeoutSeconds; 0: none."
    )
    container_name_template: str = setting(
        "container-name-template", "user-container", "Name of containers without one."
    )
    init_container_name_template: str = setting(
        "init-container-name-template", "init-container", "Name of init containers without one."
    )
    container_concurrency: int = setting(
        "container-concurrency", 0, "Default of containerConcurrency; 0: unlimited."
    )
    container_concurrency_max_limit: int = setting(
        "container-concurrency-max-limit", 1000, "Largest containerConcurrency allowed."
    )
    allow_container_concurrency_zero: bool = setting(
        "allow-container-concurrency-zero", True, "Whether containerConcurrency may be 0."
    )
    enable_service_links: bool | None = setting(
        "enable-service-links",
        False,
        'Default of enableServiceLinks: "true", "false" or "default" (not set).',
        parse=as_tri_state,
    )
    revision_cpu_request: str = setting(
        "revision-cpu-request", "", "Default CPU request.", parse=as_quantity
    )
    revision_cpu_limit: str = setting(
        "revision-cpu-limit", "", "Default CPU limit.", parse=as_quantity
    )
    revision_memory_request: str = setting(
        "revision-memory-request", "", "Default memory request.", parse=as_quantity
    )
    revision_memory_limit: str = setting(
        "revision-memory-limit", "", "Default memory limit.", parse=as_quantity
    )
    revision_ephemeral_storage_request: str = setting(
        "revision-ephemeral-storage-request",
        "",
        "Default ephemeral storage request.",
        parse=as_quantity,
    )
    revision_ephemeral_storage_limit: str = setting(
        "revision-ephemeral-storage-limit",
        "",
        "Default ephemeral storage limit.",
        parse=as_quantity,
    )

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> Defaults:
        found = read(cls, data)
        key = "revision-response-start-timeout-seconds"
        start = as_int(data[key]) if key in data else found.revision_timeout_seconds
        found = dataclasses.replace(found, revision_response_start_timeout_seconds=start)
        for wrong in _wrongs(found):
            raise SettingsError(wrong)
        return found

    def user_container_name(self, parent: ObjectMetaValues) -> str:
        return _name(self.container_name_template, parent)

    def init_container_name(self, parent: ObjectMetaValues) -> str:
        return _name(self.init_container_name_template, parent)

    def resources(self, what: str) -> dict[str, str]:
        """Default "request"s or "limit"s, by resource name; only those that are set."""
        quantities = {
            "cpu": getattr(self, f"revision_cpu_{what}"),
            "memory": getattr(self, f"revision_memory_{what}"),
            "ephemeral-storage": getattr(self, f"revision_ephemeral_storage_{what}"),
        }
        return {name: value for name, value in quantities.items() if value}


def _name(template: str, parent: ObjectMetaValues) -> str:
    try:
        return gotemplate.render(template, parent, "container-template")
    except gotemplate.TemplateError:
        return ""


def _wrongs(nc: Defaults) -> list[str]:
    wrong = []
    timeout = nc.revision_timeout_seconds
    for key, value, limit_key, limit in (
        (
            "revision-timeout-seconds",
            timeout,
            "max-revision-timeout-seconds",
            nc.max_revision_timeout_seconds,
        ),
        (
            "revision-response-start-timeout-seconds",
            nc.revision_response_start_timeout_seconds,
            "revision-timeout-seconds",
            timeout,
        ),
        (
            "revision-idle-timeout-seconds",
            nc.revision_idle_timeout_seconds,
            "revision-timeout-seconds",
            timeout,
        ),
    ):
        if value > limit:
            wrong.append(f"{key} ({value}) cannot be greater than {limit_key} ({limit})")
    limit = nc.container_concurrency_max_limit
    if limit < 1:
        wrong.append(f"expected 1 <= {limit} <= 2147483647: container-concurrency-max-limit")
    elif not 0 <= nc.container_concurrency <= limit:
        wrong.append(f"expected 0 <= {nc.container_concurrency} <= {limit}: container-concurrency")
    for template in (nc.container_name_template, nc.init_container_name_template):
        try:
            gotemplate.render(template, ObjectMetaValues(), "container-template")
        except gotemplate.TemplateError as error:
            wrong.append(f"error executing template: {error}")
    return wrong
