"""Tables: what `kubectl get` prints is worked out here (meta.k8s.io/v1 Table)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import orjson

from knlocal.resources.ages import age
from knlocal.resources.base import Obj
from knlocal.resources.core.printers import PRINTERS
from knlocal.resources.jsonpath import find
from knlocal.resources.kinds import Column, Kind

_AGE = Column("Age", ".metadata.creationTimestamp", "date")
_DESCRIPTIONS = {
    "Name": "Name must be unique within a namespace.",
    "Age": "CreationTimestamp is a timestamp representing the server time when this object was "
    "created.",
}


def table(
    kind: Kind, objects: Iterable[Obj], now: datetime, include: str, metadata: Obj,
    *, definitions: bool = True,
) -> Obj:  # fmt: skip
    """A Table of `objects`; `include` (None, Metadata, Object) says what each row carries."""
    columns, cells = _printer(kind)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": [_definition(column) for column in columns] if definitions else [],
        "rows": [{"cells": cells(obj, now), **_row_object(obj, include)} for obj in objects],
    }


def partial_metadata(obj: Obj) -> Obj:
    """`PartialObjectMetadata`: who the object is, without what it says."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": obj.get("metadata") or {},
    }


def _row_object(obj: Obj, include: str) -> Obj:
    if include == "None":
        return {}
    return {"object": obj if include == "Object" else partial_metadata(obj)}


def _definition(column: Column) -> Obj:
    is_name = column.name == "Name" and column.type == "string"
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format or ("name" if is_name else ""),
        "description": column.description or _DESCRIPTIONS.get(column.name, ""),
        "priority": column.priority,
    }


def _printer(kind: Kind) -> tuple[tuple[Column, ...], Callable[[Obj, datetime], list[Any]]]:
    printer = PRINTERS.get(kind.group_kind)
    if printer is not None:
        return printer.columns, printer.cells
    columns = kind.columns or (_AGE,)
    if not any(column.name == "Name" for column in columns):
        columns = (Column("Name", ".metadata.name"), *columns)

    def cells(obj: Obj, now: datetime) -> list[Any]:
        return [_cell(column, obj, now) for column in columns]

    return columns, cells


def _cell(column: Column, obj: Obj, now: datetime) -> Any:
    found = find(column.path, obj)
    if not found:
        return None if column.type != "date" else "<unknown>"
    value = found[0]
    match column.type:
        case "date":
            return age(value, now)
        case "integer":
            return value if isinstance(value, int) else None
        case "number":
            return value if isinstance(value, int | float) else None
        case "boolean":
            return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else orjson.dumps(value).decode()
