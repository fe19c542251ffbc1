"""Manifests of kinds that Knative has replaced."""

from __future__ import annotations

import pytest

from knlocal.project.manifests import check_kinds, parse
from knlocal.resources import catalog

OLD = """
apiVersion: {version}
kind: {kind}
metadata: {{name: tick}}
spec:
  schedule: "*/2 * * * *"
  {data}
  serviceAccountName: me
  sink: {sink}
"""
SERVICE = "{apiVersion: serving.knative.dev/v1alpha1, kind: Service, name: display}"


@pytest.mark.parametrize(
    "version", ["sources.knative.dev/v1alpha1", "sources.eventing.knative.dev/v1alpha1"]
)
def test_a_cron_job_source_is_read_as_a_ping_source_with_a_note(version: str) -> None:
    data = "data: '{\"message\": 1}'"
    text = OLD.format(version=version, kind="CronJobSource", data=data, sink=SERVICE)
    [manifest] = parse(text)
    assert manifest.obj == {
        "apiVersion": "sources.knative.dev/v1",
        "kind": "PingSource",
        "metadata": {"name": "tick"},
        "spec": {
            "schedule": "*/2 * * * *",
            "data": '{"message": 1}',
            "contentType": "application/json",
            "sink": {
                "ref": {
                    "apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "display",
                }
            },
        },
    }  # fmt: skip
    assert "CronJobSource is read as a PingSource" in manifest.note
    assert not check_kinds([manifest], catalog.registry())


def test_ping_sources_of_old_versions_keep_their_json_data() -> None:
    sink = "{ref: {apiVersion: v1, kind: Service, name: display}}"
    text = OLD.format(
        version="sources.knative.dev/v1beta1", kind="PingSource", data="jsonData: '{}'", sink=sink
    )
    [manifest] = parse(text)
    assert manifest.obj["spec"]["data"] == "{}"
    assert manifest.obj["spec"]["contentType"] == "application/json"
    assert manifest.obj["spec"]["sink"]["ref"]["name"] == "display"
    assert "v1beta1" in manifest.note


def test_what_is_written_today_is_left_as_it_is() -> None:
    [manifest] = parse("apiVersion: sources.knative.dev/v1\nkind: PingSource\nmetadata: {name: a}")
    assert manifest.note == ""
    assert manifest.obj["apiVersion"] == "sources.knative.dev/v1"
