"""LimitRanges: defaults, bounds, and Kubernetes' words for what is beyond them."""

from __future__ import annotations

from typing import Any

import pytest

from knlocal.clock import VirtualClock
from knlocal.resources.base import Obj, status_of
from knlocal.resources.core.kinds import KINDS
from knlocal.resources.kinds import KindRegistry
from knlocal.resources.status import Forbidden
from knlocal.store.store import Store
from knlocal.workloads.admission import pod_admission
from knlocal.workloads.limits import limit_admission
from knlocal.workloads.podplan import PodNetwork


@pytest.fixture
def store() -> Store:
    made = Store(KindRegistry(KINDS), VirtualClock())
    made.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    made.admission += [limit_admission(made), pod_admission(made, PodNetwork())]
    return made


def limit(store: Store, type_: str = "Container", **item: Any) -> None:
    store.create(
        {
            "apiVersion": "v1",
            "kind": "LimitRange",
            "metadata": {"name": "limits", "namespace": "default"},
            "spec": {"limits": [{"type": type_, **item}]},
        }
    )


def pod(*containers: Obj) -> Obj:
    named = [{"name": f"c{n}", "image": "x", **one} for n, one in enumerate(containers)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": named},
    }


def asking(requests: Obj | None = None, limits: Obj | None = None) -> Obj:
    return {"resources": {"requests": requests or {}, "limits": limits or {}}}


def test_what_a_container_does_not_say_is_said_for_it(store: Store) -> None:
    limit(store, default={"memory": "512Mi"}, defaultRequest={"memory": "256Mi", "cpu": "10m"})
    made = store.create(pod({}, asking({"memory": "1Mi"}), asking(limits={"memory": "1Gi"})))
    found = [c["resources"] for c in made["spec"]["containers"]]
    assert found[0] == {
        "limits": {"memory": "512Mi"}, "requests": {"memory": "256Mi", "cpu": "10m"}
    }  # fmt: skip
    assert found[1]["requests"] == {"memory": "1Mi", "cpu": "10m"}
    assert found[2] == {
        "limits": {"memory": "1Gi"}, "requests": {"memory": "1Gi", "cpu": "10m"}
    }  # fmt: skip
    assert status_of(made)["qosClass"] == "Burstable"


def test_a_bound_is_the_default_where_there_is_no_other(store: Store) -> None:
    limit(store, max={"cpu": "1"}, min={"cpu": "100m"})
    made = store.create(pod({}))
    assert made["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "1"}, "requests": {"cpu": "1"}
    }  # fmt: skip
    assert status_of(made)["qosClass"] == "Burstable"


@pytest.mark.parametrize(
    ("item", "container", "said"),
    [
        (
            {"max": {"cpu": "1"}},
            asking(limits={"cpu": "2"}),
            (
                "[maximum cpu usage per Container is 1, but limit is 2, "
                "maximum cpu usage per Container is 1, but request is 2]"
            ),
        ),
        (
            {"min": {"memory": "10Mi"}, "defaultRequest": {"memory": "10Mi"}},
            asking({"memory": "1Mi"}),
            "minimum memory usage per Container is 10Mi, but request is 1Mi",
        ),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            asking({"cpu": "100m"}, {"cpu": "300m"}),
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
        ),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            asking({"cpu": "100m"}),
            (
                "cpu max limit to request ratio per Container is 2, but no limit is specified or "
                "limit is 0"
            ),
        ),
    ],
)
def test_what_is_beyond_a_bound_is_refused(
    store: Store, item: Obj, container: Obj, said: str
) -> None:
    limit(store, **item)
    with pytest.raises(Forbidden) as caught:
        store.create(pod(container))
    assert caught.value.message == f'pods "p" is forbidden: {said}'


def test_all_containers_of_a_pod_are_bounded_together(store: Store) -> None:
    limit(store, "Pod", max={"memory": "1Gi"})
    store.create(pod(asking(limits={"memory": "512Mi"}), asking(limits={"memory": "512Mi"})))
    with pytest.raises(Forbidden, match=r"maximum memory usage per Pod is 1Gi, but limit is"):
        store.create(pod(asking(limits={"memory": "1Gi"}), asking(limits={"memory": "1Mi"})))


def test_claims_are_bounded_by_their_size(store: Store) -> None:
    limit(store, "PersistentVolumeClaim", max={"storage": "2Gi"}, min={"storage": "1Gi"})

    def claim(size: str) -> Obj:
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": f"c{size.lower()}", "namespace": "default"},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}
            },
        }  # fmt: skip

    store.create(claim("2Gi"))
    with pytest.raises(Forbidden, match="is 2Gi, but request is 3Gi"):
        store.create(claim("3Gi"))
    with pytest.raises(Forbidden, match="is 1Gi, but request is 1Mi"):
        store.create(claim("1Mi"))
