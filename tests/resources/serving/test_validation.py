"""The words of Knative's refusals of metadata, traffic, annotations and updates."""

from __future__ import annotations

import copy
from typing import Any

import pytest

DNS1035 = (
    "[a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', "
    "regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')]"
)
IN_TEMPLATE = "spec.template.metadata.annotations"
A = "autoscaling.knative.dev"


def revision(**metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {"name": "hello-00001", "namespace": "default", **metadata},
        "spec": {"containers": [{"image": "busybox"}]},
    }


def route(*targets: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Route",
        "metadata": {"name": "hello", "namespace": "default", **metadata},
        "spec": {"traffic": list(targets)},
    }


# --- names ---------------------------------------------------------------------------------------


def test_names_are_dns_1035_labels(api: Any) -> None:
    said = api.refused(api.service(name="1hello"))
    assert said == f"invalid value: not a DNS 1035 label: {DNS1035}: metadata.name"
    nameless = api.service()
    del nameless["metadata"]["name"]
    assert api.refused(nameless) == "name or generateName is required: metadata.name"
    nameless["metadata"]["generateName"] = "hello-"
    assert api.refused(nameless) == ""
    nameless["metadata"]["generateName"] = "Hello-"
    assert "not a DNS 1035 label prefix: [" in api.refused(nameless)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hello-one", ""),
        ("other-one", 'invalid value: "other-one" must have prefix "hello-"'),
        ("hello-One", f"invalid value: not a DNS 1035 label: {DNS1035}"),
    ],
)
def test_a_revision_name_starts_with_its_parents(api: Any, name: str, said: str) -> None:
    found = api.refused(api.service(template={"name": name}))
    assert found == (f"{said}: spec.template.metadata.name" if said else "")


def test_a_generated_parent_name_forbids_a_revision_name(api: Any) -> None:
    obj = api.service(template={"name": "hello-one"})
    del obj["metadata"]["name"]
    obj["metadata"]["generateName"] = "hello-"
    assert api.refused(obj) == "must not set the field(s): spec.template.metadata.name"
    obj["metadata"]["name"] = "hello-x7k2p"  # as the store has generated it
    assert api.refused(obj) == "must not set the field(s): spec.template.metadata.name"
    obj["spec"]["template"]["metadata"]["name"] = "hello-x7k2p-one"
    assert "must not set" in api.refused(obj)


