"""`logs`: what the containers of a service (revision, pod, source) print."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click
import orjson

from knlocal.cli.client import Client
from knlocal.cli.context import Context, is_terminal, namespace_option, note, pass_context
from knlocal.cli.exits import CliError, Exit
from knlocal.project.errors import did_you_mean

if TYPE_CHECKING:
    from knlocal.resources.base import Obj

_LABELS = {
    "services.serving.knative.dev": "serving.knative.dev/service",
    "configurations.serving.knative.dev": "serving.knative.dev/configuration",
    "revisions.serving.knative.dev": "serving.knative.dev/revision",
    "routes.serving.knative.dev": "serving.knative.dev/service",
    "containersources.sources.knative.dev": "sources.knative.dev/containerSource",
    "jobs.batch": "job-name",
    "deployments.apps": "app",
}
_COLOURS = ("cyan", "magenta", "yellow", "blue", "green", "bright_cyan", "bright_magenta")


@click.command("logs")
@click.argument("name", required=False, metavar="[SERVICE | KIND/NAME]")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, of new pods too.")
@click.option("--tail", type=int, help="Only the last lines of each container.")
@click.option("--since", help="Only lines that are newer (5s, 2m, 3h).")
@click.option("-c", "--container", help="One container (default: all of them).")
@click.option("-p", "--previous", is_flag=True, help="Of the container before its last restart.")
@click.option("--timestamps", is_flag=True)
@namespace_option
@pass_context
def logs_command(
    context: Context, name: str | None, follow: bool, tail: int | None, since: str | None,
    container: str | None, previous: bool, timestamps: bool, namespace: str | None,
) -> int:  # fmt: skip
    """Show what containers print: of one service, or of all of them."""
    client = context.client
    place = namespace or context.namespace
    selector, pod_name = _selector(client, name, place)
    query = {
        **({"tailLines": str(tail)} if tail is not None else {}),
        **({"sinceSeconds": str(_seconds(since))} if since else {}),
        **({"previous": "true"} if previous else {}),
        **({"timestamps": "true"} if timestamps else {}),
    }
    view = _View(client, place, container, query, follow)
    wanted = {"fieldSelector": f"metadata.name={pod_name}"} if pod_name else {}
    if selector:
        wanted["labelSelector"] = selector
    pods = client.request("GET", f"/api/v1/namespaces/{place}/pods", query=wanted)
    for pod in pods["items"]:
        view.add(pod)
    if not follow:
        _check_container(pods["items"], container)
        if not pods["items"]:
            note(f"no pods of {name} run now" if name else f"no pods run in {place}")
        return view.drain()
    version = pods["metadata"]["resourceVersion"]
    threading.Thread(
        target=view.watch, args=({**wanted, "resourceVersion": version},), daemon=True
    ).start()
    return view.forever()


def _selector(client: Client, name: str | None, place: str) -> tuple[str, str]:
    """A label selector, or the name of one pod."""
    if not name:
        return "", ""
    word, slash, rest = name.partition("/")
    resource = client.resource(word if slash else "services.serving.knative.dev")
    wanted = rest if slash else name
    if resource.full_name == "pods":
        client.request("GET", resource.path(place, wanted))
        return "", wanted
    label = _LABELS.get(resource.full_name)
    if label is None:
        raise CliError(f"{resource.plural} have no logs", Exit.USAGE)
    client.request("GET", resource.path(place, wanted))  # NotFound in the API's words
    return f"{label}={wanted}", ""


def _check_container(pods: list[Obj], container: str | None) -> None:
    """A container that no pod has would print nothing, as one that is silent does."""
    names = {c["name"] for pod in pods for c in pod["spec"]["containers"]} - {"queue-proxy"}
    names |= {c["name"] for pod in pods for c in pod["spec"].get("initContainers") or ()}
    if container and pods and container not in {*names, "queue-proxy"}:
        hint = did_you_mean(container, names, "containers")
        raise CliError(f"no pod here has a container {container!r}", Exit.NOT_FOUND, hint)


def _seconds(text: str) -> int:
    from knlocal.resources import duration

    try:
        return max(1, round(duration.parse(text)))
    except ValueError as error:
        raise CliError(f"--since: {error}", Exit.USAGE) from None


class _View:
    """Lines of many containers, printed as they come, each under its pod's name."""

    def __init__(
        self, client: Client, place: str, container: str | None, query: dict[str, str], follow: bool
    ) -> None:
        self._client, self._place, self._query = client, place, query
        self._container, self._follow = container, follow
        self._lines: queue.Queue[tuple[str, bytes] | None] = queue.Queue(maxsize=10_000)
        self._threads: dict[tuple[str, str], threading.Thread] = {}
        self._restarts: dict[tuple[str, str], int] = {}
        self._colours: dict[str, str] = {}

    def add(self, pod: Obj) -> None:
        """Show the containers of a pod that have begun, once for each of their lives."""
        for status in (pod.get("status") or {}).get("containerStatuses") or []:
            name, state = status["name"], status.get("state") or {}
            shown = name == self._container if self._container else name != "queue-proxy"
            began = "running" in state or "terminated" in state or status.get("restartCount")
            key = (pod["metadata"]["uid"], name)
            count = status.get("restartCount", 0)
            if not (shown and began) or self._restarts.get(key, -1) >= count:
                continue
            again = key in self._restarts
            self._restarts[key] = count
            several = len(pod["spec"]["containers"]) > 2
            label = pod["metadata"]["name"] + (f" {name}" if several else "")
            args = (pod["metadata"]["name"], name, label, again)
            thread = threading.Thread(target=self._read, args=args, daemon=True)
            self._threads[key] = thread
            thread.start()

    def watch(self, query: dict[str, str]) -> None:
        path = f"/api/v1/namespaces/{self._place}/pods"
        try:
            for line in self._client.stream(path, {**query, "watch": "true"}):
                event = orjson.loads(line)
                if event["type"] in ("ADDED", "MODIFIED"):
                    self.add(event["object"])
        except CliError:
            pass
        self._lines.put(None)

    def _read(self, pod: str, container: str, label: str, again: bool) -> None:
        query = {**self._query, "container": container}
        if again:  # its earlier lives were shown already
            query.pop("tailLines", None)
            query.pop("sinceSeconds", None)
        if self._follow:
            query["follow"] = "true"
        path = f"/api/v1/namespaces/{self._place}/pods/{pod}/log"
        try:
            for line in self._client.stream(path, query):
                self._lines.put((label, line))
        except CliError as error:
            if not self._follow:
                self._lines.put((label, f"({error.message})\n".encode()))

    def drain(self) -> int:
        """Print what there is."""
        waiter = threading.Thread(target=self._wait_for_readers, daemon=True)
        waiter.start()
        return self.forever()

    def _wait_for_readers(self) -> None:
        for thread in list(self._threads.values()):
            thread.join()
        self._lines.put(None)

    def forever(self) -> int:
        for label, line in self._next():
            text = line.decode("utf-8", "replace").rstrip("\n")
            click.echo(f"{self._prefix(label)}{text}")
        return Exit.OK

    def _next(self) -> Iterator[tuple[str, bytes]]:
        while (item := self._lines.get()) is not None:
            yield item

    def _prefix(self, label: str) -> str:
        if not self._follow and len(self._threads) < 2:
            return ""
        if is_terminal():
            colour = self._colours.setdefault(label, _COLOURS[len(self._colours) % len(_COLOURS)])
            return click.style(f"{label} | ", fg=colour)
        return f"{label} | "
