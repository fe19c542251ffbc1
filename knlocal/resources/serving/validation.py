"""Validation of serving kinds (knative.dev/serving/pkg/apis/serving/v1/*_validation.go)."""

from __future__ import annotations

from typing import Any

from knlocal.resources import diff, ducks, names
from knlocal.resources import field_errors as errors
from knlocal.resources.base import Obj, annotations_of, meta, spec_of
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.kinds import AdmissionContext
from knlocal.resources.serving import annotation_checks, dryrun, keys, metadata
from knlocal.resources.serving.masks import REVISION_FIELDS
from knlocal.resources.serving.podspec import pod_spec
from knlocal.resources.serving.traffic import traffic
from knlocal.resources.settings import Autoscaler, Defaults, Features, of_context
from knlocal.resources.settings.network import CLUSTER_DOMAIN


def service(obj: Obj, ctx: AdmissionContext) -> FieldErrors:
    found = FieldErrors()
    if ctx.subresource != "status":  # status writes must not fail because a config got stricter
        about = metadata.object_metadata(obj, ctx, autoscaling_allowed=False)
        rollout = annotation_checks.rollout_duration(annotations_of(obj))
        found.also(about.also(rollout.via_field("annotations")).via_field("metadata"))
        spec = spec_of(obj)
        body = _template(obj, spec, ctx)
        body.also(traffic(spec.get("traffic") or [], in_service=True).via_field("traffic"))
        found.also(body.via_field("spec"))
    if ctx.old is not None:
        found.also(metadata.creator_and_modifier(obj, ctx.old))
        found.also(_same_name_same_template(obj, ctx.old))
    return found


def configuration(obj: Obj, ctx: AdmissionContext) -> FieldErrors:
    found = FieldErrors()
    if ctx.subresource != "status":
        about = metadata.object_metadata(obj, ctx, autoscaling_allowed=False)
        about.also(metadata.owner_label(obj, keys.SERVICE_LABEL, "Service"))
        found.also(about.via_field("metadata"))
        found.also(_template(obj, spec_of(obj), ctx).via_field("spec"))
    if ctx.old is not None:
        if not metadata.is_owned(obj):
            found.also(metadata.creator_and_modifier(obj, ctx.old))
        found.also(_same_name_same_template(obj, ctx.old))
    return found


def revision(obj: Obj, ctx: AdmissionContext) -> FieldErrors:
    about = metadata.object_metadata(obj, ctx, autoscaling_allowed=True)
    about.also(metadata.owner_label(obj, keys.CONFIGURATION_LABEL, "Configuration"))
    found = about.via_field("metadata")
    if ctx.old is None:
        return found.also(_revision_spec(spec_of(obj), ctx).via_field("spec"))
    changes = diff.short_diff(spec_of(ctx.old), spec_of(obj), "{v1.RevisionSpec}", _pod_spec_step)
    if changes:
        return errors.generic("Immutable fields changed (-old +new)", "spec", details=changes)
    return found


def route(obj: Obj, ctx: AdmissionContext) -> FieldErrors:
    about = metadata.object_metadata(obj, ctx, autoscaling_allowed=False)
    about.also(metadata.owner_label(obj, keys.SERVICE_LABEL, "Service"))
    rollout = annotation_checks.rollout_duration(annotations_of(obj))
    found = about.also(rollout.via_field("annotations")).via_field("metadata")
    targets = traffic(spec_of(obj).get("traffic") or [], in_service=False)
    found.also(targets.via_field("spec", "traffic"))
    if ctx.old is not None and not metadata.is_owned(obj):
        found.also(metadata.creator_and_modifier(obj, ctx.old))
    return found


def domain_mapping(obj: Obj, ctx: AdmissionContext) -> FieldErrors:
    found = FieldErrors()
    about = meta(obj)
    name = about.get("name") or ""
    if about.get("generateName"):
        found.also(errors.disallowed("generateName"))
    if wrong := names.fully_qualified_domain_name(name):
        reasons = [
            f'name: Invalid value: "{name}": {what}' if name else f"name: {what}" for what in wrong
        ]
        reason = reasons[0] if len(reasons) == 1 else f"[{', '.join(reasons)}]"
        found.also(errors.generic(f'invalid name "{name}": {reason}', "name"))
    if name.endswith(f".{CLUSTER_DOMAIN}"):
        message = (
            f'invalid name "{name}": must not be a subdomain of cluster local domain '
            f'"{CLUSTER_DOMAIN}"'
        )
        found.also(errors.generic(message, "name"))
    found = found.via_field("metadata")
    reference = ducks.validate_reference(spec_of(obj).get("ref"), about.get("namespace") or "")
    found.also(reference.via_field("spec", "ref"))
    if ctx.old is not None:
        found.also(metadata.creator_and_modifier(obj, ctx.old))
    return found


