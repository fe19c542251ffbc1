"""From plans to what the engine's "create container" call takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from knlocal.runtime import labels
from knlocal.runtime.api import ContainerPlan, Mount, PodPlan
from knlocal.runtime.docker_ground import Ground

#: One period of the CPU quota, in microseconds (the kernel's default and Kubernetes').
CPU_PERIOD = 100_000


def sandbox(ground: Ground, plan: PodPlan) -> dict[str, Any]:
    ports = [f"{port}/tcp" for port in plan.ports] if ground.publish else []
    # The name that Docker Desktop gives to this machine, on every engine.
    hosts = {"host.docker.internal": "host-gateway", **plan.hosts}
    host: dict[str, Any] = {
        "NetworkMode": "bridge",
        "IpcMode": "shareable",
        "ExtraHosts": [f"{name}:{address}" for name, address in hosts.items()],
        "Dns": list(plan.dns_servers),
        "DnsSearch": list(plan.dns_search),
        # As in Kubernetes: a name with few dots is tried under the search domains first.
        "DnsOptions": ["ndots:5"] if plan.dns_search else [],
        "PortBindings": {port: [{"HostIp": "127.0.0.1", "HostPort": ""}] for port in ports},
        "LogConfig": {"Type": "none"},
        "CapDrop": ["ALL"],
        # Without the system call filter: it takes the engine longer to load than the program's
        # three system calls are worth.
        "SecurityOpt": ["no-new-privileges", "seccomp=unconfined"],
        "ReadonlyRootfs": True,
        "RestartPolicy": {"Name": "no"},
    }
    return {
        "Image": ground.sandbox_image,
        "Hostname": (plan.hostname or plan.id.name)[:63].rstrip("-."),
        "ExposedPorts": {port: {} for port in ports},
        "Labels": labels.of_sandbox(ground.project, plan),
        "HostConfig": host,
    }


def container(
    ground: Ground,
    plan: PodPlan,
    one: ContainerPlan,
    *,
    sandbox_id: str,
    role: labels.Role,
    attempt: int,
    termination_log: Path | None,
    image_user: str,
) -> dict[str, Any]:
    mounts = list(one.mounts)
    if termination_log is not None:
        mounts.append(Mount(plan.termination_message_path, termination_log))
    host: dict[str, Any] = {
        "NetworkMode": f"container:{sandbox_id}",
        "IpcMode": f"container:{sandbox_id}",
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(max(1, ground.log_max_bytes // 2)), "max-file": "2"},
        },
        "Privileged": one.privileged,
        "ReadonlyRootfs": one.read_only_root,
        "CapAdd": list(one.capabilities_add),
        "CapDrop": list(one.capabilities_drop),
        "GroupAdd": [str(group) for group in one.supplemental_groups],
        "SecurityOpt": _security(one),
        **_resources(one),
        **_mounts(mounts, ground.relabel),
    }
    spec: dict[str, Any] = {
        "Image": one.image,
        "Env": [f"{name}={value}" for name, value in one.env.items()],
        "Labels": labels.of_container(ground.project, plan, one, role, attempt),
        "Tty": one.tty,
        "OpenStdin": one.stdin,
        "StdinOnce": one.stdin_once,
        "HostConfig": host,
    }
    if one.command:
        spec["Entrypoint"] = list(one.command)
    if one.args:
        spec["Cmd"] = list(one.args)
    if one.working_dir:
        spec["WorkingDir"] = one.working_dir
    if user := _user(one, image_user):
        spec["User"] = user
    return spec


def _user(one: ContainerPlan, image_user: str) -> str:
    """As the engine spells it, `user[:group]`. A group alone keeps the image's user."""
    if one.user is None and one.group is None:
        return ""
    user = str(one.user) if one.user is not None else image_user.split(":")[0] or "0"
    return user if one.group is None else f"{user}:{one.group}"


def _security(one: ContainerPlan) -> list[str]:
    return ["no-new-privileges"] if one.allow_privilege_escalation is False else []


def _resources(one: ContainerPlan) -> Mapping[str, int]:
    """Requests become CPU shares, limits become a quota and a memory ceiling without swap
    (kubernetes/pkg/kubelet/cm MilliCPUToShares, MilliCPUToQuota)."""
    out: dict[str, int] = {}
    if one.memory_limit:
        out |= {"Memory": one.memory_limit, "MemorySwap": one.memory_limit}
    if one.cpu_limit:
        out |= {"CpuPeriod": CPU_PERIOD, "CpuQuota": max(1000, round(one.cpu_limit * CPU_PERIOD))}
    if one.cpu_request or one.cpu_limit:
        shares = round((one.cpu_request or one.cpu_limit or 0) * 1024)
        out["CpuShares"] = min(max(2, shares), 262_144)
    return out


def _mounts(mounts: Sequence[Mount], relabel: bool) -> Mapping[str, Any]:
    binds: list[str] = []
    rest: list[dict[str, Any]] = []
    for mount in mounts:
        if mount.tmpfs or mount.source is None:
            options: dict[str, Any] = {"Mode": 0o1777}
            if mount.size_limit:
                options["SizeBytes"] = mount.size_limit
            rest.append({"Type": "tmpfs", "Target": mount.target, "TmpfsOptions": options})
        elif relabel:
            # Only this older spelling can ask for an SELinux label that containers share.
            binds.append(f"{mount.source}:{mount.target}:{'ro' if mount.read_only else 'rw'},z")
        else:
            source, read_only = str(mount.source), mount.read_only
            rest.append(
                {"Type": "bind", "Source": source, "Target": mount.target, "ReadOnly": read_only}
            )
    return {"Mounts": rest, "Binds": binds}
