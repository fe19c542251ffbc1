"""What only eventing can check when an object comes in: whether its CESQL expressions parse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from knlocal.eventing.filters import cesql_problem
from knlocal.resources import field_errors as errors
from knlocal.resources.base import GroupKind, is_deleting, spec_of
from knlocal.resources.ducks import EVENTING_WEBHOOK
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.status import BadRequest
from knlocal.store.store import AdmissionRequest

_FILTERED = frozenset(
    {
        GroupKind("eventing.knative.dev", "Trigger"),
        GroupKind("eventing.knative.dev", "EventPolicy"),
        GroupKind("sources.knative.dev", "ApiServerSource"),
    }
)


def check_expressions(request: AdmissionRequest) -> None:
    """An admission hook: refuses filters with expressions that do not parse (behaviour E29)."""
    if request.kind.group_kind not in _FILTERED or is_deleting(request.obj):
        return
    found = FieldErrors()
    for path, text in _expressions(spec_of(request.obj).get("filters"), "spec.filters"):
        problem = cesql_problem(text)
        if problem:
            found.also(errors.invalid_value(text, path, problem))
    if found:
        raise BadRequest(
            f'admission webhook "{EVENTING_WEBHOOK}" denied the request: validation failed: {found}'
        )


def _expressions(filters: Any, path: str) -> Iterator[tuple[str, str]]:
    for index, element in enumerate(filters if isinstance(filters, list) else []):
        yield from _expressions_in(element, f"{path}[{index}]")


def _expressions_in(element: Any, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(element, dict):
        return
    if isinstance(element.get("cesql"), str) and element["cesql"]:
        yield f"{path}.cesql", element["cesql"]
    for name in ("all", "any"):
        yield from _expressions(element.get(name), f"{path}.{name}")
    yield from _expressions_in(element.get("not"), f"{path}.not")
