"""The Python `kubernetes` client, typed and dynamic."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import kubernetes
import pytest
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError

from knlocal.resources.base import GroupKind
from tests.apiserver.conftest import Api, config_map, deployment, eventually, knative_service


async def in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(work)


async def test_typed_core_objects_go_round(api: Api) -> None:
    def work() -> None:
        with api.client() as client:
            core = kubernetes.client.CoreV1Api(client)
            meta = kubernetes.client.V1ObjectMeta(name="one", labels={"a": "b"})
            core.create_namespaced_config_map(
                "default", kubernetes.client.V1ConfigMap(metadata=meta, data={"x": "1"})
            )
            core.patch_namespaced_config_map("one", "default", {"data": {"y": "2"}})
            found = core.read_namespaced_config_map("one", "default")
            assert found.data == {"x": "1", "y": "2"}
            assert [m.metadata.name for m in core.list_namespaced_config_map(
                "default", label_selector="a=b").items] == ["one"]  # fmt: skip
            found.data = {"z": "3"}
            core.replace_namespaced_config_map("one", "default", found)
            core.delete_namespaced_config_map("one", "default")
            with pytest.raises(ApiException) as missing:
                core.read_namespaced_config_map("one", "default")
            assert (missing.value.status, missing.value.reason) == (404, "Not Found")
            secret = core.create_namespaced_secret(
                "default",
                kubernetes.client.V1Secret(
                    metadata=kubernetes.client.V1ObjectMeta(generate_name="s-"),
                    string_data={"a": "b"},
                ),
            )
            assert secret.metadata.name.startswith("s-")
            assert base64.b64decode(secret.data["a"]) == b"b"
            assert core.list_namespace().items
            core.delete_collection_namespaced_secret("default")
            assert core.list_namespaced_secret("default").items == []

    await in_thread(work)


async def test_typed_workloads_scale_and_events(api: Api) -> None:
    def work() -> None:
        with api.client() as client:
            apps = kubernetes.client.AppsV1Api(client)
            apps.create_namespaced_deployment("default", deployment())
            apps.patch_namespaced_deployment_scale("web", "default", {"spec": {"replicas": 4}})
            assert apps.read_namespaced_deployment_scale("web", "default").spec.replicas == 4
            found = apps.read_namespaced_deployment("web", "default")
            assert (found.spec.replicas, found.metadata.generation) == (4, 2)
            batch = kubernetes.client.BatchV1Api(client)
            batch.create_namespaced_job(
                "default",
                {"metadata": {"name": "j"}, "spec": {"template": {"spec": {
                    "restartPolicy": "Never", "containers": [{"name": "a", "image": "b"}]}}}},
            )  # fmt: skip
            job = batch.read_namespaced_job("j", "default")
            uid = job.metadata.uid
            assert job.spec.selector.match_labels == {"batch.kubernetes.io/controller-uid": uid}
            assert job.spec.template.metadata.labels["job-name"] == "j"
            core = kubernetes.client.CoreV1Api(client)
            assert core.list_event_for_all_namespaces().items == []
            version = kubernetes.client.VersionApi(client).get_code()
            assert int(version.minor) >= 32

    await in_thread(work)


async def test_a_typed_watch_sees_changes(api: Api) -> None:
    version = str(api.store.version)
    api.store.create(config_map("a"))
    api.store.create(config_map("b"))

    def work() -> list[tuple[str, str]]:
        with api.client() as client:
            core = kubernetes.client.CoreV1Api(client)
            watch = kubernetes.watch.Watch()
            seen = []
            for event in watch.stream(
                core.list_namespaced_config_map, "default", resource_version=version,
                timeout_seconds=30,
            ):  # fmt: skip
                seen.append((event["type"], event["object"].metadata.name))
                if len(seen) == 2:
                    watch.stop()
            return seen

    assert await in_thread(work) == [("ADDED", "a"), ("ADDED", "b")]


async def test_custom_objects_and_the_dynamic_client(api: Api) -> None:
    def work() -> None:
        with api.client() as client:
            custom = kubernetes.client.CustomObjectsApi(client)
            place = ("serving.knative.dev", "v1", "default", "services")
            custom.create_namespaced_custom_object(*place, knative_service())
            assert custom.get_namespaced_custom_object(*place, "hello")["kind"] == "Service"
            with pytest.raises(ApiException) as refused:
                custom.create_namespaced_custom_object(*place, knative_service())
            assert refused.value.status == 409
            dynamic = DynamicClient(client)
            services = dynamic.resources.get(api_version="serving.knative.dev/v1", kind="Service")
            found = services.get(name="hello", namespace="default")
            found.spec.template.spec.containers[0].image = "example.com/hello:2"
            services.replace(body=found.to_dict(), namespace="default")
            stale = found.to_dict()
            stale["metadata"]["resourceVersion"] = "1"
            with pytest.raises(ConflictError):
                services.replace(body=stale, namespace="default")
            body = knative_service()
            body["metadata"]["labels"] = {"x": "y"}
            applied = services.server_side_apply(
                body=body, namespace="default", field_manager="me", force_conflicts=True
            )
            assert applied.metadata.labels.x == "y"
            assert [item.metadata.name for item in services.get(namespace="default").items] == [
                "hello"
            ]
            services.delete(name="hello", namespace="default")
            with pytest.raises(NotFoundError):
                services.get(name="hello", namespace="default")

    await in_thread(work)


async def test_crds_are_listed_with_what_clients_read(api: Api) -> None:
    def work() -> None:
        with api.client() as client:
            extensions = kubernetes.client.ApiextensionsV1Api(client)
            names = {
                crd.metadata.name for crd in extensions.list_custom_resource_definition().items
            }
            assert {"services.serving.knative.dev", "brokers.eventing.knative.dev"} <= names
            crd = extensions.read_custom_resource_definition("pingsources.sources.knative.dev")
            assert crd.metadata.labels["duck.knative.dev/source"] == "true"
            assert crd.spec.names.kind == "PingSource"
            assert {v.name for v in crd.spec.versions if v.served} >= {"v1"}
            assert {c.type: c.status for c in crd.status.conditions} == {
                "Established": "True", "NamesAccepted": "True",
            }  # fmt: skip

    await in_thread(work)


async def test_access_reviews_answer(api: Api) -> None:
    def work() -> None:
        with api.client() as client:
            authorization = kubernetes.client.AuthorizationV1Api(client)
            attributes = {"verb": "get", "resource": "pods", "namespace": "default"}
            own = authorization.create_self_subject_access_review(
                {"spec": {"resourceAttributes": attributes}}
            )
            assert own.status.allowed
            other = authorization.create_subject_access_review(
                {"spec": {"user": "alice", "resourceAttributes": attributes}}
            )
            assert not other.status.allowed
            rbac = kubernetes.client.RbacAuthorizationV1Api(client)
            rbac.create_cluster_role(
                {"metadata": {"name": "reads", "labels": {"part": "yes"}}, "rules": [
                    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}
            )  # fmt: skip
            rbac.create_cluster_role(
                {"metadata": {"name": "all"}, "aggregationRule": {"clusterRoleSelectors": [
                    {"matchLabels": {"part": "yes"}}]}}
            )  # fmt: skip
            rbac.create_cluster_role_binding(
                {"metadata": {"name": "alice"}, "roleRef": {"kind": "ClusterRole", "name": "all"},
                 "subjects": [{"kind": "User", "name": "alice"}]}
            )  # fmt: skip
            other = authorization.create_subject_access_review(
                {"spec": {"user": "alice", "resourceAttributes": attributes}}
            )
            assert other.status.allowed
            authentication = kubernetes.client.AuthenticationV1Api(client)
            token = kubernetes.client.CoreV1Api(client).create_namespaced_service_account_token(
                "default", "default", {"spec": {"audiences": ["me"]}}
            )
            for audiences, known in ((["me"], True), (["you"], None)):
                review = authentication.create_token_review(
                    {"spec": {"token": token.status.token, "audiences": audiences}}
                )
                assert review.status.authenticated == known
            assert review.status.error

    await eventually(
        api.store, lambda: api.store.find(GroupKind("", "ServiceAccount"), "default", "default")
    )
    await in_thread(work)
