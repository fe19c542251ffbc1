"""Defaulting of serving kinds (knative.dev/serving/pkg/apis/serving/v1/*_defaults.go)."""

from __future__ import annotations

from typing import Any

from knlocal.resources import names, quantity
from knlocal.resources.base import Obj, meta, spec_of
from knlocal.resources.kinds import AdmissionContext
from knlocal.resources.serving.metadata import is_owned, set_user_info
from knlocal.resources.settings import Defaults, Features, ObjectMetaValues, of_context
from knlocal.resources.settings.features import ALLOW_ROOT_BOUNDED, ENABLED

Spec = dict[str, Any]

_PROBES = ("readinessProbe", "livenessProbe", "startupProbe")
_HANDLERS = ("httpGet", "tcpSocket", "exec", "grpc")
_WRITABLE_SOURCES = ("emptyDir", "persistentVolumeClaim", "ephemeral")


# --- whole objects -------------------------------------------------------------------------------


def service(obj: Obj, ctx: AdmissionContext) -> None:
    if ctx.subresource == "status":
        return
    spec = obj.setdefault("spec", {})
    _template_of(obj, spec, ctx)
    if not spec.get("traffic"):
        spec["traffic"] = [{"latestRevision": True, "percent": 100}]
    _traffic(spec)
    set_user_info(obj, ctx)


def configuration(obj: Obj, ctx: AdmissionContext) -> None:
    if ctx.subresource == "status":
        return
    _template_of(obj, obj.setdefault("spec", {}), ctx)
    if not is_owned(obj):
        set_user_info(obj, ctx)


def revision(obj: Obj, ctx: AdmissionContext) -> None:
    if not ctx.is_create:  # the spec is immutable: nothing may be filled in later
        return
    _revision_spec(obj.setdefault("spec", {}), ctx, ObjectMetaValues())


def route(obj: Obj, ctx: AdmissionContext) -> None:
    if ctx.subresource == "status":
        return
    _traffic(obj.setdefault("spec", {}))
    if not is_owned(obj):
        set_user_info(obj, ctx)


def domain_mapping(obj: Obj, ctx: AdmissionContext) -> None:
    if ctx.subresource == "status":
        return
    ref = obj.setdefault("spec", {}).setdefault("ref", {})
    namespace = meta(obj).get("namespace")
    if not ref.get("namespace") and namespace:
        ref["namespace"] = namespace
    set_user_info(obj, ctx)


# --- parts ---------------------------------------------------------------------------------------


def _template_of(obj: Obj, spec: Spec, ctx: AdmissionContext) -> None:
    template = spec.setdefault("template", {})
    metadata = template.get("metadata")
    if metadata is not None:
        _drop_empty(metadata, "labels", "annotations", "name", "generateName", "namespace")
        if not metadata:
            del template["metadata"]
    revision_spec = template.setdefault("spec", {})
    _normalise(revision_spec)
    if ctx.old is not None:
        name = (metadata or {}).get("name")
        before = (spec_of(ctx.old).get("template") or {}).get("metadata") or {}
        if name and name == before.get("name"):
            # A revision brought by name stays as it was made, whatever the defaults are now.
            return
    parent = meta(obj)
    values = ObjectMetaValues(
        parent.get("name") or "",
        parent.get("generateName") or "",
        parent.get("namespace") or "",
        parent.get("labels") or {},
        parent.get("annotations") or {},
    )
    _revision_spec(revision_spec, ctx, values)


def _traffic(spec: Spec) -> None:
    for target in spec.get("traffic") or ():
        _drop_empty(target, "revisionName", "configurationName", "tag", "url")
        target.setdefault("latestRevision", not target.get("revisionName"))
        target.setdefault("percent", 0)


def _revision_spec(spec: Spec, ctx: AdmissionContext, parent: ObjectMetaValues) -> None:
    config = of_context(Defaults, ctx)
    _normalise(spec)
    if not spec.get("timeoutSeconds"):
        spec["timeoutSeconds"] = config.revision_timeout_seconds
    for field, default in (
        ("idleTimeoutSeconds", config.revision_idle_timeout_seconds),
        ("responseStartTimeoutSeconds", config.revision_response_start_timeout_seconds),
    ):
        if field not in spec and default and default < spec["timeoutSeconds"]:
            spec[field] = default
    spec.setdefault("containerConcurrency", config.container_concurrency)

    containers: list[Spec] = spec.get("containers") or []
    init_containers: list[Spec] = spec.get("initContainers") or []
    taken = {container.get("name", "") for container in (*containers, *init_containers)}
    _container_names(containers, taken, config.user_container_name(parent))
    _container_names(init_containers, taken, config.init_container_name(parent))
    for container in containers:
        _container(container, spec, config)
        if ctx.is_create and config.enable_service_links is not None:
            spec.setdefault("enableServiceLinks", config.enable_service_links)
    features = of_context(Features, ctx)
    for container in (*containers, *init_containers):
        _security_context(container, spec.get("securityContext") or {}, features)


