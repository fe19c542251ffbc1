"""`get`, `apply`, `delete`: objects as the API shows them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from knlocal.cli.client import TABLE, ApiError, Client, Resource
from knlocal.cli.context import Context, echo, namespace_option, note, pass_context
from knlocal.cli.exits import CliError, Exit
from knlocal.cli.output import FORMATS, Table, print_objects

if TYPE_CHECKING:
    from knlocal.project.manifests import Manifest
    from knlocal.resources.base import Obj

#: What `get` shows when nothing is named.
USUAL = ("services.serving.knative.dev",)
#: What Services and Channels make, and `get all` therefore leaves out.
MADE = {"configurations", "routes", "revisions", "eventtypes"}


@click.command("get")
@click.argument("what", nargs=-1, metavar="[KIND[,KIND…] [NAME…] | KIND/NAME…]")
@namespace_option
@click.option("-A", "--all-namespaces", is_flag=True, help="Objects of all namespaces.")
@click.option("-l", "--selector", default="", help="Only objects with these labels.")
@click.option("-o", "--output", type=click.Choice(FORMATS), help="Instead of a table.")
@click.option("-w", "--watch", is_flag=True, help="Then follow changes.")
@pass_context
def get_command(
    context: Context, what: tuple[str, ...], namespace: str | None, all_namespaces: bool,
    selector: str, output: str | None, watch: bool,
) -> int:  # fmt: skip
    """List objects, or show those named.

    \b
    knlocal get                       the services
    knlocal get all                   everything of Knative's that people make
    knlocal get sources               the kinds of a category: sources, eventing, messaging, …
    knlocal get triggers              any kind: plural, singular, short name, with group
    knlocal get ksvc/hello -o yaml
    """
    client = context.client
    place = None if all_namespaces else (namespace or context.namespace)
    query = {"labelSelector": selector} if selector else {}
    wanted = list(_wanted(client, what))
    if output in ("json", "yaml", "name"):
        objects, single = _objects(client, wanted, place, query)
        print_objects(objects, output, single=single)
        return Exit.OK
    if watch:
        return _watch(client, wanted, place, query, wide=output == "wide")
    shown = 0
    for resource, names in wanted:
        table = _table(client, resource, names, place, query)
        if not table["rows"]:
            continue
        if shown:
            echo()
        Table(
            table,
            wide=output == "wide",
            spaces=all_namespaces and resource.namespaced,
            prefix=_prefix(resource) if len(wanted) > 1 else "",
        ).print()
        shown += 1
    if not shown:
        where = f" in namespace {place}" if place else ""
        kinds = wanted[0][0].plural if len(wanted) == 1 else "objects"
        note(f"no {kinds} found{where}")
    return Exit.OK


def _wanted(client: Client, what: tuple[str, ...]) -> Iterator[tuple[Resource, list[str]]]:
    """The kinds and names that the words of the command line mean."""
    if not what:
        what = USUAL
    if len(what) == 1 and (kinds_of := _category(client, what[0])):
        for resource in kinds_of:
            yield resource, []
        return
    if any("/" in word for word in what):
        for word in what:
            kind, slash, name = word.partition("/")
            if not slash or not name:
                raise CliError(f"{word!r} is not KIND/NAME", Exit.USAGE)
            yield client.resource(kind), [name]
        return
    kinds = what[0].split(",")
    if len(kinds) > 1 and len(what) > 1:
        raise CliError("give several kinds, or one kind with names, not both", Exit.USAGE)
    for kind in kinds:
        yield client.resource(kind), list(what[1:])


def _category(client: Client, word: str) -> list[Resource]:
    if word == "all":
        return [kind for kind in client.category("knative") if kind.plural not in MADE]
    return client.category(word)


def _objects(
    client: Client,
    wanted: Iterable[tuple[Resource, list[str]]],
    place: str | None,
    query: dict[str, str],
) -> tuple[list[Obj], bool]:
    found: list[Obj] = []
    single = False
    for resource, names in wanted:
        if names and resource.namespaced and place is None:
            raise CliError("a name needs a namespace, not -A", Exit.USAGE)
        for name in names:
            found.append(client.request("GET", resource.path(place, name)))
        if not names:
            items = client.items(resource, place, **query)
            found += [
                {"apiVersion": resource.api_version, "kind": resource.kind, **item}
                for item in items
            ]
        single = len(names) == 1 and len(found) == 1
    return found, single


def _table(
    client: Client, resource: Resource, names: list[str], place: str | None, query: dict[str, str]
) -> Any:
    if not names:
        return client.request("GET", resource.path(place), query=query, accept=TABLE)
    if resource.namespaced and place is None:
        raise CliError("a name needs a namespace, not -A", Exit.USAGE)
    tables = [client.request("GET", resource.path(place, name), accept=TABLE) for name in names]
    return {**tables[0], "rows": [row for table in tables for row in table["rows"]]}


def _watch(
    client: Client,
    wanted: list[tuple[Resource, list[str]]],
    place: str | None,
    query: dict[str, str],
    *,
    wide: bool,
) -> int:
    import orjson

    if len(wanted) != 1 or len(wanted[0][1]) > 1:
        raise CliError("--watch follows one kind, or one object", Exit.USAGE)
    resource, names = wanted[0]
    if names:
        query = {**query, "fieldSelector": f"metadata.name={names[0]}"}
    first = client.request("GET", resource.path(place), query=query, accept=TABLE)
    spaces = place is None and resource.namespaced
    view = Table(first, wide=wide, spaces=spaces)
    view.print()
    version = first["metadata"]["resourceVersion"]
    follow = {**query, "watch": "true", "resourceVersion": version}
    for line in client.stream(resource.path(place), follow, accept=TABLE):
        event = orjson.loads(line)
        if event["type"] == "ERROR":
            raise CliError(event["object"].get("message", "the watch ended"))
        if event["type"] != "BOOKMARK":
            view.print_rows(event["object"]["rows"], event["type"])
    return Exit.OK


# -- apply and delete -----------------------------------------------------------------------------


class ApiTarget:
    """The API as something that manifests are applied to."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def namespaced(self, obj: Obj) -> bool:
        return self._client.resource_of(obj).namespaced

    async def get(self, obj: Obj) -> Obj | None:
        found: Obj | None = self._told(self._client.get_path, obj, named=True)
        return found

    async def create(self, obj: Obj) -> Obj:
        return self._write("POST", obj, named=False)

    async def replace(self, obj: Obj) -> Obj:
        return self._write("PUT", obj, named=True)

    async def delete(self, obj: Obj) -> None:
        self._told(lambda path: self._client.request("DELETE", path), obj, named=True)

    def _write(self, method: str, obj: Obj, *, named: bool) -> Obj:
        query = {"fieldManager": "knlocal", "fieldValidation": "Strict"}
        result: Obj = self._told(
            lambda path: self._client.request(method, path, obj, query=query), obj, named=named
        )
        return result

    def _told(self, act: Any, obj: Obj, *, named: bool) -> Any:
        """Refusals in the shape that `apply` collects."""
        from knlocal.resources.status import StatusError

        resource = self._client.resource_of(obj)
        name = obj["metadata"].get("name", "") if named else ""
        try:
            return act(resource.path(obj["metadata"].get("namespace"), name))
        except ApiError as error:
            raise StatusError(error.message) from None


