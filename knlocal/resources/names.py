"""Names: Kubernetes' checks with its exact sentences, generated names, and names of children.

Sources: k8s.io/apimachinery pkg/util/validation and pkg/api/validation, k8s.io/apiserver
pkg/storage/names, knative.dev/pkg/kmeta.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable

from knlocal.resources.base import GroupKind, Obj
from knlocal.resources.structural import Finding

MAX_LABEL = 63
MAX_SUBDOMAIN = 253
MAX_ANNOTATIONS = 256 * 1024

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = f"({_QUALIFIED})?"
_CONFIG_KEY = r"[-._a-zA-Z0-9]+"

NameCheck = Callable[[str], list[str]]
"""What is wrong with a name, as Kubernetes says it; empty when nothing is."""


def _regex_error(sentence: str, pattern: str, *examples: str) -> str:
    hints = " or ".join(f"'{example}', " for example in examples)
    return (
        f"{sentence} ({f'e.g. {hints}' if hints else ''}regex used for validation is '{pattern}')"
    )


def too_long(limit: int) -> str:
    return f"must be no more than {limit} bytes"


def _check(value: str, limit: int, pattern: str, sentence: str, *examples: str) -> list[str]:
    wrong = []
    if len(value.encode()) > limit:
        wrong.append(too_long(limit))
    if not re.fullmatch(pattern, value):
        wrong.append(_regex_error(sentence, pattern, *examples))
    return wrong


def dns1123_label(value: str) -> list[str]:
    """RFC 1123 label: at most 63 of a-z, 0-9 and -, alphanumeric at both ends."""
    return _check(
        value,
        MAX_LABEL,
        _LABEL,
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
        "and must start and end with an alphanumeric character",
        "my-name",
        "123-abc",
    )


def dns1123_subdomain(value: str) -> list[str]:
    """RFC 1123 subdomain: labels joined by dots, at most 253 characters."""
    return _check(
        value,
        MAX_SUBDOMAIN,
        _SUBDOMAIN,
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, "
        "'-' or '.', and must start and end with an alphanumeric character",
        "example.com",
    )


def dns1035_label(value: str) -> list[str]:
    """RFC 1035 label: an RFC 1123 label that starts with a letter."""
    return _check(
        value,
        MAX_LABEL,
        _LABEL_1035,
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
        "start with an alphabetic character, and end with an alphanumeric character",
        "my-name",
        "abc-123",
    )


def path_segment(value: str) -> list[str]:
    """A name that only has to fit into one segment of a URL path (RBAC objects)."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{char}'" for char in "/%" if char in value]


def as_prefix(check: NameCheck) -> NameCheck:
    """The same check for a `generateName`: a trailing dash is fine, as more characters follow."""

    def check_prefix(value: str) -> list[str]:
        if len(value) > 1 and value.endswith("-"):
            value = value[:-2] + "a"
        return check(value)

    return check_prefix


def c_identifier(value: str) -> list[str]:
    """A name in the C language: letters, digits and _, not a digit first."""
    return _check(
        value,
        MAX_SUBDOMAIN,
        "[A-Za-z_][A-Za-z0-9_]*",
        "a valid C identifier must start with alphabetic character or '_', followed by a string of "
        "alphanumeric characters or '_'",
        "my_name",
        "MY_NAME",
        "MyName",
    )


def qualified_name(value: str) -> list[str]:
    """A label or annotation key: `name` or `dns.prefix/name`."""
    prefix, slash, name = value.rpartition("/")
    wrong = []
    if slash:
        if "/" in prefix:
            shape = _regex_error(_QUALIFIED_RULE, _QUALIFIED, *_QUALIFIED_EXAMPLES)
            suffix = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            return [f"a qualified name {shape} {suffix}"]
        if not prefix:
            wrong.append("prefix part must be non-empty")
        else:
            wrong += [f"prefix part {what}" for what in dns1123_subdomain(prefix)]
    if not name:
        wrong.append("name part must be non-empty")
    elif len(name) > MAX_LABEL:
        wrong.append(f"name part {too_long(MAX_LABEL)}")
    if not re.fullmatch(_QUALIFIED, name):
        shape = _regex_error(_QUALIFIED_RULE, _QUALIFIED, *_QUALIFIED_EXAMPLES)
        wrong.append(f"name part {shape}")
    return wrong


_QUALIFIED_RULE = (
    "must consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character"
)
_QUALIFIED_EXAMPLES = ("MyName", "my.name", "123-abc")


def label_value(value: str) -> list[str]:
    """A label value: empty, or at most 63 alphanumerics, -, _ and ."""
    return _check(
        value,
        MAX_LABEL,
        _LABEL_VALUE,
        "a valid label must be an empty string or consist of alphanumeric characters, "
        "'-', '_' or '.', and must start and end with an alphanumeric character",
        "MyValue",
        "my_value",
        "12345",
    )


def config_map_key(value: str) -> list[str]:
    """A key of a ConfigMap or Secret."""
    wrong = _check(
        value,
        MAX_SUBDOMAIN,
        _CONFIG_KEY,
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
        "key.name",
        "KEY_NAME",
        "key-name",
    )
    if value in (".", ".."):
        wrong.append(f"must not be '{value}'")
    elif value.startswith(".."):
        wrong.append("must not start with '..'")
    return wrong