# --- annotations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ({"min-scale": "1", "max-scale": "2"}, ""),
        ({"minScale": "1", "maxScale": "2"}, ""),
        ({"min-scale": "-1"}, f"expected 0 <= -1 <= 2147483647: {{}}.{A}/min-scale"),
        ({"min-scale": "a"}, f"invalid value: a: {{}}.{A}/min-scale"),
        ({"maxScale": "x"}, f"invalid value: x: {{}}.{A}/maxScale"),
        (
            {"min-scale": "2", "max-scale": "1"},
            f"max-scale=1 is less than min-scale=2: {{}}.{A}/max-scale, {{}}.{A}/min-scale",
        ),
        (
            {"activation-scale": "1"},
            f"activation-scale=1 must be greater than 1: {{}}.{A}/activation-scale",
        ),
        (
            {"activation-scale": "2", "min-scale": "3"},
            f"min-scale=3 is greater than activation-scale=2: {{}}.{A}/activation-scale",
        ),
        (
            {"activation-scale": "5", "max-scale": "4"},
            f"max-scale=4 is less than activation-scale=5: {{}}.{A}/activation-scale",
        ),
        ({"window": "1m"}, ""),
        ({"window": "5s"}, f"expected 6s <= 5s <= 1h0m0s: {{}}.{A}/window"),
        ({"window": "jerry"}, f"invalid value: jerry: {{}}.{A}/window"),
        (
            {"window": "60.5s"},
            f"must be specified with at most second precision: {{}}.{A}/window",
        ),
        (
            {"panic-window-percentage": "0.5"},
            f"expected 1 <= 0.5 <= 100: {{}}.{A}/panic-window-percentage",
        ),
        (
            {"panic-threshold-percentage": "109"},
            f"expected 110 <= 109 <= 1000: {{}}.{A}/panic-threshold-percentage",
        ),
        ({"target": "0"}, f"target 0 should be at least 0.01: {{}}.{A}/target"),
        ({"target": "0.01"}, ""),
        (
            {"target-utilization-percentage": "101"},
            f"expected 1 <= 101 <= 100: {{}}.{A}/target-utilization-percentage",
        ),
        ({"target-burst-capacity": "-1"}, ""),
        (
            {"target-burst-capacity": "-2"},
            f"invalid value: -2: {{}}.{A}/target-burst-capacity",
        ),
        (
            {"scale-down-delay": "2h"},
            f"expected 0s <= 2h <= 1h0m0s: {{}}.{A}/scale-down-delay",
        ),
        (
            {"scale-to-zero-pod-retention-period": "-1s"},
            f"expected 0s <= -1s <= 1h0m0s: {{}}.{A}/scale-to-zero-pod-retention-period",
        ),
        ({"metric": "rps"}, ""),
        ({"metric": "cpu"}, f"invalid value: cpu: {{}}.{A}/metric"),
        ({"metric": "cpu", "class": f"hpa.{A}"}, ""),
        ({"class": f"bad.{A}"}, f"invalid value: bad.{A}: {{}}.{A}/class"),
        ({"class": "my.own"}, ""),
        (
            {"initial-scale": "0"},
            f"invalid value: 0: {{}}.{A}/initial-scale=0 not allowed by cluster",
        ),
        (
            {"initial-scale": "-1"},
            f"invalid value: -1: {{}}.{A}/initial-scale must be greater than 0",
        ),
        ({"initial-scale": "3"}, ""),
        (
            {"class": f"kpa.{A}", "metric-aggregation-algorithm": "meridian"},
            f"invalid value: meridian: {{}}.{A}/metric-aggregation-algorithm",
        ),
        ({"metric-aggregation-algorithm": "meridian"}, ""),
        ({"class": f"kpa.{A}", "metric-aggregation-algorithm": "weightedExponential"}, ""),
    ],
)
def test_autoscaling_annotations(api: Any, annotations: dict[str, str], said: str) -> None:
    marks = {f"{A}/{key}": value for key, value in annotations.items()}
    found = api.refused(api.service(template={"annotations": marks}))
    assert found == said.replace("{}", IN_TEMPLATE)
    on_revision = api.refused(revision(annotations=marks))
    assert on_revision == said.replace("{}", "metadata.annotations")


def test_the_cluster_limits_max_scale_and_allows_initial_scale_zero(api: Any) -> None:
    ctx = api.context(autoscaler={"max-scale-limit": "5", "max-scale": "2"})
    over = api.service(template={"annotations": {f"{A}/max-scale": "6"}})
    assert api.refused(over, ctx) == f"expected 1 <= 6 <= 5: {IN_TEMPLATE}.{A}/max-scale"
    unlimited = api.service(template={"annotations": {f"{A}/max-scale": "0"}})
    assert api.refused(unlimited, ctx) == (
        f"max-scale=0 (unlimited), must be less than 5: {IN_TEMPLATE}.{A}/max-scale"
    )
    zero = api.service(template={"annotations": {f"{A}/initial-scale": "0"}})
    assert api.refused(zero, api.context(autoscaler={"allow-zero-initial-scale": "true"})) == ""


@pytest.mark.parametrize("make", ["service", "route"])
def test_autoscaling_annotations_belong_to_the_template(api: Any, make: str) -> None:
    marks = {f"{A}/min-scale": "1"}
    target = {"configurationName": "c", "percent": 100}
    obj = api.service(annotations=marks) if make == "service" else route(target, annotations=marks)
    assert api.refused(obj) == (
        f'invalid key name "{A}/min-scale": metadata.annotations\n'
        'autoscaling annotations must be put under "spec.template.metadata.annotations" to work'
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("10s", ""),
        ("x", "invalid value: x"),
        ("1.5s", "{}=1.5s is not at second precision"),
        ("-1s", "{}=-1s must be positive"),
    ],
)
@pytest.mark.parametrize("name", ["rollout-duration", "progress-deadline"])
def test_durations_in_annotations(api: Any, name: str, value: str, said: str) -> None:
    key = f"serving.knative.dev/{name}"
    if name == "rollout-duration":
        obj, path = api.service(annotations={key: value}), f"metadata.annotations.{key}"
    else:
        obj, path = api.service(template={"annotations": {key: value}}), f"{IN_TEMPLATE}.{key}"
    assert api.refused(obj) == (f"{said.replace('{}', name)}: {path}" if said else "")


