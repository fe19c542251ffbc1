"""Makes `knlocal/resources/core/schema.json.gz`: what knlocal knows of Kubernetes' own types.

Two sources, neither needed at run time:

* `--definitions`: the JSON schema definitions of a Kubernetes release, as the package
  `kubernetes-validate` ships them (`kubernetes-json-schema/v1.34.0-local/_definitions.json`):
  fields, types, descriptions, list types and keys, patch strategies and merge keys.
* `--binary` (may be repeated): Go programs that link k8s.io/api and k8s.io/apiextensions-apiserver,
  such as kubectl: embedded protobuf file descriptors give the field numbers, type information
  tells pointers from values.

    python tools/core_schema.py --definitions …/_definitions.json --binary $(command -v kubectl)
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent))

import go_binary

OUTPUT = Path(__file__).resolve().parent.parent / "knlocal/resources/core/schema.json.gz"

GROUPS = (
    "io.k8s.api.core.v1.",
    "io.k8s.api.apps.v1.",
    "io.k8s.api.batch.v1.",
    "io.k8s.api.autoscaling.v1.",
    "io.k8s.api.autoscaling.v2.",
    "io.k8s.api.policy.v1.",
    "io.k8s.api.rbac.v1.",
    "io.k8s.api.networking.v1.",
    "io.k8s.api.discovery.v1.",
    "io.k8s.api.events.v1.",
    "io.k8s.api.coordination.v1.",
    "io.k8s.api.scheduling.v1.",
    "io.k8s.api.storage.v1.",
    "io.k8s.api.node.v1.",
    "io.k8s.api.certificates.v1.",
    "io.k8s.api.admissionregistration.v1.",
    "io.k8s.api.authentication.v1.",
    "io.k8s.api.authorization.v1.",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.",
    "io.k8s.apimachinery.pkg.apis.meta.v1.",
    "io.k8s.apimachinery.pkg.api.resource.",
    "io.k8s.apimachinery.pkg.util.intstr.",
    "io.k8s.apimachinery.pkg.runtime.",
)
#: Types that hold arbitrary JSON, which their schema does not say.
OPAQUE = ("meta.v1.FieldsV1", "pkg.runtime.RawExtension", "apiextensions.v1.JSON")
MOST_DESCRIPTION = 320


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--definitions", type=Path, required=True)
    parser.add_argument("--binary", type=Path, required=True, action="append")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    source = json.loads(arguments.definitions.read_text())
    definitions = openapi_definitions(source.get("$defs") or source["definitions"])
    messages = protobuf_messages([file.read_bytes() for file in arguments.binary], definitions)
    table = {"definitions": definitions, "messages": messages}
    text = json.dumps(table, separators=(",", ":"), sort_keys=True).encode()
    arguments.output.write_bytes(gzip.compress(text, 9, mtime=0))
    print(
        f"{len(definitions)} definitions, {len(messages)} messages, "
        f"{len(text)} bytes, {arguments.output.stat().st_size} compressed"
    )


# --- OpenAPI definitions -------------------------------------------------------------------------


def openapi_definitions(source: dict[str, Any]) -> dict[str, Any]:
    """The definitions of `GROUPS`, as OpenAPI v3 has them, with short descriptions."""
    found: dict[str, Any] = {}
    wanted = [name for name in source if name.startswith(GROUPS)]
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = _definition(name, source[name])
            wanted += _references(found[name])
    return found


def _definition(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if name.endswith("intstr.IntOrString"):
        return {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}
    if name.endswith("resource.Quantity"):
        return {"oneOf": [{"type": "string"}, {"type": "number"}]}
    result = _schema(schema)
    if name.endswith(OPAQUE):
        result = {"x-kubernetes-preserve-unknown-fields": True, **result}
    kinds = schema.get("x-kubernetes-group-version-kind")
    # DeleteOptions and WatchEvent belong to every group; one is enough for a reader.
    if kinds and len(kinds) > 1:
        result["x-kubernetes-group-version-kind"] = kinds[:1]
    return result


def _schema(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "description":
            result[key] = _short(value)
        elif key == "type" and isinstance(value, list):
            result[key] = next(item for item in value if item != "null")
        elif key == "$ref" and isinstance(value, str):
            result[key] = value.replace("#/$defs/", "#/components/schemas/").replace(
                "#/definitions/", "#/components/schemas/"
            )
        elif key == "properties":
            result[key] = {name: _schema(sub) for name, sub in value.items()}
            for name in ("apiVersion", "kind"):
                # The validator's addition, not the API's.
                if isinstance(result[key].get(name), dict):
                    result[key][name].pop("enum", None)
        elif key in ("items", "additionalProperties"):
            result[key] = _schema(value)
        elif key in ("oneOf", "anyOf", "allOf"):
            result[key] = [_schema(sub) for sub in value]
        elif key in ("x-kubernetes-unions", "x-kubernetes-validations"):
            continue
        else:
            result[key] = value
    return result


def _short(text: str) -> str:
    text = re.sub(r"\s*More info: \S+", "", " ".join(text.split()))
    if len(text) <= MOST_DESCRIPTION:
        return text
    cut = text[:MOST_DESCRIPTION]
    end = cut.rfind(". ")
    return cut[: end + 1] if end > 60 else cut.rsplit(" ", 1)[0] + " …"


def _references(schema: Any) -> list[str]:
    if isinstance(schema, dict):
        # In the schema of schemas, `$ref` is also the name of a property.
        target = schema.get("$ref")
        found = [target.rpartition("/")[2]] if isinstance(target, str) else []
        return found + [name for value in schema.values() for name in _references(value)]
    if isinstance(schema, list):
        return [name for value in schema for name in _references(value)]
    return []


# --- protobuf ------------------------------------------------------------------------------------

_SCALARS = {
    1: "double", 2: "float", 3: "int", 4: "int", 5: "int", 8: "bool", 9: "string", 12: "bytes",
    13: "int",
}  # fmt: skip


def protobuf_messages(binaries: list[bytes], definitions: dict[str, Any]) -> dict[str, Any]:
    """Per message: field number → [JSON name ("" when inlined), kind, repeated, message, pointer].

    Kinds: string, bytes, bool, int, double, message, map (message: the entry's).
    """
    pointers: dict[str, frozenset[str]] = {}
    messages: dict[str, Any] = {}
    for binary in binaries:  # what the first one has, counts
        for name, fields in go_binary.pointer_fields(binary).items():
            pointers.setdefault(name, fields)
        for file in go_binary.file_descriptors(binary):
            for message in _messages(_package(file.package), file.message_type):
                messages.setdefault(*message)
    result: dict[str, Any] = {}
    wanted = [_proto_name(name) for name in definitions] + [
        "k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime",
        "k8s.io.apimachinery.pkg.runtime.Unknown",
        "k8s.io.apimachinery.pkg.runtime.TypeMeta",
    ]
    while wanted:
        name = wanted.pop()
        if name in messages and _openapi_name(name) not in result:
            definition = definitions.get(_openapi_name(name), {})
            fields = _fields(messages[name], definition, pointers.get(name, frozenset()))
            result[_openapi_name(name)] = fields
            wanted += [_package(field.type_name.lstrip(".")) for field in messages[name].field]
    return result


def _package(name: str) -> str:
    """Programs that vendor the package in another place name it after that."""
    name = name.removeprefix("k8s.io.kubernetes.vendor.")
    return name.replace("apiextensions_apiserver", "apiextensions-apiserver")


def _messages(prefix: str, messages: Any) -> Any:
    for message in messages:
        name = f"{prefix}.{message.name}"
        yield name, message
        yield from _messages(name, message.nested_type)


def _proto_name(name: str) -> str:
    return "k8s.io." + name.removeprefix("io.k8s.") if name.startswith("io.k8s.") else name


def _openapi_name(name: str) -> str:
    return "io.k8s." + name.removeprefix("k8s.io.") if name.startswith("k8s.io.") else name


def _fields(message: Any, definition: dict[str, Any], pointers: frozenset[str]) -> dict[str, Any]:
    properties = definition.get("properties")
    entries = {nested.name for nested in message.nested_type if nested.options.map_entry}
    fields: dict[str, Any] = {}
    for field in message.field:
        repeated = field.label == 3
        type_name = _package(field.type_name.lstrip("."))
        kind = _SCALARS.get(field.type, "message")
        if type_name.rpartition(".")[2] in entries:
            kind, repeated = "map", False
        name = field.name
        if properties is not None and name not in properties:
            names = (name.lower(), f"${name.lower()}", _extension(name))
            same = [known for known in properties if known.lower() in names]
            if same:
                name = same[0]  # `aPIGroup` in protobuf is `apiGroup` in JSON
            elif kind == "message" and not repeated:
                name = ""  # an embedded struct: its fields lie directly in this one
            else:
                print(f"no property for {message.name}.{field.name}", file=sys.stderr)
        fields[str(field.number)] = [
            name, kind, int(repeated), _openapi_name(type_name), int(field.name in pointers)
        ]  # fmt: skip
    return fields


def _extension(name: str) -> str:
    """`x-kubernetes-list-type` for `xKubernetesListType`."""
    return re.sub(r"[A-Z]", lambda match: f"-{match.group().lower()}", name)


if __name__ == "__main__":
    main()