# --- parts ---------------------------------------------------------------------------------------


def _template(obj: Obj, spec: dict[str, Any], ctx: AdmissionContext) -> FieldErrors:
    template = spec.get("template") or {}
    found = _revision_spec(template.get("spec") or {}, ctx).via_field("spec")
    annotations = annotations_of(template)
    marks = annotation_checks.autoscaling(annotations, of_context(Autoscaler, ctx))
    marks.also(annotation_checks.queue_proxy(annotations))
    marks.also(annotation_checks.progress_deadline(annotations))
    found.also(marks.via_field("metadata", "annotations"))
    name = _revision_name(template.get("metadata") or {}, meta(obj), is_create=ctx.is_create)
    found.also(name)
    found = found.via_field("template")
    return found if found else found.also(dryrun.validate_template(obj, template, ctx))


def _revision_name(
    template: dict[str, Any], parent: dict[str, Any], *, is_create: bool
) -> FieldErrors:
    name, prefix = template.get("name") or "", template.get("generateName") or ""
    if prefix and (wrong := names.as_prefix(names.dns1035_label)(prefix)):
        message = f"not a DNS 1035 label prefix: [{' '.join(wrong)}]"
        return errors.invalid_value(message, "metadata.generateName")
    if not name:
        return FieldErrors()
    if wrong := names.dns1035_label(name):
        message = f"not a DNS 1035 label: [{' '.join(wrong)}]"
        return errors.invalid_value(message, "metadata.name")
    parent_name = parent.get("name") or ""
    prefix = parent.get("generateName") or ""
    generated = is_create and len(parent_name) - len(prefix) == names.GENERATED_LENGTH
    if prefix and (not parent_name or (generated and parent_name.startswith(prefix))):
        return errors.disallowed("metadata.name")
    if not name.startswith(f"{parent_name}-"):
        message = f'"{name}" must have prefix "{parent_name}-"'
        return errors.invalid_value(message, "metadata.name")
    return FieldErrors()


def _revision_spec(spec: dict[str, Any], ctx: AdmissionContext) -> FieldErrors:
    config = of_context(Defaults, ctx)
    found = pod_spec(spec, of_context(Features, ctx))
    timeout = spec.get("timeoutSeconds") or 0
    longest = config.max_revision_timeout_seconds
    if not 0 <= timeout <= longest:
        found.also(errors.out_of_bounds(timeout, 0, longest, "timeoutSeconds"))
    concurrency = spec.get("containerConcurrency")
    least = 0 if config.allow_container_concurrency_zero else 1
    most = config.container_concurrency_max_limit
    if concurrency is not None and not least <= concurrency <= most:
        found.also(errors.out_of_bounds(concurrency, least, most, "containerConcurrency"))
    return found


def _same_name_same_template(obj: Obj, old: Obj) -> FieldErrors:
    """A revision brought by name is immutable: another template needs another name."""
    before, after = spec_of(old).get("template") or {}, spec_of(obj).get("template") or {}
    name = (after.get("metadata") or {}).get("name")
    if not name or name != (before.get("metadata") or {}).get("name"):
        return FieldErrors()
    changes = diff.short_diff(before, after, "{*v1.RevisionTemplateSpec}", _template_step)
    if not changes:
        return FieldErrors()
    message = "Saw the following changes without a name change (-old +new)"
    return errors.generic(message, "metadata.name", details=changes).via_field("spec", "template")


_POD_FIELDS = frozenset({"containers", "volumes", "serviceAccountName", "initContainers"})


def _template_step(name: str) -> str:
    if name == "metadata":
        return "ObjectMeta"
    return f"PodSpec.{diff.go_name(name)}" if name in _POD_FIELDS else diff.go_name(name)


def _pod_spec_step(name: str) -> str:
    return f"PodSpec.{diff.go_name(name)}" if name in _POD_FIELDS else diff.go_name(name)


assert not _POD_FIELDS & REVISION_FIELDS
