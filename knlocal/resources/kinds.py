"""The registry of kinds: everything the API, the store and the command line know about a kind.

One module per API group builds its `Kind`s and `knlocal.resources.catalog` registers them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from knlocal.resources.base import GroupKind, Obj
from knlocal.resources.field_errors import FieldErrors


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column, as `additionalPrinterColumns` of a CRD has it.

    `path` is a JSONPath without braces (`.status.url`). Priority 0 columns always show, others
    only with `-o wide`.
    """

    name: str
    path: str
    type: str = "string"
    priority: int = 0
    description: str = ""
    format: str = ""


@dataclass(frozen=True, slots=True)
class AdmissionContext:
    """What defaulting and validation may look at beside the object: never I/O.

    `configs` maps a ConfigMap of the Knative system namespaces to its `data`, keyed
    "knative-serving/config-defaults". `old` is None on create. `subresource` is "" or "status".
    """

    user: str
    now: datetime
    configs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    old: Obj | None = None
    subresource: str = ""
    dry_run: bool = False

    @property
    def is_create(self) -> bool:
        return self.old is None

    def config(self, name: str, namespace: str = "knative-serving") -> Mapping[str, str]:
        return self.configs.get(f"{namespace}/{name}", {})


Defaulter = Callable[[Obj, AdmissionContext], None]
"""Fills in defaults, in place."""

Validator = Callable[[Obj, AdmissionContext], FieldErrors]
"""What is wrong with the (already defaulted) object; empty when nothing is. May hold warnings."""


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """One kind of object in one version.

    `schema` is the structural OpenAPI v3 schema of the whole object (`$ref`s into
    `knlocal.resources.schema.definitions()` allowed): what is not in it is pruned, and reported
    when the client asks for strict field validation. `storage` is False for a version that only
    converts: `to_storage` and `from_storage` then turn an object into the stored version and back.
    `webhook` names the admission webhook in rejections, as Knative's do
    ("validation.webhook.serving.knative.dev"); "" means Kubernetes' own 422 Invalid shape.
    """

    group: str
    version: str
    kind: str
    plural: str
    schema: Mapping[str, Any]
    singular: str = ""
    list_kind: str = ""
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    verbs: tuple[str, ...] = (
        "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch",
    )  # fmt: skip
    has_status: bool = True
    has_scale: bool = False
    #: Where the desired and the present number of replicas are, and the selector as text; without
    #: the last, `spec.selector` is a label selector. JSONPaths of plain names (`.spec.replicas`).
    scale_paths: tuple[str, str, str] = (".spec.replicas", ".status.replicas", "")
    #: True for kinds that Knative installs as CRDs: no strategic merge patch, listed as CRDs.
    is_custom: bool = True
    storage: bool = True
    webhook: str = ""
    default: Defaulter | None = None
    validate: Validator | None = None
    #: Whether `validate` is asked about writes of the status alone, too (users' CRDs).
    validates_status: bool = False
    to_storage: Callable[[Obj], Obj] | None = None
    from_storage: Callable[[Obj], Obj] | None = None
    #: Labels and annotations of the CustomResourceDefinition object shown for this kind.
    crd_labels: Mapping[str, str] = field(default_factory=dict)
    crd_annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_kind(self) -> GroupKind:
        return GroupKind(self.group, self.kind)

    @property
    def resource(self) -> str:
        """`services.serving.knative.dev`, or `pods` in the core group: the name in messages."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def singular_name(self) -> str:
        return self.singular or self.kind.lower()

    @property
    def list_name(self) -> str:
        return self.list_kind or f"{self.kind}List"


class KindRegistry:
    """All kinds, found by whatever a client has in hand. Later ones may be added (user CRDs)."""

    def __init__(self, kinds: Iterable[Kind] = ()) -> None:
        self._by_version: dict[tuple[str, str, str], Kind] = {}
        self._by_path: dict[tuple[str, str, str], Kind] = {}
        self._stored: dict[GroupKind, Kind] = {}
        for kind in kinds:
            self.add(kind)

    def __iter__(self) -> Iterator[Kind]:
        return iter(list(self._by_version.values()))

    def add(self, kind: Kind) -> None:
        self._by_version[kind.group, kind.version, kind.kind] = kind
        self._by_path[kind.group, kind.version, kind.plural] = kind
        if kind.storage:
            self._stored[kind.group_kind] = kind

    def remove(self, kind: Kind) -> None:
        self._by_version.pop((kind.group, kind.version, kind.kind), None)
        self._by_path.pop((kind.group, kind.version, kind.plural), None)
        if self._stored.get(kind.group_kind) is kind:
            del self._stored[kind.group_kind]

    def by_version(self, api_version: str, kind: str) -> Kind | None:
        group, _, version = api_version.rpartition("/")
        return self._by_version.get((group, version, kind))

    def by_path(self, group: str, version: str, plural: str) -> Kind | None:
        return self._by_path.get((group, version, plural))

    def stored(self, group_kind: GroupKind) -> Kind | None:
        """The version in which the store keeps this group and kind."""
        return self._stored.get(group_kind)

    def by_name(self, word: str) -> list[Kind]:
        """Stored kinds that a person may mean by `word`: plural, singular, kind, short name, or
        `plural.group`; case does not matter. Knative's come before Kubernetes' own."""
        word = word.lower()
        bare, _, group = word.partition(".")
        found = []
        for kind in self._stored.values():
            names = {kind.plural, kind.singular_name, kind.kind.lower(), *kind.short_names}
            if word in names or (bare in names and group and kind.group.startswith(group)):
                found.append(kind)
        return sorted(found, key=lambda kind: not kind.is_custom)
