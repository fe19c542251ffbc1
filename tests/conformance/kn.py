"""`kn` on the wire: the requests that knative/client sends, in its order, with its expectations.

The program itself is not needed. Each method is one command; what would make the real one hang,
panic or fail is an assertion here. Wait semantics: knative/client pkg/wait (GET, then a WATCH from
that resourceVersion in which only MODIFIED events count).
"""

from __future__ import annotations

import copy
import json
import re
import time
from collections.abc import Callable
from typing import Any

from tests.conformance.conftest import NAMESPACE, SERVING, Cluster, condition

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
ERROR_WINDOW = 2.0
EVENTING = f"/apis/eventing.knative.dev/v1/namespaces/{NAMESPACE}"
MESSAGING = f"/apis/messaging.knative.dev/v1/namespaces/{NAMESPACE}"
SOURCES = f"/apis/sources.knative.dev/v1/namespaces/{NAMESPACE}"
DOMAINS = f"/apis/serving.knative.dev/v1beta1/namespaces/{NAMESPACE}/domainmappings"


class Kn:
    """The commands of kn, against one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    # -- service ----------------------------------------------------------------------------------

    def service_create(self, body: dict[str, Any]) -> dict[str, Any]:
        called = body["metadata"]["name"]
        status, answer = self.cluster.request("GET", f"{SERVING}/services/{called}")
        assert status == 404
        assert answer["message"] == f'services.serving.knative.dev "{called}" not found'
        stamp(body, tagged=True)
        self.cluster.must("POST", f"{SERVING}/services", body)
        return self.wait_for_service(called)

    def service_update(
        self, called: str, change: Callable[[dict[str, Any]], object], *, tries: int = 5
    ) -> dict[str, Any]:
        path = f"{SERVING}/services/{called}"
        for attempt in range(tries):
            got = self.cluster.get(path)
            template = got["spec"]["template"]
            base = self.cluster.get(
                f"{SERVING}/revisions/"
                + (
                    template.get("metadata", {}).get("name")
                    or got["status"]["latestCreatedRevisionName"]
                )
            )
            before = copy.deepcopy(template)
            change(got)
            digests = {c["name"]: c["imageDigest"] for c in base["status"]["containerStatuses"]}
            if template["spec"] != before["spec"]:
                for container in template["spec"]["containers"]:
                    container["image"] = digests[container["name"]]
                stamp(got)
            status, answer = self.cluster.request("PUT", path, got)
            if status == 409:
                time.sleep(0.02 * 1.5**attempt)
                continue
            assert status == 200, answer
            if answer["metadata"]["generation"] == got["metadata"]["generation"]:
                return answer  # type: ignore[no-any-return]
            return self.wait_for_service(called)
        raise AssertionError("conflicts without end")

    def service_replace(self, body: dict[str, Any]) -> dict[str, Any]:
        """`kn service create --force` of a Service that exists."""
        path = f"{SERVING}/services/{body['metadata']['name']}"
        self.cluster.get(path)
        for attempt in range(5):
            got = self.cluster.get(path)
            stamp(body, tagged=True)
            kept = ("serving.knative.dev/creator", "serving.knative.dev/lastModifier")
            annotations = {name: got["metadata"]["annotations"][name] for name in kept}
            body["metadata"] |= {
                "annotations": annotations, "creationTimestamp": None,
                "resourceVersion": got["metadata"]["resourceVersion"],
            }  # fmt: skip
            status, answer = self.cluster.request("PUT", path, {**body, "status": {}})
            if status != 409:
                assert status == 200, answer
                return self.wait_for_service(body["metadata"]["name"])
            time.sleep(0.02 * 1.5**attempt)
        raise AssertionError("conflicts without end")

    def service_apply(self, body: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """The Service, and whether kn would say that it changed."""
        path = f"{SERVING}/services/{body['metadata']['name']}"
        status, current = self.cluster.request("GET", path)
        modified = copy.deepcopy(body)
        annotations = modified["metadata"].setdefault("annotations", {})
        annotations[LAST_APPLIED] = json.dumps(body)
        if status == 404:
            self.cluster.must("POST", f"{SERVING}/services", modified)
            return self.wait_for_service(body["metadata"]["name"]), True
        original = current["metadata"].get("annotations", {}).get(LAST_APPLIED)
        current.pop("status")
        patch = three_way(json.loads(original) if original else {}, modified, current)
        if not patch:
            return self.cluster.get(path), False
        answer = self.cluster.must("PATCH", path, patch, "application/merge-patch+json")
        changed = answer["metadata"]["generation"] != answer["status"]["observedGeneration"]
        if changed:
            assert answer["metadata"]["generation"] == current["metadata"]["generation"] + 1
            answer = self.wait_for_service(body["metadata"]["name"])
        return answer, changed

    def service_traffic(self, called: str, traffic: list[dict[str, Any]]) -> dict[str, Any]:
        path = f"{SERVING}/services/{called}"
        self.revisions_of(called)
        got = self.cluster.get(path)
        for target in got["spec"]["traffic"]:
            assert isinstance(target["latestRevision"], bool), "kn would panic"
            assert isinstance(target["percent"], int), "kn would panic"
        got["spec"]["traffic"] = traffic
        answer = self.cluster.must("PUT", path, got)
        assert [t.get("percent") for t in answer["spec"]["traffic"]] == [
            t.get("percent") for t in traffic
        ]
        return self.wait_for_service(called)

    def service_delete(self, called: str, *, wait: bool = False) -> None:
        self.delete(f"{SERVING}/services", called, wait=wait)

    def service_export(self, called: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        got = copy.deepcopy(self.cluster.get(f"{SERVING}/services/{called}"))
        routed = {t["revisionName"] for t in got["status"]["traffic"]}
        latest = got["status"]["latestReadyRevisionName"]
        revisions = [
            r for r in self.revisions_of(called) if r["metadata"]["name"] in routed - {latest}
        ]
        exported = {
            "apiVersion": got["apiVersion"], "kind": got["kind"], "spec": got["spec"],
            "metadata": stripped(
                got["metadata"],
                {"serving.knative.dev/creator", "serving.knative.dev/lastModifier",
                 LAST_APPLIED}, set(),
            ),
        }  # fmt: skip
        return exported, [
            {
                "apiVersion": "serving.knative.dev/v1", "kind": "Revision", "spec": r["spec"],
                "metadata": stripped(
                    r["metadata"],
                    {"serving.knative.dev/lastPinned", "serving.knative.dev/creator",
                     "serving.knative.dev/routingStateModified",
                     "client.knative.dev/updateTimestamp"},
                    {"serving.knative.dev/configurationUID", "serving.knative.dev/serviceUID"},
                ),
            }
            for r in copy.deepcopy(revisions)
        ]  # fmt: skip

    def service_import(
        self, body: dict[str, Any], revisions: list[dict[str, Any]]
    ) -> dict[str, Any]:
        called = body["metadata"]["name"]
        self.cluster.must("POST", f"{SERVING}/services", body)
        for _ in range(5):
            status, owner = self.cluster.request("GET", f"{SERVING}/configurations/{called}")
            if status == 200:
                break
            time.sleep(0.01 * 5)
        assert status == 200, "no Configuration when kn looks for it"
        for revision in revisions:
            revision["metadata"]["ownerReferences"] = [
                {"apiVersion": "serving.knative.dev/v1", "kind": "Configuration", "name": called,
                 "uid": owner["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True}
            ]  # fmt: skip
            self.cluster.must("POST", f"{SERVING}/revisions", revision)
        return self.wait_for_service(called)

    def service_describe(self, called: str) -> list[int]:
        """Reads all that `kn service describe` prints; the percentages."""
        got = self.cluster.get(f"{SERVING}/services/{called}")
        for target in got["status"]["traffic"]:
            revision = self.cluster.get(f"{SERVING}/revisions/{target['revisionName']}")
            int(revision["metadata"]["labels"]["serving.knative.dev/configurationGeneration"])
            assert revision["metadata"]["creationTimestamp"]
        assert got["status"]["address"]["url"]
        return [target["percent"] for target in got["status"]["traffic"]]

    def service_list(self) -> dict[str, list[str]]:
        """The columns of `kn service list`, by name."""
        rows = {}
        for item in self.listed(f"{SERVING}/services"):
            status = item.get("status", {})  # others' services may still be starting
            rows[item["metadata"]["name"]] = [
                status.get("url", ""), status.get("latestReadyRevisionName", ""), counted(item),
                condition(item).get("status", "Unknown"),
            ]  # fmt: skip
        return rows

    def service_delete_all(self, chosen: str) -> None:
        """`kn service delete --all`, among those whose name begins so."""
        for item in self.listed(f"{SERVING}/services"):
            if item["metadata"]["name"].startswith(chosen):
                self.service_delete(item["metadata"]["name"], wait=True)

    def revision_describe(self, called: str) -> dict[str, str]:
        """What `kn revision describe -v` prints beside labels and annotations."""
        got = self.cluster.get(f"{SERVING}/revisions/{called}")
        labels, status = got["metadata"]["labels"], got["status"]
        container = next(
            c for c in got["spec"]["containers"]
            if c.get("ports") or len(got["spec"]["containers"]) == 1
        )  # fmt: skip
        (digest,) = re.findall(
            r"sha256:([0-9a-f]{64})", status["containerStatuses"][0]["imageDigest"]
        )
        service = self.cluster.get(f"{SERVING}/services/{labels['serving.knative.dev/service']}")
        traffic = [t for t in service["status"]["traffic"] if t["revisionName"] == called]
        image = got["metadata"]["annotations"].get("client.knative.dev/user-image")
        described(got)
        return {
            "Image": f"{image or container['image']} {digest[:6]}",
            "Replicas": f"{status['actualReplicas']}/{status['desiredReplicas']}",
            "Env": ",".join(f"{e['name']}={e['value']}" for e in container.get("env", [])),
            "Generation": labels["serving.knative.dev/configurationGeneration"],
            "Latest": str(called == service["status"]["latestReadyRevisionName"]),
            "Traffic": str(sum(t["percent"] for t in traffic)),
            "Tags": ",".join(t["tag"] for t in traffic if t.get("tag")),
        }

    def route_list(self) -> dict[str, list[str]]:
        return {
            item["metadata"]["name"]: [item["status"]["url"], condition(item)["status"]]
            for item in self.listed(f"{SERVING}/routes")
        }

    def route_describe(self, called: str) -> dict[str, Any]:
        got = self.cluster.get(f"{SERVING}/routes/{called}")
        described(got)
        assert got["metadata"]["labels"]["serving.knative.dev/service"] == called
        return {
            "URL": got["status"]["url"],
            "Targets": [
                (t["percent"], t["revisionName"], t.get("tag", ""), t.get("url", ""))
                for t in got["status"]["traffic"]
            ],
        }

    def listed(self, path: str) -> list[dict[str, Any]]:
        """A list, as every `list` command and every completion of a name reads it."""
        got = self.cluster.get(path)
        assert got["kind"].endswith("List")
        assert got["metadata"]["resourceVersion"]
        for item in got["items"]:
            assert item["metadata"]["creationTimestamp"], "kn would print an age of 2,000 years"
        return got["items"]  # type: ignore[no-any-return]

    def describe(self, path: str) -> dict[str, Any]:
        """`describe` of a kind without a view of its own here."""
        got = self.cluster.get(path)
        described(got)
        return got  # type: ignore[no-any-return]

    def revisions_of(self, called: str) -> list[dict[str, Any]]:
        query = f"labelSelector=serving.knative.dev%2Fservice%3D{called}"
        found = self.cluster.get(f"{SERVING}/revisions?{query}")
        assert found["kind"] == "RevisionList"
        return found["items"]  # type: ignore[no-any-return]

    def revision_list(self, called: str) -> list[str]:
        self.cluster.get(f"{SERVING}/services/{called}")
        items = self.revisions_of(called)
        for item in items:
            assert item["metadata"].get("annotations"), "kn would panic"
        items.sort(
            key=lambda r: (
                -int(r["metadata"]["labels"]["serving.knative.dev/configurationGeneration"])
            )
        )
        return [item["metadata"]["name"] for item in items]

    def revision_delete(self, called: str, *, wait: bool = False) -> None:
        self.delete(f"{SERVING}/revisions", called, wait=wait)

    def revision_prune(self, called: str) -> list[str]:
        gone = [
            r["metadata"]["name"]
            for r in self.revisions_of(called)
            if r["metadata"]["labels"]["serving.knative.dev/routingState"] != "active"
        ]
        for revision in gone:
            self.revision_delete(revision)
        return gone

    # -- waiting ----------------------------------------------------------------------------------

    def wait_for_service(self, called: str, timeout: int = 60) -> dict[str, Any]:
        """Raises AssertionError where kn would fail or hang."""
        path = f"{SERVING}/services/{called}"
        got = self.cluster.get(path)
        if is_done(got):
            return got  # type: ignore[no-any-return]
        failing_since = None
        query = (
            f"fieldSelector=metadata.name%3D{called}&resourceVersion="
            f"{got['metadata']['resourceVersion']}&timeout=1m30s"
            f"&timeoutSeconds={timeout + 30}&watch=true"
        )
        for event in self.cluster.watch(f"{SERVING}/services?{query}", timeout):
            assert event["type"] in ("ADDED", "MODIFIED", "DELETED"), event
            seen = event["object"]
            if event["type"] != "MODIFIED" or not observed(seen):
                continue
            status = condition(seen).get("status")
            if status == "True":
                break
            if status == "False":
                failing_since = failing_since or time.monotonic()
                assert time.monotonic() - failing_since < ERROR_WINDOW, condition(seen)
            else:
                failing_since = None
        else:
            raise AssertionError("the watch ended: kn would start it again for ever")
        got = self.cluster.get(path)
        assert got["status"]["url"]
        return got  # type: ignore[no-any-return]

    def delete(self, path: str, called: str, *, wait: bool = False) -> None:
        got = self.cluster.get(f"{path}/{called}")
        assert "deletionTimestamp" not in got["metadata"]
        options = {
            "kind": "DeleteOptions", "apiVersion": "v1",
            "propagationPolicy": "Foreground" if wait else "Background",
        }  # fmt: skip
        self.cluster.must("DELETE", f"{path}/{called}", options)
        if not wait:
            return
        query = (
            f"fieldSelector=metadata.name%3D{called}&resourceVersion="
            f"{got['metadata']['resourceVersion']}&timeoutSeconds=90&watch=true"
        )
        for event in self.cluster.watch(f"{path}?{query}", 30):
            if event["type"] == "DELETED":
                return
        raise AssertionError("the watch ended before DELETED came")

    # -- domains, eventing, sources ---------------------------------------------------------------

    def domain_create(self, domain: str, called: str) -> dict[str, Any]:
        ref = self.sink(f"{SERVING}/services/{called}")["ref"]
        body = {
            "apiVersion": "serving.knative.dev/v1beta1", "kind": "DomainMapping",
            "metadata": {"name": domain, "namespace": NAMESPACE}, "spec": {"ref": ref},
        }  # fmt: skip
        return self.cluster.must("POST", DOMAINS, body)  # type: ignore[no-any-return]

    def sink(self, path: str) -> dict[str, Any]:
        got = self.cluster.get(path)
        return {
            "ref": {
                "apiVersion": got["apiVersion"], "kind": got["kind"],
                "name": got["metadata"]["name"], "namespace": got["metadata"]["namespace"],
            }
        }  # fmt: skip

    def create(
        self, base: str, kind: str, version: str, called: str, spec: Any, **about: Any
    ) -> Any:
        plural = kind.lower() + "s"
        body = {"apiVersion": version, "kind": kind, "spec": spec, "status": {},
                "metadata": {"name": called, "namespace": NAMESPACE, "creationTimestamp": None,
                             **about}}  # fmt: skip
        return self.cluster.must("POST", f"{base}/{plural}", body)

    def update(self, path: str, change: Callable[[dict[str, Any]], object]) -> Any:
        got = self.cluster.get(path)
        change(got)
        return self.cluster.must("PUT", path, got)

    def source_types(self) -> dict[str, str]:
        """Kind → path of its list in the namespace."""
        query = "labelSelector=duck.knative.dev%2Fsource%3Dtrue"
        found = {}
        crds = self.cluster.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions?{query}")
        for crd in crds["items"]:
            spec = crd["spec"]
            version = next(v["name"] for v in spec["versions"] if v["served"])
            found[spec["names"]["kind"]] = (
                f"/apis/{spec['group']}/{version}/namespaces/{NAMESPACE}/{spec['names']['plural']}"
            )
        return found

    def source_list(self) -> list[dict[str, Any]]:
        items = []
        for path in self.source_types().values():
            for item in self.cluster.get(path)["items"]:
                assert item["kind"]
                assert item["apiVersion"]
                items.append(item)
        return items

    def channel_types(self) -> list[str]:
        query = "labelSelector=messaging.knative.dev%2Fsubscribable%3Dtrue"
        crds = self.cluster.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions?{query}")
        kinds = [crd["spec"]["names"]["kind"] for crd in crds["items"]]
        return [kind for kind in kinds if kind != "Channel"]


def observed(obj: dict[str, Any]) -> bool:
    status = obj.get("status", {})
    return bool(status.get("observedGeneration") == obj["metadata"]["generation"])


def is_done(obj: dict[str, Any]) -> bool:
    return observed(obj) and condition(obj).get("status") == "True"


def described(obj: dict[str, Any]) -> None:
    """Metadata and conditions, as every `describe` prints them."""
    assert obj["metadata"]["namespace"]
    assert obj["metadata"]["creationTimestamp"]
    for found in obj["status"]["conditions"]:
        assert found["status"] in ("True", "False", "Unknown")
        assert found["lastTransitionTime"], "its age is shown"
        if found["status"] == "False":
            assert found["reason"]


def counted(obj: dict[str, Any]) -> str:
    """The column CONDITIONS: `3 OK / 3`."""
    found = obj["status"]["conditions"]
    return f"{sum(c['status'] == 'True' for c in found)} OK / {len(found)}"


def three_way(original: Any, modified: Any, current: Any) -> dict[str, Any]:
    """k8s.io/apimachinery jsonmergepatch: what is new or other, and null for what was let go."""
    patch: dict[str, Any] = {}
    for key, value in modified.items():
        if isinstance(value, dict) and isinstance(current.get(key), dict):
            if below := three_way(original.get(key) or {}, value, current[key]):
                patch[key] = below
        elif value != current.get(key):
            patch[key] = value
    return patch | {key: None for key in original if key not in modified and key in current}


def stamp(body: dict[str, Any], *, tagged: bool = False) -> None:
    """The annotations that kn puts on a template."""
    about = body["spec"]["template"].setdefault("metadata", {})
    annotations = about.setdefault("annotations", {})
    annotations["client.knative.dev/updateTimestamp"] = str(time.time_ns())
    if tagged:
        image = body["spec"]["template"]["spec"]["containers"][0]["image"]
        annotations["client.knative.dev/user-image"] = image


def stripped(metadata: dict[str, Any], annotations: set[str], labels: set[str]) -> dict[str, Any]:
    """What `kn service export` leaves of metadata."""
    kept: dict[str, Any] = {"name": metadata["name"]}
    for field, without in (("annotations", annotations), ("labels", labels)):
        if left := {k: v for k, v in metadata.get(field, {}).items() if k not in without}:
            kept[field] = left
    return kept
