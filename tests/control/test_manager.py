"""The reconciler framework: keyed, sequential per object, retried, settled."""

import asyncio
from collections.abc import Sequence

import pytest

from knlocal.clock import VirtualClock
from knlocal.control.conditions import Conditions, find_condition, is_ready
from knlocal.control.controller import Controller, Requeue, Retry, Watching, owned_by
from knlocal.control.events import MOST_EVENTS, EventRecorder
from knlocal.control.garbage import GarbageCollector
from knlocal.control.manager import Manager
from knlocal.control.namespaces import NamespaceController, admit_namespace
from knlocal.resources.base import GroupKind, Key, Obj, owner_reference
from knlocal.resources.kinds import Kind, KindRegistry
from knlocal.store.store import Store

OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
WIDGET = GroupKind("example.dev", "Widget")
PART = GroupKind("example.dev", "Part")
NAMESPACE = GroupKind("", "Namespace")


def plain(group: str, kind: str, **more: object) -> Kind:
    return Kind(group, "v1", kind, f"{kind.lower()}s", OPEN, **more)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def store(clock: VirtualClock) -> Store:
    core = [plain("", k, is_custom=False) for k in ("ConfigMap", "ServiceAccount", "Event")]
    space = plain("", "Namespace", namespaced=False, is_custom=False)
    planet = plain("example.dev", "Planet", namespaced=False)
    own = [plain("example.dev", "Widget"), plain("example.dev", "Part"), planet]
    store = Store(KindRegistry([space, *core, *own]), clock)
    store.admission.append(admit_namespace)
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}})
    return store


def make(kind: str, name: str, owner: Obj | None = None, namespace: str = "default") -> Obj:
    obj: Obj = {
        "apiVersion": "example.dev/v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace}, "spec": {"n": 1},
    }  # fmt: skip
    if owner:
        obj["metadata"]["ownerReferences"] = [owner_reference(owner)]
    return obj


class Recording(Controller):
    kind = WIDGET

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.seen: list[str] = []
        self.now: set[Key] = set()
        self.overlapped = False
        self.fail: list[Exception] = []
        self.result: Requeue | None = None

    def watches(self) -> Sequence[Watching]:
        return [Watching(PART, owned_by(WIDGET))]

    async def reconcile(self, key: Key) -> Requeue | None:
        self.overlapped |= key in self.now
        self.now.add(key)
        await asyncio.sleep(0)
        self.now.discard(key)
        self.seen.append(key.name)
        if self.fail:
            raise self.fail.pop(0)
        result, self.result = self.result, None
        return result


@pytest.fixture
async def running(store: Store):  # type: ignore[no-untyped-def]
    controller = Recording(store)
    manager = Manager(store)
    manager.add(controller)
    await manager.start()
    yield controller, manager
    await manager.stop()


async def settle(manager: Manager) -> None:
    for _ in range(20):
        await asyncio.sleep(0)
        await manager.settled()


async def test_every_change_is_looked_at_one_at_a_time_per_object(running, store: Store) -> None:
    controller, manager = running
    store.create(make("Widget", "one"))
    store.create(make("Widget", "two"))
    for n in range(5):
        store.modify(WIDGET, "default", "one", lambda o, n=n: o["spec"].update(n=n + 2))
        await asyncio.sleep(0)
    await settle(manager)
    assert {"one", "two"} == set(controller.seen)
    assert not controller.overlapped


async def test_a_change_of_a_child_wakes_its_owner(running, store: Store) -> None:
    controller, manager = running
    owner = store.create(make("Widget", "one"))
    await settle(manager)
    controller.seen.clear()
    store.create(make("Part", "p", owner))
    await settle(manager)
    store.delete(PART, "default", "p")
    await settle(manager)
    assert controller.seen == ["one", "one"]


async def test_failures_are_retried_with_growing_waits(running, store, clock) -> None:
    controller, manager = running
    controller.fail = [RuntimeError("boom"), RuntimeError("boom"), Retry("not yet", after=100)]
    store.create(make("Widget", "one"))
    await settle(manager)
    assert len(controller.seen) == 1
    await clock.advance(0.05)
    await settle(manager)
    assert len(controller.seen) == 2
    await clock.advance(0.1)
    await settle(manager)
    assert len(controller.seen) == 3
    await clock.advance(99)
    await settle(manager)
    assert len(controller.seen) == 3
    await clock.advance(1)
    await settle(manager)
    assert len(controller.seen) == 4


async def test_an_unexpected_failure_becomes_a_warning_event_that_counts(
    running, store, clock
) -> None:
    controller, manager = running
    controller.fail = [RuntimeError("boom"), RuntimeError("boom")]
    store.create(make("Widget", "one"))
    await settle(manager)
    await clock.advance(1)
    await settle(manager)
    (event,) = store.list(GroupKind("", "Event"))
    assert event["reason"] == "InternalError"
    assert event["message"] == "boom"
    assert event["count"] == 2


async def test_requeue_looks_again_later(running, store, clock) -> None:
    controller, manager = running
    controller.result = Requeue(after=30)
    store.create(make("Widget", "one"))
    await settle(manager)
    await clock.advance(29)
    await settle(manager)
    assert len(controller.seen) == 1
    await clock.advance(1)
    await settle(manager)
    assert len(controller.seen) == 2


@pytest.fixture
def collector(store: Store):  # type: ignore[no-untyped-def]
    collector = GarbageCollector(store)
    collector.start()
    yield collector
    collector.stop()


