"""Validation of a revision's pod spec (knative.dev/serving/pkg/apis/serving/k8s_validation.go)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from knlocal.resources import field_errors as errors
from knlocal.resources import images, names, quantity
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.serving import masks, probes, volumes
from knlocal.resources.settings import Features
from knlocal.resources.settings.features import ENABLED

Spec = Mapping[str, Any]
Role = Literal["user", "sidecar", "init"]

_MAX_ID = (1 << 31) - 1
_RESERVED_NAMES = ("queue-proxy",)
_RESERVED_ENV = ("PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION")
#: queue-proxy's own: HTTP, HTTP/2, admin, autoscaling and user metrics, profiling.
_RESERVED_PORTS = (8012, 8013, 8022, 9090, 9091, 8008)
_PORT_NAMES = ("", "h2c", "http1")
_INSECURE = (
    "Kubernetes default value is insecure, Knative may default this to secure in a future release"
)


def pod_spec(spec: Spec, features: Features) -> FieldErrors:
    """What is wrong with the pod spec inlined in a RevisionSpec; holds warnings too."""
    containers: list[Spec] = spec.get("containers") or []
    init_containers: list[Spec] = spec.get("initContainers") or []
    pod_context: Spec | None = spec.get("securityContext")

    wrong = masks.pod_spec(spec, features)
    if pod_context is not None:
        found = _pod_security_context(pod_context, features)
        wrong.also(found.via_field("securityContext"))
    for field, group in (("containers", containers), ("initContainers", init_containers)):
        for index, container in enumerate(group):
            warning = _insecure_defaults(pod_context or {}, container.get("securityContext") or {})
            wrong.also(warning.via_field("securityContext").via_field_index(field, index))

    entries: list[Spec] = spec.get("volumes") or []
    mounted = {
        mount.get("name") or ""
        for container in (*init_containers, *containers)
        for mount in container.get("volumeMounts") or ()
    }
    wrong.also(volumes.volumes(entries, mounted, features).via_field("volumes"))
    pod = _Pod(features, {entry.get("name") or "": entry for entry in entries})

    wrong.also(_init_containers(init_containers, containers, pod))
    wrong.also(_ports_of(containers).via_field("containers[*]"))
    if not containers:
        wrong.also(errors.missing("containers"))
    elif len(containers) == 1:
        found = _container(containers[0], "user", pod, _port_name(containers))
        wrong.also(found.via_field_index("containers", 0))
    else:
        wrong.also(_containers(containers, pod))
    account = spec.get("serviceAccountName") or ""
    if account:
        for what in names.dns1123_subdomain(account):
            wrong.also(errors.invalid_value(account, "serviceAccountName", what))
    return wrong


@dataclass(frozen=True, slots=True)
class _Pod:
    """What the checks of a container need to know of its pod."""

    features: Features
    volumes: Mapping[str, Spec]


def _init_containers(found: list[Spec], others: list[Spec], pod: _Pod) -> FieldErrors:
    wrong = FieldErrors()
    if not found:
        return wrong
    if pod.features.pod_spec_init_containers != ENABLED:
        message = (
            f"pod spec support for init-containers is off, but found {len(found)} init containers"
        )
        return FieldErrors([errors.FieldError(message, ())])
    taken = {container.get("name") for container in others}
    for index, container in enumerate(found):
        problems = FieldErrors()
        if container.get("name") in taken:
            problems.also(_duplicate(container))
        taken.add(container.get("name"))
        problems.also(_container(container, "init", pod, ""))
        wrong.also(problems.via_field_index("initContainers", index))
    return wrong


def _containers(found: list[Spec], pod: _Pod) -> FieldErrors:
    if pod.features.multi_container != ENABLED:
        message = f"multi-container is off, but found {len(found)} containers"
        return FieldErrors([errors.FieldError(message, ())])
    wrong = FieldErrors()
    taken = set()
    for index, container in enumerate(found):
        problems = FieldErrors()
        if container.get("name") in taken:
            problems.also(_duplicate(container))
        taken.add(container.get("name"))
        role: Role = "user" if container.get("ports") else "sidecar"
        problems.also(_container(container, role, pod, _port_name(found)))
        wrong.also(problems.via_field_index("containers", index))
    return wrong


def _duplicate(container: Spec) -> FieldErrors:
    return errors.generic(f'duplicate container name "{container.get("name")}"', "name")


def _ports_of(containers: list[Spec]) -> FieldErrors:
    count = sum(len(container.get("ports") or ()) for container in containers)
    if count == 0 and len(containers) > 1:
        return errors.missing("ports")
    if count > 1:
        details = "Only a single port is allowed across all containers"
        return errors.generic("more than one container port is set", "ports", details=details)
    return FieldErrors()


def _port_name(containers: list[Spec]) -> str:
    ports = [port for container in containers for port in container.get("ports") or ()]
    return (ports[-1].get("name") if ports else "") or "http"


def _container(container: Spec, role: Role, pod: _Pod, port_name: str) -> FieldErrors:
    if not container:
        return errors.missing(errors.CURRENT_FIELD)
    features = pod.features
    if role == "user":
        wrong = probes.user_container(container, port_name)
    elif role == "sidecar":
        allowed = features.multi_container_probing == ENABLED
        wrong = probes.sidecar(container, allowed=allowed)
    else:
        wrong = probes.init_container(container)
    wrong.also(masks.disallowed(container, masks.CONTAINER))

    name = container.get("name") or ""
    if name in _RESERVED_NAMES:
        wrong.also(errors.generic(f'"{name}" is a reserved container name', "name"))
    wrong.also(_env(container.get("env") or [], role, features).via_field("env"))
    wrong.also(_env_from(container.get("envFrom") or []))
    wrong.also(_image(container.get("image") or ""))
    wrong.also(_ports(container.get("ports") or [], role).via_field("ports"))
    wrong.also(_resources(container.get("resources") or {}).via_field("resources"))
    if (context := container.get("securityContext")) is not None:
        wrong.also(_security_context(context, features).via_field("securityContext"))
    policy = container.get("terminationMessagePolicy") or ""
    if policy not in ("", "File", "FallbackToLogsOnError"):
        wrong.also(errors.invalid_value(policy, "terminationMessagePolicy"))
    found = volumes.mounts(container.get("volumeMounts") or [], pod.volumes, features)
    return wrong.also(found.via_field("volumeMounts"))


def _image(image: str) -> FieldErrors | None:
    if not image:
        return errors.missing("image")
    try:
        images.parse(image)
    except ValueError as error:
        details = f'image: "{image}", error: {error}'
        return errors.generic("Failed to parse image reference", "image", details=details)
    return None


def _env(variables: list[Spec], role: Role, features: Features) -> FieldErrors:
    reserved = [name for name in _RESERVED_ENV if role == "user" or name != "PORT"]
    wrong = FieldErrors()
    for index, variable in enumerate(variables):
        problems = masks.disallowed(variable, masks.ENV)
        name = variable.get("name") or ""
        if not name:
            problems.also(errors.missing("name"))
        elif name in reserved:
            message = f'"{name}" is a reserved environment variable'
            problems.also(errors.generic(message, "name"))
        if (source := variable.get("valueFrom")) is not None:
            found = masks.disallowed(source, masks.env_source(features))
            problems.also(found.via_field("valueFrom"))
        wrong.also(problems.via_index(index))
    return wrong


def _env_from(sources: list[Spec]) -> FieldErrors:
    wrong = FieldErrors()
    for index, source in enumerate(sources):
        problems = masks.disallowed(source, masks.ENV_FROM)
        given = [ref for ref in ("configMapRef", "secretRef") if source.get(ref) is not None]
        for ref in given:
            problems.also(masks.disallowed(source[ref], masks.ENV_FROM_REF).via_field(ref))
        wrong.also(problems.via_field_index("envFrom", index))
        # Knative names these two without the index.
        if len(given) == 2:
            wrong.also(errors.multiple_one_of("envFrom.configMapRef", "envFrom.secretRef"))
        elif not given:
            wrong.also(errors.missing_one_of("envFrom.configMapRef", "envFrom.secretRef"))
    return wrong


def _ports(ports: list[Spec], role: Role) -> FieldErrors:
    wrong = FieldErrors()
    if not ports:
        return wrong
    if role == "init":
        for port in ports:
            wrong.also(_port(port))
        return wrong
    port = ports[0]
    wrong.also(_port(port))
    protocol = port.get("protocol") or ""
    if protocol not in ("", "TCP"):
        wrong.also(errors.invalid_value(protocol, "protocol"))
    name = port.get("name") or ""
    if name not in _PORT_NAMES:
        wrong.also(
            errors.generic(
                f"Port name {name} is not allowed",
                errors.CURRENT_FIELD,
                details="Name must be empty, or one of: 'h2c', 'http1'",
            )
        )
    return wrong


def _port(port: Spec) -> FieldErrors:
    wrong = masks.disallowed(port, masks.PORT)
    number = port.get("containerPort") or 0
    if number in _RESERVED_PORTS:
        wrong.also(
            errors.invalid_value(
                f"{number} is a reserved port",
                "containerPort",
                f"{number} is a reserved port, please use a different value",
            )
        )
    if not 0 <= number <= 65535:
        wrong.also(errors.out_of_bounds(number, 0, 65535, "containerPort"))
    return wrong


def _resources(resources: Spec) -> FieldErrors:
    wrong = masks.disallowed(resources, masks.RESOURCES)
    for field in ("requests", "limits"):
        for name, value in (resources.get(field) or {}).items():
            try:
                quantity.parse(value)
            except ValueError as error:
                wrong.also(errors.invalid_value(value, f"{field}.{name}", str(error)))
    return wrong


def _ids(context: Spec, *fields: str) -> FieldErrors:
    wrong = FieldErrors()
    for field in fields:
        value = context.get(field)
        if value is not None and not 0 <= value <= _MAX_ID:
            wrong.also(errors.out_of_bounds(value, 0, _MAX_ID, field))
    return wrong


def _security_context(context: Spec, features: Features) -> FieldErrors:
    wrong = masks.security_context(context)
    if (capabilities := context.get("capabilities")) is not None:
        found = masks.capabilities(capabilities, features)
        wrong.also(found.via_field("capabilities"))
    return wrong.also(_ids(context, "runAsUser", "runAsGroup"))


def _pod_security_context(context: Spec, features: Features) -> FieldErrors:
    wrong = masks.pod_security_context(context, features)
    wrong.also(_ids(context, "runAsUser", "runAsGroup", "fsGroup"))
    for index, group in enumerate(context.get("supplementalGroups") or ()):
        if not 0 <= group <= _MAX_ID:
            found = errors.out_of_bounds(group, 0, _MAX_ID, errors.CURRENT_FIELD)
            wrong.also(found.via_field_index("supplementalGroups", index))
    return wrong


def _insecure_defaults(pod: Spec, context: Spec) -> FieldErrors:
    """Warnings about what Kubernetes leaves open unless told otherwise; a choice once made, even
    a dangerous one, is not commented on."""
    fields = []
    if pod.get("runAsNonRoot") is None and context.get("runAsNonRoot") is None:
        fields.append("runAsNonRoot")
    if context.get("allowPrivilegeEscalation") is None:
        fields.append("allowPrivilegeEscalation")
    profiles = (pod.get("seccompProfile"), context.get("seccompProfile"))
    if profiles == (None, None):
        fields.append("seccompProfile")
    elif not any((profile or {}).get("type") for profile in profiles):
        fields.append("seccompProfile.type")
    wrong = FieldErrors()
    capabilities = context.get("capabilities")
    if capabilities is None:
        fields.append("capabilities")
    elif capabilities.get("drop") is None:
        fields.append("capabilities.drop")
    elif capabilities["drop"][:1] == ["all"]:
        wrong.also(errors.invalid_value("all", "capabilities.drop", "Must be spelled as 'ALL'"))
    if fields:
        wrong.also(errors.generic(_INSECURE, *fields))
    return wrong.at_warning_level()
