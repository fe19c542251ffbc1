"""All kinds: one line for each API group's module."""

from __future__ import annotations

from importlib import import_module

from knlocal.resources import ducks
from knlocal.resources.kinds import KindRegistry

#: In the order in which discovery shows them: core first, so that `services` means core Services.
GROUPS = (
    "knlocal.resources.core",
    "knlocal.resources.serving",
    "knlocal.resources.autoscaling",
    "knlocal.resources.networking",
    "knlocal.resources.eventing",
    "knlocal.resources.messaging",
    "knlocal.resources.flows",
    "knlocal.resources.sources",
    "knlocal.resources.sinks",
)


def registry() -> KindRegistry:
    """A registry of every kind that knlocal knows from the start (users may add CRDs later)."""
    found = KindRegistry()
    for module in GROUPS:
        for kind in import_module(module).KINDS:
            found.add(ducks.signed(kind) if kind.webhook == ducks.EVENTING_WEBHOOK else kind)
    return found
