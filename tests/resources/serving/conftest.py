from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from knlocal.resources import schema
from knlocal.resources.base import Obj
from knlocal.resources.field_errors import FieldErrors
from knlocal.resources.kinds import AdmissionContext, Kind
from knlocal.resources.serving import KINDS

BY_KIND = {kind.kind: kind for kind in KINDS}
NOW = datetime(2024, 1, 1, tzinfo=UTC)


def context(
    old: Obj | None = None,
    *,
    user: str = "kubernetes-admin",
    subresource: str = "",
    dry_run: bool = False,
    **configs: Mapping[str, str],
) -> AdmissionContext:
    """`configs`: `features={…}` stands for the data of config-features."""
    return AdmissionContext(
        user=user,
        now=NOW,
        configs={f"knative-serving/config-{name}": data for name, data in configs.items()},
        old=old,
        subresource=subresource,
        dry_run=dry_run,
    )


def admit(obj: Obj, ctx: AdmissionContext | None = None) -> tuple[Obj, FieldErrors]:
    """What the store does with an object: prune, default, validate. The input stays as it is."""
    kind: Kind = BY_KIND[obj["kind"]]
    ctx = ctx or context()
    admitted = copy.deepcopy(obj)
    schema.prune(admitted, kind.schema)
    assert schema.check_types(admitted, kind.schema) == []
    assert kind.default is not None
    assert kind.validate is not None
    kind.default(admitted, ctx)
    return admitted, kind.validate(admitted, ctx)


def service(
    *containers: Mapping[str, Any],
    name: str = "hello",
    template: Mapping[str, Any] | None = None,
    traffic: list[dict[str, Any]] | None = None,
    annotations: Mapping[str, str] | None = None,
    **spec: Any,
) -> Obj:
    """A Service; `template` is the template's metadata, `spec` goes beside the containers."""
    body: dict[str, Any] = {
        "template": {
            **({"metadata": dict(template)} if template else {}),
            "spec": {"containers": list(containers) or [{"image": "busybox"}], **spec},
        }
    }
    if traffic is not None:
        body["traffic"] = traffic
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "default",
            **({"annotations": dict(annotations)} if annotations else {}),
        },
        "spec": copy.deepcopy(body),
    }


def refused(obj: Obj, ctx: AdmissionContext | None = None) -> str:
    return str(admit(obj, ctx)[1])


def template_spec(obj: Obj) -> dict[str, Any]:
    spec: dict[str, Any] = obj["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="session")
def api() -> SimpleNamespace:
    """The helpers of this file, for the tests beside it."""
    return SimpleNamespace(
        context=context,
        admit=admit,
        service=service,
        refused=refused,
        template_spec=template_spec,
    )