@click.command("apply")
@click.option(
    "-f", "--filename", "files", multiple=True, required=True, metavar="FILE",
    help="A file, a folder, a glob, or - for standard input. May be given several times.",
)  # fmt: skip
@click.option("-R", "--recursive", is_flag=True, help="Folders with everything below them.")
@namespace_option
@click.option("-o", "--output", type=click.Choice(["json", "yaml", "name"]))
@pass_context
def apply_command(
    context: Context, files: tuple[str, ...], recursive: bool, namespace: str | None,
    output: str | None,
) -> int:  # fmt: skip
    """Create or update objects, as `kubectl apply` does."""
    from knlocal.project import apply, manifests

    found = manifests.load(files, Path.cwd(), recursive=recursive)
    if not found:
        raise CliError("no objects in these files", Exit.USAGE)
    for manifest in found:
        if manifest.note:
            note(f"{manifest.place}: {manifest.note}")
    client = context.client
    _check_kinds(client, found)
    target = ApiTarget(client)
    outcome = asyncio.run(apply.apply(found, target, namespace=namespace or context.namespace))
    if output in ("json", "yaml"):
        objects = [change.obj for change in outcome.changes]
        print_objects(objects, output, single=len(objects) == 1)
    for change in outcome.changes:
        if output == "name" or not output:
            said = "" if output == "name" else f" {change.what}"
            echo(f"{_named(client, change.obj)}{said}")
    for problem in outcome.problems:
        note(str(problem))
    return Exit.FAILURE if outcome.problems else Exit.OK


