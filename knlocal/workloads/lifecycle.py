"""postStart and preStop hooks of containers (k8s.io/kubernetes pkg/kubelet/lifecycle)."""

from __future__ import annotations

from typing import Any

from knlocal.resources.base import Obj
from knlocal.workloads.node import Node
from knlocal.workloads.probe_checks import Ports, Target, ask, parse_check

_LONGEST = 600.0


async def run_hook(
    node: Node, container: Obj, which: str, target: Target, ports: Ports, *, seconds: float
) -> str:
    """Run the container's `postStart` or `preStop` hook; says what went wrong, "" for nothing."""
    handler: dict[str, Any] | None = (container.get("lifecycle") or {}).get(which)
    if not handler:
        return ""
    if "sleep" in handler:
        wanted = float((handler["sleep"] or {}).get("seconds") or 0)
        await node.machine_clock.sleep(min(wanted, seconds, _LONGEST))
        return ""
    check = parse_check(handler, ports)
    if check is None:
        return ""
    answer = await ask(check, target, min(seconds, _LONGEST), node.machine_clock)
    return "" if answer.ok else answer.message or "it failed and said nothing"
