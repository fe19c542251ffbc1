"""Applying a project: three-way merge, refusals per object, and pruning of just its own."""

import pytest

from knlocal.clock import VirtualClock
from knlocal.project.apply import StoreTarget, apply, apply_project
from knlocal.project.errors import ProjectError
from knlocal.project.manifests import Manifest, parse
from knlocal.project.merge import LAST_APPLIED
from knlocal.resources.base import GroupKind, Obj
from knlocal.resources.field_errors import FieldErrors, invalid_value
from knlocal.resources.kinds import AdmissionContext, Kind, KindRegistry
from knlocal.store.store import Store

OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
WIDGET = GroupKind("example.dev", "Widget")
CONFIG_MAP = GroupKind("", "ConfigMap")


def refuse_bad(obj: Obj, _context: AdmissionContext) -> FieldErrors:
    size = obj["spec"].get("size")
    return invalid_value(size, "spec.size") if size == "bad" else FieldErrors()


def add_default(obj: Obj, _context: AdmissionContext) -> None:
    obj.setdefault("spec", {}).setdefault("colour", "red")


@pytest.fixture
def store() -> Store:
    registry = KindRegistry(
        [
            Kind("", "v1", "Namespace", "namespaces", OPEN, namespaced=False, is_custom=False),
            Kind("", "v1", "ConfigMap", "configmaps", OPEN, has_status=False, is_custom=False),
            Kind(
                "example.dev", "v1", "Widget", "widgets", OPEN,
                default=add_default, validate=refuse_bad, webhook="w",
            ),
        ]
    )  # fmt: skip
    return Store(registry, VirtualClock())


def widgets(**sizes: object) -> list[Manifest]:
    return [
        Manifest(
            {
                "apiVersion": "example.dev/v1",
                "kind": "Widget",
                "metadata": {"name": name},
                "spec": {"size": size} if size is not None else {},
            },
            "w.yaml",
        )
        for name, size in sizes.items()
    ]


def names(store: Store) -> list[str]:
    return [obj["metadata"]["name"] for obj in store.list(WIDGET)]


async def project(store: Store, manifests: list[Manifest]) -> list[tuple[str, str]]:
    outcome = await apply_project(manifests, store, namespace="default")
    assert not outcome.problems
    return [(c.what, c.obj["metadata"]["name"]) for c in outcome.changes]


async def test_a_second_apply_changes_nothing(store: Store) -> None:
    assert await project(store, widgets(a=1)) == [("created", "a")]
    version = store.version
    assert await project(store, widgets(a=1)) == [("unchanged", "a")]
    assert store.version == version


async def test_what_is_no_longer_said_goes_and_what_others_said_stays(store: Store) -> None:
    await project(store, widgets(a=1))
    store.modify(WIDGET, "default", "a", lambda o: o["spec"].update(owner="someone"))
    assert await project(store, widgets(a=None)) == [("configured", "a")]
    assert store.get(WIDGET, "default", "a")["spec"] == {"colour": "red", "owner": "someone"}


async def test_prune_removes_just_what_the_project_no_longer_declares(store: Store) -> None:
    await project(store, widgets(a=1, b=2))
    store.create({**widgets(mine=1)[0].obj, "metadata": {"name": "mine", "namespace": "default"}})
    assert ("deleted", "b") in await project(store, widgets(a=1))
    assert names(store) == ["a", "mine"]


async def test_an_object_that_someone_else_made_anew_is_not_pruned(store: Store) -> None:
    await project(store, widgets(a=1))
    store.delete(WIDGET, "default", "a")
    theirs = widgets(a=9)[0].obj
    store.create({**theirs, "metadata": {"name": "a", "namespace": "default"}})
    await project(store, [])
    assert names(store) == ["a"]


async def test_a_refused_object_is_told_with_its_place_and_the_others_are_applied(
    store: Store,
) -> None:
    outcome = await apply_project(widgets(a=1, b="bad"), store, namespace="default")
    assert names(store) == ["a"]
    assert str(outcome.problems[0]).startswith("w.yaml: Widget 'b': ")
    assert "spec.size" in str(outcome.problems[0])


async def test_a_refused_change_does_not_delete_what_was_there(store: Store) -> None:
    await project(store, widgets(a=1))
    await apply_project(widgets(a="bad"), store, namespace="default")
    assert names(store) == ["a"]
    await project(store, [])
    assert names(store) == []


async def test_the_same_object_twice_is_a_mistake(store: Store) -> None:
    with pytest.raises(ProjectError, match="declared twice"):
        await apply_project(widgets(a=1) + widgets(a=2), store, namespace="default")


async def test_namespaces_are_made_as_needed_and_kept(store: Store) -> None:
    text = "apiVersion: example.dev/v1\nkind: Widget\nmetadata: {name: a, namespace: other}"
    await apply_project(parse(text), store, namespace="shop")
    assert store.get(WIDGET, "other", "a")
    await project(store, [])
    assert store.find(GroupKind("", "Namespace"), "", "other")


async def test_settings_no_longer_said_leave_the_config_map_in_place(store: Store) -> None:
    for obj in (
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "knative-serving"}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "config-autoscaler", "namespace": "knative-serving"},
            "data": {"_example": "x"},
        },
    ):
        store.create(obj)
    text = (
        "apiVersion: v1\nkind: ConfigMap\n"
        "metadata: {name: config-autoscaler, namespace: knative-serving}\n"
        "data: {stable-window: 6s}"
    )
    await project(store, parse(text))
    data = store.get(CONFIG_MAP, "knative-serving", "config-autoscaler")["data"]
    assert data == {"_example": "x", "stable-window": "6s"}
    await project(store, [])
    data = store.get(CONFIG_MAP, "knative-serving", "config-autoscaler")["data"]
    assert data == {"_example": "x"}


async def test_apply_leaves_the_mark_that_kubectl_reads(store: Store) -> None:
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    outcome = await apply(widgets(a=1), StoreTarget(store))
    text = outcome.changes[0].obj["metadata"]["annotations"][LAST_APPLIED]
    assert '"size":1' in text
    assert "colour" not in text
