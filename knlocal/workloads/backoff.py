"""Kubernetes' back-off for crashing containers and images that cannot be pulled
(k8s.io/client-go util/flowcontrol, kubelet's 10 s doubling to 5 min)."""

from __future__ import annotations

FIRST_SECONDS = 10.0
MOST_SECONDS = 300.0
FORGET_SECONDS = 600.0


class Backoff:
    """How long to wait before the next attempt. The first attempt after a quiet time is free.

    `now` is seconds on the policy clock (`Clock.monotonic`).
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._attempted = 0.0

    def attempted(self, now: float) -> None:
        """An attempt begins: the next one must wait longer."""
        self._seconds = min(MOST_SECONDS, self._seconds * 2) or FIRST_SECONDS
        self._attempted = now

    def failed(self, now: float) -> None:
        """The attempt that began last has failed now: one that held long enough counts as new."""
        if self._seconds and now - self._attempted > FORGET_SECONDS:
            self._seconds = 0.0

    def due(self, failed_at: float) -> float:
        """When the next attempt may begin, given when the last one failed."""
        return failed_at + self._seconds

    @property
    def seconds(self) -> float:
        """The wait that is in force."""
        return self._seconds

    def clear(self) -> None:
        self._seconds = 0.0
