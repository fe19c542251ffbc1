"""`traffic`, `revisions`, `rollback`: which code answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from knlocal.cli.context import Context, echo, namespace_option, pass_context
from knlocal.cli.exits import CliError, Exit
from knlocal.cli.output import FORMATS, aligned, print_objects
from knlocal.project.errors import did_you_mean
from knlocal.project.objects import ROLLBACK

if TYPE_CHECKING:
    from knlocal.cli.client import Client, Resource
    from knlocal.resources.base import Obj

SERVICES = "services.serving.knative.dev"
REVISIONS = "revisions.serving.knative.dev"


@click.command("traffic")
@click.argument("service")
@click.argument("targets", nargs=-1, metavar="[REVISION=PERCENT…]")
@click.option("--tag", "tags", multiple=True, metavar="REVISION=TAG", help="Give a revision a tag.")
@click.option("--untag", "untags", multiple=True, metavar="TAG", help="Take a tag away.")
@namespace_option
@pass_context
def traffic_command(
    context: Context, service: str, targets: tuple[str, ...], tags: tuple[str, ...],
    untags: tuple[str, ...], namespace: str | None,
) -> int:  # fmt: skip
    """Show a service's traffic, or split it.

    \b
    knlocal traffic orders
    knlocal traffic orders latest=90 orders-00001=10
    knlocal traffic orders --tag orders-00001=stable
    """
    client, place = context.client, namespace or context.namespace
    resource = client.resource(SERVICES)
    obj = client.request("GET", resource.path(place, service))
    if targets or tags or untags:
        traffic = _changed(obj, targets, tags, untags)
        _must_exist(traffic, client, place, service)
        obj = _set(client, resource, place, service, traffic)
    _show(obj)
    return Exit.OK


def _must_exist(traffic: list[Obj], client: Client, place: str, service: str) -> None:
    """A slip of the finger would take the service off the air."""
    named = {str(target["revisionName"]) for target in traffic if target.get("revisionName")}
    if not named:
        return
    known = [one["metadata"]["name"] for one in _revisions(client, place, service)]
    for name in sorted(named.difference(known)):
        hint = did_you_mean(name, known, "there are")
        raise CliError(f"{service} has no revision {name!r}", Exit.NOT_FOUND, hint)


def _set(client: Client, resource: Resource, place: str, name: str, traffic: list[Obj],
         mark: str | None = None) -> Obj:  # fmt: skip
    patch: Obj = {
        "metadata": {"annotations": {ROLLBACK: mark}},
        "spec": {"traffic": traffic},
    }
    result: Obj = client.request(
        "PATCH", resource.path(place, name), patch, content_type="application/merge-patch+json"
    )
    return result


def _changed(
    obj: Obj, targets: tuple[str, ...], tags: tuple[str, ...], untags: tuple[str, ...]
) -> list[Obj]:
    """The traffic of a service after what the command line asks for."""
    now = (obj.get("spec") or {}).get("traffic") or [{"latestRevision": True, "percent": 100}]
    traffic = [dict(target) for target in now]
    if targets:
        shares = {name: _percent(text) for name, text in map(_pair, targets)}
        total = sum(shares.values())
        if total != 100:
            raise CliError(f"the percentages add up to {total}, not to 100", Exit.USAGE)
        kept = [{**t, "percent": 0} for t in traffic if t.get("tag")]
        traffic = [*kept, *({**_target(n), "percent": p} for n, p in shares.items())]
        traffic = _joined(traffic)
    for tag in untags:
        if not any(target.get("tag") == tag for target in traffic):
            raise CliError(f"no tag {tag!r}", Exit.NOT_FOUND)
        traffic = [{k: v for k, v in t.items() if v != tag or k != "tag"} for t in traffic]
        traffic = [t for t in traffic if t.get("tag") or t.get("percent")]
    for name, tag in map(_pair, tags):
        traffic = [t for t in traffic if t.get("tag") != tag or t.get("percent")]
        for target in traffic:
            if target.get("tag") == tag:
                target.pop("tag")
        free = next((t for t in traffic if _same(t, _target(name)) and not t.get("tag")), None)
        if free is None:
            traffic.append({**_target(name), "percent": 0, "tag": tag})
        else:
            free["tag"] = tag
    return [{k: v for k, v in t.items() if k != "url"} for t in traffic]


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise CliError(f"{text!r} is not NAME=VALUE", Exit.USAGE)
    return name, value


def _percent(text: str) -> int:
    number = text.removesuffix("%")
    if not number.isdigit() or int(number) > 100:
        raise CliError(f"{text!r} is no percentage from 0 to 100", Exit.USAGE)
    return int(number)


def _target(name: str) -> Obj:
    if name in ("latest", "@latest"):
        return {"latestRevision": True}
    return {"revisionName": name, "latestRevision": False}


def _same(one: Obj, other: Obj) -> bool:
    return bool(one.get("latestRevision")) == bool(other.get("latestRevision")) and one.get(
        "revisionName"
    ) == other.get("revisionName")


def _joined(traffic: list[Obj]) -> list[Obj]:
    """One target for a revision that has a tag and, new, a share."""
    result: list[Obj] = []
    for target in traffic:
        twin = next((t for t in result if _same(t, target) and not t["percent"]), None)
        if twin is not None and not target.get("tag"):
            twin["percent"] = target["percent"]
        else:
            result.append(target)
    return result


def _show(obj: Obj) -> None:
    rows = [("PERCENT", "REVISION", "TAG", "URL")]
    status = obj.get("status") or {}
    url = status.get("url", "")
    for target in (obj.get("spec") or {}).get("traffic") or []:
        name = target.get("revisionName") or "latest"
        if target.get("latestRevision") and status.get("latestReadyRevisionName"):
            name = f"latest ({status['latestReadyRevisionName']})"
        tag = target.get("tag", "")
        rows.append((f"{target.get('percent') or 0}%", name, tag, _tag_url(url, tag)))
    for line in aligned(rows):
        echo(line)


def _tag_url(url: str, tag: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{tag}-{rest}" if tag and rest else url


@click.command("revisions")
@click.argument("service")
@click.option("-o", "--output", type=click.Choice(FORMATS))
@namespace_option
@pass_context
def revisions_command(
    context: Context, service: str, output: str | None, namespace: str | None
) -> int:
    """List a service's revisions, the newest first."""
    client, place = context.client, namespace or context.namespace
    obj = client.request("GET", client.resource(SERVICES).path(place, service))
    found = _revisions(client, place, service)
    if output in ("json", "yaml", "name"):
        print_objects(found, output)
        return Exit.OK
    shares: dict[str, Any] = {}
    for target in (obj.get("status") or {}).get("traffic") or []:
        shares.setdefault(target.get("revisionName", ""), []).append(target)
    rows = [("REVISION", "TRAFFIC", "TAGS", "READY", "MADE", "FROM")]
    for revision in found:
        name = revision["metadata"]["name"]
        targets = shares.get(name, [])
        percent = sum(target.get("percent") or 0 for target in targets)
        rows.append(
            (
                name,
                f"{percent}%" if percent else "",
                ",".join(target["tag"] for target in targets if target.get("tag")),
                _ready(revision),
                revision["metadata"]["creationTimestamp"],
                _origin(revision),
            )
        )
    for line in aligned(rows):
        echo(line)
    return Exit.OK