def test_queue_proxy_resources(api: Any) -> None:
    queue = "queue.sidecar.serving.knative.dev"
    over = api.service(template={"annotations": {f"{queue}/resource-percentage": "200"}})
    assert api.refused(over) == (
        f"expected 0.1 <= 200 <= 100: {IN_TEMPLATE}[{queue}/resource-percentage]"
    )
    wrong = api.service(template={"annotations": {f"{queue}/cpu-resource-request": "lots"}})
    assert api.refused(wrong) == f"invalid value: lots: {IN_TEMPLATE}[{queue}/cpu-resource-request]"
    fine = api.service(template={"annotations": {f"{queue}/memory-resource-limit": "1Gi"}})
    assert api.refused(fine) == ""


# --- labels --------------------------------------------------------------------------------------


def test_labels_that_name_an_owner_must_be_true(api: Any) -> None:
    label = "serving.knative.dev/configuration"
    owner = {"apiVersion": "x/v1", "kind": "Configuration", "name": "hello", "uid": "1"}
    assert (
        api.refused(revision(labels={label: "hello"}))
        == f"missing field(s): metadata.labels.{label}"
    )
    assert api.refused(revision(labels={label: "hello"}, ownerReferences=[owner])) == ""
    target = {"configurationName": "c", "percent": 100}
    of_service = "serving.knative.dev/service"
    assert api.refused(route(target, labels={of_service: "x"})) == (
        f"missing field(s): metadata.labels.{of_service}"
    )


# --- traffic -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ([{"percent": 60}, {"percent": 40, "revisionName": "hello-1"}], ""),
        ([{"percent": 99}], "Traffic targets sum to 99, want 100: {}"),
        (
            [{"percent": 101}, {"percent": -1}],
            "expected 0 <= -1 <= 100: {}[1].percent\nexpected 0 <= 101 <= 100: {}[0].percent",
        ),
        (
            [{"percent": 100, "tag": "a"}, {"tag": "a", "revisionName": "r"}],
            'Multiple definitions for "a": {}[0].tag, {}[1].tag',
        ),
        (
            [{"percent": 100, "tag": "A!"}],
            f"invalid value: not a DNS 1035 label: {DNS1035}: {{}}.tag[0]",
        ),
        ([{"percent": 100, "url": "http://x"}], "must not set the field(s): {}[0].url"),
        (
            [{"percent": 100, "configurationName": "c"}],
            "must not set the field(s): {}[0].configurationName",
        ),
        (
            [{"percent": 100, "revisionName": "r", "latestRevision": True}],
            'may not set revisionName "r" when latestRevision is true: {}[0].latestRevision',
        ),
        (
            [{"percent": 100, "latestRevision": False}],
            'may not set revisionName "" when latestRevision is false: {}[0].latestRevision',
        ),
    ],
)
def test_traffic_of_a_service(api: Any, targets: list[dict[str, Any]], said: str) -> None:
    assert api.refused(api.service(traffic=targets)) == said.replace("{}", "spec.traffic")


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ([{"percent": 100, "configurationName": "c"}], ""),
        ([{"percent": 100, "revisionName": "r"}], ""),
        (
            [{"percent": 100}],
            (
                "expected exactly one, got neither: "
                "spec.traffic[0].configurationName, spec.traffic[0].revisionName"
            ),
        ),
        (
            [{"percent": 100, "revisionName": "r", "configurationName": "c"}],
            (
                "expected exactly one, got both: "
                "spec.traffic[0].configurationName, spec.traffic[0].revisionName"
            ),
        ),
        ([], "Traffic targets sum to 0, want 100: spec.traffic"),
    ],
)
def test_traffic_of_a_route(api: Any, targets: list[dict[str, Any]], said: str) -> None:
    assert api.refused(route(*targets)) == said


# --- updates -------------------------------------------------------------------------------------


def test_a_revision_cannot_change_but_its_annotations_can(api: Any) -> None:
    stored, _ = api.admit(revision())
    changed = copy.deepcopy(stored)
    changed["metadata"]["annotations"] = {f"{A}/min-scale": "2"}
    assert api.refused(changed, api.context(old=stored)) == ""
    changed["spec"]["containers"][0]["image"] = "helloworld"
    assert api.refused(changed, api.context(old=stored)) == (
        "Immutable fields changed (-old +new): spec\n"
        "{v1.RevisionSpec}.PodSpec.Containers[0].Image:\n"
        '\t-: "busybox"\n\t+: "helloworld"\n'
    )


