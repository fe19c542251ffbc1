"""sinks.knative.dev: JobSink and IntegrationSink (behaviours E71–E74)."""

from __future__ import annotations

from typing import Any, TypedDict

from knlocal.resources import ducks
from knlocal.resources import field_errors as errors
from knlocal.resources.base import Obj, copy
from knlocal.resources.core import message_fields  # the core package registers its definitions
from knlocal.resources.ducks import AGE, READY, REASON, URL, AddressStatus
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.kinds import AdmissionContext, Kind
from knlocal.resources.schema import check_types, definition, kind_schema, prune
from knlocal.resources.sources import AwsAuth, validate_aws

GROUP = "sinks.knative.dev"
EXECUTION_MODE = {"name": "K_EXECUTION_MODE", "value": "batch"}

JOB_DEFINITION = "io.k8s.api.batch.v1.Job"
assert message_fields(JOB_DEFINITION), "Kubernetes' own types are there"


class JobSinkSpec(TypedDict, total=False):
    job: dict[str, Any]


class JobStatus(TypedDict, total=False):
    selector: str


class JobSinkStatus(AddressStatus, total=False):
    job: JobStatus


def _default_job_sink(obj: Obj, context: AdmissionContext) -> None:
    job = obj.setdefault("spec", {}).get("job") or {}
    pod = ((job.get("spec") or {}).get("template") or {}).get("spec") or {}
    for name in ("containers", "initContainers"):
        for container in pod.get(name) or []:
            env = container.get("env") or []
            if not any(entry.get("name") == EXECUTION_MODE["name"] for entry in env):
                container["env"] = [*env, dict(EXECUTION_MODE)]


def _validate_job_sink(obj: Obj, context: AdmissionContext) -> FieldErrors:
    job = (obj.get("spec") or {}).get("job")
    if not job:
        return errors.missing_one_of("job").via_field("spec")
    pod = ((job.get("spec") or {}).get("template") or {}).get("spec") or {}
    problems = []
    if not pod.get("containers"):
        problems.append("spec.template.spec.containers: Required value")
    for index, container in enumerate(pod.get("containers") or []):
        if not container.get("image"):
            problems.append(f"spec.template.spec.containers[{index}].image: Required value")
    if pod.get("restartPolicy") not in ("Never", "OnFailure"):
        problems.append(
            'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'
        )
    name = obj["metadata"].get("name", "")
    found = copy(job)
    wrong = check_types(found, definition(JOB_DEFINITION))
    if not wrong and (unknown := prune(found, definition(JOB_DEFINITION))):
        said = ", ".join(f'unknown field "{path}"' for path in unknown)
        message = f'Job in version "v1" cannot be handled as a Job: strict decoding error: {said}'
        return errors.generic(message, "spec.job")
    problems = [f"{finding.path}: {finding.message}" for finding in wrong] or problems
    if problems:
        said = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
        return errors.generic(f'Job.batch "{name}" is invalid: {said}', "spec.job")
    return FieldErrors()


JOB_SINK = Kind(
    group=GROUP,
    version="v1alpha1",
    kind="JobSink",
    plural="jobsinks",
    categories=("all", "knative", "sinks"),
    schema=kind_schema(JobSinkSpec, JobSinkStatus, description="Starts a Job for each event."),
    columns=(URL, AGE, READY, REASON),
    webhook=ducks.EVENTING_WEBHOOK,
    default=_default_job_sink,
    validate=_validate_job_sink,
    crd_labels={**ducks.RELEASE_LABELS, **ducks.ADDRESSABLE_LABEL},
)


class Log(TypedDict, total=False):
    loggerName: str
    level: str
    logMask: bool
    marker: str
    multiline: bool
    showAllProperties: bool
    showBody: bool
    showBodyType: bool
    showExchangePattern: bool
    showHeaders: bool
    showProperties: bool
    showStreams: bool
    showCachedStreams: bool


class AwsSinks(TypedDict, total=False):
    s3: dict[str, Any]
    sqs: dict[str, Any]
    sns: dict[str, Any]
    eventbridge: dict[str, Any]
    auth: AwsAuth


class IntegrationSinkSpec(TypedDict, total=False):
    log: Log
    aws: AwsSinks
    template: dict[str, Any]


_AWS_SINKS = {"s3": "arn", "sqs": "arn", "sns": "arn", "eventbridge": "arn"}


def _default_integration_sink(obj: Obj, context: AdmissionContext) -> None:
    log = obj.setdefault("spec", {}).get("log")
    if log is not None:
        log.setdefault("loggerName", "log-sink")
        log.setdefault("level", "INFO")
        log.setdefault("showHeaders", True)


def _validate_integration_sink(obj: Obj, context: AdmissionContext) -> FieldErrors:
    spec = obj.get("spec") or {}
    aws = spec.get("aws") or {}
    chosen = [name for name in _AWS_SINKS if aws.get(name) is not None]
    count = len(chosen) + (spec.get("log") is not None)
    found = FieldErrors()
    if count > 1:
        found.also(errors.generic("only one sink type can be set"))
    elif count == 0:
        found.also(errors.generic("at least one sink type must be specified"))
    elif chosen:
        found.also(validate_aws(aws, _AWS_SINKS))
    return found.via_field("spec")


INTEGRATION_SINK = Kind(
    group=GROUP,
    version="v1alpha1",
    kind="IntegrationSink",
    plural="integrationsinks",
    categories=("all", "knative", "sinks"),
    schema=kind_schema(
        IntegrationSinkSpec, AddressStatus, description="Hands events to third-party systems."
    ),
    columns=(URL, AGE, READY, REASON),
    webhook=ducks.EVENTING_WEBHOOK,
    default=_default_integration_sink,
    validate=_validate_integration_sink,
    crd_labels={**ducks.RELEASE_LABELS, **ducks.ADDRESSABLE_LABEL},
)

KINDS: tuple[Kind, ...] = (JOB_SINK, INTEGRATION_SINK)
