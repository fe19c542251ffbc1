"""LimitRanges: what containers get when they do not say, and what they may ask for at most
(k8s.io/kubernetes plugin/pkg/admission/limitranger)."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from knlocal.resources import quantity
from knlocal.resources.base import Obj, meta, spec_of
from knlocal.resources.status import Forbidden
from knlocal.store.store import AdmissionHook, AdmissionRequest, Store
from knlocal.workloads.admission import pod_requests
from knlocal.workloads.terms import CLAIM, LIMIT_RANGE, POD

Amounts = dict[str, str]
"""Resource name → quantity."""


def limit_admission(store: Store) -> AdmissionHook:
    """The admission hook. It must run before quotas are looked at."""

    def admit(request: AdmissionRequest) -> None:
        kind = request.kind.group_kind
        if request.operation != "CREATE" or request.subresource or kind not in (POD, CLAIM):
            return
        obj, namespace = request.obj, request.obj["metadata"].get("namespace") or ""
        ranges = store.list(LIMIT_RANGE, namespace)
        if kind == POD:
            for limit_range in ranges:
                _set_defaults(obj, limit_range)
        problems = [
            problem
            for limit_range in ranges
            for item in spec_of(limit_range).get("limits") or ()
            for problem in (_of_pod(obj, item) if kind == POD else _of_claim(obj, item))
        ]
        if problems:
            name = meta(obj).get("name") or meta(obj).get("generateName") or ""
            said = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
            raise Forbidden(
                f'{request.kind.resource} "{name}" is forbidden: {said}',
                kind=request.kind.plural,
                name=name,
            )

    return admit


# -- defaults -------------------------------------------------------------------------------------


def _set_defaults(pod: Obj, limit_range: Obj) -> None:
    for item in spec_of(limit_range).get("limits") or ():
        if item.get("type") != "Container":
            continue
        limits, requests = _defaults(item)
        for container in _containers(pod):
            resources = container.setdefault("resources", {})
            given = resources.get("limits") or {}
            # A limit that was given is a request, too, before any default is.
            asked = given | (resources.get("requests") or {})
            for section, amounts in (("limits", limits | given), ("requests", requests | asked)):
                if amounts:
                    resources[section] = amounts


def _defaults(item: Obj) -> tuple[Amounts, Amounts]:
    """Default limits and requests, completed from each other
    (pkg/apis/core/v1/defaults.go SetDefaults_LimitRangeItem)."""
    most, least = item.get("max") or {}, item.get("min") or {}
    limits = dict(most) | (item.get("default") or {})
    requests = dict(least) | limits | (item.get("defaultRequest") or {})
    return limits, requests


# -- limits ---------------------------------------------------------------------------------------


def _of_pod(pod: Obj, item: Obj) -> Iterator[str]:
    if item.get("type") == "Container":
        for container in _containers(pod):
            resources = container.get("resources") or {}
            yield from _problems(
                item, resources.get("requests") or {}, resources.get("limits") or {}
            )
    elif item.get("type") == "Pod":
        yield from _problems(item, _sum(pod, "requests"), _sum(pod, "limits"))


def _of_claim(claim: Obj, item: Obj) -> Iterator[str]:
    if item.get("type") != "PersistentVolumeClaim":
        return
    requests = (spec_of(claim).get("resources") or {}).get("requests") or {}
    for name, most in (item.get("max") or {}).items():
        if name not in requests:
            yield f"maximum {name} usage per {item['type']} is {most}.  No request is specified"
        elif quantity.parse(requests[name]) > quantity.parse(most):
            yield _beyond("maximum", name, item, most, "request", requests[name])
    for name, least in (item.get("min") or {}).items():
        if name not in requests:
            yield f"minimum {name} usage per {item['type']} is {least}.  No request is specified"
        elif quantity.parse(requests[name]) < quantity.parse(least):
            yield _beyond("minimum", name, item, least, "request", requests[name])


def _problems(item: Obj, requests: Amounts, limits: Amounts) -> Iterator[str]:
    type_ = item["type"]
    for name, least in (item.get("min") or {}).items():
        bound = quantity.parse(least)
        if name not in requests:
            yield f"minimum {name} usage per {type_} is {least}.  No request is specified"
        elif quantity.parse(requests[name]) < bound:
            yield _beyond("minimum", name, item, least, "request", requests[name])
        if name in limits and quantity.parse(limits[name]) < bound:
            yield _beyond("minimum", name, item, least, "limit", limits[name])
    for name, most in (item.get("max") or {}).items():
        bound = quantity.parse(most)
        if name not in limits:
            yield f"maximum {name} usage per {type_} is {most}.  No limit is specified"
        elif quantity.parse(limits[name]) > bound:
            yield _beyond("maximum", name, item, most, "limit", limits[name])
        if name in requests and quantity.parse(requests[name]) > bound:
            yield _beyond("maximum", name, item, most, "request", requests[name])
    for name, ratio in (item.get("maxLimitRequestRatio") or {}).items():
        yield from _ratio(name, ratio, type_, requests, limits)


def _ratio(name: str, most: str, type_: str, requests: Amounts, limits: Amounts) -> Iterator[str]:
    said = f"{name} max limit to request ratio per {type_} is {most}, but"
    request, limit = quantity.parse(requests.get(name, 0)), quantity.parse(limits.get(name, 0))
    if not request:
        yield f"{said} no request is specified or request is 0"
    elif not limit:
        yield f"{said} no limit is specified or limit is 0"
    elif limit / request > quantity.parse(most):
        yield f"{said} provided ratio is {float(limit / request):f}"


def _beyond(word: str, name: str, item: Obj, bound: str, what: str, value: str) -> str:
    return f"{word} {name} usage per {item['type']} is {bound}, but {what} is {value}"


def _sum(pod: Obj, section: str) -> Amounts:
    """Of all containers of a pod, for what each of them names."""
    named: dict[str, Decimal] = {}
    for container in _containers(pod):
        for name in (container.get("resources") or {}).get(section) or {}:
            named[name] = pod_requests(pod, name, section)
    return {
        name: quantity.format_quantity(amount, "decimal" if name == "cpu" else "binary")
        for name, amount in named.items()
    }


def _containers(pod: Obj) -> list[Obj]:
    spec = spec_of(pod)
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