def test_a_changed_template_needs_a_new_name(api: Any) -> None:
    stored, _ = api.admit(api.service(template={"name": "hello-one"}))
    changed = copy.deepcopy(stored)
    changed["spec"]["template"]["spec"]["containers"][0]["image"] = "helloworld"
    assert api.refused(changed, api.context(old=stored)) == (
        "Saw the following changes without a name change (-old +new): "
        "spec.template.metadata.name\n"
        "{*v1.RevisionTemplateSpec}.Spec.PodSpec.Containers[0].Image:\n"
        '\t-: "busybox"\n\t+: "helloworld"\n'
    )
    changed["spec"]["template"]["metadata"]["name"] = "hello-two"
    assert api.refused(changed, api.context(old=stored)) == ""


def test_creator_and_modifier_cannot_be_forged(api: Any) -> None:
    stored, _ = api.admit(api.service())
    forged = copy.deepcopy(stored)
    forged["metadata"]["annotations"]["serving.knative.dev/creator"] = "mallory"
    assert api.refused(forged, api.context(old=stored)) == (
        "annotation value is immutable: metadata.annotations.serving.knative.dev/creator"
    )
    forged = copy.deepcopy(stored)
    forged["metadata"]["annotations"]["serving.knative.dev/lastModifier"] = "mallory"
    assert api.refused(forged, api.context(old=stored)) == (
        "annotation value is immutable: metadata.annotations.serving.knative.dev/lastModifier"
    )


def test_status_writes_pass_though_the_rules_got_stricter(api: Any) -> None:
    stored, _ = api.admit(api.service(timeoutSeconds=600))
    stricter = {"max-revision-timeout-seconds": "300"}
    written = {**stored, "status": {"url": "http://x"}}
    ctx = api.context(old=stored, subresource="status", defaults=stricter)
    assert api.refused(written, ctx) == ""
    changed = copy.deepcopy(stored)
    changed["metadata"]["labels"] = {"a": "b"}
    assert "expected 0 <= 600 <= 300" in api.refused(
        changed, api.context(old=stored, defaults=stricter)
    )


def test_a_dry_run_looks_at_the_pod_too(api: Any) -> None:
    obj = api.service({"image": "busybox", "name": "&InvalidValue"})
    assert api.refused(obj) == ""
    said = api.refused(obj, api.context(dry_run=True))
    assert said.startswith(
        'validation callback failed: dry run failed with Pod "hello" is invalid: '
        'spec.containers[0].name: Invalid value: "&InvalidValue": a lowercase RFC 1123 label'
    )
    assert said.endswith(": spec.template")
    greedy = {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}
    obj = api.service({"image": "busybox", "resources": greedy, "livenessProbe": {"httpGet": {}}})
    assert "must be less than or equal to cpu limit of 1" in api.refused(
        obj, api.context(dry_run=True)
    )
    assert api.refused(api.service(), api.context(dry_run=True)) == ""


# --- domain mappings -----------------------------------------------------------------------------


def mapping(name: str, ref: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    reference = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello"}
    return {
        "apiVersion": "serving.knative.dev/v1beta1",
        "kind": "DomainMapping",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "spec": {"ref": {**reference, **(ref or {})}},
    }


@pytest.mark.parametrize(
    ("obj", "said"),
    [
        (mapping("www.example.com"), ""),
        (
            mapping("notadomain"),
            (
                'invalid name "notadomain": name: Invalid value: "notadomain": should be a domain '
                "with at least two segments separated by dots: metadata.name"
            ),
        ),
        (
            mapping("x.svc.cluster.local"),
            (
                'invalid name "x.svc.cluster.local": must not be a subdomain of cluster local '
                'domain "cluster.local": metadata.name'
            ),
        ),
        (
            mapping("www.example.com", generateName="www-"),
            "must not set the field(s): metadata.generateName",
        ),
        (
            mapping("www.example.com", {"namespace": "other"}),
            (
                "mismatched namespaces: spec.ref.namespace\n"
                'parent namespace: "default" does not match ref: "other"'
            ),
        ),
        (
            mapping("www.example.com", {"name": "", "kind": "", "apiVersion": ""}),
            "missing field(s): spec.ref.apiVersion, spec.ref.kind, spec.ref.name",
        ),
    ],
)
def test_domain_mappings(api: Any, obj: dict[str, Any], said: str) -> None:
    assert api.refused(obj) == said
