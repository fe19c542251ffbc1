"""A pod's volumes: folders on this machine that its containers mount.

Each pod has a folder of its own, `<root>/pods/<uid>/`, which goes with it. ConfigMap, Secret and
projected volumes follow their objects while the pod runs; claims live outside the pods.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from knlocal.resources import quantity
from knlocal.resources.base import GroupKind, Obj, spec_of, uid_of
from knlocal.resources.names import dns1123_label
from knlocal.runtime.api import Mount
from knlocal.store.store import Store
from knlocal.workloads.environment import (
    ConfigError,
    PodFacts,
    config_data,
    field_value,
    resource_value,
)
from knlocal.workloads.expansion import expand
from knlocal.workloads.payload import PayloadFile, write_payload
from knlocal.workloads.permissions import give_to_group, open_folder
from knlocal.workloads.terms import CLAIM, CONFIG_MAP, SECRET, SERVICE_ACCOUNT
from knlocal.workloads.tokens import DEFAULT_AUDIENCE, DEFAULT_SECONDS, TokenIssuer, TokenRequest

_DEFAULT_MODE = 0o644
#: Sources whose content is knlocal's to write: mounted read-only, as Kubernetes does.
_WRITTEN = ("configMap", "secret", "projected", "downwardAPI")
_SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a volume is, and how it is mounted."""

    path: Path | None
    """None for memory that only one container mounts."""
    read_only: bool = False
    size_limit: int | None = None


