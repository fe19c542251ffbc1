"""Whoever writes an object is told what of it changes nothing here."""

from __future__ import annotations

from typing import Any

import pytest

from knlocal.clock import VirtualClock
from knlocal.project.parity import REASON, ParityNotes
from knlocal.resources.base import GroupKind
from knlocal.resources.catalog import registry
from knlocal.store.store import Store, WriteOptions


def service() -> dict[str, Any]:
    container = {"image": "dev.local/hello", "resources": {"limits": {"memory": "64Mi"}}}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "hello", "namespace": "default"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }


@pytest.mark.parametrize("processes", [True, False])
def test_a_limit_that_local_processes_do_not_have_is_told_to_the_writer_and_on_the_object(
    processes: bool,
) -> None:
    store = Store(registry(), VirtualClock())
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    ParityNotes(store, processes=processes)
    options = WriteOptions(user="somebody")
    store.create(service(), options)
    told = [one for one in options.warnings if "resources.limits.memory" in one]
    events = [
        event["message"]
        for event in store.list(GroupKind("", "Event"), "default")
        if event["reason"] == REASON
    ]
    expected = (
        "spec.template.spec.containers[0].resources.limits.memory is accepted but has no effect "
        "here: local processes are not limited; containers are"
    )
    assert told == events == ([expected] if processes else [])
