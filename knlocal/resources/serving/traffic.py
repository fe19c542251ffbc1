"""Validation of traffic targets (knative.dev/serving/pkg/apis/serving/v1/route_validation.go)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from knlocal.resources import field_errors as errors
from knlocal.resources import names
from knlocal.resources.field_errors import FieldErrors

Target = Mapping[str, Any]


def traffic(targets: list[Target], *, in_service: bool) -> FieldErrors:
    """Targets of a spec. Within a Service the configuration goes without saying, so naming one
    is refused."""
    found = FieldErrors()
    tags: dict[str, int] = {}
    for index, target in enumerate(targets):
        found.also(_target(target, in_service).via_index(index))
        tag = target.get("tag") or ""
        if not tag:
            continue
        if wrong := names.dns1035_label(tag):
            invalid = errors.invalid_value(
                f"not a DNS 1035 label: [{' '.join(wrong)}]", errors.CURRENT_FIELD
            )
            found.also(invalid.via_field_index("tag", index))
        if tag in tags:
            places = (f"[{index}].tag", f"[{tags[tag]}].tag")
            found.also(errors.generic(f'Multiple definitions for "{tag}"', *places))
        tags.setdefault(tag, index)
    total = sum(target.get("percent") or 0 for target in targets)
    if total != 100:
        found.also(errors.generic(f"Traffic targets sum to {total}, want 100"))
    return found


def _target(target: Target, in_service: bool) -> FieldErrors:
    found = FieldErrors()
    revision = target.get("revisionName") or ""
    configuration = target.get("configurationName") or ""
    latest = target.get("latestRevision")
    if latest is not None and bool(revision) == bool(latest):
        said = "true" if latest else "false"
        message = f'may not set revisionName "{revision}" when latestRevision is {said}'
        found.also(errors.generic(message, "latestRevision"))
    found.also(_who(revision, configuration, in_service))
    percent = target.get("percent")
    if percent is not None and not 0 <= percent <= 100:
        found.also(errors.out_of_bounds(percent, 0, 100, "percent"))
    if target.get("url"):
        found.also(errors.disallowed("url"))
    return found


def _who(revision: str, configuration: str, in_service: bool) -> FieldErrors | None:
    if in_service and configuration:
        return errors.disallowed("configurationName")
    if revision and configuration:
        return errors.multiple_one_of("revisionName", "configurationName")
    for value, field in ((revision, "revisionName"), (configuration, "configurationName")):
        if value:
            wrong = names.qualified_name(value)
            return errors.invalid_key(value, field, "; ".join(wrong)) if wrong else None
    return None if in_service else errors.missing_one_of("revisionName", "configurationName")