class PodVolumes:
    """The volumes of one pod. Writing is quick (small files) and idempotent."""

    def __init__(
        self,
        store: Store,
        root: Path,
        pod: Obj,
        issue_token: TokenIssuer,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._root = root
        self._issue_token = issue_token
        self._now = now
        self.folder = root / "pods" / uid_of(pod)
        self._memory = _memory_of(uid_of(pod))
        self._places: dict[str, Place] = {}
        #: When the earliest token must be written anew.
        self.refresh_at: datetime | None = None

    def set_up(self, pod: Obj, facts: PodFacts) -> None:
        """Make every volume, or bring it up to date. Raises ConfigError (FailedMount)."""
        self.refresh_at = None
        for volume in spec_of(pod).get("volumes") or ():
            if dns1123_label(str(volume["name"])):
                raise ConfigError(f'invalid volume name "{volume["name"]}"')
            try:
                self._places[volume["name"]] = self._place(pod, volume, facts)
            except ConfigError as error:
                raise ConfigError(
                    f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error.message}',
                    reason="FailedMount",
                ) from error

    def mounts(self, pod: Obj, container: Obj, variables: dict[str, str]) -> list[Mount]:
        """The mounts of one container. Raises ConfigError for an impossible subPath."""
        return [
            self._mount(container, mount, variables)
            for mount in container.get("volumeMounts") or ()
        ]

    def tear_down(self) -> None:
        """Remove everything that goes with the pod. May take a while: call it in a thread."""
        remove_volumes(self.folder)

    # -- one volume -----------------------------------------------------------------------------

    def _place(self, pod: Obj, volume: Obj, facts: PodFacts) -> Place:
        for kind in _WRITTEN:
            if kind in volume:
                return self._written(pod, volume, kind, facts)
        if "emptyDir" in volume or _has_no_source(volume):
            return self._empty_dir(pod, volume["name"], volume.get("emptyDir") or {})
        if "persistentVolumeClaim" in volume:
            return self._claim(pod, volume["persistentVolumeClaim"])
        if "ephemeral" in volume:
            return self._empty_dir(pod, volume["name"], {})
        raise ConfigError(_refusal(volume))

    def _written(self, pod: Obj, volume: Obj, kind: str, facts: PodFacts) -> Place:
        source = volume[kind] or {}
        mode = _mode(source.get("defaultMode"), _DEFAULT_MODE)
        if kind == "projected":
            payload: dict[str, PayloadFile] = {}
            for part in source.get("sources") or ():
                payload |= self._projection(pod, part, mode, facts)
        elif kind == "downwardAPI":
            payload = _downward(pod, source, mode, facts)
        else:
            payload = self._data(pod, kind, source, mode)
        folder = self.folder / "volumes" / volume["name"]
        if write_payload(folder, payload):
            give_to_group(folder, _fs_group(pod), writable=False)
        return Place(folder, read_only=True)

    def _projection(
        self, pod: Obj, part: Obj, mode: int, facts: PodFacts
    ) -> dict[str, PayloadFile]:
        if token := part.get("serviceAccountToken"):
            return self._token(pod, token, mode)
        if "downwardAPI" in part:
            return _downward(pod, part["downwardAPI"] or {}, mode, facts)
        for kind in ("configMap", "secret"):
            if kind in part:
                return self._data(pod, kind, part[kind] or {}, mode)
        raise ConfigError(f"projected volume source {', '.join(part) or '{}'} is not supported")

    def _data(self, pod: Obj, kind: str, source: Obj, mode: int) -> dict[str, PayloadFile]:
        namespace = pod["metadata"].get("namespace") or ""
        group_kind: GroupKind = CONFIG_MAP if kind == "configMap" else SECRET
        data = config_data(self._store, group_kind, namespace, source)
        if data is None:
            return {}
        items = source.get("items")
        if not items:
            return {_safe_path(key): PayloadFile(value, mode) for key, value in data.items()}
        payload = {}
        for item in items:
            key = item.get("key")
            if key in data:
                path = _safe_path(str(item.get("path") or key))
                payload[path] = PayloadFile(data[key], _mode(item.get("mode"), mode))
            elif not source.get("optional"):
                raise ConfigError(f"{_config_word(kind)} references non-existent key: {key}")
        return payload

    def _token(self, pod: Obj, wanted: Obj, mode: int) -> dict[str, PayloadFile]:
        metadata, now = pod["metadata"], self._now()
        path = _safe_path(str(wanted.get("path") or "token"))
        seconds = int(wanted.get("expirationSeconds") or DEFAULT_SECONDS)
        account = spec_of(pod).get("serviceAccountName") or "default"
        found = self._store.find(SERVICE_ACCOUNT, metadata["namespace"], account)
        token = self._issue_token(
            TokenRequest(
                namespace=metadata["namespace"],
                service_account=account,
                service_account_uid=uid_of(found) if found else "",
                pod=metadata["name"],
                pod_uid=metadata["uid"],
                audience=str(wanted.get("audience") or DEFAULT_AUDIENCE),
                seconds=seconds,
                now=now,
            )
        )
        due = datetime.fromtimestamp(now.timestamp() + seconds * 0.8, now.tzinfo)
        self.refresh_at = min(self.refresh_at or due, due)
        return {path: PayloadFile(token.encode(), mode)}

    def _empty_dir(self, pod: Obj, name: str, source: Obj) -> Place:
        limit = quantity.parse_int(source["sizeLimit"]) if source.get("sizeLimit") else None
        if source.get("medium") != "Memory":
            folder = self.folder / "volumes" / name
        elif _is_shared(pod, name) or limit is None:
            # One container's tmpfs cannot be shared, and would not survive its restart.
            shared = os.access(_SHARED_MEMORY, os.W_OK)
            folder = (self._memory if shared else self.folder / "volumes") / name
            self.folder.mkdir(parents=True, exist_ok=True)  # says that there is memory to clear
        else:
            return Place(None, size_limit=limit)
        open_folder(folder)
        give_to_group(folder, _fs_group(pod), writable=True)
        return Place(folder, size_limit=limit)

    def _claim(self, pod: Obj, source: Obj) -> Place:
        namespace, name = pod["metadata"].get("namespace") or "", str(source.get("claimName"))
        claim = self._store.find(CLAIM, namespace, name)
        if claim is None:
            raise ConfigError(f'persistentvolumeclaim "{name}" not found')
        if claim["metadata"].get("deletionTimestamp"):
            raise ConfigError(f'persistentvolumeclaim "{name}" is being deleted')
        folder = claim_folder(self._root, claim)
        if not folder.exists():
            open_folder(folder)
        give_to_group(folder, _fs_group(pod), writable=True)
        return Place(folder, read_only=bool(source.get("readOnly")))

    # -- one mount ------------------------------------------------------------------------------

    def _mount(self, container: Obj, mount: Obj, variables: dict[str, str]) -> Mount:
        place = self._places.get(mount["name"])
        target = str(mount["mountPath"])
        if place is None:
            raise ConfigError(
                f'no volume named "{mount["name"]}" in the pod', container=container["name"]
            )
        read_only = bool(mount.get("readOnly")) or place.read_only
        if place.path is None:
            return Mount(target, None, read_only, tmpfs=True, size_limit=place.size_limit)
        sub_path = str(mount.get("subPath") or "")
        if mount.get("subPathExpr"):
            sub_path = expand(str(mount["subPathExpr"]), variables)
        source = place.path
        if sub_path:
            source = self._sub_path(container, mount["name"], place, sub_path)
        return Mount(target, source, read_only)

    def _sub_path(self, container: Obj, volume: str, place: Place, sub_path: str) -> Path:
        assert place.path is not None
        wanted = place.path / sub_path
        resolved = Path(os.path.realpath(wanted))
        inside = Path(os.path.realpath(place.path))
        if os.path.isabs(sub_path) or ".." in Path(sub_path).parts or inside not in (
            resolved, *resolved.parents
        ):  # fmt: skip
            raise ConfigError(
                f'failed to prepare subPath for volumeMount "{volume}" of container '
                f'"{container["name"]}"',
                container=container["name"],
            )
        if (place.path / "..data").is_symlink():
            # The files behind `..data` are replaced on a change, while a subPath mount never
            # changes (Kubernetes): it gets a copy of its own.
            return self._copied(container["name"], volume, sub_path, resolved)
        if not resolved.exists():
            open_folder(resolved)
        return resolved

    def _copied(self, container: str, volume: str, sub_path: str, source: Path) -> Path:
        copy = self.folder / "subpaths" / container / volume / sub_path
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, dirs_exist_ok=True)
        elif source.exists():
            if copy.is_dir():
                shutil.rmtree(copy)
            shutil.copy2(source, copy)
        else:
            open_folder(copy)
        return copy


