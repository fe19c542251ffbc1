"""`export`: the project's objects for `kubectl apply` on a real cluster."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from knlocal.cli.context import Context, echo, note, pass_context
from knlocal.cli.exits import Exit
from knlocal.cli.output import as_text, yaml_text
from knlocal.resources.base import Obj, copy

if TYPE_CHECKING:
    from knlocal.project.objects import Origin
    from knlocal.project.settings import Settings


@click.command("export")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml")
@click.option(
    "--image-prefix", metavar="REGISTRY/PATH",
    help="Where images of source folders will be pushed to; IMAGE becomes PREFIX/SERVICE:TAG.",
)  # fmt: skip
@pass_context
def export_command(context: Context, output: str, image_prefix: str | None) -> int:
    """Print the project's objects as real Knative takes them.

    Annotations that only mean something here (knlocal.dev/…) are left out, and said so.
    """
    from knlocal.project import manifests, objects

    settings = context.settings
    origins = asyncio.run(_origins(context, image_prefix))
    found = manifests.load(settings.project.manifests, settings.root)
    exported: list[Obj] = []
    for name, service in settings.services.items():
        earlier = objects.earlier_objects(settings, name, service, origins)
        exported += [obj for _, obj in earlier]
    exported += [manifest.obj for manifest in objects.manifests(settings, origins)]
    exported = [manifest.obj for manifest in found] + exported
    left_out: set[str] = set()
    exported = [_for_a_cluster(obj, left_out) for obj in exported]
    if output == "json":
        echo(as_text({"apiVersion": "v1", "kind": "List", "items": exported}, "json"))
    else:
        echo("---\n".join(yaml_text(obj) for obj in exported).rstrip())
    for name in sorted(left_out):
        note(f"note: left out {name}: it only means something to knlocal")
    if origins and not image_prefix:
        note("note: images of source folders are named dev.local/…; --image-prefix says where "
             "you push them")  # fmt: skip
    return Exit.OK


async def _origins(context: Context, prefix: str | None) -> dict[tuple[str, str], Origin]:
    """Image names by content, without building anything."""
    from knlocal.project.objects import Origin
    from knlocal.project.sources import Sources, wanted

    settings: Settings = context.settings
    sources = Sources(settings, context.home, "docker", None)
    origins = {}
    for want in wanted(settings):
        looked = sources.look(want)
        image = sources.image_of(want, looked)
        if prefix:
            image = f"{prefix.rstrip('/')}/{image.rpartition('/')[2]}"
        origins[want.service, want.container] = Origin(image, deploy=looked.recipe.deploy)
    return origins


def _for_a_cluster(obj: Obj, left_out: set[str]) -> Obj:
    """The object without what only knlocal understands."""
    from knlocal.project.objects import PRIVATE_PREFIX

    result = copy(obj)
    template = (result.get("spec") or {}).get("template") or {}
    for metadata in (result.get("metadata"), template.get("metadata")):
        annotations = (metadata or {}).get("annotations")
        if not annotations:
            continue
        for key in [key for key in annotations if key.startswith(PRIVATE_PREFIX)]:
            left_out.add(f"annotation {key}")
            del annotations[key]
        if metadata and not annotations:
            del metadata["annotations"]
    if template.get("metadata") == {}:
        del template["metadata"]
    return result
