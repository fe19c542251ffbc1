"""Turns the tables of `knlocal.toml` into the objects that YAML would make."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from knlocal.build.recipe import Deploy
from knlocal.project import envfile
from knlocal.project.eventing_objects import eventing_objects
from knlocal.project.manifests import Manifest
from knlocal.project.settings import (
    Container,
    Probe,
    Scale,
    Service,
    Settings,
    TrafficTarget,
    Volume,
)
from knlocal.resources import duration
from knlocal.resources.annotations import IDLE, RUN, SNAPSHOT
from knlocal.resources.base import Obj

SERVING = "serving.knative.dev/v1"
AUTOSCALING = "autoscaling.knative.dev"


ROLLBACK = "knlocal.dev/rollback"
"""On a Service: the revision that `rollback` chose; the next save takes over again."""

#: Those never leave the machine.
PRIVATE_PREFIX = "knlocal.dev/"


@dataclass(frozen=True, slots=True)
class Origin:
    """What a container with `source` or `run` became: an image, and how processes run it."""

    image: str
    annotations: Mapping[str, str] = field(default_factory=dict)
    """For the revision template."""
    run: Mapping[str, Any] | None = None
    """What the process runtime runs: `{"command": […], "dir": "…"}`."""
    snapshot: Mapping[str, str] | None = None
    """What is mounted over the image's copy of the source: `{"dir": "…", "target": "…"}`."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Further variables, which the service's own override."""
    deploy: Deploy = field(default_factory=Deploy)
    """What a func.yaml says; the project file's own words go before it."""
    command: tuple[str, ...] = ()
    """Replaces the image's own, where the service gives none (a debugger around the program)."""


Origins = Mapping[tuple[str, str], Origin]
"""By service and container name ("" is the main container)."""

FILE = "knlocal.toml"


def manifests(
    settings: Settings, origins: Origins | None = None, without: Collection[str] = ()
) -> list[Manifest]:
    """All objects of the project file, in the order in which they should be applied.

    `without` names services to leave out (they could not be built).
    """
    origins = origins or {}
    found = [Manifest(obj, f"{FILE} [{where}]") for where, obj in config_maps(settings)]
    for name, service in settings.services.items():
        if name in without:
            continue
        where = f"{FILE} [services.{name}]"
        found.append(Manifest(service_object(settings, name, service, origins), where))
        found += [Manifest(obj, where) for obj in _domains(settings, name, service)]
        found += [Manifest(obj, where) for obj in _subscriptions(settings, name, service, origins)]
    found += [Manifest(obj, f"{FILE} [{where}]") for where, obj in eventing_objects(settings)]
    return found


# -- settings -------------------------------------------------------------------------------------

#: `[settings.NAME]` → ConfigMap, where that is not config-NAME of knative-serving.
_EVENTING = "eventing-"
_EVENTING_NAMES = {
    "br-defaults": "config-br-defaults",
    "br-default-channel": "config-br-default-channel",
    "ping-defaults": "config-ping-defaults",
    "sugar": "config-sugar",
    "default-channel": "default-ch-webhook",
}


def config_map_name(word: str) -> tuple[str, str]:
    """Namespace and name of the ConfigMap that `[settings.WORD]` means."""
    if word in _EVENTING_NAMES:
        return "knative-eventing", _EVENTING_NAMES[word]
    if word.startswith(_EVENTING):
        return "knative-eventing", f"config-{word.removeprefix(_EVENTING)}"
    return "knative-serving", f"config-{word}"


def config_maps(settings: Settings) -> Iterator[tuple[str, Obj]]:
    for word, data in settings.settings.items():
        namespace, name = config_map_name(word)
        yield (
            f"settings.{word}",
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": namespace},
                "data": dict(data),
            },
        )


# -- services -------------------------------------------------------------------------------------


