"""SinkBinding: workloads learn where to send events (behaviours E65, E66)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from knlocal.resources.base import Obj
from knlocal.resources.status import BadRequest
from tests.sources.house import House, env_of, pod_template, to

URL = "http://sink.test/in"


def binding(kind: str = "Deployment", api: str = "apps/v1", **subject: Any) -> Obj:
    subject = subject or {"name": "app"}
    return {"subject": {"apiVersion": api, "kind": kind, **subject}, "sink": {"uri": URL}}


def deployment(*containers: Obj, **more: Any) -> Obj:
    return {
        "selector": {"matchLabels": {"app": "x"}}, "template": pod_template(*containers, **more),
    }  # fmt: skip


def job() -> Obj:
    return {"template": pod_template(restartPolicy="Never")}


async def test_a_deployment_that_is_there_gets_the_variables(house: House) -> None:
    await house.apply("Deployment", "app", deployment())
    await house.apply("SinkBinding", "b", binding())
    assert env_of(house.get("Deployment", "app")) == {"K_SINK": URL, "K_CE_OVERRIDES": ""}
    assert house.status("SinkBinding", "b")["sinkUri"] == URL
    assert house.conditions("SinkBinding", "b") == dict.fromkeys(
        ("Ready", "SinkBindingAvailable", "SinkProvided", "OIDCIdentityCreated",
         "OIDCTokenSecretCreated", "TrustBundlePropagated"), "True",
    )  # fmt: skip


async def test_a_deployment_made_later_has_them_from_its_first_version(house: House) -> None:
    await house.apply("SinkBinding", "b", binding())
    state, reason, message = house.condition("SinkBinding", "b", "SinkBindingAvailable")
    assert (state, reason) == ("False", "SubjectMissing")
    assert message == 'deployments.apps "app" not found'
    made = await house.apply("Deployment", "app", deployment())
    assert made["metadata"]["generation"] == 1
    assert env_of(made)["K_SINK"] == URL
    assert house.condition("SinkBinding", "b")[0] == "True"


async def test_every_container_and_init_container_gets_them_beside_its_own(house: House) -> None:
    own = {"name": "MINE", "value": "1"}
    spec = deployment(
        {"name": "a", "image": "i", "env": [own]}, {"name": "b", "image": "i"},
        initContainers=[{"name": "c", "image": "i"}],
    )  # fmt: skip
    await house.apply("Deployment", "app", spec)
    await house.apply("SinkBinding", "b", binding())
    found = house.get("Deployment", "app")
    assert env_of(found, 0) == {"MINE": "1", "K_SINK": URL, "K_CE_OVERRIDES": ""}
    assert env_of(found, 1)["K_SINK"] == URL
    assert env_of(found, 0, "initContainers")["K_SINK"] == URL


async def test_overrides_are_told_as_json(house: House) -> None:
    await house.apply("Deployment", "app", deployment())
    extensions = {"extensions": {"team": "blue"}}
    await house.apply("SinkBinding", "b", {**binding(), "ceOverrides": extensions})
    told = env_of(house.get("Deployment", "app"))["K_CE_OVERRIDES"]
    assert orjson.loads(told) == extensions


async def test_certificates_of_the_sink_are_told(house: House) -> None:
    await house.apply("Deployment", "app", deployment())
    spec = binding() | {"sink": {"uri": "https://sink.test", "CACerts": "PEM"}}
    await house.apply("SinkBinding", "b", spec)
    assert env_of(house.get("Deployment", "app"))["K_CA_CERTS"] == "PEM"


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
async def test_other_controllers_of_pods_are_bound(house: House, kind: str) -> None:
    spec = deployment() | ({"serviceName": "x"} if kind == "StatefulSet" else {})
    await house.apply(kind, "app", spec)
    await house.apply("SinkBinding", "b", binding(kind))
    assert env_of(house.get(kind, "app"))["K_SINK"] == URL


async def test_jobs_are_bound_as_they_are_created(house: House) -> None:
    await house.apply("Job", "early", job())
    await house.apply("SinkBinding", "b", binding("Job", "batch/v1", selector={
        "matchLabels": {"app": "x"},
    }))  # fmt: skip
    assert house.condition("SinkBinding", "b")[0] == "True"
    await house.apply("Job", "app", job(), labels={"app": "x"})
    assert env_of(house.get("Job", "app"))["K_SINK"] == URL
    assert env_of(house.get("Job", "early")) == {}


async def test_a_job_applied_together_with_its_binding_is_bound(house: House) -> None:
    spec = binding("Job", "batch/v1")
    metadata = {"name": "app", "namespace": "default"}
    for api, kind, body in (
        ("sources.knative.dev/v1", "SinkBinding", spec), ("batch/v1", "Job", job()),
    ):  # fmt: skip
        house.store.create({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": body})
    assert env_of(house.get("Job", "app"))["K_SINK"] == URL
    await house.settled()


async def test_a_job_that_was_there_is_left_as_it_is(house: House) -> None:
    await house.apply("Job", "app", job())
    await house.apply("SinkBinding", "b", binding("Job", "batch/v1"))
    assert env_of(house.get("Job", "app")) == {}
    assert house.condition("SinkBinding", "b")[0] == "True"


async def test_the_jobs_of_a_cron_job_are_bound(house: House) -> None:
    spec = {"schedule": "* * * * *", "jobTemplate": {"spec": job()}}
    await house.apply("CronJob", "app", spec)
    await house.apply("SinkBinding", "b", binding("CronJob", "batch/v1"))
    assert env_of(house.get("CronJob", "app"))["K_SINK"] == URL


async def test_a_knative_service_is_bound_in_its_template(house: House) -> None:
    spec = {"template": {"spec": {"containers": [{"image": "img"}]}}}
    before = await house.apply("KService", "app", spec, version="serving.knative.dev/v1")
    await house.apply("SinkBinding", "b", binding("Service", "serving.knative.dev/v1"))
    after = house.get("KService", "app")
    assert env_of(after)["K_SINK"] == URL
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1


async def test_a_service_that_takes_no_change_is_said_to_be_the_reason(house: House) -> None:
    template = {"metadata": {"name": "app-v1"}, "spec": {"containers": [{"image": "img"}]}}
    await house.apply("KService", "app", {"template": template}, version="serving.knative.dev/v1")
    await house.apply("SinkBinding", "b", binding("Service", "serving.knative.dev/v1"))
    state, reason, message = house.condition("SinkBinding", "b", "SinkBindingAvailable")
    assert (state, reason) == ("False", "BindingFailed")
    assert "K_SINK" in message
    await house.delete("SinkBinding", "b")
    assert house.find("SinkBinding", "b") is None


async def test_a_selector_binds_all_that_match_and_may_match_nothing(house: House) -> None:
    spec = binding(selector={"matchLabels": {"events": "yes"}})
    await house.apply("SinkBinding", "b", spec)
    assert house.condition("SinkBinding", "b")[0] == "True"
    for name, value in (("one", "yes"), ("two", "yes"), ("three", "no")):
        await house.apply("Deployment", name, deployment(), labels={"events": value})
    bound = {d["metadata"]["name"] for d in house.list("Deployment") if env_of(d)}
    assert bound == {"one", "two"}


async def test_a_deleted_binding_takes_its_variables_with_it(house: House) -> None:
    own = {"name": "MINE", "value": "1"}
    await house.apply("Deployment", "app", deployment({"name": "a", "image": "i", "env": [own]}))
    await house.apply("SinkBinding", "b", binding())
    await house.delete("SinkBinding", "b")
    assert house.find("SinkBinding", "b") is None
    assert env_of(house.get("Deployment", "app")) == {"MINE": "1"}


async def test_a_binding_that_names_another_subject_lets_go_of_the_first(house: House) -> None:
    await house.apply("Deployment", "app", deployment())
    await house.apply("Deployment", "two", deployment())
    await house.apply("SinkBinding", "b", binding())
    await house.apply("SinkBinding", "b", binding(name="two"))
    assert env_of(house.get("Deployment", "app")) == {}
    assert env_of(house.get("Deployment", "two"))["K_SINK"] == URL


async def test_someone_who_applies_the_subject_again_keeps_it_bound(house: House) -> None:
    await house.apply("SinkBinding", "b", binding())
    first = await house.apply("Deployment", "app", deployment())
    again = await house.apply("Deployment", "app", deployment())
    assert env_of(again)["K_SINK"] == URL
    assert again["metadata"]["generation"] == first["metadata"]["generation"]


async def test_subjects_follow_a_sink_that_comes_moves_and_goes(house: House) -> None:
    await house.apply("Deployment", "app", deployment())
    await house.apply("SinkBinding", "b", {**binding(), "sink": to("there")})
    assert house.condition("SinkBinding", "b", "SinkProvided")[:2] == ("False", "NotFound")
    assert env_of(house.get("Deployment", "app")) == {}
    await house.addressable("there", "http://one.test")
    assert env_of(house.get("Deployment", "app"))["K_SINK"] == "http://one.test"
    await house.addressable("there", "http://two.test")
    assert env_of(house.get("Deployment", "app"))["K_SINK"] == "http://two.test"
    await house.delete("Channel", "there")
    assert env_of(house.get("Deployment", "app")) == {}
    assert house.condition("SinkBinding", "b")[0] == "False"


async def test_the_namespace_is_marked_and_exclusion_respected(house: House) -> None:
    await house.apply(
        "Deployment", "app", deployment(), labels={"bindings.knative.dev/exclude": "true"}
    )
    await house.apply("SinkBinding", "b", binding())
    namespace = house.get("Namespace", "default", "")
    assert namespace["metadata"]["labels"]["bindings.knative.dev/include"] == "true"
    assert env_of(house.get("Deployment", "app")) == {}


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ({"name": "a", "selector": {"matchLabels": {"a": "b"}}}, "expected exactly one, got both"),
        ({"namespace": "other", "name": "a"}, "invalid value: other: spec.subject.namespace"),
        ({"kind": "", "name": "a"}, "missing field(s): spec.subject.kind"),
    ],
)
async def test_nonsense_is_refused_with_the_place(house: House, subject: Obj, said: str) -> None:
    spec = binding()
    spec["subject"] = {"apiVersion": "apps/v1", "kind": "Deployment", **subject}
    with pytest.raises(BadRequest) as error:
        await house.apply("SinkBinding", "b", spec)
    assert said in str(error.value)
