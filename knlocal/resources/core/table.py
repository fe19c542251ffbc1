"""The table of Kubernetes' own types that `tools/core_schema.py` makes: schemas and field numbers.

Its definitions are put into the shared registry (`knlocal.resources.schema.definitions()`) when
this module is imported.
"""

from __future__ import annotations

import gzip
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import orjson

from knlocal.resources import schema

CORE = "io.k8s.api.core.v1."
META = "io.k8s.apimachinery.pkg.apis.meta.v1."


class Field(NamedTuple):
    """One field of a protobuf message. `name` is the JSON name, "" for a struct whose fields lie
    directly in the message around it; `message` names the type of messages and map entries."""

    name: str
    kind: str
    repeated: int
    message: str
    pointer: int


@cache
def _table() -> dict[str, Any]:
    packed = files("knlocal.resources.core").joinpath("schema.json.gz").read_bytes()
    table: dict[str, Any] = orjson.loads(gzip.decompress(packed))
    return table


@cache
def message_fields(name: str) -> dict[int, Field] | None:
    """Fields by number of the protobuf message for a definition; None for unknown ones."""
    raw = _table()["messages"].get(name)
    return None if raw is None else {int(number): Field(*field) for number, field in raw.items()}


def definition(name: str) -> schema.Schema:
    """The OpenAPI definition `name` as it lies in the registry."""
    return schema.definition(name)


schema.register_definitions(_table()["definitions"])