def _revisions(client: Client, place: str, service: str) -> list[Obj]:
    resource = client.resource(REVISIONS)
    label = {"labelSelector": f"serving.knative.dev/service={service}"}
    found = client.items(resource, place, **label)
    generation = "serving.knative.dev/configurationGeneration"
    found = [
        {"apiVersion": resource.api_version, "kind": resource.kind, **revision}
        for revision in found
    ]
    return sorted(found, key=lambda r: -int(r["metadata"]["labels"].get(generation, 0)))


def _ready(revision: Obj) -> str:
    for condition in (revision.get("status") or {}).get("conditions") or []:
        if condition["type"] == "Ready":
            return str(condition["status"])
    return "Unknown"


def _origin(revision: Obj) -> str:
    """What the code is: the snapshot, where there is one, else the image."""
    import orjson

    from knlocal.resources.annotations import RUN, SNAPSHOT

    annotations = revision["metadata"].get("annotations") or {}
    for key in (SNAPSHOT, RUN):
        if key in annotations:
            return (
                "source " + str(orjson.loads(annotations[key]).get("dir", "")).split("/")[-1][:12]
            )
    return str(revision["spec"]["containers"][0].get("image", ""))


@click.command("rollback")
@click.argument("service")
@click.argument("revision", required=False)
@click.option("--latest", is_flag=True, help="Back to the newest code.")
@namespace_option
@pass_context
def rollback_command(
    context: Context, service: str, revision: str | None, latest: bool, namespace: str | None
) -> int:
    """Send all traffic to an earlier revision: the one before, or the one named.

    The next save of a source file takes over again; `--latest` does so at once.
    """
    client, place = context.client, namespace or context.namespace
    resource = client.resource(SERVICES)
    obj = client.request("GET", resource.path(place, service))
    if latest:
        traffic: list[Obj] = [{"latestRevision": True, "percent": 100}]
        _set(client, resource, place, service, traffic)
        echo(f"{service}: all traffic goes to the latest ready revision")
        return Exit.OK
    found = [r for r in _revisions(client, place, service) if _ready(r) == "True"]
    names = [r["metadata"]["name"] for r in found]
    if revision is None:
        revision = _before(obj, names)
    elif revision not in names:
        hint = f"ready revisions: {', '.join(names)}" if names else "it has no ready revision"
        raise CliError(f"{service} has no ready revision {revision!r}", Exit.NOT_FOUND, hint)
    traffic = [{"revisionName": revision, "latestRevision": False, "percent": 100}]
    _set(client, resource, place, service, traffic, mark=revision)
    echo(f"{service}: all traffic goes to {revision}")
    return Exit.OK


def _before(obj: Obj, names: list[str]) -> str:
    """The ready revision before the one that has most of the traffic."""
    targets = (obj.get("status") or {}).get("traffic") or []
    most: Obj = max(targets, key=lambda t: t.get("percent") or 0, default={})
    current = most.get("revisionName", "")
    older = names[names.index(current) + 1 :] if current in names else names[1:]
    if not older:
        raise CliError("there is no earlier ready revision", Exit.NOT_FOUND)
    return older[0]
