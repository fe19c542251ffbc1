"""What containers use: cores and bytes, as `kubectl top` and the metrics API show them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from knlocal.runtime import docker_state
from knlocal.runtime.docker_http import Engine, EngineRefused


class Usage:
    """Cores are measured between two readings; the first one takes the engine's own second."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[datetime, int]] = {}

    async def read(self, engine: Engine, containers: Mapping[str, str]) -> dict[str, Any]:
        """Container name to (cores, bytes), for those that run."""
        found = await asyncio.gather(*(self._one(engine, one) for one in containers.values()))
        return {
            name: usage for name, usage in zip(containers, found, strict=True) if usage is not None
        }

    def forget(self, container_ids: Iterable[str]) -> None:
        for one in container_ids:
            self._last.pop(one, None)

    async def _one(self, engine: Engine, container_id: str) -> tuple[float, int] | None:
        known = self._last.get(container_id)
        try:
            shown = await engine.get(
                f"/containers/{container_id}/stats",
                stream=False,
                **({"one-shot": True} if known else {}),
            )
        except EngineRefused:
            return None
        read = docker_state.moment(shown.get("read"))
        used = int(((shown.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage") or 0)
        memory = shown.get("memory_stats") or {}
        if read is None or not memory.get("usage"):
            return None  # it does not run
        if known is None:
            before = docker_state.moment(shown.get("preread")) or read
            usage = (shown.get("precpu_stats") or {}).get("cpu_usage") or {}
            known = (before, int(usage.get("total_usage") or used))
        self._last[container_id] = (read, used)
        seconds = (read - known[0]).total_seconds()
        cores = max(0.0, (used - known[1]) / 1e9 / seconds) if seconds > 0 else 0.0
        return cores, _working_set(memory)


def _working_set(memory: Mapping[str, Any]) -> int:
    """As the kubelet counts: what is used, less the file cache that can go at once (cgroup v2's
    `inactive_file`, v1's `total_inactive_file`)."""
    detail = memory.get("stats") or {}
    cache = int(detail.get("inactive_file") or detail.get("total_inactive_file") or 0)
    if "total_inactive_file" in detail:
        cache = int(detail["total_inactive_file"])
    return max(0, int(memory["usage"]) - cache)