def service_object(settings: Settings, name: str, service: Service, origins: Origins) -> Obj:
    """`[services.NAME]` as a Service of serving.knative.dev/v1."""
    spec: Obj = {"containers": []}
    main = origins.get((name, ""))
    deploy = main.deploy if main else Deploy()
    annotations = {
        **deploy.annotations,
        **deploy.scale,
        **_scale_annotations(service.scale),
        **service.template_annotations,
        **_origin_annotations(name, origins),
    }
    spec["containers"].append(_container(settings, "", service, main))
    volumes = _volumes("", service)
    volumes += [
        {"name": _deploy_volume(at), **volume} for at, (_, volume) in enumerate(deploy.volumes)
    ]
    for key, container in service.containers.items():
        spec["containers"].append(_container(settings, key, container, origins.get((name, key))))
        volumes += _volumes(key, container)
    if service.containers:
        # With several containers the one that serves must say its port.
        spec["containers"][0].setdefault("ports", [{"containerPort": 8080}])
        spec["containers"][0]["name"] = "user-container"
    for key, container in service.init.items():
        spec.setdefault("initContainers", []).append(
            _container(settings, key, container, origins.get((name, f"init:{key}")))
        )
        volumes += _volumes(f"init-{key}", container)
    if volumes:
        spec["volumes"] = volumes
    concurrency = service.scale.concurrency
    concurrency = deploy.concurrency if concurrency is None else concurrency
    if concurrency is not None:
        spec["containerConcurrency"] = concurrency
    if service.timeout is not None:
        spec["timeoutSeconds"] = round(duration.parse(service.timeout))
    if account := service.service_account or deploy.service_account:
        spec["serviceAccountName"] = account
    if service.pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in service.pull_secrets]

    template: Obj = {"spec": spec}
    metadata = {
        **({"name": service.revision} if service.revision else {}),
        **({"labels": dict(deploy.labels)} if deploy.labels else {}),
        **({"annotations": annotations} if annotations else {}),
    }
    if metadata:
        template = {"metadata": metadata, **template}
    labels = {**deploy.labels, **service.labels}
    if service.visibility == "cluster-local":
        labels["networking.knative.dev/visibility"] = "cluster-local"
    return {
        "apiVersion": SERVING,
        "kind": "Service",
        "metadata": _metadata(
            name,
            service.namespace or settings.project.namespace,
            labels,
            {**deploy.annotations, **service.annotations},
        ),
        "spec": {
            "template": template,
            **({"traffic": [_target(t) for t in service.traffic]} if service.traffic else {}),
        },
    }


def _origin_annotations(service: str, origins: Origins) -> dict[str, str]:
    """What the runtimes are told about a service's containers that were made from sources."""
    own = {
        key: origin
        for (name, key), origin in origins.items()
        if name == service and not key.startswith("revision:")
    }
    main = own.pop("", None)
    annotations = dict(main.annotations) if main else {}
    run = dict(main.run) if main and main.run else {}
    others = {key.removeprefix("init:"): dict(o.run) for key, o in own.items() if o.run}
    if others:
        run["containers"] = others
    if run:
        annotations[RUN] = json.dumps(run, sort_keys=True)
    if main and main.snapshot:
        annotations[SNAPSHOT] = json.dumps(dict(main.snapshot), sort_keys=True)
    return annotations


def earlier_objects(
    settings: Settings, name: str, service: Service, origins: Origins
) -> list[tuple[str, Obj]]:
    """For `[services.NAME.revisions.X]`: the Service as it was when it made Revision X."""
    found = []
    for revision, table in service.revisions.items():
        changes: dict[str, Any] = {"revision": revision, "traffic": [], "revisions": {}}
        changes["env"] = {**service.env, **table.env}
        if table.image:
            changes |= {"image": table.image, "source": None}
        own = dict(origins)
        if (name, f"revision:{revision}") in origins:
            own[name, ""] = origins[name, f"revision:{revision}"]
        elif table.image:
            own.pop((name, ""), None)
        own = {key: origin for key, origin in own.items() if not key[1].startswith("revision:")}
        then = service.model_copy(update=changes)
        found.append((revision, service_object(settings, name, then, own)))
    return found


def _metadata(
    name: str, namespace: str, labels: Mapping[str, str], annotations: Mapping[str, str]
) -> Obj:
    metadata: Obj = {"name": name, "namespace": namespace}
    if labels:
        metadata["labels"] = dict(labels)
    if annotations:
        metadata["annotations"] = dict(annotations)
    return metadata


def _container(settings: Settings, name: str, table: Container, origin: Origin | None) -> Obj:
    deploy = origin.deploy if origin else Deploy()
    env: dict[str, Any] = {**deploy.env, **(origin.env if origin else {})}
    for file in table.env_file:
        env |= envfile.load(settings.root / file, settings.root)
    env |= table.env
    image = origin.image if origin else (table.image or "")
    container: Obj = {**({"name": name} if name else {}), "image": image}
    optional: dict[str, Any] = {
        "command": table.command or (list(origin.command) if origin else None),
        "args": table.args,
        "workingDir": table.workdir,
        "env": [_env_var(key, value) for key, value in env.items()],
        "envFrom": [*map(dict, deploy.env_from), *map(_env_from, table.env_from)],
        "resources": _resources(table, deploy),
        "imagePullPolicy": _PULL.get(table.pull or ""),
        "readinessProbe": _probe(table.readiness) or deploy.probes.get("readinessProbe"),
        "livenessProbe": _probe(table.liveness) or deploy.probes.get("livenessProbe"),
        "startupProbe": _probe(table.startup),
        "volumeMounts": [
            {
                "name": _volume_name(name, at),
                "mountPath": volume.path,
                **({"readOnly": True} if volume.read_only else {}),
            }
            for at, volume in enumerate(table.volumes)
        ]
        + [
            {"name": _deploy_volume(at), "mountPath": path}
            for at, (path, _) in enumerate(deploy.volumes)
        ],
    }
    if table.port is not None or table.protocol is not None:
        port: Obj = {"containerPort": table.port or 8080}
        if table.protocol:
            port = {"name": table.protocol, **port}
        container["ports"] = [port]
    if table.user is not None:
        container["securityContext"] = {"runAsUser": table.user}
    return container | {key: value for key, value in optional.items() if value}