def _check_kinds(client: Client, found: list[Manifest]) -> None:
    from knlocal.project.errors import ProjectError, did_you_mean

    known = {(r.api_version, r.kind) for r in client.resources()}
    problems = []
    for manifest in found:
        api_version, kind = manifest.obj["apiVersion"], manifest.obj["kind"]
        if (api_version, kind) not in known:
            kinds = [k for version, k in known if version == api_version]
            hint = (
                did_you_mean(kind, kinds)
                if kinds
                else did_you_mean(api_version, {version for version, _ in known})
            )
            hint = hint if hint.startswith("did") else "knlocal does not simulate it"
            problems.append(manifest.problem(f"no kind {kind!r} in {api_version}", hint))
    if problems:
        raise ProjectError(*problems)


def _named(client: Client, obj: Obj) -> str:
    return _prefix(client.resource_of(obj)) + str(obj["metadata"]["name"])


def _prefix(resource: Resource) -> str:
    group = f".{resource.group}" if resource.group else ""
    return f"{resource.kind.lower()}{group}/"


@click.command("delete")
@click.argument("what", nargs=-1, metavar="[KIND NAME… | KIND/NAME…]")
@click.option("-f", "--filename", "files", multiple=True, metavar="FILE")
@click.option("-R", "--recursive", is_flag=True)
@click.option("-l", "--selector", default="", help="All objects of the kind with these labels.")
@click.option("--all", "everything", is_flag=True, help="All objects of the kind.")
@click.option("--ignore-not-found", is_flag=True)
@click.option("--wait/--no-wait", default=True, help="Until they are gone (default).")
@namespace_option
@pass_context
def delete_command(
    context: Context, what: tuple[str, ...], files: tuple[str, ...], recursive: bool,
    selector: str, everything: bool, ignore_not_found: bool, wait: bool, namespace: str | None,
) -> int:  # fmt: skip
    """Delete objects, by name, by label, or as they stand in files."""
    from knlocal.project import manifests

    client, place = context.client, namespace or context.namespace
    doomed: list[tuple[Resource, str, str]] = []
    for manifest in manifests.load(files, Path.cwd(), recursive=recursive):
        resource = client.resource_of(manifest.obj)
        metadata = manifest.obj["metadata"]
        doomed.append((resource, metadata.get("namespace") or place, metadata["name"]))
    for resource, names in _wanted(client, what) if what else ():
        if not names and not (everything or selector):
            raise CliError(f"which {resource.plural}? Give names, -l or --all", Exit.USAGE)
        if not names:
            query = {"labelSelector": selector} if selector else {}
            names = [o["metadata"]["name"] for o in client.items(resource, place, **query)]
        doomed += [(resource, place, name) for name in names]
    if not what and not files:
        raise CliError("delete what? Give KIND NAME, or -f FILE", Exit.USAGE)
    missing = False
    for resource, space, name in doomed:
        try:
            client.request("DELETE", resource.path(space, name))
        except ApiError as error:
            if error.status != 404:
                raise
            if not ignore_not_found:
                note(f"knlocal: {error.message}")
                missing = True
            continue
        echo(f"{_prefix(resource)}{name} deleted")
    if wait:
        for resource, space, name in doomed:
            client.wait_gone(resource, space, name)
    return Exit.NOT_FOUND if missing else Exit.OK
