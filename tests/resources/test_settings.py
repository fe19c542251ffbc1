from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from knlocal.resources import settings
from knlocal.resources.kinds import AdmissionContext
from knlocal.resources.settings import EVENTING, SERVING, SettingsError
from knlocal.resources.status import BadRequest

NOW = datetime(2024, 1, 1, tzinfo=UTC)
CTX = AdmissionContext(user="kubernetes-admin", now=NOW)


def test_shipped_configmaps_are_all_there_and_valid() -> None:
    shipped = settings.default_configmaps()
    names = {(m["metadata"]["namespace"], m["metadata"]["name"]) for m in shipped}
    assert len(names) == 26
    assert (SERVING, "config-certmanager") in names
    assert (EVENTING, "config-kreference-mapping") in names
    for configmap in shipped:
        assert all(isinstance(value, str) for value in configmap["data"].values())
        assert not settings.validate_configmap(configmap, CTX), configmap["metadata"]["name"]


def test_the_default_domain_is_localhost() -> None:
    shipped = {m["metadata"]["name"]: m["data"] for m in settings.default_configmaps()}
    assert settings.Domains.parse(shipped["config-domain"]).lookup({}) == "localhost"


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        (
            "config-leader-election",
            {"lease-duration": "x"},
            'failed to parse "lease-duration": time: invalid duration "x"',
        ),
        (
            "config-leader-election",
            {"buckets": "11"},
            "buckets: value must be between 1 <= 11 <= 10",
        ),
        ("config-logging", {"loglevel.controller": "foo"}, 'unrecognized level: "foo"'),
        ("config-logging", {"zap-logger-config": "{"}, "failed to parse zap-logger-config: "),
        ("config-observability", {"tracing-protocol": "foo"}, 'unsupported protocol "foo"'),
        (
            "config-autoscaler",
            {"stable-window": "3s"},
            "stable-window = 3s, must be in [6s; 1h0m0s] range",
        ),
        ("config-autoscaler", {"initial-scale": "0"}, "initial-scale = 0, must be at least 0"),
        (
            "config-autoscaler",
            {"max-scale-limit": "5"},
            "max-scale = 0, must be in [1, max-scale-limit(5)] range",
        ),
        ("config-autoscaler", {"max-scale": "x"}, 'failed to parse "max-scale": strconv'),
        (
            "config-defaults",
            {"revision-timeout-seconds": "700"},
            (
                "revision-timeout-seconds (700) cannot be greater than "
                "max-revision-timeout-seconds (600)"
            ),
        ),
        (
            "config-defaults",
            {"container-concurrency": "-1"},
            "expected 0 <= -1 <= 1000: container-concurrency",
        ),
        ("config-defaults", {"container-name-template": "{{.Nope}}"}, "error executing template"),
        (
            "config-deployment",
            {"progress-deadline": "1.5s"},
            "progress-deadline must be rounded to a whole second, was: 1.5s",
        ),
        (
            "config-deployment",
            {"queue-sidecar-image": ""},
            "queue-sidecar-image cannot be empty or unset",
        ),
        ("config-gc", {"min-non-active-revisions": "5", "max-non-active-revisions": "2"}, "<="),
        ("config-network", {"rollout-duration": "-3"}, "must be a positive integer"),
        ("config-network", {"domain-template": "{{.Nope}}"}, "can't evaluate field Nope"),
        ("config-network", {"http-protocol": "maybe"}, "http-protocol"),
        ("config-observability", {"logging.request-log-template": "{{"}, "unclosed action"),
        ("config-domain", {"example.com": "selector: ["}, 'failed to parse "example.com"'),
    ],
)
def test_a_bad_value_is_refused(name: str, data: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.parse(name, data)
    assert said in str(caught.value)
    refused = settings.validate_configmap(
        {"metadata": {"name": name, "namespace": SERVING}, "data": data}, CTX
    )
    assert said in str(refused)


def test_a_changed_example_is_refused() -> None:
    configmap = next(
        m for m in settings.default_configmaps() if m["metadata"]["name"] == "config-gc"
    )
    configmap["data"]["_example"] += "more: true\n"
    assert 'modifies a key in "_example"' in str(settings.validate_configmap(configmap, CTX))


def test_the_admission_hook_speaks_like_knatives_webhook() -> None:
    bad = {
        "kind": "ConfigMap",
        "metadata": {"name": "config-gc", "namespace": SERVING},
        "data": {"min-non-active-revisions": "-1"},
    }
    with pytest.raises(BadRequest) as caught:
        settings.admit_configmap(SimpleNamespace(obj=bad))
    assert str(caught.value) == (
        'admission webhook "config.webhook.serving.knative.dev" denied the request: validation '
        "failed: min-non-active-revisions must be non-negative, was: -1: data"
    )
    settings.admit_configmap(SimpleNamespace(obj={**bad, "data": {}}))


def test_other_configmaps_are_nobodys_business() -> None:
    other = {"metadata": {"name": "config-autoscaler", "namespace": "default"}, "data": {"a": "b"}}
    assert settings.config_webhook(other) == ""
    assert not settings.validate_configmap(other, CTX)


def test_the_webhook_is_named_after_its_component() -> None:
    serving = {"metadata": {"name": "config-gc", "namespace": SERVING}}
    eventing = {"metadata": {"name": "config-features", "namespace": EVENTING}}
    assert settings.config_webhook(serving) == "config.webhook.serving.knative.dev"
    assert settings.config_webhook(eventing) == "config.webhook.eventing.knative.dev"


def test_dash_case_wins_over_the_legacy_spelling() -> None:
    legacy = settings.Network.parse(
        {"autocreateClusterDomainClaims": "true", "tagTemplate": "{{.Tag}}.{{.Name}}"}
    )
    assert legacy.autocreate_cluster_domain_claims
    assert legacy.tag_name("hello", "blue") == "blue.hello"
    both = settings.Network.parse({"rolloutDuration": "5", "rollout-duration": "7"})
    assert both.rollout_duration == 7


def test_hosts_follow_the_templates() -> None:
    network = settings.Network.parse({})
    assert network.host("hello", "default", "localhost") == "hello.default.localhost"
    assert network.tag_name("hello", "blue") == "blue-hello"
    custom = settings.Network.parse(
        {"domain-template": '{{.Name}}-{{.Namespace}}.{{index .Annotations "sub"}}.{{.Domain}}'}
    )
    assert custom.host("a", "b", "c.d", annotations={"sub": "x"}) == "a-b.x.c.d"


@pytest.mark.parametrize(
    ("labels", "domain"),
    [
        ({}, "example.com"),
        ({"app": "prod"}, "prod.com"),
        ({"app": "prod", "tier": "web"}, "web.prod.com"),
        ({"networking.knative.dev/visibility": "cluster-local"}, "svc.cluster.local"),
    ],
)
def test_the_most_specific_domain_wins(labels: dict[str, str], domain: str) -> None:
    domains = settings.Domains.parse(
        {
            "example.com": "",
            "prod.com": "selector:\n  app: prod\n",
            "web.prod.com": "selector:\n  app: prod\n  tier: web\n",
            "_example": "ignored",
        }
    )
    assert domains.lookup(labels) == domain


def test_without_a_default_domain_routes_are_private() -> None:
    domains = settings.Domains.parse({"prod.com": "selector:\n  app: prod\n"})
    assert domains.lookup({}) == "svc.cluster.local"


def test_autoscaler_defaults_are_knatives() -> None:
    autoscaler = settings.Autoscaler.parse({})
    assert autoscaler.container_concurrency_target_fraction == 0.7
    assert autoscaler.target_burst_capacity == 211
    assert autoscaler.stable_window == 60
    percent = settings.Autoscaler.parse({"container-concurrency-target-percentage": "50"})
    assert percent.container_concurrency_target_fraction == 0.5


def test_gc_bounds_can_be_switched_off() -> None:
    gc = settings.Gc.parse(
        {
            "retain-since-create-time": "disabled",
            "retain-since-last-active-time": "disabled",
            "min-non-active-revisions": "0",
            "max-non-active-revisions": "0",
        }
    )
    assert gc.retain_since_create_time is None
    assert gc.max_non_active_revisions == 0


def test_response_start_timeout_follows_the_revision_timeout() -> None:
    assert settings.Defaults.parse({}).revision_response_start_timeout_seconds == 300
    raised = settings.Defaults.parse({"revision-timeout-seconds": "123"})
    assert raised.revision_response_start_timeout_seconds == 123


def test_unknown_words_leave_a_feature_flag_alone() -> None:
    features = settings.Features.parse(
        {"multi-container": "perhaps", "kubernetes.podspec-affinity": "enabled"}
    )
    assert features.multi_container == "Enabled"
    assert features.pod_spec_affinity == "Enabled"
    assert settings.Features.parse({"secure-pod-defaults": "AllowRootBounded"}).secure_pod_defaults


def test_broker_defaults_prefer_the_namespace() -> None:
    defaults = settings.BrokerDefaults.parse(
        {
            "default-br-config": """
clusterDefault:
  brokerClass: MTChannelBasedBroker
  apiVersion: v1
  kind: ConfigMap
  name: config-br-default-channel
  namespace: knative-eventing
  delivery: {retry: 10}
namespaceDefaults:
  here:
    brokerClass: Kafka
    name: kafka-config
"""
        }
    )
    assert defaults.broker_class("elsewhere") == "MTChannelBasedBroker"
    assert defaults.broker_class("here") == "Kafka"
    found = defaults.for_class("elsewhere", "MTChannelBasedBroker")
    assert found.config is not None
    assert found.config["name"] == "config-br-default-channel"
    assert found.delivery == {"retry": 10}
    assert defaults.for_class("here", "Kafka").config == {"name": "kafka-config"}


def test_eventing_features_have_knatives_defaults() -> None:
    features = settings.EventingFeatures.parse({"delivery-timeout": "disabled"})
    assert not features.is_enabled("delivery-timeout")
    assert features.flag("default-authorization-mode") == "Allow-Same-Namespace"
    with pytest.raises(SettingsError):
        settings.EventingFeatures.parse({"delivery-timeout": "sometimes"})


@pytest.mark.parametrize(
    "selector",
    ["5", "[a]", "matchLabels: [a]", "matchLabels: {a: 1}", "matchExpressions: 5",
     "matchExpressions: [a]", "matchExpressions: [{key: a, operator: Like}]",
     "matchExpressions: [{key: a, operator: In}]",
     "matchExpressions: [{key: a, operator: Exists, values: [b]}]"],
)  # fmt: skip
def test_sugar_refuses_what_selects_nothing_sensible(selector: str) -> None:
    with pytest.raises(SettingsError, match="trigger-selector"):
        settings.Sugar.parse({"trigger-selector": selector})


def test_sugar_tells_off_from_everything() -> None:
    assert settings.Sugar.parse({}).namespace_selector is None
    assert settings.Sugar.parse({"namespace-selector": "{}"}).namespace_selector == {}


def test_admission_reads_settings_from_its_context() -> None:
    ctx = AdmissionContext(
        user="u",
        now=NOW,
        configs={
            "knative-serving/config-defaults": {"revision-timeout-seconds": "11"},
            "knative-serving/config-autoscaler": {"stable-window": "broken"},
        },
    )
    assert settings.of_context(settings.Defaults, ctx).revision_timeout_seconds == 11
    assert settings.of_context(settings.Autoscaler, ctx).stable_window == 60
