"""flows.knative.dev: Sequence and Parallel."""

from __future__ import annotations

from typing import TypedDict

from knlocal.resources import ducks
from knlocal.resources import field_errors as errors
from knlocal.resources.base import Obj
from knlocal.resources.ducks import (
    AGE,
    READY,
    REASON,
    URL,
    AddressStatus,
    AuthStatus,
    ChannelTemplate,
    Condition,
    Delivery,
    Destination,
    KReference,
)
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.kinds import AdmissionContext, Kind
from knlocal.resources.messaging import default_channel_template
from knlocal.resources.schema import kind_schema

GROUP = "flows.knative.dev"


class Step(Destination, total=False):
    delivery: Delivery


class SequenceSpec(TypedDict, total=False):
    steps: list[Step]
    channelTemplate: ChannelTemplate
    reply: Destination


class ChannelChild(TypedDict, total=False):
    channel: KReference
    ready: Condition


class SubscriptionChild(TypedDict, total=False):
    subscription: KReference
    ready: Condition


class SequenceStatus(AddressStatus, total=False):
    subscriptionStatuses: list[SubscriptionChild]
    channelStatuses: list[ChannelChild]
    auth: AuthStatus


class Branch(TypedDict, total=False):
    filter: Destination
    subscriber: Destination
    reply: Destination
    delivery: Delivery


class ParallelSpec(TypedDict, total=False):
    branches: list[Branch]
    channelTemplate: ChannelTemplate
    reply: Destination


class BranchStatus(TypedDict, total=False):
    filterSubscriptionStatus: SubscriptionChild
    filterChannelStatus: ChannelChild
    subscriberSubscriptionStatus: SubscriptionChild


class ParallelStatus(AddressStatus, total=False):
    ingressChannelStatus: ChannelChild
    branchStatuses: list[BranchStatus]
    auth: AuthStatus


def _default_sequence(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    namespace = ducks.namespace_of(obj)
    if not spec.get("channelTemplate"):
        spec["channelTemplate"] = default_channel_template(context, namespace)
    for step in spec.get("steps") or []:
        ducks.default_destination(step, namespace)
        ducks.default_delivery(step.get("delivery"), namespace)
    ducks.default_destination(spec.get("reply"), namespace)


def _validate_sequence(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = obj.get("spec") or {}
    found = FieldErrors()
    steps = spec.get("steps") or []
    if not steps:
        found.also(errors.missing("steps"))
    for index, step in enumerate(steps):
        wrong = ducks.validate_destination(step)
        wrong.also(ducks.validate_delivery(step.get("delivery"), context).via_field("delivery"))
        found.also(wrong.via_field_index("steps", index))
    found.also(ducks.validate_channel_template(spec.get("channelTemplate")))
    if spec.get("reply") is not None:
        found.also(ducks.validate_destination(spec["reply"]).via_field("reply"))
    return found.via_field("spec")


def _default_parallel(obj: Obj, context: AdmissionContext) -> None:
    spec = obj.setdefault("spec", {})
    namespace = ducks.namespace_of(obj)
    if not spec.get("channelTemplate"):
        spec["channelTemplate"] = default_channel_template(context, namespace)
    for branch in spec.get("branches") or []:
        for name in ("filter", "subscriber", "reply"):
            ducks.default_destination(branch.get(name), namespace)
        ducks.default_delivery(branch.get("delivery"), namespace)
    ducks.default_destination(spec.get("reply"), namespace)


def _validate_parallel(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = obj.get("spec") or {}
    found = FieldErrors()
    branches = spec.get("branches") or []
    if not branches:
        found.also(errors.missing("branches"))
    for index, branch in enumerate(branches):
        wrong = FieldErrors()
        for name in ("filter", "reply"):
            if branch.get(name) is not None:
                wrong.also(ducks.validate_destination(branch[name]).via_field(name))
        wrong.also(ducks.validate_destination(branch.get("subscriber")).via_field("subscriber"))
        wrong.also(ducks.validate_delivery(branch.get("delivery"), context).via_field("delivery"))
        found.also(wrong.via_field_index("branches", index))
    found.also(ducks.validate_channel_template(spec.get("channelTemplate")))
    if spec.get("reply") is not None:
        found.also(ducks.validate_destination(spec["reply"]).via_field("reply"))
    return found.via_field("spec")


SEQUENCE = Kind(
    group=GROUP,
    version="v1",
    kind="Sequence",
    plural="sequences",
    categories=("all", "knative", "flows"),
    schema=kind_schema(SequenceSpec, SequenceStatus, description="Steps, one after the other."),
    columns=(URL, AGE, READY, REASON),
    webhook=ducks.EVENTING_WEBHOOK,
    default=_default_sequence,
    validate=_validate_sequence,
    crd_labels={**ducks.RELEASE_LABELS, **ducks.ADDRESSABLE_LABEL},
)

PARALLEL = Kind(
    group=GROUP,
    version="v1",
    kind="Parallel",
    plural="parallels",
    categories=("all", "knative", "flows"),
    schema=kind_schema(ParallelSpec, ParallelStatus, description="Branches, side by side."),
    columns=(URL, AGE, READY, REASON),
    webhook=ducks.EVENTING_WEBHOOK,
    default=_default_parallel,
    validate=_validate_parallel,
    crd_labels={**ducks.RELEASE_LABELS, **ducks.ADDRESSABLE_LABEL},
)

KINDS: tuple[Kind, ...] = (SEQUENCE, PARALLEL)
