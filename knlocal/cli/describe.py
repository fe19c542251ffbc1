"""`describe`: all about one object, its children and what happened to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from knlocal.cli.context import Context, echo, namespace_option, pass_context
from knlocal.cli.exits import Exit
from knlocal.cli.output import aligned, yaml_text

if TYPE_CHECKING:
    from knlocal.cli.client import Client
    from knlocal.resources.base import Obj


@click.command("describe")
@click.argument("what", nargs=-1, required=True, metavar="[KIND] NAME | KIND/NAME")
@namespace_option
@pass_context
def describe_command(context: Context, what: tuple[str, ...], namespace: str | None) -> int:
    """Tell all about an object: what it is, how it is, what happened to it."""
    client = context.client
    place = namespace or context.namespace
    kind, name = _split(what)
    resource = client.resource(kind)
    obj = client.request("GET", resource.path(place, name))
    for title, lines in _sections(client, obj, place):
        if lines:
            echo(click.style(f"{title}:", bold=True))
            for line in lines:
                echo(f"  {line}".rstrip())
    return Exit.OK


def _split(what: tuple[str, ...]) -> tuple[str, str]:
    if len(what) == 1 and "/" in what[0]:
        kind, _, name = what[0].partition("/")
        return kind, name
    if len(what) == 1:
        return "services.serving.knative.dev", what[0]
    if len(what) == 2:
        return what[0], what[1]
    raise click.UsageError("give one object: KIND NAME")


def _sections(client: Client, obj: Obj, place: str) -> list[tuple[str, list[str]]]:
    metadata, status = obj["metadata"], obj.get("status") or {}
    head = aligned(
        [
            ("", ""),
            ("Kind", f"{obj['kind']} ({obj['apiVersion']})"),
            ("Name", metadata["name"]),
            *([("Namespace", metadata["namespace"])] if metadata.get("namespace") else []),
            ("Created", metadata.get("creationTimestamp", "")),
            *([("URL", status["url"])] if status.get("url") else []),
            *(
                [("Address", status["address"]["url"])]
                if (status.get("address") or {}).get("url")
                else []
            ),
        ],
        colour=False,
    )[1:]
    shown_status = {
        key: value
        for key, value in status.items()
        if key not in ("conditions", "url", "address", "observedGeneration", "traffic")
    }
    return [
        (obj["kind"], head),
        ("Labels", _pairs(metadata.get("labels"))),
        ("Annotations", _pairs(metadata.get("annotations"))),
        ("Spec", yaml_text(obj["spec"]).rstrip().splitlines() if obj.get("spec") else []),
        ("Traffic", _traffic(status)),
        ("Conditions", _conditions(status)),
        ("Status", yaml_text(shown_status).rstrip().splitlines() if shown_status else []),
        ("Events", _events(client, obj, place)),
    ]


def _pairs(values: dict[str, str] | None) -> list[str]:
    return [
        f"{key}: {value}"
        for key, value in sorted((values or {}).items())
        if key != "kubectl.kubernetes.io/last-applied-configuration"
    ]


def _traffic(status: Obj) -> list[str]:
    rows = [
        (
            f"{target.get('percent') or 0}%",
            target.get("revisionName", ""),
            "latest" if target.get("latestRevision") else "",
            f"#{target['tag']}" if target.get("tag") else "",
            target.get("url", ""),
        )
        for target in status.get("traffic") or []
    ]
    return aligned(rows, colour=False)


def _conditions(status: Obj) -> list[str]:
    rows = [("OK", "TYPE", "SINCE", "REASON")]
    marks = {"True": "++", "False": "!!", "Unknown": "??"}
    for condition in status.get("conditions") or []:
        said = ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
        mark = marks.get(condition.get("status", ""), "??")
        rows.append((mark, condition["type"], condition.get("lastTransitionTime", ""), said))
    return aligned(rows) if len(rows) > 1 else []


def _events(client: Client, obj: Obj, place: str) -> list[str]:
    query = {"fieldSelector": f"involvedObject.uid={obj['metadata']['uid']}"}
    found = client.request("GET", f"/api/v1/namespaces/{place}/events", query=query)["items"]
    rows = [("LAST SEEN", "TYPE", "REASON", "MESSAGE")]
    for event in sorted(found, key=lambda e: e.get("lastTimestamp") or ""):
        times = f" (x{event['count']})" if event.get("count", 1) > 1 else ""
        rows.append(
            (
                event.get("lastTimestamp") or "",
                event.get("type", ""),
                event.get("reason", ""),
                f"{event.get('message', '')}{times}",
            )
        )
    return aligned(rows) if len(rows) > 1 else []


def why_not_ready(obj: Obj) -> str:
    """The reason that an object gives for not being ready, for people."""
    conditions: list[Any] = (obj.get("status") or {}).get("conditions") or []
    ready = next((c for c in conditions if c["type"] in ("Ready", "Succeeded")), None)
    if ready is None:
        return "nothing is known about it yet"
    if ready["status"] == "True":
        return "it is ready"
    return str(ready.get("message") or ready.get("reason") or "no reason given")