async def test_children_go_after_their_owner_in_the_background(store, clock, collector) -> None:
    owner = store.create(make("Widget", "one"))
    child = store.create(make("Part", "p", owner))
    store.create(make("Part", "grandchild", child))
    store.delete(WIDGET, "default", "one", propagation="Background")
    await clock.advance(0)
    assert store.list(PART) == []


async def test_children_go_before_their_owner_in_the_foreground(store, clock, collector) -> None:
    owner = store.create(make("Widget", "one"))
    child = make("Part", "p", owner)
    child["metadata"]["finalizers"] = ["example.dev/hold"]
    store.create(child)
    store.delete(WIDGET, "default", "one", propagation="Foreground")
    await clock.advance(0)
    assert store.find(WIDGET, "default", "one") is not None
    store.modify(PART, "default", "p", lambda o: o["metadata"]["finalizers"].clear())
    await clock.advance(0)
    assert store.find(WIDGET, "default", "one") is None


async def test_an_owner_outside_namespaces_waits_for_its_children_too(
    store, clock, collector
) -> None:
    planet = make("Planet", "earth")
    del planet["metadata"]["namespace"]
    child = make("Part", "p", store.create(planet))
    child["metadata"]["finalizers"] = ["example.dev/hold"]
    store.create(child)
    kind = GroupKind("example.dev", "Planet")
    store.delete(kind, "", "earth", propagation="Foreground")
    await clock.advance(0)
    assert store.find(kind, "", "earth") is not None
    store.modify(PART, "default", "p", lambda o: o["metadata"]["finalizers"].clear())
    await clock.advance(0)
    assert store.find(kind, "", "earth") is None


async def test_an_object_whose_owner_never_existed_is_collected(store, clock, collector) -> None:
    ghost = make("Widget", "ghost") | {"metadata": {"name": "ghost", "uid": "no-such"}}
    store.create(make("Part", "p", ghost))
    await clock.advance(0)
    assert store.list(PART) == []


async def test_a_namespace_is_filled_and_goes_with_all_its_content(store, clock, collector) -> None:
    manager = Manager(store)
    manager.add(NamespaceController(store))
    await manager.start()
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
    await settle(manager)
    assert store.get(GroupKind("", "ServiceAccount"), "team", "default")
    assert store.get(NAMESPACE, "", "team")["status"]["phase"] == "Active"
    held = make("Widget", "held", namespace="team")
    held["metadata"]["finalizers"] = ["example.dev/hold"]
    store.create(held)
    store.delete(NAMESPACE, "", "team")
    await settle(manager)
    assert store.get(NAMESPACE, "", "team")["status"]["phase"] == "Terminating"
    store.modify(WIDGET, "team", "held", lambda o: o["metadata"].pop("finalizers"))
    await clock.advance(1)
    await settle(manager)
    assert store.find(NAMESPACE, "", "team") is None
    assert store.list(GroupKind("", "ServiceAccount"), "team") == []
    await manager.stop()


def conditions(clock: VirtualClock, status: Obj | None = None) -> Conditions:
    return Conditions(("Built", "Routed"), status, clock.now())


def test_ready_is_true_only_when_all_dependents_are(clock: VirtualClock) -> None:
    them = conditions(clock)
    assert find_condition({"status": {"conditions": them.result()}})["status"] == "Unknown"
    them.true("Built")
    assert not them.is_true()
    them.true("Routed")
    assert them.is_true()
    assert [c["type"] for c in them.result()] == ["Built", "Ready", "Routed"]


def test_a_false_dependent_speaks_for_ready(clock: VirtualClock) -> None:
    them = conditions(clock)
    them.unknown("Built", "Waiting", "still")
    them.false("Routed", "NoRoute", "there is none")
    ready = find_condition({"status": {"conditions": them.result()}})
    assert (ready["status"], ready["reason"], ready["message"]) == (
        "False", "NoRoute", "there is none",
    )  # fmt: skip


def test_informational_conditions_never_count(clock: VirtualClock) -> None:
    them = conditions(clock)
    them.true("Built")
    them.true("Routed")
    them.false("Active", "NoTraffic", "idle")
    assert them.is_true()
    assert them.get("Active")["severity"] == "Info"


async def test_transition_times_move_only_with_the_condition(clock: VirtualClock) -> None:
    them = conditions(clock)
    them.true("Built")
    first = {"conditions": them.result()}
    await clock.advance(60)
    them = conditions(clock, first)
    them.true("Built")
    them.true("Routed")
    by_type = {c["type"]: c for c in them.result()}
    assert by_type["Built"]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert by_type["Routed"]["lastTransitionTime"] == "2026-01-01T00:01:00Z"


def test_ready_counts_only_for_the_current_generation(clock: VirtualClock) -> None:
    them = conditions(clock)
    them.true("Built")
    them.true("Routed")
    obj = {
        "metadata": {"generation": 2},
        "status": {"conditions": them.result(), "observedGeneration": 1},
    }
    assert not is_ready(obj)
    obj["status"]["observedGeneration"] = 2
    assert is_ready(obj)


async def test_the_oldest_events_are_forgotten(store: Store, clock: VirtualClock) -> None:
    recorder = EventRecorder(store, "test")
    widget = store.create(make("Widget", "one"))
    for number in range(MOST_EVENTS + 1):
        recorder.normal(widget, "Counted", f"number {number}")
        if number == 0:
            await clock.advance(1)
    events = store.list(GroupKind("", "Event"))
    assert len(events) <= MOST_EVENTS
    messages = {event["message"] for event in events}
    assert "number 0" not in messages
    assert f"number {MOST_EVENTS}" in messages
