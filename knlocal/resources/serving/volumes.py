"""Validation of volumes and volume mounts (serving pkg/apis/serving/k8s_validation.go)."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from knlocal.resources import field_errors as errors
from knlocal.resources import names, quantity
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.serving import masks
from knlocal.resources.settings import Features
from knlocal.resources.settings.features import ENABLED

Spec = Mapping[str, Any]

_RESERVED_PATHS = ("/", "/dev", "/dev/log")
_WRITABLE = ("emptyDir", "persistentVolumeClaim", "ephemeral")
_GATED = {
    "emptyDir": ("pod_spec_volumes_empty_dir", "EmptyDir", "EmptyDir volume"),
    "hostPath": ("pod_spec_volumes_host_path", "HostPath", "HostPath volume"),
    "csi": ("pod_spec_volumes_csi", "CSI", "CSI volume"),
    "ephemeral": ("pod_spec_volumes_ephemeral", "Ephemeral", "ephemeral volume"),
    "image": ("pod_spec_volumes_image", "Image", "image volume"),
}


def volumes(found: list[Spec], mounted: set[str], features: Features) -> FieldErrors:
    wrong = FieldErrors()
    seen: set[str] = set()
    for index, entry in enumerate(found):
        name = entry.get("name") or ""
        if name in seen:
            duplicate = errors.generic(f'duplicate volume name "{name}"', "name")
            wrong.also(duplicate.via_index(index))
        if name not in mounted:
            unused = errors.generic(f'volume with name "{name}" not mounted', "name")
            wrong.also(unused.via_index(index))
        wrong.also(volume(entry, features).via_index(index))
        seen.add(name)
    return wrong


def volume(entry: Spec, features: Features) -> FieldErrors:
    name = entry.get("name") or ""
    wrong = FieldErrors()
    if not name:
        wrong = errors.missing("name")
    elif names.dns1123_label(name):
        wrong = errors.invalid_value(name, "name")
    wrong.also(_claim(entry.get("persistentVolumeClaim"), features))
    for source, (flag, title, what) in _GATED.items():
        if entry.get(source) is not None and getattr(features, flag) != ENABLED:
            message = f"{title} volume support is disabled, but found {what} {name}"
            wrong.items.append(errors.FieldError(message, ()))
    allowed = masks.volume_sources(features)
    wrong.also(masks.disallowed(entry, ["name", *allowed]))
    wrong.also(_source(entry))
    specified = [
        key for key, value in entry.items() if key != "name" and value is not None
    ]  # refused ones too: they must not be taken for a missing source
    if not specified:
        wrong.also(errors.missing_one_of(*allowed))
    elif len(specified) > 1:
        wrong.also(errors.multiple_one_of(*specified))
    return wrong


def _claim(claim: Spec | None, features: Features) -> FieldErrors:
    wrong = FieldErrors()
    if claim is None:
        return wrong
    name = claim.get("claimName") or ""
    if features.pod_spec_persistent_volume_claim != ENABLED:
        message = (
            f"Persistent volume claim support is disabled, but found persistent volume claim {name}"
        )
        wrong.items.append(errors.FieldError(message, ()))
    if not claim.get("readOnly") and features.pod_spec_persistent_volume_write != ENABLED:
        message = (
            "Persistent volume write support is disabled, "
            f"but found persistent volume claim {name} that is not read-only"
        )
        wrong.items.append(errors.FieldError(message, ()))
    return wrong


def _source(entry: Spec) -> FieldErrors:
    wrong = FieldErrors()
    for source in ("secret", "configMap"):
        wrong.also(_items(entry.get(source) or {}))
    for index, projection in enumerate((entry.get("projected") or {}).get("sources") or ()):
        wrong.also(_projection(projection).via_field_index("projected", index))
    if (directory := entry.get("emptyDir")) is not None:
        wrong.also(_empty_dir(directory).via_field("emptyDir"))
    return wrong


def _items(source: Spec) -> FieldErrors:
    wrong = FieldErrors()
    for index, item in enumerate(source.get("items") or ()):
        lacking = [field for field in ("key", "path") if not item.get(field)]
        if lacking:
            wrong.also(errors.missing(*lacking).via_field_index("items", index))
    return wrong


def _projection(projection: Spec) -> FieldErrors:
    wrong = masks.disallowed(projection, masks.PROJECTION)
    specified = []
    for source in ("secret", "configMap", "serviceAccountToken", "downwardAPI"):
        body = projection.get(source)
        if body is None:
            continue
        specified.append(source)
        found = FieldErrors()
        if source in ("secret", "configMap"):
            if not body.get("name"):
                found.also(errors.missing("name"))
            found.also(_items(body))
        elif source == "serviceAccountToken":
            if not body.get("path"):
                found.also(errors.missing("path"))
        else:
            found.also(_downward(body))
        wrong.also(found.via_field(source))
    if not specified:
        kinds = ("secret", "configMap", "serviceAccountToken", "downwardAPI")
        wrong.also(errors.missing_one_of(*kinds))
    elif len(specified) > 1:
        wrong.also(errors.multiple_one_of(*specified))
    return wrong


def _downward(body: Spec) -> FieldErrors:
    wrong = FieldErrors()
    for index, item in enumerate(body.get("items") or ()):
        found = FieldErrors()
        field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
        if field is None and resource is None:
            found.also(errors.missing_one_of("fieldRef", "resourceFieldRef"))
        if field is not None and resource is not None:
            both = ("resourceFieldRef", "fieldRef")
            found.also(errors.generic("Within a single item, cannot set both", *both))
        if not item.get("path"):
            found.also(errors.missing("path"))
        wrong.also(found.via_field_index("items", index))
    return wrong


def _empty_dir(directory: Spec) -> FieldErrors:
    wrong = FieldErrors()
    medium = directory.get("medium") or ""
    if medium not in ("", "Memory"):
        wrong.also(errors.invalid_value(medium, "medium"))
    limit = directory.get("sizeLimit")
    if limit is not None:
        try:
            negative = quantity.parse(limit) < 0
        except ValueError:
            negative = True
        if negative:
            wrong.also(errors.invalid_value(limit, "sizeLimit"))
    return wrong


def mounts(found: list[Spec], known: Mapping[str, Spec], features: Features) -> FieldErrors:
    """Volume mounts of one container; `known` are the pod's volumes by name."""
    wrong = FieldErrors()
    seen: set[str] = set()
    for index, mount in enumerate(found):
        wrong.also(_mount(mount, known, seen, features).via_index(index))
    return wrong


