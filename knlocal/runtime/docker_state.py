"""From what the engine shows to the runtime's own states."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from knlocal.runtime.api import ContainerState

_STATES: Mapping[str, Literal["created", "running", "paused", "exited"]] = {
    "created": "created",
    "configured": "created",  # Podman
    "initialized": "created",
    "running": "running",
    "restarting": "running",
    "paused": "paused",
    "exited": "exited",
    "stopped": "exited",
    "stopping": "running",
    "removing": "exited",
    "dead": "exited",
}


def container_state(name: str, shown: Mapping[str, Any]) -> ContainerState:
    """From "inspect a container"."""
    state = shown.get("State") or {}
    word = _STATES.get(str(state.get("Status", "")), "exited")
    error = str(state.get("Error") or "")
    if word == "created" and error:
        word = "exited"  # a start that failed: it will not run as it is
    ran = word == "exited"
    return ContainerState(
        name=name,
        state=word,
        container_id=str(shown.get("Id", "")),
        image_id=str(shown.get("Image", "")),
        started_at=moment(state.get("StartedAt")),
        finished_at=moment(state.get("FinishedAt")) if ran else None,
        exit_code=int(state.get("ExitCode") or 0) if ran else None,
        oom_killed=bool(state.get("OOMKilled")),
        error=error,
    )


def is_running(shown: Mapping[str, Any]) -> bool:
    return bool((shown.get("State") or {}).get("Running"))


def address(shown: Mapping[str, Any]) -> str:
    """The container's own address: from "inspect" and from "list" alike."""
    settings = shown.get("NetworkSettings") or {}
    for network in (settings.get("Networks") or {}).values():
        if ip := network.get("IPAddress"):
            return str(ip)
    return str(settings.get("IPAddress") or "")


def published(shown: Mapping[str, Any]) -> dict[int, int]:
    """Container port to loopback port, from "inspect a container"."""
    ports: dict[int, int] = {}
    for name, bindings in ((shown.get("NetworkSettings") or {}).get("Ports") or {}).items():
        for binding in bindings or ():
            if str(binding.get("HostPort", "")).isdigit():
                ports[int(name.split("/")[0])] = int(binding["HostPort"])
    return ports


def moment(text: Any) -> datetime | None:
    """The engine's time stamp (nanoseconds, any zone); its zero time is None."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    if found.year <= 1:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
