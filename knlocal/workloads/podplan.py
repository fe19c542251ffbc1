"""From a Pod object to what the runtime runs: everything looked up, nothing left to decide."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knlocal.resources import quantity
from knlocal.resources.annotations import RUN, SNAPSHOT
from knlocal.resources.base import Obj, annotations_of, labels_of, spec_of
from knlocal.runtime.api import ContainerPlan, ImageInfo, Mount, PodId, PodPlan
from knlocal.store.store import Store
from knlocal.workloads.environment import ConfigError, PodFacts, container_environment
from knlocal.workloads.expansion import expand_all
from knlocal.workloads.terms import SERVING_REVISION, is_shown_only
from knlocal.workloads.volumes import PodVolumes

DEFAULT_PORT = 8080
"""What a container port of 0 means (Knative)."""


@dataclass(frozen=True, slots=True)
class InCluster:
    """How programs in pods reach the Kubernetes API (`api.in_cluster` in knlocal.toml)."""

    host: str
    port: int


@dataclass(slots=True)
class PodNetwork:
    """What pods are told about names and addresses; the daemon fills it in."""

    dns_servers: Sequence[str] = ()
    hosts: Callable[[str], Mapping[str, str]] = field(default=lambda _namespace: {})
    """Extra names for /etc/hosts, for pods of a namespace."""
    in_cluster: InCluster | None = None
    local_url: Callable[[str], str] = field(default=lambda value: value)
    """Turns a variable's value, when it is a URL of a cluster-local name, into one that works where
    names are the machine's own (the process runtime)."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What planning needs beside the pod."""

    store: Store
    network: PodNetwork
    facts: PodFacts
    env_port: Callable[[PodId, int], int]
    labels: Mapping[str, str]
    """For the runtime's containers."""
    snapshots: Path
    """The folder whose content the annotation knlocal.dev/snapshot may mount."""


@dataclass(frozen=True, slots=True)
class SandboxFacts:
    """What all containers of a pod share, and so cannot change once its sandbox stands."""

    hostname: str
    hosts: Mapping[str, str]
    dns_servers: tuple[str, ...]
    dns_search: tuple[str, ...]
    ports: tuple[int, ...]


def sandbox_facts(pod: Obj, network: PodNetwork) -> SandboxFacts:
    return SandboxFacts(
        hostname=str(spec_of(pod).get("hostname") or pod["metadata"]["name"])[:63],
        hosts=_hosts(pod, network),
        dns_servers=_dns_servers(pod, network),
        dns_search=_dns_search(pod, network),
        ports=tuple(pod_ports(pod)),
    )


def pod_id(pod: Obj) -> PodId:
    metadata = pod["metadata"]
    return PodId(metadata.get("namespace") or "", metadata["name"], metadata["uid"])


def run_containers(pod: Obj) -> list[Obj]:
    """The app containers that are really run."""
    return [c for c in spec_of(pod).get("containers") or () if not is_shown_only(c)]


def plan_pod(
    pod: Obj, ground: Ground, volumes: PodVolumes, images: Mapping[str, ImageInfo]
) -> PodPlan:
    """The plan of a whole pod. Raises ConfigError for what is missing or refused."""
    spec, sandbox = spec_of(pod), sandbox_facts(pod, ground.network)
    volumes.set_up(pod, ground.facts)
    apps = run_containers(pod)
    serving = serving_container(apps)
    containers = [_container(pod, c, ground, volumes, images, serving=c is serving) for c in apps]
    init_containers = [
        _container(pod, c, ground, volumes, images) for c in spec.get("initContainers") or ()
    ]
    return PodPlan(
        id=pod_id(pod),
        containers=containers,
        init_containers=init_containers,
        labels=dict(ground.labels),
        hostname=sandbox.hostname,
        hosts=sandbox.hosts,
        dns_servers=sandbox.dns_servers,
        dns_search=sandbox.dns_search,
        ports=sandbox.ports,
        grace_seconds=float(spec.get("terminationGracePeriodSeconds", 30)),
        termination_message_path=termination_path(serving or (apps[0] if apps else {})),
    )


def serving_container(containers: Sequence[Obj]) -> Obj | None:
    """The container that declares ports, or the only one."""
    with_ports = [c for c in containers if c.get("ports")]
    if with_ports:
        return with_ports[0]
    return containers[0] if len(containers) == 1 else None