def _mount(
    mount: Spec, known: Mapping[str, Spec], seen: set[str], features: Features
) -> FieldErrors:
    wrong = masks.disallowed(mount, masks.volume_mount(features))
    entry = known.get(mount.get("name") or "")
    if entry is None:
        wrong.also(errors.generic("volumeMount has no matching volume", "name"))
    path = mount.get("mountPath") or ""
    clean = "/" + posixpath.normpath(path).lstrip("/") if path.startswith("/") else path
    if not path:
        wrong.also(errors.missing("mountPath"))
    elif clean in _RESERVED_PATHS:
        wrong.also(errors.generic(f'mountPath "{clean}" is a reserved path', "mountPath"))
    elif not path.startswith("/"):
        wrong.also(errors.invalid_value(path, "mountPath"))
    elif clean in seen:
        wrong.also(errors.invalid_value(f'"{path}" must be unique', "mountPath"))
    seen.add(clean)

    source = entry or {}
    if not mount.get("readOnly") and all(source.get(kind) is None for kind in _WRITABLE):
        message = "volume mount should be readOnly for this type of volume"
        wrong.also(errors.generic(message, "readOnly"))
    claim = source.get("persistentVolumeClaim") or {}
    if claim.get("readOnly") and not mount.get("readOnly"):
        wrong.also(errors.generic("volume is readOnly but volume mount is not", "readOnly"))
    propagation = mount.get("mountPropagation")
    allowed = "mountPropagation" in masks.volume_mount(features)
    if allowed and propagation not in (None, "None", "HostToContainer"):
        wrong.also(errors.invalid_value(propagation, "mountPropagation"))
    return wrong
