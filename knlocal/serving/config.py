"""Knative's ConfigMaps, as typed settings, as they are at this moment.

A ConfigMap that does not parse (admission refuses such, but a state file may hold an older one)
leaves the last good settings in force.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from knlocal.resources import settings
from knlocal.resources.annotations import IDLE
from knlocal.resources.base import Obj, annotations_of
from knlocal.serving.kinds import SYSTEM_NAMESPACE
from knlocal.store.store import Store

#: knlocal's own settings for Serving; key `idle`: what a revision at zero keeps in readiness.
KNLOCAL_CONFIG = "knlocal-config"


class Config:
    """Settings by ConfigMap; parsed again only when the ConfigMap changed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parsed: dict[str, tuple[Mapping[str, str] | None, Any]] = {}

    @property
    def autoscaler(self) -> settings.Autoscaler:
        found: settings.Autoscaler = self._read("config-autoscaler")
        return found

    @property
    def deployment(self) -> settings.Deployment:
        found: settings.Deployment = self._read("config-deployment")
        return found

    @property
    def network(self) -> settings.Network:
        found: settings.Network = self._read("config-network")
        return found

    @property
    def domains(self) -> settings.Domains:
        found: settings.Domains = self._read("config-domain")
        return found

    @property
    def features(self) -> settings.Features:
        found: settings.Features = self._read("config-features")
        return found

    @property
    def gc(self) -> settings.Gc:
        found: settings.Gc = self._read("config-gc")
        return found

    @property
    def observability(self) -> settings.Observability:
        found: settings.Observability = self._read("config-observability")
        return found

    def standby(self, obj: Obj) -> Literal["stop", "freeze"]:
        """What `obj` (a revision) keeps at zero: its annotation, else the project's setting."""
        own = annotations_of(obj).get(IDLE)
        wanted = own or self._store.configs.get(f"{SYSTEM_NAMESPACE}/{KNLOCAL_CONFIG}", {}).get(
            "idle"
        )
        return "freeze" if wanted == "freeze" else "stop"

    def _read(self, name: str) -> Any:
        data = self._store.configs.get(f"{SYSTEM_NAMESPACE}/{name}")
        known = self._parsed.get(name)
        if known is not None and known[0] is data:
            return known[1]
        try:
            parsed = settings.parse(name, data)
        except settings.SettingsError:
            parsed = known[1] if known is not None else settings.parse(name, None)
        self._parsed[name] = (data, parsed)
        return parsed


def is_config(obj: Obj, *names: str) -> bool:
    """Whether `obj` is one of these ConfigMaps of Serving."""
    metadata = obj["metadata"]
    return metadata.get("namespace") == SYSTEM_NAMESPACE and metadata.get("name") in names