def container_ports(container: Obj) -> list[int]:
    return [
        int(port.get("containerPort") or DEFAULT_PORT)
        for port in container.get("ports") or ()
        if (port.get("protocol") or "TCP") == "TCP"
    ]


def pod_ports(pod: Obj) -> Iterable[int]:
    """Ports the daemon must reach: declared ones and those that probes ask."""
    spec = spec_of(pod)
    found: dict[int, None] = {}
    if labels_of(pod).get(SERVING_REVISION):
        serving = serving_container(run_containers(pod)) or {}
        if not serving.get("ports"):
            found[DEFAULT_PORT] = None
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        if is_shown_only(container):
            continue
        found |= dict.fromkeys(container_ports(container))
        for kind in ("readinessProbe", "livenessProbe", "startupProbe"):
            for handler in ("httpGet", "tcpSocket", "grpc"):
                port = ((container.get(kind) or {}).get(handler) or {}).get("port")
                if isinstance(port, int) and port > 0:
                    found[port] = None
    return found


def termination_path(container: Obj) -> str:
    return str(container.get("terminationMessagePath") or "/dev/termination-log")


# -- one container --------------------------------------------------------------------------------


def _container(
    pod: Obj,
    container: Obj,
    ground: Ground,
    volumes: PodVolumes,
    images: Mapping[str, ImageInfo],
    *,
    serving: bool = False,
) -> ContainerPlan:
    name, image = container["name"], str(container.get("image") or "")
    try:
        env = container_environment(ground.store, pod, container, ground.facts)
        mounts = volumes.mounts(pod, container, env)
    except ConfigError as error:
        error.container = error.container or name
        raise
    env = {key: ground.network.local_url(value) for key, value in env.items()}
    env = _ambient(pod, ground) | env
    _adjust_port(pod, container, env, ground)
    pod_security = spec_of(pod).get("securityContext") or {}
    security = pod_security | (container.get("securityContext") or {})
    _check_user(pod, container, security, images.get(image))
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    capabilities = security.get("capabilities") or {}
    command, directory = _local_run(pod, name, serving=serving)
    if serving:
        mounts += _snapshot(pod, ground.snapshots)
    return ContainerPlan(
        name=name,
        image=image,
        command=expand_all(container.get("command"), env),
        args=expand_all(container.get("args"), env),
        env=env,
        working_dir=container.get("workingDir") or None,
        mounts=tuple(mounts),
        cpu_limit=_cores(limits.get("cpu")),
        cpu_request=_cores(requests.get("cpu")),
        memory_limit=_bytes(limits.get("memory")),
        user=_number(security.get("runAsUser")),
        group=_number(security.get("runAsGroup")),
        supplemental_groups=_groups(pod_security),
        read_only_root=bool(security.get("readOnlyRootFilesystem")),
        privileged=bool(security.get("privileged")),
        allow_privilege_escalation=security.get("allowPrivilegeEscalation"),
        capabilities_add=tuple(capabilities.get("add") or ()),
        capabilities_drop=tuple(capabilities.get("drop") or ()),
        tty=bool(container.get("tty")),
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        pull_policy=container.get("imagePullPolicy") or "IfNotPresent",
        local_command=command,
        local_dir=directory,
    )


def _ambient(pod: Obj, ground: Ground) -> dict[str, str]:
    """What Kubernetes puts into every container: the host name, and where the API is."""
    env = {"HOSTNAME": str(spec_of(pod).get("hostname") or pod["metadata"]["name"])[:63]}
    if api := ground.network.in_cluster:
        env |= {
            "KUBERNETES_SERVICE_HOST": api.host,
            "KUBERNETES_SERVICE_PORT": str(api.port),
            "KUBERNETES_SERVICE_PORT_HTTPS": str(api.port),
        }
    return env


def _adjust_port(pod: Obj, container: Obj, env: dict[str, str], ground: Ground) -> None:
    """Processes share the machine's ports: tell the program the one it was given instead."""
    ports = container_ports(container)
    if not ports and labels_of(pod).get(SERVING_REVISION) and "PORT" in env:
        ports = [DEFAULT_PORT]
    for port in ports:
        given = ground.env_port(pod_id(pod), port)
        if given != port and env.get("PORT", str(port)) == str(port):
            env["PORT"] = str(given)