_PULL = {"always": "Always", "missing": "IfNotPresent", "never": "Never"}


def _env_var(name: str, value: str | Mapping[str, Any]) -> Obj:
    return {"name": name, **({"value": value} if isinstance(value, str) else {"valueFrom": value})}


def _env_from(text: str) -> Obj:
    kind, _, name = text.rpartition(":")
    return {"secretRef" if kind == "secret" else "configMapRef": {"name": name}}


def _resources(table: Container, deploy: Deploy) -> Obj:
    limits = {key: value for key, value in (("cpu", table.cpu), ("memory", table.memory)) if value}
    limits = {**deploy.resources.get("limits", {}), **limits}
    return {**deploy.resources, **({"limits": limits} if limits else {})}


def _probe(probe: Probe | None) -> Obj | None:
    if probe is None:
        return None
    result: Obj = {}
    port = {"port": probe.port} if probe.port is not None else {}
    if probe.path is not None:
        result["httpGet"] = {"path": probe.path, **port}
    elif probe.exec is not None:
        result["exec"] = {"command": probe.exec}
    elif probe.grpc:
        result["grpc"] = port
    else:
        result["tcpSocket"] = port
    fields = {
        "periodSeconds": probe.period,
        "timeoutSeconds": probe.timeout,
        "initialDelaySeconds": probe.delay,
        "failureThreshold": probe.failures,
        "successThreshold": probe.successes,
    }
    return result | {key: value for key, value in fields.items() if value is not None}


def _volume_name(container: str, index: int) -> str:
    return f"{container}-volume-{index}" if container else f"volume-{index}"


def _deploy_volume(index: int) -> str:
    return f"function-volume-{index}"


def _volumes(container: str, table: Container) -> list[Obj]:
    return [
        {"name": _volume_name(container.removeprefix("init-"), at), **_volume_source(volume)}
        for at, volume in enumerate(table.volumes)
    ]


def _volume_source(volume: Volume) -> Obj:
    if volume.configmap:
        return {"configMap": {"name": volume.configmap}}
    if volume.secret:
        return {"secret": {"secretName": volume.secret}}
    if volume.claim:
        claim = {"claimName": volume.claim}
        return {"persistentVolumeClaim": claim | ({"readOnly": True} if volume.read_only else {})}
    return {"emptyDir": {"medium": "Memory"} if volume.memory else {}}


def _target(target: TrafficTarget) -> Obj:
    result: Obj = {}
    if target.revision == "latest":
        result["latestRevision"] = True
    else:
        result |= {"revisionName": target.revision, "latestRevision": False}
    if target.percent is not None:
        result["percent"] = target.percent
    if target.tag:
        result["tag"] = target.tag
    return result


def _scale_annotations(scale: Scale) -> dict[str, str]:
    autoscaler = {"kpa": "kpa.autoscaling.knative.dev", "hpa": "hpa.autoscaling.knative.dev"}
    values: dict[str, Any] = {
        "class": autoscaler.get(scale.autoscaler or ""),
        "metric": scale.metric,
        "min-scale": scale.min,
        "max-scale": scale.max,
        "initial-scale": scale.initial,
        "activation-scale": scale.activation,
        "target": scale.target,
        "target-utilization-percentage": scale.utilization,
        "target-burst-capacity": scale.burst,
        "window": scale.window,
        "panic-window-percentage": scale.panic_window,
        "panic-threshold-percentage": scale.panic_threshold,
        "scale-down-delay": scale.down_delay,
        "scale-to-zero-pod-retention-period": scale.keep,
    }
    annotations = {
        f"{AUTOSCALING}/{key}": _plain(value) for key, value in values.items() if value is not None
    }
    if scale.idle:
        annotations[IDLE] = scale.idle
    return annotations


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _subscriptions(
    settings: Settings, name: str, service: Service, origins: Origins
) -> Iterator[Obj]:
    """`deploy.subscriptions` of a func.yaml. Source: knative/func `pkg/knative/deployer.go`."""
    main = origins.get((name, ""))
    namespace = service.namespace or settings.project.namespace
    for at, (broker, attributes) in enumerate(main.deploy.subscriptions if main else ()):
        yield {
            "apiVersion": "eventing.knative.dev/v1",
            "kind": "Trigger",
            "metadata": {"name": f"{name}-function-trigger-{at}", "namespace": namespace},
            "spec": {
                "broker": broker,
                **({"filter": {"attributes": dict(attributes)}} if attributes else {}),
                "subscriber": {"ref": {"apiVersion": SERVING, "kind": "Service", "name": name}},
            },
        }


def _domains(settings: Settings, name: str, service: Service) -> Iterator[Obj]:
    namespace = service.namespace or settings.project.namespace
    for domain in service.domains:
        yield {
            "apiVersion": "serving.knative.dev/v1beta1",
            "kind": "DomainMapping",
            "metadata": {"name": domain, "namespace": namespace},
            "spec": {"ref": {"apiVersion": SERVING, "kind": "Service", "name": name}},
        }
