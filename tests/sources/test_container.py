"""ContainerSource and IntegrationSource (behaviours E64, E67, E69)."""

from __future__ import annotations

from typing import Any

import pytest

from knlocal.resources.base import Obj
from knlocal.resources.status import BadRequest
from knlocal.testing.sink import Sink
from tests.sources.house import House, env_of, to

CONTAINER = {"image": "i", "env": [{"name": "MINE", "value": "1"}]}


def source(**spec: Any) -> Obj:
    found = {
        "sink": {"uri": "http://sink.test/"},
        "template": {"spec": {"containers": [CONTAINER]}},
    }
    return {**found, **spec}


async def available(house: House, name: str) -> None:
    """What the Deployment's controller would say once the pod is ready."""
    deployment = house.get("Deployment", name)
    status = {"conditions": [{"type": "Available", "status": "True"}], "readyReplicas": 1}
    house.store.update({**deployment, "status": status}, subresource="status")
    await house.settled()


async def test_it_is_a_binding_and_a_deployment_that_knows_its_sink_from_the_start(
    house: House,
) -> None:
    made = await house.apply(
        "ContainerSource", "src", source(ceOverrides={"extensions": {"team": "blue"}})
    )
    binding = house.get("SinkBinding", "src-sinkbinding")
    deployment = house.get("Deployment", "src-deployment")
    for child in (binding, deployment):
        assert child["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
    assert binding["spec"]["subject"]["name"] == "src-deployment"
    assert deployment["metadata"]["generation"] == 1
    assert env_of(deployment) == {
        "MINE": "1",
        "K_SINK": "http://sink.test/",
        "K_CE_OVERRIDES": '{"extensions":{"team":"blue"}}',
    }
    containers = deployment["spec"]["template"]["spec"]["containers"]
    assert containers[0]["name"] == "src-0"


async def test_it_is_ready_once_its_pod_is(house: House) -> None:
    await house.apply("ContainerSource", "src", source())
    assert house.conditions("ContainerSource", "src")["SinkBindingReady"] == "True"
    state, reason, message = house.condition("ContainerSource", "src")
    assert (state, reason) == ("Unknown", "DeploymentUnavailable")
    assert message == "The Deployment 'src-deployment' is unavailable."
    await available(house, "src-deployment")
    assert house.condition("ContainerSource", "src")[0] == "True"
    assert house.status("ContainerSource", "src")["sinkUri"] == "http://sink.test/"


async def test_nothing_runs_before_the_sink_is_there(house: House) -> None:
    await house.apply("ContainerSource", "src", source(sink=to("later")))
    state, reason, _ = house.condition("ContainerSource", "src", "SinkBindingReady")
    assert (state, reason) == ("False", "NotFound")
    assert house.find("Deployment", "src-deployment") is None
    await house.addressable("later", "http://there.test")
    assert env_of(house.get("Deployment", "src-deployment"))["K_SINK"] == "http://there.test"


async def test_a_null_among_the_arguments_is_the_empty_word(house: House) -> None:
    container = {**CONTAINER, "args": ["a", None], "command": ["run"]}
    spec = source(template={"spec": {"containers": [container]}})
    await house.apply("ContainerSource", "src", spec)
    deployment = house.get("Deployment", "src-deployment")
    [made] = deployment["spec"]["template"]["spec"]["containers"]
    assert (made["command"], made["args"]) == (["run"], ["a", ""])


async def test_a_deployment_that_is_refused_is_said_to_be_the_reason(house: House) -> None:
    container = {**CONTAINER, "args": [1]}
    spec = source(template={"spec": {"containers": [container]}})
    await house.apply("ContainerSource", "src", spec)
    state, reason, message = house.condition("ContainerSource", "src", "ReceiveAdapterReady")
    assert (state, reason) == ("False", "DeploymentFailed")
    assert "containers[0].args[0]" in message


async def test_changes_of_the_template_reach_the_deployment(house: House) -> None:
    await house.apply("ContainerSource", "src", source())
    changed = {"spec": {"containers": [{"image": "other", "name": "c"}]}}
    await house.apply("ContainerSource", "src", source(template=changed))
    container = house.get("Deployment", "src-deployment")["spec"]["template"]["spec"]["containers"]
    assert container[0]["image"] == "other"
    assert env_of(house.get("Deployment", "src-deployment"))["K_SINK"] == "http://sink.test/"


async def test_what_it_made_goes_with_it(house: House) -> None:
    await house.apply("ContainerSource", "src", source())
    await house.delete("ContainerSource", "src")
    assert not house.list("SinkBinding")
    assert not house.list("Deployment")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ({"spec": {"containers": []}}, "missing field(s): spec.containers"),
        ({"spec": {"containers": [{"name": "a"}]}}, "missing field(s): spec.containers[0].image"),
    ],
)
async def test_nonsense_is_refused_with_the_place(house: House, template: Obj, said: str) -> None:
    with pytest.raises(BadRequest) as error:
        await house.apply("ContainerSource", "src", source(template=template))
    assert said in str(error.value)


# -- IntegrationSource ----------------------------------------------------------------------------


async def test_a_timer_sends_its_message_again_and_again(house: House, receiver: Sink) -> None:
    spec = {"sink": {"uri": receiver.url}, "timer": {"message": "hi", "period": 250}}
    await house.apply("IntegrationSource", "timer", spec)
    assert house.conditions("IntegrationSource", "timer") == {
        "Ready": "True", "ContainerSourceReady": "True",
    }  # fmt: skip
    await house.until(lambda: len(receiver.events) >= 3)
    event = receiver.events[0]
    assert event.type == "dev.knative.eventing.timer"
    assert event.data == b"hi"
    assert event.attributes["datacontenttype"] == "text/plain"


async def test_a_timer_stops_after_as_many_as_wanted(house: House, receiver: Sink) -> None:
    timer = {"message": "{}", "contentType": "application/json", "repeatCount": 2}
    spec = {"sink": {"uri": receiver.url}, "timer": timer}
    await house.apply("IntegrationSource", "timer", spec)
    await house.until(lambda: len(receiver.events) >= 2)
    await house.clock.advance(10)
    assert len(receiver.events) == 2


async def test_a_timer_whose_sink_is_missing_says_so(house: House) -> None:
    spec = {"sink": to("later"), "timer": {"message": "hi"}}
    await house.apply("IntegrationSource", "timer", spec)
    assert house.condition("IntegrationSource", "timer")[:2] == ("False", "NotFound")
    await house.addressable("later", "http://127.0.0.1:1")
    assert house.condition("IntegrationSource", "timer")[0] == "True"


async def test_a_source_that_needs_aws_says_what_is_missing(house: House) -> None:
    aws = {
        "sqs": {"arn": "arn:aws:sqs:eu-west-1:1:q", "region": "eu-west-1"},
        "auth": {"secret": {"ref": {"name": "keys"}}},
    }
    spec = {"sink": {"uri": "http://sink.test"}, "aws": aws}
    await house.apply("IntegrationSource", "queue", spec)
    state, reason, message = house.condition("IntegrationSource", "queue")
    assert (state, reason) == ("False", "NotSimulated")
    assert "aws-sqs-source" in message
    assert "ceAttributes" not in house.status("IntegrationSource", "queue")
