"""The store behaves as the storage of the Kubernetes API does."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from knlocal.clock import VirtualClock
from knlocal.resources.base import GroupKind, Obj, key_of, owner_reference
from knlocal.resources.field_errors import FieldErrors, invalid_value
from knlocal.resources.kinds import AdmissionContext, Kind, KindRegistry
from knlocal.resources.status import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
)
from knlocal.store.database import StateError
from knlocal.store.history import History
from knlocal.store.store import CONFIG_MAP, AdmissionRequest, Store, WriteOptions

WIDGET = GroupKind("example.dev", "Widget")
NAMESPACE = GroupKind("", "Namespace")
OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
STRICT = {
    "type": "object",
    "properties": {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": OPEN,
        "spec": {
            "type": "object",
            "properties": {"size": {"type": "integer"}, "colour": {"type": "string"}},
        },
        "status": OPEN,
    },
}


def default_colour(obj: Obj, context: AdmissionContext) -> None:
    obj.setdefault("spec", {}).setdefault(
        "colour", context.config("config-colours").get("x", "red")
    )


def refuse_plaid(obj: Obj, _context: AdmissionContext) -> FieldErrors:
    colour = obj["spec"]["colour"]
    return invalid_value(colour, "spec.colour") if colour == "plaid" else FieldErrors()


def registry() -> KindRegistry:
    return KindRegistry(
        [
            Kind("", "v1", "Namespace", "namespaces", OPEN, namespaced=False, is_custom=False),
            Kind("", "v1", "ConfigMap", "configmaps", OPEN, has_status=False, is_custom=False),
            Kind("", "v1", "Pod", "pods", OPEN, is_custom=False),
            Kind(
                "example.dev", "v1", "Widget", "widgets", STRICT,
                default=default_colour, validate=refuse_plaid,
                webhook="validation.webhook.example.dev",
            ),
        ]
    )  # fmt: skip


def namespace(name: str) -> Obj:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def widget(name: str = "one", **spec: object) -> Obj:
    return {
        "apiVersion": "example.dev/v1",
        "kind": "Widget",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec or {"size": 1},
    }


@pytest.fixture
def store() -> Store:
    store = Store(registry(), VirtualClock())
    store.create(namespace("default"))
    return store


def read(store: Store, name: str = "one") -> Obj:
    return store.get(WIDGET, "default", name)


def test_a_new_object_gets_uid_time_generation_and_version(store: Store) -> None:
    made = store.create(widget())
    assert made["metadata"]["uid"]
    assert made["metadata"]["creationTimestamp"] == "2026-01-01T00:00:00Z"
    assert made["metadata"]["generation"] == 1
    assert made["metadata"]["resourceVersion"] == str(store.version)
    assert read(store) == made


def test_what_the_client_says_of_server_fields_and_status_is_ignored(store: Store) -> None:
    sent = widget()
    sent["metadata"] |= {"uid": "mine", "generation": 7, "creationTimestamp": None}
    sent["status"] = {"ready": True}
    made = store.create(sent)
    assert made["metadata"]["uid"] != "mine"
    assert made["metadata"]["generation"] == 1
    assert "status" not in made


def test_a_name_that_is_taken_is_refused_in_kubernetes_words(store: Store) -> None:
    store.create(widget())
    with pytest.raises(AlreadyExists, match=r'widgets.example.dev "one" already exists'):
        store.create(widget())


def test_a_missing_object_is_not_found_in_kubernetes_words(store: Store) -> None:
    with pytest.raises(NotFound, match=r'widgets.example.dev "two" not found'):
        store.get(WIDGET, "default", "two")


def test_generate_name_appends_five_characters(store: Store) -> None:
    sent = widget("")
    sent["metadata"]["generateName"] = "gen-"
    name = store.create(sent)["metadata"]["name"]
    assert name.startswith("gen-")
    assert len(name) == len("gen-") + 5


def test_objects_need_an_existing_namespace_that_is_not_going(store: Store) -> None:
    lost = widget()
    lost["metadata"]["namespace"] = "nowhere"
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        store.create(lost)
    held = namespace("going")
    held["metadata"]["finalizers"] = ["example.dev/hold"]
    store.create(held)
    store.delete(NAMESPACE, "", "going")
    lost["metadata"]["namespace"] = "going"
    with pytest.raises(Forbidden, match="being terminated"):
        store.create(lost)


def test_defaults_see_the_configmaps_of_the_system_namespaces(store: Store) -> None:
    store.create(namespace("knative-serving"))
    store.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "config-colours", "namespace": "knative-serving"},
            "data": {"x": "green"},
        }
    )
    assert store.create(widget())["spec"]["colour"] == "green"


def test_a_refusal_names_the_webhook_as_knative_does(store: Store) -> None:
    with pytest.raises(BadRequest) as refused:
        store.create(widget(colour="plaid"))
    assert refused.value.message == (
        'admission webhook "validation.webhook.example.dev" denied the request: '
        "validation failed: invalid value: plaid: spec.colour"
    )


def test_a_wrong_type_is_invalid_and_names_the_field(store: Store) -> None:
    with pytest.raises(Invalid, match=r"spec\.size"):
        store.create(widget(size="big"))


@pytest.mark.parametrize("mode", ["Ignore", "Warn", "Strict"])
def test_unknown_fields_are_pruned_warned_of_or_refused(store: Store, mode: str) -> None:
    options = WriteOptions(field_validation=mode)  # type: ignore[arg-type]
    sent = widget(size=1, shape="round")
    if mode == "Strict":
        with pytest.raises(BadRequest, match='unknown field "spec.shape"'):
            store.create(sent, options)
        return
    made = store.create(sent, options)
    assert "shape" not in made["spec"]
    assert bool(options.warnings) == (mode == "Warn")


def test_an_admission_hook_may_change_or_refuse(store: Store) -> None:
    def hook(request: AdmissionRequest) -> None:
        if request.kind.kind == "Widget":
            if request.obj["metadata"]["name"] == "bad":
                raise Forbidden("no bad widgets")
            request.obj["spec"]["size"] = 9

    store.admission.append(hook)
    assert store.create(widget())["spec"]["size"] == 9
    with pytest.raises(Forbidden, match="no bad widgets"):
        store.create(widget("bad"))


def test_a_stale_update_conflicts_and_a_fresh_one_does_not(store: Store) -> None:
    first = store.create(widget())
    fresh = store.update({**widget(size=2), "metadata": dict(first["metadata"])})
    assert fresh["spec"]["size"] == 2
    with pytest.raises(Conflict, match="the object has been modified"):
        store.update({**widget(size=3), "metadata": dict(first["metadata"])})


def test_generation_moves_with_the_spec_only(store: Store) -> None:
    store.create(widget())
    labelled = store.modify(
        WIDGET, "default", "one", lambda o: o["metadata"].__setitem__("labels", {"a": "b"})
    )
    assert labelled["metadata"]["generation"] == 1
    stated = store.set_status(key_of(labelled), {"fine": True})
    assert stated is not None
    assert stated["metadata"]["generation"] == 1
    grown = store.modify(WIDGET, "default", "one", lambda o: o["spec"].__setitem__("size", 5))
    assert grown["metadata"]["generation"] == 2
    assert grown["status"] == {"fine": True}


def test_the_status_subresource_changes_nothing_but_status(store: Store) -> None:
    made = store.create(widget())
    sent = {**widget(size=50), "status": {"fine": True}}
    after = store.update(sent, subresource="status")
    assert after["spec"] == made["spec"]
    assert after["status"] == {"fine": True}


def test_an_update_that_changes_nothing_tells_nobody(store: Store) -> None:
    made = store.create(widget())
    with store.watch(WIDGET) as watch:
        assert (
            store.update(widget())["metadata"]["resourceVersion"]
            == (made["metadata"]["resourceVersion"])
        )
        assert watch.pending() == []


def test_a_dry_run_answers_as_if_stored_and_stores_nothing(store: Store) -> None:
    options = WriteOptions(dry_run=True)
    assert store.create(widget(), options)["spec"]["colour"] == "red"
    assert store.find(WIDGET, "default", "one") is None
    store.create(widget())
    assert store.update(widget(size=4), options)["spec"]["size"] == 4
    store.delete(WIDGET, "default", "one", options=options)
    assert read(store)["spec"]["size"] == 1


def test_deletion_waits_for_finalizers(store: Store) -> None:
    sent = widget()
    sent["metadata"]["finalizers"] = ["example.dev/hold"]
    store.create(sent)
    store.delete(WIDGET, "default", "one")
    assert read(store)["metadata"]["deletionTimestamp"]
    store.modify(WIDGET, "default", "one", lambda o: o["metadata"].pop("finalizers"))
    assert store.find(WIDGET, "default", "one") is None


def test_deletion_preconditions_are_checked(store: Store) -> None:
    store.create(widget())
    with pytest.raises(Conflict, match="Precondition failed: UID"):
        store.delete(WIDGET, "default", "one", uid="other")
    with pytest.raises(Conflict, match="Precondition failed: ResourceVersion"):
        store.delete(WIDGET, "default", "one", resource_version="1")


def test_orphaning_strips_the_owner_from_children(store: Store) -> None:
    parent = store.create(widget("parent"))
    child = widget("child")
    child["metadata"]["ownerReferences"] = [owner_reference(parent)]
    store.create(child)
    store.delete(WIDGET, "default", "parent", propagation="Orphan")
    assert not read(store, "child")["metadata"].get("ownerReferences")


def test_a_running_pod_is_deleted_by_marking_it_first(store: Store) -> None:
    pod = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": "knlocal"},
    }  # fmt: skip
    store.create(pod)
    marked = store.delete(GroupKind("", "Pod"), "default", "p")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    store.delete(GroupKind("", "Pod"), "default", "p", grace_seconds=0)
    assert store.find(GroupKind("", "Pod"), "default", "p") is None


async def test_a_watch_replays_history_then_follows_without_gap_or_repeat(store: Store) -> None:
    before = store.version
    store.create(widget())
    store.create(widget("two"))
    with store.watch(WIDGET, "default", since=before) as watch:
        store.modify(WIDGET, "default", "one", lambda o: o["spec"].__setitem__("size", 3))
        store.delete(WIDGET, "default", "two")
        seen = [(e.type, e.obj["metadata"]["name"]) for e in [await anext(watch) for _ in range(4)]]
        assert watch.pending() == []
    assert seen == [("ADDED", "one"), ("ADDED", "two"), ("MODIFIED", "one"), ("DELETED", "two")]


def test_a_deletion_event_carries_the_last_state_under_a_new_version(store: Store) -> None:
    made = store.create(widget())
    with store.watch(WIDGET) as watch:
        store.delete(WIDGET, "default", "one")
        (event,) = watch.pending()
    assert event.obj["spec"] == made["spec"]
    assert int(event.obj["metadata"]["resourceVersion"]) == event.version == store.version


def test_watches_from_the_future_and_the_forgotten_past_are_gone(store: Store) -> None:
    small = Store(registry(), VirtualClock(), history=5)
    small.create(namespace("default"))
    small.create(widget())
    for size in range(20):
        small.modify(WIDGET, "default", "one", lambda o, s=size: o["spec"].update(size=s + 5))
    for since in (1, small.version + 1):
        with pytest.raises(Gone, match="too old resource version"):
            small.watch(WIDGET, since=since)


async def test_a_watcher_that_never_reads_is_cut_off_not_fed_for_ever(store: Store) -> None:
    watch = store.watch(WIDGET)
    watch._limit = 10
    store.create(widget())
    for size in range(20):
        store.modify(WIDGET, "default", "one", lambda o, s=size: o["spec"].update(size=s + 5))
    with pytest.raises(Gone):
        await anext(watch)


def test_a_restarted_store_knows_everything(tmp_path: Path) -> None:
    first = Store(registry(), VirtualClock(), tmp_path / "state.db")
    first.create(namespace("default"))
    made = first.create(widget())
    first.create(widget("gone"))
    first.delete(WIDGET, "default", "gone")
    version = first.version
    first.close()
    second = Store(registry(), VirtualClock(), tmp_path / "state.db")
    assert second.version == version
    assert read(second) == made
    assert second.find(WIDGET, "default", "gone") is None
    second.close()


def test_what_was_acknowledged_survives_kill_nine(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import asyncio, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_store import Store, VirtualClock, namespace, registry, widget

        async def main():
            store = Store(registry(), VirtualClock(), Path({str(tmp_path / "state.db")!r}))
            store.create(namespace("default"))
            number = 0
            while True:
                store.create(widget(f"w{{number}}"))
                await store.durable()
                print(number, flush=True)
                number += 1

        asyncio.run(main())
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = -1
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged >= 200:
            os.kill(process.pid, signal.SIGKILL)
            break
    for line in process.stdout:
        acknowledged = int(line)
    process.wait(timeout=10)
    process.stdout.close()
    store = Store(registry(), VirtualClock(), tmp_path / "state.db")
    names = {obj["metadata"]["name"] for obj in store.list(WIDGET)}
    assert {f"w{n}" for n in range(acknowledged + 1)} <= names
    store.close()


def test_a_state_file_of_a_newer_version_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StateError, match="newer knlocal"):
        Store(registry(), VirtualClock(), path)


@pytest.mark.parametrize("damage", ["garbage", "cut"])
def test_a_damaged_state_file_is_refused_with_advice(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.db"
    store = Store(registry(), VirtualClock(), path)
    store.create(namespace("default"))
    for number in range(300):
        store.create(widget(f"w{number}"))
    store.close()
    if damage == "garbage":
        path.write_bytes(b"this is not a database" * 1000)
    else:
        path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(StateError, match="move it away"):
        Store(registry(), VirtualClock(), path)


def test_a_folder_that_cannot_be_written_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StateError, match="state_dir"):
        Store(registry(), VirtualClock(), tmp_path / "file" / "state.db")


@pytest.fixture
def full_disk() -> Iterator[Callable[[bool], None]]:
    """Call with True: no file of this process can grow any more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(yes: bool) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192 if yes else before[0], before[1]))

    yield full
    full(False)