def remove_volumes(folder: Path) -> None:
    """Remove a pod's folder, and the memory that goes with it. May take a while."""
    shutil.rmtree(_memory_of(folder.name), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def remove_all_volumes(root: Path) -> None:
    """Of every pod that ever ran under `root`: for when none is left. Claims stay."""
    folders = root / "pods"
    for folder in list(folders.iterdir()) if folders.is_dir() else ():
        remove_volumes(folder)
    shutil.rmtree(folders, ignore_errors=True)


def _memory_of(uid: str) -> Path:
    return _SHARED_MEMORY / f"knlocal-{uid}"


def claim_folder(root: Path, claim: Obj) -> Path:
    """Where the content of a PersistentVolumeClaim lies: it outlives pods, not the claim."""
    return root / "claims" / f"{claim['metadata']['namespace']}.{uid_of(claim)}"


def references(pod: Obj) -> set[tuple[GroupKind, str]]:
    """ConfigMaps, Secrets and claims that the pod uses, by kind and name."""
    spec, found = spec_of(pod), set()

    def add(group_kind: GroupKind, reference: Any, field: str = "name") -> None:
        if reference and reference.get(field):
            found.add((group_kind, str(reference[field])))

    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        for source in container.get("envFrom") or ():
            add(CONFIG_MAP, source.get("configMapRef"))
            add(SECRET, source.get("secretRef"))
        for variable in container.get("env") or ():
            value = variable.get("valueFrom") or {}
            add(CONFIG_MAP, value.get("configMapKeyRef"))
            add(SECRET, value.get("secretKeyRef"))
    for volume in spec.get("volumes") or ():
        add(CLAIM, volume.get("persistentVolumeClaim"), "claimName")
        for part in (volume.get("projected") or {}).get("sources") or ():
            add(CONFIG_MAP, part.get("configMap"))
            add(SECRET, part.get("secret"))
        add(CONFIG_MAP, volume.get("configMap"))
        add(SECRET, volume.get("secret"), "secretName")
    for reference in spec.get("imagePullSecrets") or ():
        add(SECRET, reference)
    return found


def _downward(pod: Obj, source: Obj, mode: int, facts: PodFacts) -> dict[str, PayloadFile]:
    payload = {}
    for item in source.get("items") or ():
        if reference := item.get("fieldRef"):
            text = field_value(pod, str(reference.get("fieldPath") or ""), facts)
        else:
            text = resource_value(pod, {}, item.get("resourceFieldRef") or {})
        path = _safe_path(str(item.get("path") or ""))
        payload[path] = PayloadFile(text.encode(), _mode(item.get("mode"), mode))
    return payload


def _is_shared(pod: Obj, volume: str) -> bool:
    spec = spec_of(pod)
    every = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    uses = [m for c in every for m in c.get("volumeMounts") or () if m.get("name") == volume]
    return len(uses) > 1


def _has_no_source(volume: Obj) -> bool:
    return not (volume.keys() - {"name"})


def _refusal(volume: Obj) -> str:
    kind = next(iter(volume.keys() - {"name"}))
    use = "use an emptyDir, a persistentVolumeClaim, a configMap or a secret"
    if kind == "hostPath":
        return f"hostPath volumes are refused: a pod must not reach this machine's files; {use}"
    return f"{kind} volumes are not supported on one machine; {use}"


def _fs_group(pod: Obj) -> int | None:
    group = (spec_of(pod).get("securityContext") or {}).get("fsGroup")
    return int(group) if group is not None else None


def _mode(value: Any, default: int) -> int:
    return int(value) & 0o777 if value is not None else default


def _safe_path(path: str) -> str:
    parts = Path(path).parts
    if not parts or os.path.isabs(path) or ".." in parts or parts[0].startswith(".."):
        raise ConfigError(f'invalid path "{path}": must be relative, without ".."')
    return "/".join(parts)


def _config_word(kind: str) -> str:
    return "configmap" if kind == "configMap" else "secret"
