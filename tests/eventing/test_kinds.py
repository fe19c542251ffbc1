"""Eventing's objects at the door: what is filled in, what is refused, in Knative's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from knlocal.resources.base import GroupKind, Obj
from knlocal.resources.ducks import EVENTING_CONTROLLER
from knlocal.resources.eventing import BROKER_CLASS
from knlocal.resources.status import StatusError
from knlocal.store.store import Store, WriteOptions

Create = Callable[..., Obj]
DENIED = (
    'admission webhook "validation.webhook.eventing.knative.dev" denied the request: '
    "validation failed: "
)
EVENTING, MESSAGING = "eventing.knative.dev/v1", "messaging.knative.dev/v1"
FLOWS, SOURCES = "flows.knative.dev/v1", "sources.knative.dev/v1"
ALPHA, SINKS = "eventing.knative.dev/v1alpha1", "sinks.knative.dev/v1alpha1"
SINK = {"uri": "http://sink.example.com"}
REF = {"apiVersion": "v1", "kind": "Service", "name": "s"}


def set_config(store: Store, name: str, data: dict[str, str]) -> None:
    store.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": "knative-eventing"},
            "data": data,
        }
    )


# -- defaults ------------------------------------------------------------------------------------


def test_a_broker_gets_class_config_and_delivery(create: Create) -> None:
    broker = create(EVENTING, "Broker", "b")
    assert broker["metadata"]["annotations"][BROKER_CLASS] == "MTChannelBasedBroker"
    assert broker["spec"] == {
        "config": {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": "config-br-default-channel",
            "namespace": "knative-eventing",
        },
        "delivery": {"retry": 10, "backoffPolicy": "exponential", "backoffDelay": "PT0.2S"},
    }


def test_a_brokers_own_delivery_is_kept_as_it_is(create: Create) -> None:
    delivery = {"deadLetterSink": {"ref": REF}}
    broker = create(EVENTING, "Broker", "b", {"delivery": delivery})
    assert broker["spec"]["delivery"] == {
        "deadLetterSink": {"ref": {**REF, "namespace": "default"}}
    }


def test_broker_defaults_come_from_the_config_map(store: Store, create: Create) -> None:
    text = """
    clusterDefault: {brokerClass: Other, apiVersion: v1, kind: ConfigMap, name: c, namespace: n}
    namespaceDefaults:
      other: {brokerClass: Special, delivery: {retry: 1}}
    """
    set_config(store, "config-br-defaults", {"default-br-config": text})
    broker = create(EVENTING, "Broker", "b")
    assert broker["metadata"]["annotations"][BROKER_CLASS] == "Other"
    assert "delivery" not in broker["spec"]
    special = create(EVENTING, "Broker", "b", namespace="other")
    assert special["metadata"]["annotations"][BROKER_CLASS] == "Special"
    assert special["spec"] == {"delivery": {"retry": 1}}


CLASSES = """
clusterDefault:
  brokerClass: MTChannelBasedBroker
  apiVersion: v1
  kind: ConfigMap
  name: everywhere
  delivery: {retry: 4}
  brokerClasses:
    Kafka: {apiVersion: v1, kind: ConfigMap, name: kafka, delivery: {retry: 9}}
namespaceDefaults:
  default:
    brokerClass: Here
    apiVersion: v1
    kind: ConfigMap
    name: here
    disallowDifferentNamespaceConfig: true
    brokerClasses:
      Special: {apiVersion: v1, kind: ConfigMap, name: special}
  other: {brokerClass: Kafka}
