"""`debug = true`: a debugger around the program, one pod, and a way to it."""

import asyncio
from collections.abc import Callable

import pytest

from knlocal.build.recipes import Recipe
from knlocal.clock import VirtualClock
from knlocal.project import config
from knlocal.project.debugging import DebugDoors, DebugPort, debugged, port_of
from knlocal.project.errors import ProjectError
from knlocal.project.objects import Origin
from knlocal.resources.kinds import Kind, KindRegistry
from knlocal.store.store import Store

SETTINGS = config.parse(
    '[services.a]\nsource = "a"\ndebug = true\n[services.b]\nsource = "b"\ndebug = true\n'
)
ONE_POD = {
    "autoscaling.knative.dev/min-scale": "1",
    "autoscaling.knative.dev/max-scale": "1",
}
PYTHON = Recipe("", "FROM x", run=("/venv/python", "m.py"), language="python",
                program=("python3", "m.py"))  # fmt: skip
NODE = Recipe("", "FROM x", run=("node", "m.js"), language="node", program=("node", "m.js"))
OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def test_a_python_process_runs_under_debugpy() -> None:
    origin = Origin("i", run={"command": ["/venv/python", "m.py"], "dir": "/s"})
    made = debugged(SETTINGS, "a", PYTHON, origin, in_container=False)
    assert made.run == {
        "command": ["/venv/python", "-m", "debugpy", "--listen", "127.0.0.1:5678", "m.py"],
        "dir": "/s",
    }
    assert made.annotations == ONE_POD


def test_a_python_container_runs_under_debugpy() -> None:
    made = debugged(SETTINGS, "a", PYTHON, Origin("i"), in_container=True)
    assert list(made.command) == ["python3", "-m", "debugpy", "--listen", "0.0.0.0:5678", "m.py"]


def test_node_brings_its_own_inspector() -> None:
    made = debugged(SETTINGS, "b", NODE, Origin("i", env={"A": "1"}), in_container=True)
    assert made.env == {"A": "1", "NODE_OPTIONS": "--inspect=0.0.0.0:9230"}


def test_two_debugged_services_have_ports_of_their_own() -> None:
    ports = {port_of(SETTINGS, name, "python").port for name in ("a", "b")}
    assert ports == {5678, 5679}


def test_other_languages_are_refused() -> None:
    with pytest.raises(ProjectError, match="only Python and Node"):
        debugged(SETTINGS, "a", Recipe("", "FROM x"), Origin("i"), in_container=True)


async def test_the_door_leads_to_the_newest_running_pod(free_port: Callable[[], int]) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"pod:" + await reader.readline())
        writer.close()

    pod = await asyncio.start_server(echo, "127.0.0.1", 0)
    registry = KindRegistry(
        [
            Kind("", "v1", "Namespace", "namespaces", OPEN, namespaced=False, is_custom=False),
            Kind("", "v1", "Pod", "pods", OPEN, has_status=False, is_custom=False),
        ]
    )
    store = Store(registry, VirtualClock())
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})
    labels = {"serving.knative.dev/service": "a"}
    for name, phase in (("old", "Succeeded"), ("new", "Running")):
        metadata = {"name": name, "namespace": "n", "labels": labels}
        store.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
                      "status": {"phase": phase}})  # fmt: skip
    asked = []

    def address_of(found: dict[str, object], port: int) -> tuple[str, int]:
        asked.append((found["metadata"]["name"], port))  # type: ignore[index]
        return pod.sockets[0].getsockname()[:2]  # type: ignore[no-any-return]

    doors = DebugDoors(store, address_of)
    door = DebugPort("a", "python", free_port())
    assert await doors.open("n", door) == ""
    assert "cannot listen" in await DebugDoors(store, address_of).open("n", door)
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(b"hello\n")
    assert await asyncio.wait_for(reader.read(), 10) == b"pod:hello\n"
    assert asked == [("new", door.port)]
    writer.close()
    await doors.close()
    pod.close()
