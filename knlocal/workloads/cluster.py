"""The one node, and the claims on its disk."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from knlocal.control.controller import Controller, Requeue, Watching
from knlocal.resources import quantity
from knlocal.resources.base import Key, Obj, is_deleting, key_of, spec_of, status_of, timestamp
from knlocal.resources.core import KUBERNETES_VERSION
from knlocal.resources.status import NotFound
from knlocal.workloads.environment import machine_capacity
from knlocal.workloads.kubelet import Kubelet
from knlocal.workloads.permissions import open_folder
from knlocal.workloads.terms import CLAIM, NODE, NODE_NAME, POD, STORAGE_CLASS, VOLUME
from knlocal.workloads.volumes import claim_folder

_PROTECTION = "kubernetes.io/pvc-protection"
_CLASS = "standard"
_PROVISIONER = "knlocal.dev/local"


class NodeController(Controller):
    """Keeps the Node object `knlocal`, whose Ready says whether the container engine answers."""

    kind = NODE

    def __init__(self, kubelet: Kubelet) -> None:
        super().__init__(kubelet.store)
        self._kubelet = kubelet
        kubelet.engine_changed.append(lambda _answers: self._report())

    async def start(self) -> None:
        if self.store.find(NODE, "", NODE_NAME) is None:
            self.store.create(_node())
        self._report()
        if self.store.registry.stored(STORAGE_CLASS) and not self.store.list(STORAGE_CLASS):
            self.store.create(_storage_class())

    async def reconcile(self, key: Key) -> Requeue | None:
        return None

    def _report(self) -> None:
        answers = self._kubelet.node.engine_ok
        node = self.store.find(NODE, "", NODE_NAME)
        if node is None:
            return
        now = timestamp(self.clock.now())
        ready = (
            ("True", "KubeletReady", "the container engine answers")
            if answers
            else ("Unknown", "NodeStatusUnknown", "the container engine does not answer")
        )
        found = [
            _condition(node, type_, status, reason, message, now)
            for type_, status, reason, message in (
                ("MemoryPressure", "False", "KubeletHasSufficientMemory", "enough memory"),
                ("DiskPressure", "False", "KubeletHasNoDiskPressure", "enough disk"),
                ("PIDPressure", "False", "KubeletHasSufficientPID", "enough process ids"),
                ("Ready", *ready),
            )
        ]
        runtime = self._kubelet.node.runtime.name
        capacity = {
            name: quantity.format_quantity(
                machine_capacity(name), "decimal" if name in ("cpu", "pods") else "binary"
            )
            for name in ("cpu", "memory", "ephemeral-storage", "pods")
        }
        status = {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": found,
            "addresses": [
                {"type": "InternalIP", "address": self._kubelet.node.host_ip or "127.0.0.1"},
                {"type": "Hostname", "address": NODE_NAME},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": {
                "machineID": "", "systemUUID": "", "bootID": "",
                "kernelVersion": platform.release(), "osImage": platform.platform(),
                "containerRuntimeVersion": f"{runtime}://", "kubeletVersion": KUBERNETES_VERSION,
                "kubeProxyVersion": KUBERNETES_VERSION,
                "operatingSystem": platform.system().lower(), "architecture": _architecture(),
            },
        }  # fmt: skip
        self.update_status(node, status)


def _node() -> Obj:
    labels = {
        "kubernetes.io/hostname": NODE_NAME,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": _architecture(),
        "node-role.kubernetes.io/control-plane": "",
    }
    annotations = {"knlocal.dev/host": socket.gethostname()}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE_NAME, "labels": labels, "annotations": annotations},
        "spec": {},
    }


def _storage_class() -> Obj:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": _CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": _PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def _condition(
    node: Obj, type_: str, status: str, reason: str, message: str, now: str
) -> dict[str, str]:
    before = next((c for c in status_of(node).get("conditions") or () if c["type"] == type_), None)
    moved = before["lastTransitionTime"] if before and before["status"] == status else now
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": moved,
    }


def _architecture() -> str:
    machine = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


class ClaimController(Controller):
    """Binds PersistentVolumeClaims to folders of this machine; a claim's folder goes with it, but
    not while a pod uses it."""

    kind = CLAIM

    def __init__(self, kubelet: Kubelet) -> None:
        super().__init__(kubelet.store)
        self._root = kubelet.node.root

    def watches(self) -> Sequence[Watching]:
        return [Watching(POD, self._claims_of)]

    def _claims_of(self, pod: Obj) -> list[Key]:
        namespace = pod["metadata"].get("namespace") or ""
        return [
            Key(*CLAIM, namespace, str(volume["persistentVolumeClaim"].get("claimName")))
            for volume in spec_of(pod).get("volumes") or ()
            if volume.get("persistentVolumeClaim")
        ]

    async def reconcile(self, key: Key) -> Requeue | None:
        claim = self.store.find_key(key)
        if claim is None:
            return None
        if is_deleting(claim):
            await self._let_go(key, claim)
        elif status_of(claim).get("phase") != "Bound":
            self._bind(key, claim)
        return None

    def _bind(self, key: Key, claim: Obj) -> None:
        folder = claim_folder(self._root, claim)
        open_folder(folder)
        name = spec_of(claim).get("volumeName") or f"pvc-{claim['metadata']['uid']}"

        def hold(obj: Obj) -> None:
            obj["spec"]["volumeName"] = name
            obj["spec"].setdefault("storageClassName", _CLASS)
            finalizers = obj["metadata"].setdefault("finalizers", [])
            if _PROTECTION not in finalizers:
                finalizers.append(_PROTECTION)

        claim = self.store.modify(CLAIM, key.namespace, key.name, hold)
        requests = (spec_of(claim).get("resources") or {}).get("requests") or {}
        size = {"storage": requests.get("storage") or "1Gi"}
        modes = spec_of(claim).get("accessModes") or ["ReadWriteOnce"]
        if self.store.find(VOLUME, "", name) is None:
            self.store.create(_volume(name, claim, folder, size, modes))
        found = self.store.get(VOLUME, "", name)
        self.store.set_status(key_of(found), {"phase": "Bound"})
        self.update_status(claim, {"phase": "Bound", "accessModes": modes, "capacity": size})

    async def _let_go(self, key: Key, claim: Obj) -> None:
        if any(key in self._claims_of(pod) for pod in self.store.list(POD, key.namespace)):
            return  # its pods must go first
        await asyncio.to_thread(shutil.rmtree, claim_folder(self._root, claim), True)
        name = str(spec_of(claim).get("volumeName") or "")
        try:
            self.store.delete(VOLUME, "", name)
        except NotFound:
            pass

        def release(obj: Obj) -> None:
            left = [f for f in obj["metadata"].get("finalizers") or () if f != _PROTECTION]
            obj["metadata"]["finalizers"] = left

        if self.store.find_key(key) is not None:
            self.store.modify(CLAIM, key.namespace, key.name, release)


def _volume(name: str, claim: Obj, folder: Path, size: Obj, modes: list[str]) -> Obj:
    metadata = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "annotations": {"pv.kubernetes.io/provisioned-by": _PROVISIONER},
        },
        "spec": {
            "capacity": size,
            "accessModes": modes,
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": spec_of(claim).get("storageClassName") or _CLASS,
            "hostPath": {"path": os.fspath(folder)},
            "claimRef": {
                "kind": "PersistentVolumeClaim",
                "apiVersion": "v1",
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
        },
    }