"""


@pytest.mark.parametrize(
    ("namespace", "broker_class", "config", "retry"),
    [
        ("default", "", "here", None),
        ("default", "Special", "special", None),
        ("default", "Kafka", "kafka", 9),
        ("default", "Unheard", "everywhere", 4),
        ("other", "", "kafka", 9),
        ("other", "MTChannelBasedBroker", "everywhere", 4),
        ("knative-serving", "", "everywhere", 4),
        ("knative-serving", "Kafka", "kafka", 9),
    ],
)
def test_each_class_of_brokers_has_its_own_defaults(
    store: Store, create: Create, namespace: str, broker_class: str, config: str, retry: int | None
) -> None:
    set_config(store, "config-br-defaults", {"default-br-config": CLASSES})
    annotations = {BROKER_CLASS: broker_class} if broker_class else {}
    spec = create(EVENTING, "Broker", "b", namespace=namespace, annotations=annotations)["spec"]
    assert spec["config"]["name"] == config
    assert (spec.get("delivery") or {}).get("retry") == retry


def test_a_namespace_may_want_the_configs_of_its_brokers_near(store: Store, create: Create) -> None:
    set_config(store, "config-br-defaults", {"default-br-config": CLASSES})
    config = {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "namespace": "other"}
    assert create(EVENTING, "Broker", "b", {"config": config}, namespace="knative-serving")
    with pytest.raises(StatusError, match=r"mismatched namespaces: spec\.config\.namespace"):
        create(EVENTING, "Broker", "b", {"config": config})


def test_a_trigger_gets_filter_label_and_namespaces(create: Create) -> None:
    trigger = create(EVENTING, "Trigger", "t", {"broker": "b", "subscriber": {"ref": REF}})
    assert trigger["spec"]["filter"] == {}
    assert trigger["metadata"]["labels"] == {"eventing.knative.dev/broker": "b"}
    assert trigger["spec"]["subscriber"]["ref"]["namespace"] == "default"


@pytest.mark.parametrize(
    ("version", "kind", "spec", "changed"),
    [
        (EVENTING, "Trigger", {"broker": "b", "subscriber": SINK}, {"filters": []}),
        (MESSAGING, "InMemoryChannel", {}, {"delivery": {"retry": 1}}),
        (FLOWS, "Sequence", {"steps": [SINK]}, {"reply": SINK}),
        (SOURCES, "PingSource", {"sink": SINK}, {"data": "x"}),
        (SINKS, "IntegrationSink", {"log": {}}, {"log": {"level": "WARN"}}),
    ],
)
def test_who_made_an_object_and_who_changed_it_is_written_on_it(
    store: Store, create: Create, version: str, kind: str, spec: Obj, changed: Obj
) -> None:
    group = version.partition("/")[0]

    def marks(obj: Obj) -> list[str]:
        found = obj["metadata"]["annotations"]
        return [found[f"{group}/creator"], found[f"{group}/lastModifier"]]

    obj = create(version, kind, "x", spec)
    creator = marks(obj)[0]
    assert marks(obj) == [creator, creator] != ["", ""]
    other = WriteOptions(user="jane")
    same = store.update({**obj, "metadata": {**obj["metadata"], "labels": {"a": "b"}}}, other)
    assert marks(same) == [creator, creator]
    assert marks(store.update({**same, "spec": {**same["spec"], **changed}}, other)) == [
        creator, "jane",
    ]  # fmt: skip


def test_a_channel_gets_its_template(store: Store, create: Create) -> None:
    channel = create(MESSAGING, "Channel", "c")
    assert channel["spec"]["channelTemplate"] == {
        "apiVersion": MESSAGING,
        "kind": "InMemoryChannel",
    }
    assert channel["metadata"]["annotations"]["messaging.knative.dev/subscribable"] == "v1"
    set_config(
        store,
        "default-ch-webhook",
        {"default-ch-config": "clusterDefault: {apiVersion: a/v1, kind: K, spec: {n: 1}}"},
    )
    assert create(FLOWS, "Sequence", "s", {"steps": [SINK]})["spec"]["channelTemplate"] == {
        "apiVersion": "a/v1",
        "kind": "K",
        "spec": {"n": 1},
    }


@pytest.mark.parametrize(
    ("api", "kind", "spec", "path", "value"),
    [
        (SOURCES, "PingSource", {"sink": SINK}, ["schedule"], "* * * * *"),
        (SOURCES, "ApiServerSource",
         {"sink": SINK, "resources": [{"apiVersion": "v1", "kind": "Pod"}]}, ["mode"], "Reference"),
        (SOURCES, "ContainerSource",
         {"sink": SINK, "template": {"spec": {"containers": [{"image": "i"}]}}},
         ["template", "spec", "containers", 0, "name"], "x-0"),
        (SOURCES, "SinkBinding", {"sink": SINK, "subject": {"apiVersion": "apps/v1",
         "kind": "Deployment", "name": "d"}}, ["subject", "namespace"], "default"),
        ("sources.knative.dev/v1alpha1", "IntegrationSource", {"sink": SINK, "timer": {}},
         ["timer"], {"period": 1000, "contentType": "text/plain"}),
        (ALPHA, "RequestReply",
         {"brokerRef": {"apiVersion": EVENTING, "kind": "Broker", "name": "b"}},
         ["timeout"], "PT30S"),
        (SINKS, "JobSink", {"job": {"spec": {"template": {"spec": {"restartPolicy": "Never",
         "containers": [{"name": "c", "image": "i"}]}}}}},
         ["job", "spec", "template", "spec", "containers", 0, "env"],
         [{"name": "K_EXECUTION_MODE", "value": "batch"}]),
    ],
)  # fmt: skip
def test_defaults_are_filled_in(
    create: Create, api: str, kind: str, spec: Any, path: list[Any], value: Any
) -> None:
    found = create(api, kind, "x", spec)["spec"]
    for step in path:
        found = found[step]
    assert found == value


# -- refusals -------------------------------------------------------------------------------------

TRIGGER = {"broker": "b", "subscriber": SINK}
PING = {"sink": SINK}
API = {"sink": SINK, "resources": [{"apiVersion": "v1", "kind": "Pod"}]}
BAD_SELECTOR = {"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]}
DETAILS = "Attribute name must start with a letter and can only contain lowercase alphanumeric"


@pytest.mark.parametrize(
    ("api", "kind", "spec", "says"),
    [
        (EVENTING, "Trigger", {"subscriber": SINK}, "missing field(s): spec.broker"),
        (EVENTING, "Trigger", {"broker": "b"},
         "expected at least one, got none: spec.subscriber.ref, spec.subscriber.uri"),
        (EVENTING, "Trigger", {**TRIGGER, "subscriber": {"uri": "/relative"}},
         ("invalid value: Relative URI is not allowed when Ref and [apiVersion, kind, name] is "
         "absent: spec.subscriber.uri")),
        (EVENTING, "Trigger", {**TRIGGER, "subscriber": {**SINK, "ref": REF}},
         ("Absolute URI is not allowed when Ref or [apiVersion, kind, name] is present: "
         "spec.subscriber.ref, spec.subscriber.uri, spec.subscriber[apiVersion, kind, name]")),
        (EVENTING, "Trigger", {**TRIGGER, "subscriber": {"ref": {"name": "x"}}},
         "missing field(s): spec.subscriber.ref.apiVersion, spec.subscriber.ref.kind"),
        (EVENTING, "Trigger", {**TRIGGER, "filter": {"attributes": {"SOURCE": "x"}}},
         f'invalid key name "SOURCE": spec.filter.attributes[SOURCE]\n{DETAILS}'),
        *(
            (EVENTING, "Trigger", {**TRIGGER, "filters": [{dialect: {name: "x"}}]},
             f'invalid key name "{name}": spec.filters[0].{dialect}[{name}]\n{DETAILS}')
            for dialect in ("exact", "prefix", "suffix")
            for name in ("1st", "a b", "a_b", "a-b", "é")
        ),
        (EVENTING, "Trigger", {**TRIGGER, "filters": [{"exact": {"a": "b"}, "cesql": "TRUE"}]},
         "multiple dialects found, filters can have only one dialect set: spec.filters[0]"),
        (EVENTING, "Trigger",
         {**TRIGGER, "filters": [{"all": [{"not": {"any": [{"exact": {"A": "b"}}]}}]}]},
         f'invalid key name "A": spec.filters[0].all[0].not.any[0].exact[A]\n{DETAILS}'),
        (EVENTING, "Trigger", {**TRIGGER, "delivery": {"retry": -1, "timeout": "PT0S",
         "backoffPolicy": "x", "backoffDelay": "5s", "retryAfterMax": "-PT1S", "format": "xml"}},
         ("invalid value: 5s: spec.delivery.backoffDelay\n"
         "invalid value: x: spec.delivery.backoffPolicy\n"
         "invalid value: xml: spec.delivery.format\n"
         "invalid value: -1: spec.delivery.retry\n"
         "invalid value: -PT1S: spec.delivery.retryAfterMax\n"
         "invalid value: PT0S: spec.delivery.timeout")),
        (EVENTING, "Trigger", {**TRIGGER, "delivery": {"backoffMax": "PT0S"}},
         "invalid value: PT0S: spec.delivery.backoffMax"),
        (EVENTING, "Broker", {"config": {"kind": "ConfigMap"}},
         "missing field(s): spec.config.apiVersion, spec.config.name"),
        (MESSAGING, "Channel", {"subscribers": [{"subscriberUri": "http://x"}]},
         "must not set the field(s): spec.subscribable.subscribers"),
        (MESSAGING, "Channel", {"channelTemplate": {"kind": "X"}},
         "missing field(s): spec.channelTemplate.apiVersion"),
        (MESSAGING, "Channel", {"delivery": {"deadLetterSink": {"ref":
         {**REF, "namespace": "other"}}}},
         ("mismatched namespaces: spec.delivery.deadLetterSink.ref.namespace\n"
         'parent namespace: "default" does not match ref: "other"')),
        (MESSAGING, "InMemoryChannel", {"subscribers": [{}]},
         ("missing field(s): spec.subscribable.subscriber[0].replyURI, "
         "spec.subscribable.subscriber[0].subscriberURI\nexpected at least one of, got none")),
        (MESSAGING, "Subscription", {"subscriber": SINK},
         "missing field(s): spec.channel\nthe Subscription must reference a channel"),
        *(
            (MESSAGING, "Subscription", {"subscriber": SINK, "channel":
             {"apiVersion": MESSAGING, "kind": "Channel", "name": "c", "namespace": namespace}},
             ("must not set the field(s): spec.channel.namespace\n"
             "only name, apiVersion and kind are supported fields"))
            for namespace in ("default", "other")
        ),
        (MESSAGING, "Subscription",
         {"channel": {"apiVersion": MESSAGING, "kind": "Channel", "name": "c"}},
         "missing field(s): spec.subscriber\nthe Subscription must reference a subscriber"),
        (FLOWS, "Sequence", {}, "missing field(s): spec.steps"),
        (FLOWS, "Sequence", {"steps": [SINK, {}]},
         "expected at least one, got none: spec.steps[1].ref, spec.steps[1].uri"),
        (FLOWS, "Sequence", {"steps": [SINK], "reply": {}},
         "expected at least one, got none: spec.reply.ref, spec.reply.uri"),
        (FLOWS, "Parallel", {"branches": [{"filter": {}, "subscriber": SINK}]},
         ("expected at least one, got none: spec.branches[0].filter.ref, "
         "spec.branches[0].filter.uri")),
        (FLOWS, "Parallel", {"branches": [{"filter": SINK}]},
         ("expected at least one, got none: spec.branches[0].subscriber.ref, "
         "spec.branches[0].subscriber.uri")),
        (SOURCES, "PingSource", {**PING, "schedule": "@every 1s"},
         "invalid value: unsupported descriptor @every: spec.schedule"),
        (SOURCES, "PingSource", {**PING, "schedule": "* * *"},
         "invalid value: expected 5 to 6 fields, found 3: [* * *]: spec.schedule"),
        (SOURCES, "PingSource", {**PING, "schedule": "0 0 * * 7"},
         "invalid value: end of range (7) above maximum (6): 7: spec.schedule"),
        *(
            (SOURCES, "PingSource", {**PING, "schedule": f"0 0 {days}"},
             (f"invalid value: failed to parse int from {part}: strconv.Atoi: parsing "
             f'"{part}": invalid syntax: spec.schedule'))
            for days, part in (("L * *", "L"), ("* * 1#2", "1#2"), ("* * 1,5L", "5L"))
        ),
        (SOURCES, "PingSource", {**PING, "timezone": "Mars/Base"},
         ("invalid value: provided bad location Mars/Base: unknown time zone Mars/Base: "
         "spec.timezone")),
        (SOURCES, "PingSource", {**PING, "data": "a", "dataBase64": "aa=="},
         "expected exactly one, got both: spec.data, spec.dataBase64"),
        (SOURCES, "PingSource", {**PING, "data": "[1]", "contentType": "application/json"},
         ("invalid value: json: cannot unmarshal array into Go value of type "
         "map[string]interface {}: spec.data")),
        (SOURCES, "PingSource", {**PING, "schedule": "CRON_TZ=Mars/Base 0 5 * * *"},
         ("invalid value: provided bad location Mars/Base: unknown time zone Mars/Base: "
         "spec.timezone")),
        (SOURCES, "PingSource", {**PING, "ceOverrides": {"extensions": {"Bad-Key": "x"}}},
         ('invalid key name "Bad-Key": spec.ceOverrides.extensions[Bad-Key]\n'
         "keys MUST consist of lower-case letters and digits")),
        (SOURCES, "PingSource", {},
         "expected at least one, got none: spec.sink.ref, spec.sink.uri"),
        (SOURCES, "ApiServerSource", {"sink": SINK}, "missing field(s): spec.resources"),
        (SOURCES, "ApiServerSource", {**API, "mode": "All"}, "invalid value: All: spec.mode"),
        (SOURCES, "ApiServerSource", {**API, "filters": [{"exact": {"type": "x"}}]},
         "Filters is not empty but the NewAPIServerFilters feature is disabled.: spec.filters"),
        (SOURCES, "ApiServerSource", {**API, "namespaceSelector": BAD_SELECTOR},
         'invalid value: "Like" is not a valid label selector operator: spec.namespaceSelector'),
        (SOURCES, "ContainerSource", {"sink": SINK}, "missing field(s): spec.containers"),
        (SOURCES, "SinkBinding", {"sink": SINK, "subject": {"apiVersion": "apps/v1",
         "kind": "Deployment", "name": "d", "namespace": "other"}},
         "invalid value: other: spec.subject.namespace"),
        (SOURCES, "SinkBinding", {"sink": SINK, "subject": {"apiVersion": "apps/v1",
         "kind": "Deployment"}},
         "expected exactly one, got neither: spec.subject.name, spec.subject.selector"),
        (SOURCES, "SinkBinding", {"sink": SINK, "subject": {"apiVersion": "apps/v1",
         "kind": "Deployment", "selector": BAD_SELECTOR}},
         'invalid value: "Like" is not a valid label selector operator: spec.subject.selector'),
        (SOURCES, "SinkBinding", {"sink": SINK, "subject": {"apiVersion": "apps/v1",
         "kind": "Deployment", "name": "A_b"}},
         ("invalid value: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric "
         "characters, '-' or '.', and must start and end with an alphanumeric character (e.g. "
         "'example.com', regex used for validation is "
         r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'): "
         "spec.subject.name")),
        ("sources.knative.dev/v1alpha1", "IntegrationSource",
         {"sink": SINK, "aws": {"ddbStreams": {}, "auth": {"serviceAccountName": "x"}}},
         "missing field(s): spec.aws.ddb-streams.region, spec.aws.ddb-streams.table"),
        ("sources.knative.dev/v1alpha1", "IntegrationSource",
         {"sink": SINK, "timer": {}, "aws": {"s3": {}}}, "only one source type can be set: spec"),
        ("sources.knative.dev/v1alpha1", "IntegrationSource", {"sink": SINK},
         "at least one source type must be specified: spec"),
        ("sources.knative.dev/v1alpha1", "IntegrationSource",
         {"sink": SINK, "timer": {}, "aws": {"s3": {"arn": "a", "region": "r"},
          "auth": {"serviceAccountName": "x"}}}, "only one source type can be set: spec"),
        (SINKS, "JobSink", {}, "expected exactly one, got neither: spec.job"),
        (SINKS, "IntegrationSink", {}, "at least one sink type must be specified: spec"),
        (ALPHA, "EventTransform", {}, "expected exactly one, got neither: spec.jsonata"),
        (ALPHA, "EventTransform",
         {"jsonata": {"expression": "$"}, "reply": {"discard": True}},
         "reply is set without spec.sink: spec.reply"),
        (ALPHA, "EventTransform", {"jsonata": {"expression": "$"}, "sink": SINK,
         "reply": {"discard": True, "jsonata": {"expression": "$"}}},
         "expected exactly one, got both: spec.reply.discard, spec.reply.jsonata"),
        (ALPHA, "EventTransform",
         {"jsonata": {"expression": "$"}, "sink": {"ref": {**REF, "namespace": "other"}}},
         ("mismatched namespaces: spec.sink.ref.namespace\n"
         'parent namespace: "default" does not match ref: "other"')),
        (ALPHA, "EventTransform",
         {"jsonata": {"expression": "$"}, "sink": {**SINK, "CACerts": "pem"}},
         ("CACerts for the sink is not supported for JSONata transformations, to propagate CA "
         "trust bundles use labeled ConfigMaps: https://knative.dev/docs/eventing/features/"
         "transport-encryption/#configure-additional-ca-trust-bundles: spec.sink.CACerts")),
        (ALPHA, "EventPolicy", {}, "oidc-authentication feature not enabled: "),
        (ALPHA, "RequestReply", {"brokerRef": {"apiVersion": EVENTING, "kind": "Broker",
         "name": "b"}, "replyAttribute": "id"},
         ("invalid value: id: spec.replyAttribute\n"
         "replyAttribute cannot use core cloudevents attributes")),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_in_knatives_words(
    create: Create, api: str, kind: str, spec: Any, says: str
) -> None:
    with pytest.raises(StatusError) as caught:
        create(api, kind, "x", spec)
    assert caught.value.message.startswith(DENIED)
    # In which order several findings are told is the business of the shared formatter.
    told = caught.value.message.removeprefix(DENIED)
    assert sorted(told.splitlines()) == sorted(says.splitlines())
    assert caught.value.code == 400


@pytest.mark.parametrize(
    "schedule",
    ["* * * * */1", "*/10 * * * * *", "@hourly", "0 0 30 2 *", "? * * * *",
     "CRON_TZ=Asia/Tokyo 0 5 * * *", "TZ=UTC @daily", "*/7 0 */7 JUL */7"],
)  # fmt: skip
def test_odd_but_legal_schedules_are_accepted(create: Create, schedule: str) -> None:
    assert create(SOURCES, "PingSource", "p", {**PING, "schedule": schedule})


@pytest.mark.parametrize("reply", [{}, {"discard": False}, {"discard": True}])
def test_a_transformations_reply_may_say_nothing(create: Create, reply: Obj) -> None:
    spec = {"jsonata": {"expression": "$"}, "sink": SINK, "reply": reply}
    assert create(ALPHA, "EventTransform", "t", spec)["spec"]["reply"] == reply


@pytest.mark.parametrize(
    ("api", "kind", "spec", "change", "says"),
    [
        (EVENTING, "Trigger", TRIGGER, {"broker": "c"},
         'Immutable fields changed (-old +new): broker, spec\n{string}:\n\t-: "b"\n\t+: "c"\n'),
        (EVENTING, "Broker", {"config": REF}, {"config": {**REF, "name": "n"}},
         ("Immutable fields changed (-old +new): spec\n"
         '{v1.BrokerSpec}.Config.Name:\n\t-: "s"\n\t+: "n"\n')),
        (MESSAGING, "Channel", {}, {"channelTemplate": {"apiVersion": "a/v1", "kind": "K"}},
         ("Immutable fields changed (-old +new): spec\n"
         '{v1.ChannelSpec}.ChannelTemplate.ApiVersion:\n\t-: "messaging.knative.dev/v1"\n'
         '\t+: "a/v1"\n{v1.ChannelSpec}.ChannelTemplate.Kind:\n\t-: "InMemoryChannel"\n'
         '\t+: "K"\n')),
    ],
)  # fmt: skip
def test_immutable_fields_stay(
    store: Store, create: Create, api: str, kind: str, spec: Any, change: Any, says: str
) -> None:
    obj = create(api, kind, "x", spec)
    with pytest.raises(StatusError) as caught:
        store.update({**obj, "spec": {**obj["spec"], **change}})
    assert caught.value.message.rstrip() == (DENIED + says).rstrip()


def test_a_brokers_class_stays(store: Store, create: Create) -> None:
    broker = create(EVENTING, "Broker", "b")
    changed = {**broker, "metadata": {**broker["metadata"], "annotations": {BROKER_CLASS: "X"}}}
    with pytest.raises(StatusError, match=r"\(-old \+new\): annotations"):
        store.update(changed)


def test_a_brokers_delivery_may_change(store: Store, create: Create) -> None:
    broker = create(EVENTING, "Broker", "b")
    spec = {**broker["spec"], "delivery": {"retry": 1}}
    assert store.update({**broker, "spec": spec})["metadata"]["generation"] == 2


def test_only_the_controller_changes_a_channels_subscribers(store: Store, create: Create) -> None:
    channel = create(MESSAGING, "InMemoryChannel", "c")
    changed = {**channel, "spec": {"subscribers": [{"uid": "u", "subscriberUri": "http://x"}]}}
    with pytest.raises(StatusError, match=r"Channel\.Spec\.Subscribers changed by user jane which"):
        store.update(changed, WriteOptions(user="jane"))
    assert store.update(changed, WriteOptions(user=EVENTING_CONTROLLER))


def test_the_scope_of_a_channel_is_one_of_two(create: Create) -> None:
    with pytest.raises(StatusError, match="expected either 'cluster' or 'namespace'"):
        create(MESSAGING, "InMemoryChannel", "c", annotations={"eventing.knative.dev/scope": "x"})


@pytest.mark.parametrize(
    ("annotations", "broker", "says"),
    [
        ({"knative.dev/dependency": "no"}, "b", "was not a corev1.ObjectReference"),
        ({"knative.dev/dependency": "{}"}, "b",
         "missing field(s): metadata.annotations[knative.dev/dependency].apiVersion"),
        ({"knative.dev/dependency":
          '{"kind":"K","name":"n","apiVersion":"a/v1","namespace":"other"}'}, "b",
         'Namespace must be empty or equal to the trigger namespace "default"'),
        ({"eventing.knative.dev/injection": "maybe"}, "default", 'not "maybe"'),
        ({"eventing.knative.dev/injection": "enabled"}, "b", 'non-default broker specified'),
    ],
)  # fmt: skip
def test_trigger_annotations_are_checked(
    create: Create, annotations: dict[str, str], broker: str, says: str
) -> None:
    with pytest.raises(StatusError) as caught:
        create(EVENTING, "Trigger", "t", {**TRIGGER, "broker": broker}, annotations=annotations)
    assert says in caught.value.message


# -- conversion ----------------------------------------------------------------------------------


def test_an_event_type_converts_between_its_versions(store: Store, create: Create) -> None:
    old = {"type": "a.b", "source": "/s", "schema": "http://x", "broker": "b", "description": "d"}
    create("eventing.knative.dev/v1beta2", "EventType", "e", old)
    stored = store.get(GroupKind("eventing.knative.dev", "EventType"), "default", "e")
    assert stored["apiVersion"] == "eventing.knative.dev/v1beta3"
    assert {a["name"]: a.get("value") for a in stored["spec"]["attributes"]} == {
        "specversion": None,
        "id": None,
        "type": "a.b",
        "source": "/s",
        "schemadata": "http://x",
    }
    reference = {"apiVersion": EVENTING, "kind": "Broker", "name": "b", "namespace": "default"}
    assert stored["spec"]["reference"] == reference
    shown = store.registry.by_version("eventing.knative.dev/v1beta2", "EventType")
    assert shown is not None
    assert shown.from_storage is not None
    assert shown.from_storage(stored)["spec"] == {
        "type": "a.b",
        "source": "/s",
        "schema": "http://x",
        "description": "d",
        "reference": reference,
    }


def test_an_event_type_needs_its_attributes(create: Create) -> None:
    with pytest.raises(StatusError) as caught:
        create("eventing.knative.dev/v1beta3", "EventType", "e", {"attributes": [{"name": "id"}]})
    assert caught.value.message == DENIED + (
        "missing field(s): spec.attributes.source, spec.attributes.specversion, "
        "spec.attributes.type"
    )


def test_a_ping_source_of_the_older_version_is_the_same_object(
    store: Store, create: Create
) -> None:
    create("sources.knative.dev/v1beta2", "PingSource", "p", {**PING, "data": "x"})
    stored = store.get(GroupKind("sources.knative.dev", "PingSource"), "default", "p")
    assert (stored["apiVersion"], stored["spec"]["data"]) == (SOURCES, "x")


def test_a_job_sinks_job_is_checked_strictly(create: Create) -> None:
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
    job = {"spec": {"template": {"spec": pod}, "foo": 1}}
    with pytest.raises(StatusError, match=r'unknown field "spec\.foo": spec\.job'):
        create(SINKS, "JobSink", "j", {"job": job})
