"""Checks of `metadata` that all serving kinds share, and the annotations that say who acted.

Sources: knative.dev/pkg/apis/metadata_validation.go, knative.dev/serving
pkg/apis/serving/metadata_validation.go.
"""

from __future__ import annotations

from typing import Any

from knlocal.resources import field_errors as errors
from knlocal.resources import names
from knlocal.resources.base import Obj, annotations_of, labels_of, meta, spec_of
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.kinds import AdmissionContext
from knlocal.resources.serving import annotation_checks, keys
from knlocal.resources.settings import Autoscaler, of_context


def object_metadata(obj: Obj, ctx: AdmissionContext, *, autoscaling_allowed: bool) -> FieldErrors:
    """Name and annotations; paths are relative to `metadata`."""
    found = name_or_prefix(obj)
    if autoscaling_allowed:
        wrong = annotation_checks.autoscaling(annotations_of(obj), of_context(Autoscaler, ctx))
    else:
        wrong = annotation_checks.no_autoscaling(annotations_of(obj))
    return found.also(wrong.via_field("annotations"))


def name_or_prefix(obj: Obj) -> FieldErrors:
    metadata = obj.get("metadata") or {}
    name, prefix = metadata.get("name") or "", metadata.get("generateName") or ""
    if prefix and (wrong := names.as_prefix(names.dns1035_label)(prefix)):
        message = f"not a DNS 1035 label prefix: [{' '.join(wrong)}]"
        return errors.invalid_value(message, "generateName")
    if name and (wrong := names.dns1035_label(name)):
        return errors.invalid_value(f"not a DNS 1035 label: [{' '.join(wrong)}]", "name")
    if not name and not prefix:
        return errors.generic("name or generateName is required", "name")
    return FieldErrors()


def owner_label(obj: Obj, label: str, kind: str) -> FieldErrors:
    """A label that names the owner must be true; paths are relative to `metadata`."""
    value = labels_of(obj).get(label)
    if value is None:
        return FieldErrors()
    for reference in (obj.get("metadata") or {}).get("ownerReferences") or ():
        if reference.get("kind") == kind and reference.get("name") == value:
            return FieldErrors()
    return errors.missing(label).via_field("labels")


def set_user_info(obj: Obj, ctx: AdmissionContext) -> None:
    """Who created the object, and who last changed its spec."""
    if ctx.old is None:
        marks = {
            keys.CREATOR_ANNOTATION: ctx.user,
            keys.LAST_MODIFIER_ANNOTATION: ctx.user,
        }
    elif spec_of(obj) != spec_of(ctx.old):
        marks = {keys.LAST_MODIFIER_ANNOTATION: ctx.user}
    else:
        return
    metadata = meta(obj)
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **marks}


def creator_and_modifier(obj: Obj, old: Obj) -> FieldErrors:
    """The marks of `set_user_info` cannot be forged by an update."""
    found = FieldErrors()
    before, after = annotations_of(old), annotations_of(obj)
    immutable = [keys.CREATOR_ANNOTATION]
    if spec_of(obj) == spec_of(old):
        immutable.append(keys.LAST_MODIFIER_ANNOTATION)
    for key in immutable:
        if before.get(key) != after.get(key):
            found.also(errors.generic("annotation value is immutable", key))
    return found.via_field("metadata", "annotations")


def is_owned(obj: Obj) -> bool:
    owners: list[Any] = (obj.get("metadata") or {}).get("ownerReferences") or []
    return bool(owners)
