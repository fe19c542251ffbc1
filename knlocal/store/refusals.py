"""What the store refuses, in Kubernetes' words."""

from __future__ import annotations

from collections.abc import Sequence

from knlocal.resources.base import GroupKind, Obj
from knlocal.resources.kinds import Kind
from knlocal.resources.schema import Finding
from knlocal.resources.status import Conflict, Invalid, NotFound


def not_found(group_kind: GroupKind, kind: Kind | None, name: str) -> NotFound:
    plural = kind.plural if kind else group_kind.kind.lower()
    resource = kind.resource if kind else plural
    return NotFound(
        f'{resource} "{name}" not found', group=group_kind.group, kind=plural, name=name
    )


def conflict(kind: Kind, name: str, why: str) -> Conflict:
    return Conflict(
        f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}',
        group=kind.group, kind=kind.plural, name=name,
    )  # fmt: skip


def precondition_failed(kind: Kind, name: str, field: str, wanted: str, has: str) -> Conflict:
    """`field` is "UID" or "ResourceVersion"."""
    return conflict(
        kind, name,
        f"Precondition failed: {field} in precondition: {wanted}, {field} in object meta: {has}",
    )  # fmt: skip


def invalid(kind: Kind, obj: Obj, problems: Sequence[Finding]) -> Invalid:
    name = (obj.get("metadata") or {}).get("name") or ""
    resource = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    said = [str(problem) for problem in problems]
    text = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    causes = [
        {"reason": problem.reason, "message": problem.message, "field": problem.path}
        for problem in problems
    ]
    return Invalid(
        f'{resource} "{name}" is invalid: {text}',
        group=kind.group, kind=kind.kind, name=name, causes=causes,
    )  # fmt: skip
