"""The last words of a container: its termination message file, else the end of its log.

Source: k8s.io/kubernetes pkg/kubelet/kuberuntime (MaxContainerTerminationMessageLogLength 2048,
MaxContainerTerminationMessageLogLines 80).
"""

from __future__ import annotations

from knlocal.resources.base import Obj
from knlocal.runtime.api import LogOptions, PodId, RuntimeFailure
from knlocal.workloads.node import Node

_LOG_BYTES = 2048
_LOG_LINES = 80
_LOG_SECONDS = 5.0


async def termination_message(node: Node, pod: PodId, container: Obj, exit_code: int) -> str:
    """ "" when it left none, or it cannot be read."""
    try:
        message = await node.runtime.termination_message(pod, container["name"])
        policy = container.get("terminationMessagePolicy") or "File"
        if not message and exit_code != 0 and policy == "FallbackToLogsOnError":
            message = await _log_tail(node, pod, container["name"])
    except (RuntimeFailure, TimeoutError, OSError):
        return ""
    return message


async def _log_tail(node: Node, pod: PodId, container: str) -> str:
    parts: list[bytes] = []
    async with node.machine_clock.timeout(_LOG_SECONDS):
        async for chunk in node.runtime.logs(pod, container, LogOptions(tail=_LOG_LINES)):
            parts.append(chunk)
    return b"".join(parts)[-_LOG_BYTES:].decode(errors="replace")
