"""config-logging and config-leader-election: how the parts of Knative log and choose a leader.

knlocal is one process and does not follow them; what Knative refuses in them is refused.
Sources: knative.dev/pkg/logging and knative.dev/pkg/leaderelection.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from knlocal.resources.settings.parsing import SettingsError, as_duration, read, setting

_LEVELS = ("debug", "info", "warn", "error", "dpanic", "panic", "fatal")
_MOST_BUCKETS = 10


@dataclass(frozen=True, slots=True)
class LeaderElection:
    """Times in seconds."""

    lease_duration: float = setting(
        "lease-duration", 60.0, "How long a lease is held.", parse=as_duration, shown="60s"
    )
    renew_deadline: float = setting(
        "renew-deadline", 40.0, "How long to try to renew it.", parse=as_duration, shown="40s"
    )
    retry_period: float = setting(
        "retry-period", 10.0, "The time between tries.", parse=as_duration, shown="10s"
    )
    buckets: int = setting("buckets", 1, "How many leaders share the objects.")

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> LeaderElection:
        found = read(cls, data)
        if not 1 <= found.buckets <= _MOST_BUCKETS:
            raise SettingsError(
                f"buckets: value must be between 1 <= {found.buckets} <= {_MOST_BUCKETS}"
            )
        return found


@dataclass(frozen=True, slots=True)
class Logging:
    """zap's own settings as JSON, and the level of each component."""

    levels: Mapping[str, str]

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> Logging:
        levels = {
            key.removeprefix("loglevel."): level
            for key, level in data.items()
            if key.startswith("loglevel.") and level
        }
        for level in levels.values():
            if level.lower() not in _LEVELS:
                raise SettingsError(f'unrecognized level: "{level}"')
        if text := data.get("zap-logger-config"):
            try:
                json.loads(text)
            except ValueError as error:
                raise SettingsError(f"failed to parse zap-logger-config: {error}") from None
        return cls(levels)
