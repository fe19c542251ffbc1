"""Whether it makes sense to wait for a container after SIGTERM."""

from __future__ import annotations

from knlocal.resources.base import labels_of
from knlocal.runtime.api import RuntimeFailure
from knlocal.workloads.containers import Container
from knlocal.workloads.podrun import PodRun
from knlocal.workloads.terms import SERVING_REVISION


async def is_deaf(run: PodRun, container: Container) -> bool:
    """A serving pod's program that ignores SIGTERM: Knative would wait its whole grace (the request
    timeout, 300 s) and then kill it. The end is the same, so it may come at once."""
    if not labels_of(run.pod).get(SERVING_REVISION):
        return False
    try:
        return not await run.node.runtime.hears_sigterm(run.id, container.name)
    except RuntimeFailure:
        return False
