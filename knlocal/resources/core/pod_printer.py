"""The row of a Pod in `kubectl get pods`: above all its STATUS, which no field holds."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from knlocal.resources.ages import age
from knlocal.resources.base import Obj
from knlocal.resources.core.cells import created

COLUMNS = "Name, Ready, Status, Restarts, Age, IP*, Node*, Nominated Node*, Readiness Gates*"


def cells(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    states = status.get("containerStatuses") or []
    ready = sum(1 for state in states if state.get("ready"))
    total = len(spec.get("containers") or ())
    gates = spec.get("readinessGates")
    return [
        obj["metadata"].get("name", ""), f"{ready}/{total}", pod_state(obj),
        _restarts(states, now), created(obj, now), status.get("podIP") or "<none>",
        spec.get("nodeName") or "<none>", status.get("nominatedNodeName") or "<none>",
        f"0/{len(gates)}" if gates else "<none>",
    ]  # fmt: skip


def pod_state(obj: Obj) -> str:
    """`Running`, `Completed`, `CrashLoopBackOff`, `Init:0/1`, `Terminating`, …"""
    status = obj.get("status") or {}
    state = status.get("reason") or status.get("phase") or ""
    initialising = _init_state(obj)
    state = initialising or _container_state(status, state)
    if obj["metadata"].get("deletionTimestamp") and status.get("phase") not in (
        "Succeeded", "Failed",
    ):  # fmt: skip
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return state


def _init_state(obj: Obj) -> str:
    specs = (obj.get("spec") or {}).get("initContainers") or []
    states = (obj.get("status") or {}).get("initContainerStatuses") or []
    sidecars = {c["name"] for c in specs if c.get("restartPolicy") == "Always"}
    for index, container in enumerate(states):
        state = container.get("state") or {}
        if container.get("name") in sidecars and container.get("started"):
            continue
        ended, waiting = state.get("terminated"), state.get("waiting") or {}
        if ended is not None:
            if ended.get("exitCode") == 0:
                continue
            reason = ended.get("reason") or _exit_text(ended)
            return f"Init:{reason}"
        if waiting.get("reason") and waiting["reason"] != "PodInitializing":
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{len(specs)}"
    return ""


def _container_state(status: dict[str, Any], state: str) -> str:
    running = False
    for container in reversed(status.get("containerStatuses") or []):
        now = container.get("state") or {}
        waiting, ended = now.get("waiting") or {}, now.get("terminated")
        if waiting.get("reason"):
            state = waiting["reason"]
        elif ended is not None:
            state = ended.get("reason") or _exit_text(ended)
        elif container.get("ready") and now.get("running") is not None:
            running = True
    if state == "Completed" and running:
        ready = any(
            c.get("type") == "Ready" and c.get("status") == "True"
            for c in status.get("conditions") or ()
        )
        return "Running" if ready else "NotReady"
    return state


def _exit_text(ended: dict[str, Any]) -> str:
    if ended.get("signal"):
        return f"Signal:{ended['signal']}"
    return f"ExitCode:{ended.get('exitCode', 0)}"


def _restarts(states: list[dict[str, Any]], now: datetime) -> str:
    count = sum(state.get("restartCount", 0) for state in states)
    ends = [
        ended["finishedAt"]
        for state in states
        if (ended := (state.get("lastState") or {}).get("terminated")) and ended.get("finishedAt")
    ]
    return f"{count} ({age(max(ends), now)} ago)" if count and ends else str(count)