async def test_what_a_full_disk_refused_is_saved_once_there_is_space(
    tmp_path: Path, full_disk: Callable[[bool], None]
) -> None:
    clock = VirtualClock()
    store = Store(registry(), clock, tmp_path / "state.db")
    store.create(namespace("default"))
    await store.durable()
    full_disk(True)
    store.create(widget("late", colour="x" * 20_000))
    with pytest.raises(StateError, match="make space"):
        await store.durable()
    await clock.advance(5)
    full_disk(False)
    await clock.advance(5)
    # Not closed: what counts is what a killed daemon would leave.
    again = Store(registry(), VirtualClock(), tmp_path / "state.db")
    assert read(again, "late")
    again.close()
    store.close()


def test_objects_that_nobody_looks_at_are_kept_as_json_and_found_all_the_same() -> None:
    store = Store(registry(), VirtualClock())
    store._objects._most = 3
    store.create(namespace("default"))
    for number in range(10):
        store.create(widget(f"w{number}"))
    assert len(store._objects._decoded) == 3
    assert [o["metadata"]["name"] for o in store.list(WIDGET)] == [f"w{n}" for n in range(10)]
    assert store.get(WIDGET, "default", "w0")["spec"] == {"size": 1, "colour": "red"}
    changed = store.modify(WIDGET, "default", "w1", lambda o: o["spec"].update(size=9))
    assert store.find(WIDGET, "default", "w1") == changed
    assert len(store._objects._decoded) == 3


