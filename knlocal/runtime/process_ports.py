"""Ports for processes, which share the machine's.

They are taken from below the range that the system gives to outgoing connections, so that none of
those sits on a port between its choice and the moment the process listens.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Mapping

from knlocal.runtime.api import PodId, RuntimeFailure

FIRST, LAST = 20_000, 32_000


class Ports:
    """Pod port → machine port; a pod keeps its ports for as long as it lives."""

    def __init__(self) -> None:
        self._given: dict[str, dict[int, int]] = {}

    def get(self, pod: PodId, port: int) -> int:
        """The machine's port for the pod's; chosen when first asked for."""
        ports = self._given.setdefault(pod.uid, {})
        if port not in ports:
            ports[port] = self._free()
        return ports[port]

    def of(self, pod: PodId) -> Mapping[int, int]:
        return self._given.get(pod.uid, {})

    def adopt(self, pod: PodId, ports: Mapping[int, int]) -> None:
        self._given[pod.uid] = dict(ports)

    def release(self, pod: PodId) -> None:
        self._given.pop(pod.uid, None)

    def _free(self) -> int:
        taken = {port for ports in self._given.values() for port in ports.values()}
        for _ in range(1000):
            port = random.randint(FIRST, LAST)
            if port not in taken and _is_free(port):
                return port
        raise RuntimeFailure(
            "CreateContainerError", f"no free port between {FIRST} and {LAST} on this machine"
        )


def _is_free(port: int) -> bool:
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
