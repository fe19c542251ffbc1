"""What a source or sink brings along may be refused: for a name that is too long for a label, say.
The status tells, and what does not need it goes on."""

from __future__ import annotations

import pytest

from knlocal.resources.base import Obj
from tests.sources.house import House, Sink, to

LONG = "n" * 70
CONTAINER = {"spec": {"containers": [{"image": "i"}]}}


async def test_a_source_goes_on_without_its_event_types(house: House, receiver: Sink) -> None:
    await house.addressable("there", receiver.url)
    await house.apply("PingSource", LONG, {"sink": to("there")})
    assert house.condition("PingSource", LONG)[0] == "True"
    assert house.list("EventType") == []
    await house.clock.advance(60)
    await house.received(receiver, 1)


@pytest.mark.parametrize(
    ("kind", "spec", "condition"),
    [
        ("ContainerSource", {"template": CONTAINER}, "SinkBindingReady"),
        ("IntegrationSink", {"log": {}}, "DeploymentReady"),
        ("EventTransform", {"jsonata": {"expression": "$"}}, "JsonataDeploymentReady"),
    ],
)
async def test_the_status_tells_what_cannot_be_made(
    house: House, receiver: Sink, kind: str, spec: Obj, condition: str
) -> None:
    if kind == "ContainerSource":
        spec = {**spec, "sink": {"uri": receiver.url}}
    await house.apply(kind, LONG, spec)
    status, _, message = house.condition(kind, LONG, condition)
    assert status == "False"
    assert "must be no more than 63" in message
    assert house.condition(kind, LONG)[0] == "False"
