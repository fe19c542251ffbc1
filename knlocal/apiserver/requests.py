"""What a request to the Kubernetes API asks for, read from its method, path and query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from knlocal.apiserver.users import User
from knlocal.resources.base import GroupKind, Obj
from knlocal.resources.core.events import CORE_EVENT, EVENTS_V1
from knlocal.resources.kinds import Kind
from knlocal.resources.status import BadRequest, Invalid, NotFound
from knlocal.store.store import WriteOptions

#: Kinds that are another face of a stored kind.
_KEPT_AS = {EVENTS_V1.group_kind: CORE_EVENT}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Target:
    """The resource that a path names."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    #: What follows the subresource (`proxy/some/path`).
    rest: str = ""
    watch: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


def parse_path(path: str) -> Target | None:
    """The target of `/api/v1/…` or `/apis/<group>/<version>/…`; None for other paths.

    The old `/watch/` prefix is understood.
    """
    parts = [part for part in path.split("/") if part]
    if len(parts) >= 3 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    watch = rest[0] == "watch" and len(rest) > 1
    if watch:
        rest = rest[1:]
    namespace = ""
    # `/namespaces/x` is the Namespace itself, so are its own subresources.
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest[:3], "", "", "")[:3]
    if plural == "namespaces" and not group:
        namespace = ""
    return Target(
        group, version, plural, namespace, name, subresource, "/".join(rest[3:]), watch
    )  # fmt: skip


class Query:
    """Query parameters; only the first of several with one name counts."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def text(self, name: str, default: str = "") -> str:
        return self._values.get(name, default)

    def flag(self, name: str) -> bool:
        """`true`, `1` or the bare name; anything else is false."""
        return name in self._values and self._values[name].lower() not in ("false", "0")

    def integer(self, name: str) -> int | None:
        """Raises BadRequest for what is not a number."""
        text = self._values.get(name, "")
        if not text:
            return None
        try:
            return int(text)
        except ValueError:
            raise BadRequest(
                f'strconv.ParseInt: parsing "{text}": invalid syntax (query parameter {name})'
            ) from None

    def all(self, name: str) -> list[str]:
        getall = getattr(self._values, "getall", None)
        return list(getall(name, [])) if getall else []


@dataclass(slots=True)
class ApiWriteOptions(WriteOptions):
    """A write that came through the API: its field manager is recorded in `managedFields`."""

    manager: str = ""
    #: The API version in which the manager named its fields.
    api_version: str = ""
    #: managedFields are already worked out.
    tracked: bool = False


@dataclass(slots=True)
class ApiRequest:
    """One understood request for a resource."""

    http: web.BaseRequest
    target: Target
    kind: Kind
    user: User
    query: Query
    warnings: list[str] = field(default_factory=list)

    @property
    def verb(self) -> str:
        """The verb as RBAC and discovery name it."""
        if self.http.method in ("GET", "HEAD"):
            if self.watching:
                return "watch"
            return "get" if self.target.name else "list"
        if self.http.method == "DELETE" and not self.target.name:
            return "deletecollection"
        return _VERBS.get(self.http.method, "")

    @property
    def watching(self) -> bool:
        return self.target.watch or self.query.flag("watch")

    @property
    def group_kind(self) -> GroupKind:
        """What the store keeps for this kind."""
        return _KEPT_AS.get(self.kind.group_kind, self.kind.group_kind)

    @property
    def namespace(self) -> str | None:
        """The namespace for the store: None means all of them."""
        if not self.kind.namespaced:
            return ""
        return self.target.namespace or None

    def write_options(self) -> ApiWriteOptions:
        """Raises Invalid for values of `dryRun` and `fieldValidation` that do not exist."""
        problems = []
        dry_run = self.query.all("dryRun")
        if any(value != "All" for value in dry_run):
            problems.append(_unsupported("dryRun", dry_run, '"All"'))
        validation: Any = self.query.text("fieldValidation") or "Ignore"
        if validation not in ("Ignore", "Warn", "Strict"):
            problems.append(
                _unsupported("fieldValidation", validation, '"Ignore", "Strict", "Warn"')
            )
        if problems:
            raise Invalid(
                f'{self.verb.capitalize()}Options.meta.k8s.io "" is invalid: '
                + ", ".join(problems),
                group="meta.k8s.io", kind=f"{self.verb.capitalize()}Options",
            )  # fmt: skip
        return ApiWriteOptions(
            user=self.user.name, dry_run=bool(dry_run), field_validation=validation,
            warnings=self.warnings, manager=self.manager, api_version=self.target.api_version,
        )  # fmt: skip

    @property
    def manager(self) -> str:
        """The field manager: as asked for, else the program's name from its User-Agent."""
        agent = self.http.headers.get("User-Agent", "").partition("/")[0]
        return (self.query.text("fieldManager") or agent or "unknown")[:128]


class NoSuchSubresource(NotFound):
    """Names no object: clients tell from the empty details that the whole thing is not there."""

    usual = "the server could not find the requested resource"

    def to_status(self) -> Obj:
        return {**super().to_status(), "details": {}}


def _unsupported(name: str, value: object, known: str) -> str:
    shown = ", ".join(value) if isinstance(value, list) else value
    return f'{name}: Unsupported value: "{shown}": supported values: {known}'
