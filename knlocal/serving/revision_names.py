"""Revisions that users name themselves ("bring your own name"), and the numbers of all others."""

from __future__ import annotations

from knlocal.resources.base import Obj, is_controlled_by, labels_of, spec_of
from knlocal.resources.names import child_name
from knlocal.serving.kinds import CONFIGURATION_GENERATION_LABEL, REVISION
from knlocal.store.store import Store


class NameTaken(Exception):
    """The name in the template belongs to a revision that is not what the template asks for."""


def template_name(configuration: Obj) -> str:
    """The revision name the user chose, or ""."""
    metadata = spec_of(configuration)["template"].get("metadata") or {}
    return str(metadata.get("name") or "")


def revision_name(configuration: Obj) -> str:
    """What the revision of the current generation is called (behaviour B71)."""
    metadata = configuration["metadata"]
    return template_name(configuration) or numbered_name(metadata["name"], metadata["generation"])


def numbered_name(configuration: str, generation: int) -> str:
    """The name of a Configuration's revision of that generation, where nobody chose one."""
    return child_name(configuration, f"-{generation:05d}")


def named_revision(store: Store, configuration: Obj) -> Obj | None:
    """The revision of the name in the template, if there is one and it is the one meant.

    The same name with the same spec is a rollback. Raises NameTaken for anything else of that
    name (reconciler/configuration CheckNameAvailability).
    """
    name = template_name(configuration)
    if not name:
        return None
    namespace = configuration["metadata"]["namespace"]
    revision = store.find(REVISION, namespace, name)
    if revision is None:
        return None
    if is_controlled_by(revision, configuration):
        if generation_of(revision) == configuration["metadata"]["generation"]:
            return revision
        if spec_of(revision) == spec_of(configuration)["template"].get("spec"):
            return revision
    raise NameTaken(f'revisions.serving.knative.dev "{name}" already exists')


def generation_of(revision: Obj) -> int:
    """The generation of the Configuration that made a revision; 0 when nobody says."""
    try:
        return int(labels_of(revision)[CONFIGURATION_GENERATION_LABEL])
    except (KeyError, ValueError):
        return 0