def env_var_name(value: str) -> list[str]:
    """An environment variable's name (the relaxed rule: printable ASCII without `=`)."""
    if not value:
        return ["environment variable name must be non-empty"]
    if all(" " <= char <= "~" and char != "=" for char in value):
        return []
    rule = "must consist only of printable ASCII characters other than '='"
    return [f"a valid environment variable name {rule}"]


def port_name(value: str) -> list[str]:
    """An IANA service name: what a container port may be called."""
    wrong = []
    if len(value) > 15:
        wrong.append("must be no more than 15 characters")
    if not re.fullmatch("[-a-z0-9]+", value):
        wrong.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        wrong.append("must contain at least one letter (a-z)")
    if "--" in value:
        wrong.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        wrong.append("must not begin or end with a hyphen")
    return wrong


def port_number(value: int) -> list[str]:
    return [] if 1 <= value <= 65535 else ["must be between 1 and 65535, inclusive"]


def fully_qualified_domain_name(value: str) -> list[str]:
    """A domain of at least two labels; one trailing dot is allowed."""
    if not value:
        return ["Required value"]
    value = value.removesuffix(".")
    if wrong := dns1123_subdomain(value):
        return wrong
    labels = value.split(".")
    if len(labels) < 2:
        return ["should be a domain with at least two segments separated by dots"]
    return [what for label in labels for what in dns1123_label(label)]


# --- children and generated names ----------------------------------------------------------------

_HASH = 32
_HEAD = MAX_LABEL - _HASH


def child_name(parent: str, suffix: str) -> str:
    """`parent + suffix`, at most 63 characters: what does not fit is replaced by its MD5 hash.

    Exactly knative.dev/pkg/kmeta.ChildName, so that names agree with a cluster's.
    """
    if len(parent) + len(suffix) <= MAX_LABEL:
        return parent + suffix
    if len(suffix) >= _HEAD:
        name = parent[:_HEAD] + _md5(parent + suffix)
        name += suffix[: max(0, MAX_LABEL - len(name))]
        return re.sub("[^a-zA-Z0-9]+$", "", name)
    return parent[: _HEAD - len(suffix)] + _md5(parent) + suffix


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


_GENERATED_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
GENERATED_LENGTH = 5


def generate_name(base: str, rng: random.Random | None = None) -> str:
    """`base` (cut to 58 characters) and five random characters, as for `metadata.generateName`."""
    choose = (rng or random).choice
    suffix = "".join(choose(_GENERATED_ALPHABET) for _ in range(GENERATED_LENGTH))
    return base[: MAX_LABEL - GENERATED_LENGTH] + suffix


# --- metadata ------------------------------------------------------------------------------------

_NAME_CHECKS: dict[GroupKind, NameCheck] = {
    GroupKind("", "Namespace"): dns1123_label,
    GroupKind("", "Service"): dns1035_label,
    GroupKind("rbac.authorization.k8s.io", "Role"): path_segment,
    GroupKind("rbac.authorization.k8s.io", "RoleBinding"): path_segment,
    GroupKind("rbac.authorization.k8s.io", "ClusterRole"): path_segment,
    GroupKind("rbac.authorization.k8s.io", "ClusterRoleBinding"): path_segment,
}


def name_check(group_kind: GroupKind) -> NameCheck:
    """What Kubernetes asks of the name of a kind; Knative's webhooks may ask for more."""
    return _NAME_CHECKS.get(group_kind, dns1123_subdomain)


def check_metadata(obj: Obj, group_kind: GroupKind) -> list[Finding]:
    """What Kubernetes itself refuses in `metadata`, in the words of its 422 Invalid answers."""
    metadata = obj.get("metadata") or {}
    check = name_check(group_kind)
    found = []
    name, prefix = metadata.get("name") or "", metadata.get("generateName") or ""
    if name:
        found += [_invalid("metadata.name", name, what) for what in check(name)]
    elif not prefix:
        found.append(
            Finding(
                "metadata.name",
                "Required value: name or generateName is required",
                "FieldValueRequired",
            )
        )
    if prefix and not name:
        wrong = as_prefix(check)(prefix)
        found += [_invalid("metadata.generateName", prefix, what) for what in wrong]
    if namespace := metadata.get("namespace"):
        wrong = dns1123_label(namespace)
        found += [_invalid("metadata.namespace", namespace, what) for what in wrong]
    found += check_labels(metadata.get("labels") or {}, "metadata.labels")
    found += check_annotations(metadata.get("annotations") or {}, "metadata.annotations")
    for index, reference in enumerate(metadata.get("ownerReferences") or ()):
        path = f"metadata.ownerReferences[{index}]"
        for field in ("apiVersion", "kind", "name", "uid"):
            if not reference.get(field):
                found.append(_invalid(f"{path}.{field}", "", "must not be empty"))
    return found


def check_labels(labels: dict[str, str], path: str) -> list[Finding]:
    found = []
    for key, value in labels.items():
        found += [_invalid(path, key, what) for what in qualified_name(key)]
        found += [_invalid(path, value, what) for what in label_value(value)]
    return found


def check_annotations(annotations: dict[str, str], path: str) -> list[Finding]:
    found = []
    size = 0
    for key, value in annotations.items():
        found += [_invalid(path, key, what) for what in qualified_name(key.lower())]
        size += len(key.encode()) + len(value.encode())
    if size > MAX_ANNOTATIONS:
        message = f"Too long: may not be more than {MAX_ANNOTATIONS} bytes"
        found.append(Finding(path, message, "FieldValueTooLong"))
    return found


def _invalid(path: str, value: str, what: str) -> Finding:
    return Finding(path, f'Invalid value: "{value}": {what}')