def test_a_snapshot_of_an_older_version_undoes_what_came_after(store: Store) -> None:
    store.create(widget("kept"))
    store.create(widget("deleted"))
    before = store.version
    store.modify(WIDGET, "default", "kept", lambda o: o["spec"].update(size=9))
    store.delete(WIDGET, "default", "deleted")
    store.create(widget("made"))
    then = [store.decoded(json) for _, json in store.snapshot(WIDGET, "default", before)]
    assert [(o["metadata"]["name"], o["spec"]["size"]) for o in then] == [
        ("deleted", widget()["spec"]["size"]), ("kept", widget()["spec"]["size"]),
    ]  # fmt: skip
    with pytest.raises(Gone):
        store.snapshot(WIDGET, "default", store.version + 1)


def test_the_history_forgets_by_bytes_too(store: Store) -> None:
    store._history = History(most_bytes=3_000)
    store.create(widget())
    before = store.version
    for size in range(30):
        store.modify(WIDGET, "default", "one", lambda o, s=size: o["spec"].update(size=s + 5))
    assert before < store._history.begins < store.version
    with pytest.raises(Gone):
        store.watch(WIDGET, since=before)


@pytest.mark.parametrize("value", ["\ud800", 2**70])
def test_what_json_cannot_say_is_refused_before_anything_changes(
    store: Store, value: object
) -> None:
    before = store.version
    metadata = {"name": "x", "namespace": "default"}
    bad = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"k": value}}
    with pytest.raises((BadRequest, Invalid)):
        store.create(bad)
    assert store.version == before
    assert store.find(CONFIG_MAP, "default", "x") is None