def _check_user(pod: Obj, container: Obj, security: Obj, image: ImageInfo | None) -> None:
    """runAsNonRoot (k8s.io/kubernetes pkg/kubelet/kuberuntime/security_context.go)."""
    if not security.get("runAsNonRoot"):
        return
    metadata, name = pod["metadata"], container["name"]
    where = (
        f'(pod: "{metadata["name"]}_{metadata.get("namespace")}({metadata["uid"]})", '
        f"container: {name})"
    )
    user = security.get("runAsUser")
    if user is not None:
        if int(user) == 0:
            raise ConfigError(
                f"container's runAsUser breaks non-root policy {where}", container=name
            )
        return
    if image is None:
        return
    own = image.user.split(":")[0]
    if own in ("", "0", "root"):
        raise ConfigError(
            f"container has runAsNonRoot and image will run as root {where}", container=name
        )
    if not own.isdigit():
        raise ConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({own}), "
            f"cannot verify user is non-root {where}",
            container=name,
        )


def _local_run(pod: Obj, name: str, *, serving: bool) -> tuple[tuple[str, ...] | None, Path | None]:
    """What the process runtime runs: `{"command": […], "dir": "…"}` for the serving container,
    and for others `{"containers": {"<name>": {"command": …, "dir": …}}}`."""
    run = _json_annotation(pod, RUN)
    if others := run.get("containers"):
        run = others.get(name) or (run if serving else {})
    elif not serving:
        run = {}
    command, directory = run.get("command"), run.get("dir")
    return (
        tuple(map(str, command)) if command else None,
        Path(directory) if directory else None,
    )


def snapshot_target(pod: Obj) -> str:
    """Where a pod (or a template) has a source snapshot mounted; "" when it has none."""
    try:
        snapshot = _json_annotation(pod, SNAPSHOT)
    except ConfigError:
        return ""
    return str(snapshot.get("target") or "/app") if snapshot.get("dir") else ""


def _snapshot(pod: Obj, snapshots: Path) -> list[Mount]:
    """The source snapshot. It must be one: an annotation is no way to this machine's files."""
    snapshot = _json_annotation(pod, SNAPSHOT)
    if not snapshot.get("dir"):
        return []
    folder = Path(os.path.realpath(str(snapshot["dir"])))
    if Path(os.path.realpath(snapshots)) not in folder.parents:
        raise ConfigError(
            f"annotation {SNAPSHOT}: {snapshot['dir']} is not a snapshot of this project"
        )
    return [Mount(snapshot_target(pod), folder, read_only=True)]


def _json_annotation(pod: Obj, name: str) -> dict[str, Any]:
    text = annotations_of(pod).get(name)
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"annotation {name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"annotation {name} must be a JSON object")
    return value


def _groups(pod_security: Obj) -> tuple[int, ...]:
    groups = [int(group) for group in pod_security.get("supplementalGroups") or ()]
    if pod_security.get("fsGroup") is not None:
        groups.append(int(pod_security["fsGroup"]))
    return tuple(dict.fromkeys(groups))


def _cores(value: Any) -> float | None:
    return float(quantity.parse(value)) if value is not None else None


def _bytes(value: Any) -> int | None:
    return quantity.parse_int(value) if value is not None else None


def _number(value: Any) -> int | None:
    return int(value) if value is not None else None


# -- names ----------------------------------------------------------------------------------------


def _hosts(pod: Obj, network: PodNetwork) -> dict[str, str]:
    hosts = dict(network.hosts(pod["metadata"].get("namespace") or ""))
    for alias in spec_of(pod).get("hostAliases") or ():
        hosts |= dict.fromkeys(alias.get("hostnames") or (), str(alias.get("ip") or ""))
    return hosts


def _dns_servers(pod: Obj, network: PodNetwork) -> tuple[str, ...]:
    own = tuple((spec_of(pod).get("dnsConfig") or {}).get("nameservers") or ())
    policy = spec_of(pod).get("dnsPolicy") or "ClusterFirst"
    if policy in ("None", "Default"):
        return own
    return (*network.dns_servers, *own)


def _dns_search(pod: Obj, network: PodNetwork) -> tuple[str, ...]:
    own = tuple((spec_of(pod).get("dnsConfig") or {}).get("searches") or ())
    policy = spec_of(pod).get("dnsPolicy") or "ClusterFirst"
    if policy in ("None", "Default") or not network.dns_servers:
        return own
    namespace = pod["metadata"].get("namespace") or "default"
    return (f"{namespace}.svc.cluster.local", "svc.cluster.local", "cluster.local", *own)
