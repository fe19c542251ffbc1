"""What a client sends (JSON, YAML, protobuf) and what it wants back (object, Table, metadata)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import yaml
from aiohttp import web

from knlocal.resources import protobuf, schema
from knlocal.resources.base import Obj
from knlocal.resources.status import BadRequest, NotAcceptable, TooLarge, UnsupportedMediaType

JSON = "application/json"
YAML = "application/yaml"
#: Kubernetes' own limit for a request body.
MAX_BODY = 3 * 1024 * 1024

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class MediaType:
    """One clause of an Accept header."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def transform(self) -> str:
        """`Table`, `PartialObjectMetadata`, `PartialObjectMetadataList`, …, or ""."""
        return self.parameters.get("as", "")


_ANY = MediaType("*/*")
_JSON_NAMES = (JSON, "*/*", "application/*", "text/*", "text/plain", "text/html")


def accepted(headers: Mapping[str, str]) -> list[MediaType]:
    """The clauses of the Accept header, the client's most wanted first."""
    clauses: list[tuple[float, MediaType]] = []
    for text in headers.get("Accept", "").split(","):
        name, *raw = [part.strip() for part in text.split(";")]
        if not name:
            continue
        parameters = dict(part.partition("=")[::2] for part in raw if "=" in part)
        try:
            weight = float(parameters.pop("q", "1"))
        except ValueError:
            weight = 1.0
        clauses.append((weight, MediaType(name.lower(), parameters)))
    clauses.sort(key=lambda clause: -clause[0])
    return [media for _, media in clauses] or [_ANY]