def _container_names(containers: list[Spec], taken: set[str], default: str) -> None:
    suffix = 0
    for container in containers:
        if container.get("name"):
            continue
        name = default
        if len(containers) > 1 or name in taken:
            while True:
                name = names.child_name(default, f"-{suffix}")
                suffix += 1
                if name not in taken:
                    break
        container["name"] = name


def _container(container: Spec, spec: Spec, config: Defaults) -> None:
    resources = container.setdefault("resources", {})
    for field, what in (("requests", "request"), ("limits", "limit")):
        defaults = config.resources(what)
        if defaults:
            resources[field] = {**defaults, **(resources.get(field) or {})}
    if len(spec.get("containers") or ()) == 1 or container.get("ports"):
        probe = container.setdefault("readinessProbe", {})
        if not any(probe.get(handler) is not None for handler in _HANDLERS):
            probe["tcpSocket"] = {"port": 0}
    if (probe := container.get("readinessProbe")) is not None:
        if not probe.get("successThreshold"):
            probe["successThreshold"] = 1
        if probe.get("periodSeconds"):
            probe["failureThreshold"] = probe.get("failureThreshold") or 3
            probe["timeoutSeconds"] = probe.get("timeoutSeconds") or 1
    writable = {
        volume.get("name")
        for volume in spec.get("volumes") or ()
        if any(volume.get(source) is not None for source in _WRITABLE_SOURCES)
    }
    for mount in container.get("volumeMounts") or ():
        if mount.get("name") not in writable:
            mount["readOnly"] = True


def _security_context(container: Spec, pod: Spec, features: Features) -> None:
    """The "restricted" profile, when `secure-pod-defaults` asks for it."""
    if features.secure_pod_defaults not in (ENABLED, ALLOW_ROOT_BOUNDED):
        return
    context = container.setdefault("securityContext", {})
    context.setdefault("allowPrivilegeEscalation", False)
    if not (pod.get("seccompProfile") or {}).get("type"):
        profile = context.setdefault("seccompProfile", {})
        if not profile.get("type"):
            profile["type"] = "RuntimeDefault"
    if context.get("capabilities") is None:
        context["capabilities"] = {"drop": ["ALL"]}
        if any(port.get("containerPort", 0) < 1024 for port in container.get("ports") or ()):
            context["capabilities"]["add"] = ["NET_BIND_SERVICE"]
    if features.secure_pod_defaults == ENABLED and pod.get("runAsNonRoot") is None:
        context.setdefault("runAsNonRoot", True)


# --- one form for what means the same ------------------------------------------------------------


def _normalise(spec: Spec) -> None:
    """Bring a pod spec into the form that Go's types would write it in.

    Empty lists and strings go, quantities get their canonical spelling, ports that Go always
    writes are written: so an update that says the same in other words changes nothing.
    """
    _drop_empty(
        spec,
        *("volumes", "imagePullSecrets", "initContainers", "serviceAccountName", "nodeSelector"),
        *("tolerations", "hostAliases", "topologySpreadConstraints", "priorityClassName"),
        *("schedulerName", "dnsPolicy", "hostIPC", "hostPID", "hostNetwork"),
    )
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        if isinstance(container, dict):
            _normalise_container(container)


def _normalise_container(container: Spec) -> None:
    _drop_empty(
        container,
        *("name", "args", "command", "env", "envFrom", "ports", "volumeMounts", "workingDir"),
        *("imagePullPolicy", "terminationMessagePath", "terminationMessagePolicy"),
        *("stdin", "stdinOnce", "tty", "volumeDevices"),
    )
    resources = container.get("resources")
    if isinstance(resources, dict):
        _drop_empty(resources, "requests", "limits", "claims")
        for field in ("requests", "limits"):
            if isinstance(resources.get(field), dict):
                resources[field] = {k: _quantity(v) for k, v in resources[field].items()}
    for port in container.get("ports") or ():
        port.setdefault("containerPort", 0)
        port.setdefault("protocol", "TCP")
        _drop_empty(port, "name", "hostPort", "hostIP")
    for field in _PROBES:
        if isinstance(container.get(field), dict):
            _normalise_probe(container[field])
    for mount in container.get("volumeMounts") or ():
        _drop_empty(mount, "readOnly", "subPath", "subPathExpr")


def _normalise_probe(probe: Spec) -> None:
    _drop_empty(
        probe,
        *("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold"),
        "failureThreshold",
    )
    for handler in ("httpGet", "tcpSocket", "grpc"):
        if isinstance(probe.get(handler), dict):
            probe[handler].setdefault("port", 0)
    if isinstance(probe.get("grpc"), dict):
        probe["grpc"].setdefault("service", "")


def _quantity(value: Any) -> Any:
    try:
        return quantity.canonical(value)
    except ValueError:
        return value  # validation says what is wrong with it


def _drop_empty(holder: Spec, *fields: str) -> None:
    for field in fields:
        if field in holder and not holder[field]:
            del holder[field]
