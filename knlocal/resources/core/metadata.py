"""What every object's metadata must be (k8s.io/apimachinery/pkg/api/validation/objectmeta.go)."""

from __future__ import annotations

import re

from knlocal.resources.base import Obj
from knlocal.resources.core.words import Errors, invalid, too_long

_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_MOST_ANNOTATIONS = 256 * 1024

_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    r"for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_NAME_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or "
    "'12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
#: Groups whose names may hold what only a URL path must not (`system:node`).
_PATH_SEGMENT_GROUPS = ("rbac.authorization.k8s.io",)
_DNS_LABEL_KINDS = ("Namespace",)


def check_metadata(obj: Obj) -> Errors:
    metadata = obj.get("metadata") or {}
    errors: Errors = []
    if metadata.get("name"):
        errors += check_name(obj, metadata["name"])
    for key, value in (metadata.get("labels") or {}).items():
        errors += check_qualified_name(key, "metadata.labels")
        if len(value) > 63:
            errors.append(invalid("metadata.labels", value, "must be no more than 63 bytes"))
        if value and not _LABEL_NAME.fullmatch(value):
            errors.append(invalid("metadata.labels", value, _VALUE_RULE))
    size = 0
    for key, value in (metadata.get("annotations") or {}).items():
        errors += check_qualified_name(key.lower(), "metadata.annotations")
        size += len(key) + len(value)
    if size > _MOST_ANNOTATIONS:
        errors.append(too_long("metadata.annotations", _MOST_ANNOTATIONS))
    return errors


def check_name(obj: Obj, name: str) -> Errors:
    group = (obj.get("apiVersion") or "").rpartition("/")[0]
    path = "metadata.name"
    if group in _PATH_SEGMENT_GROUPS:
        for bad in ("/", "%"):
            if bad in name:
                return [invalid(path, name, f"may not contain '{bad}'")]
        return [invalid(path, name, f"may not be '{name}'")] if name in (".", "..") else []
    if obj.get("kind") in _DNS_LABEL_KINDS:
        if len(name) > 63:
            return [invalid(path, name, "must be no more than 63 bytes")]
        return [] if _DNS_LABEL.fullmatch(name) else [invalid(path, name, _LABEL_RULE)]
    if len(name) > 253:
        return [invalid(path, name, "must be no more than 253 bytes")]
    return [] if _SUBDOMAIN.fullmatch(name) else [invalid(path, name, _SUBDOMAIN_RULE)]


def check_qualified_name(key: str, path: str) -> Errors:
    """A label or annotation key: an optional DNS subdomain, `/`, and a name."""
    prefix, slash, name = key.rpartition("/")
    errors: Errors = []
    if slash and not prefix:
        errors.append(invalid(path, key, "prefix part must be non-empty"))
    elif prefix and (len(prefix) > 253 or not _SUBDOMAIN.fullmatch(prefix)):
        errors.append(invalid(path, key, f"prefix part {_SUBDOMAIN_RULE}"))
    if not name:
        errors.append(invalid(path, key, "name part must be non-empty"))
    elif len(name) > 63:
        errors.append(invalid(path, key, "name part must be no more than 63 bytes"))
    elif not _LABEL_NAME.fullmatch(name):
        errors.append(invalid(path, key, _NAME_RULE))
    return errors