def choose(headers: Mapping[str, str], transforms: tuple[str, ...] = ()) -> MediaType:
    """The first clause that can be served: JSON or YAML, plain or as one of `transforms`.

    Raises NotAcceptable when there is none.
    """
    for media in accepted(headers):
        if media.name in _JSON_NAMES or media.name == YAML:
            if not media.transform():
                return media
            group_ok = media.parameters.get("g") in (None, "meta.k8s.io")
            if group_ok and media.transform() in transforms:
                return media
    if any(media.name == protobuf.CONTENT_TYPE for media in accepted(headers)):
        return MediaType(JSON)  # Go clients read the content type of the answer
    raise NotAcceptable(
        "only the following media types are accepted: "
        "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    )


# --- bodies --------------------------------------------------------------------------------------


async def read_body(request: web.BaseRequest) -> bytes:
    """The whole request body. Raises TooLarge beyond 3 MiB."""
    if (request.content_length or 0) > MAX_BODY:
        raise _too_large()
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY:
            raise _too_large()
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large() -> TooLarge:
    return TooLarge(f"Request entity too large: limit is {MAX_BODY}")


def content_type(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Type", "").partition(";")[0].strip().lower()


def decode_body(body: bytes, kind_of_content: str, what: str = "") -> tuple[Obj, list[str]]:
    """The object in a body and the paths of fields that it gives twice.

    Raises UnsupportedMediaType, or BadRequest for what cannot be read. `what` names the kind
    that was expected, for messages.
    """
    if kind_of_content in ("", JSON) or kind_of_content.endswith("+json"):
        value, twice = _load_json(body, what)
    elif kind_of_content in (YAML, "application/x-yaml", "text/yaml", APPLY_PATCH):
        value, twice = load_yaml(body)
    elif kind_of_content == protobuf.CONTENT_TYPE:
        try:
            value, twice = protobuf.decode(body), []
        except protobuf.ProtobufError as error:
            raise BadRequest(f"the request body cannot be decoded as protobuf: {error}") from None
    else:
        raise UnsupportedMediaType(
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json, application/yaml, application/vnd.kubernetes.protobuf"
        )
    if not isinstance(value, dict):
        raise BadRequest(
            f"the object provided is unrecognized (must be of type {what or 'object'}): "
            f"couldn't get version/kind; json parse error: {json_name(value)} is not an object"
        )
    return value, twice


def decode_as(body: bytes, kind_of_content: str, definition: str) -> Obj:
    """An object that is not stored, of a type of Kubernetes' own ("io.k8s.api.policy.v1.Eviction").

    Raises what `decode_body` raises, and BadRequest for fields of another type.
    """
    version, name = definition.split(".")[-2:]
    obj, _ = decode_body(body, kind_of_content, f"*{version}.{name}")
    check_shape(obj, definition)
    return obj


def check_shape(obj: Obj, definition: str) -> None:
    """Raises BadRequest where the object is not of that type; nulls and unknown fields go."""
    version, name = definition.split(".")[-2:]
    shape = schema.definition(definition)
    schema.prune(obj, shape)
    if wrong := schema.check_types(obj, shape):
        raise BadRequest(
            f'{name} in version "{version}" cannot be handled as a {name}: {wrong[0].message}'
        )


def _load_json(body: bytes, what: str) -> tuple[Any, list[str]]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(
            f"the object provided is unrecognized (must be of type {what or 'object'}): couldn't "
            f"get version/kind; json parse error: {error} ({body[:24].hex()} ...)"
        ) from None
    return value, []


def duplicate_fields(body: bytes) -> list[str]:
    """Paths of object keys that JSON text gives more than once (`spec.replicas`)."""
    pairs = json.loads(body, object_pairs_hook=_Pairs)
    return list(_duplicates(pairs, ""))


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its repetitions."""


def _duplicates(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for name, item in value:
            place = f"{path}.{name}" if path else name
            if name in seen:
                yield place
            seen.add(name)
            yield from _duplicates(item, place)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _duplicates(item, f"{path}[{index}]")


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: dates stay text, and repeated keys are noticed."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_yaml(body: bytes) -> tuple[Any, list[str]]:
    """A YAML (or JSON) document and the keys it gives twice. Raises BadRequest."""
    try:
        return orjson.loads(body), []
    except orjson.JSONDecodeError:
        pass
    try:
        loader = _Loader(body)
        node = loader.get_single_node()
        twice = list(_yaml_duplicates(node, ""))
        value = loader.construct_document(node) if node is not None else None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadRequest(f"error decoding YAML: {' '.join(str(error).split())}") from None
    return value, twice


def _yaml_duplicates(node: Any, path: str) -> Iterator[str]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, item in node.value:
            name = str(getattr(key, "value", ""))
            place = f"{path}.{name}" if path else name
            if name in seen:
                yield place
            seen.add(name)
            yield from _yaml_duplicates(item, place)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _yaml_duplicates(item, f"{path}[{index}]")


def json_name(value: Any) -> str:
    if value is None:
        return "null"
    return {dict: "object", list: "array", str: "string", bool: "boolean"}.get(
        type(value), "number"
    )


# --- answers -------------------------------------------------------------------------------------


def answer(
    value: Any, media: MediaType = _ANY, *, status: int = 200, warnings: list[str] | None = None
) -> web.Response:
    """An object as the client wants it, with a `Warning` header for each warning."""
    if media.name == YAML:
        body = yaml.safe_dump(value, sort_keys=False).encode()
    else:
        body = orjson.dumps(value)
    return raw_answer(body, media, status=status, warnings=warnings)


def raw_answer(
    body: bytes, media: MediaType = _ANY, *, status: int = 200, warnings: list[str] | None = None
) -> web.Response:
    """The same for what is written out already."""
    response = web.Response(body=body, status=status)
    response.headers["Content-Type"] = YAML if media.name == YAML else JSON
    response.headers["Cache-Control"] = "no-cache, private"
    for text in dict.fromkeys(warnings or ()):
        response.headers.add("Warning", f"299 - {_quoted(text)}")
    return response


def _quoted(text: str) -> str:
    text = " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + text.encode("ascii", "xmlcharrefreplace").decode() + '"'
