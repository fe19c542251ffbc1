"""A small client of the Kubernetes API: what the command line needs, on the standard library.

It reads the project's private kubeconfig and never looks at the user's own.
"""

from __future__ import annotations

import base64
import http.client
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import orjson
import yaml

from knlocal.cli.exits import CliError, Exit
from knlocal.resources.base import Obj

JSON = "application/json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io, application/json"
DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList, application/json"
#: Seconds for an answer; streams may be silent for as long as they like.
DEADLINE = 60


class ApiError(CliError):
    """A refusal by the API, in its own words."""

    def __init__(self, status: int, body: Any, text: str) -> None:
        said = body.get("message") if isinstance(body, dict) else None
        code = Exit.NOT_FOUND if status == 404 else Exit.FAILURE
        super().__init__(said or f"the API answered {status}: {text.strip()[:300]}", code)
        self.status = status
        self.reason = body.get("reason", "") if isinstance(body, dict) else ""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the API serves it."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    names: tuple[str, ...]
    categories: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full_name(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None = None, name: str = "", sub: str = "") -> str:
        """The URL path; `namespace` None asks for all of them."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, sub) if part]
        return "/" + "/".join(quote(part) for part in parts)


class Client:
    """One keep-alive connection to the API of a project's daemon."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.load(kubeconfig.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        cluster = config["clusters"][0]["cluster"]
        self.server: str = cluster["server"]
        self.namespace: str = config["contexts"][0]["context"].get("namespace", "default")
        self._token = config["users"][0]["user"].get("token", "")
        authority = cluster.get("certificate-authority-data")
        self._tls: ssl.SSLContext | None = None
        if authority:
            self._tls = ssl.create_default_context(cadata=base64.b64decode(authority).decode())
        self._connection: http.client.HTTPConnection | None = None
        self._resources: list[Resource] | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- requests -----------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        accept: str = JSON,
        content_type: str = JSON,
    ) -> Any:
        """The decoded JSON answer (text for anything else). Raises ApiError."""
        url = f"{path}?{urlencode(query)}" if query else path
        headers = {"Accept": accept, "User-Agent": "knlocal"}
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else orjson.dumps(body)
            headers["Content-Type"] = content_type
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        for attempt in (1, 2):
            fresh = self._connection is None
            connection = self._connection or self._connect(DEADLINE)
            self._connection = connection
            try:
                connection.request(method, url, data, headers)
                response = connection.getresponse()
                return _decoded(response.status, response.read(), response)
            except TimeoutError:
                self.close()
                raise CliError(f"no answer within {DEADLINE} s", Exit.TIMEOUT) from None
            except (http.client.HTTPException, OSError) as error:
                self.close()
                if fresh or attempt == 2:  # an idle connection may have been closed meanwhile
                    raise _gone(error) from None
        raise AssertionError

    def stream(
        self, path: str, query: Mapping[str, str] | None = None, accept: str = f"{JSON}, */*"
    ) -> Iterator[bytes]:
        """Lines of an answer that may never end, as they arrive."""
        url = f"{path}?{urlencode(query)}" if query else path
        connection = self._connect(None)
        headers = {"Accept": accept}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            connection.request("GET", url, headers=headers)
            response = connection.getresponse()
            if response.status >= 300:
                _decoded(response.status, response.read(), response)
            while line := response.readline():
                yield line
        except (http.client.HTTPException, OSError) as error:
            raise _gone(error) from None
        finally:
            connection.close()

    def _connect(self, timeout: float | None) -> http.client.HTTPConnection:
        parts = urlsplit(self.server)
        host, port = parts.hostname or "127.0.0.1", parts.port
        if self._tls is not None:
            return http.client.HTTPSConnection(host, port, timeout=timeout, context=self._tls)
        return http.client.HTTPConnection(host, port, timeout=timeout)

    # -- objects ------------------------------------------------------------------------------

    def get(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        """The object; None when there is none."""
        return self.get_path(resource.path(namespace, name))

    def get_path(self, path: str) -> Obj | None:
        try:
            found: Obj = self.request("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def items(self, resource: Resource, namespace: str | None = None, **query: str) -> list[Obj]:
        answer = self.request("GET", resource.path(namespace), query=query)
        items: list[Obj] = answer["items"]
        return items

    def wait_gone(self, resource: Resource, namespace: str, name: str) -> None:
        """Return when the object is no longer there."""
        place = resource.path(namespace)
        found = self.get(resource, namespace, name)
        if found is None:
            return
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": found["metadata"]["resourceVersion"],
            "timeoutSeconds": str(DEADLINE),
        }
        for line in self.stream(place, query):
            if orjson.loads(line)["type"] == "DELETED":
                return
        if self.get(resource, namespace, name) is not None:
            raise CliError(f"{resource.plural} {name!r} is still there", Exit.TIMEOUT)

    # -- what there is ------------------------------------------------------------------------

    def resources(self) -> list[Resource]:
        """Every kind that the API serves: Knative's, then the core ones, then the others."""
        if self._resources is None:
            found = [
                resource
                for path in ("/apis", "/api")
                for group in self.request("GET", path, accept=DISCOVERY)["items"]
                for resource in _discovered(group)
            ]
            self._resources = sorted(
                found, key=lambda r: (".knative.dev" not in r.group, bool(r.group))
            )
        return self._resources

    def resource(self, word: str) -> Resource:
        """The kind that a person means by `word` (plural, singular, short name, with group)."""
        from knlocal.project.errors import did_you_mean

        wanted, _, group = word.lower().partition(".")
        for resource in self.resources():
            if wanted in resource.names and resource.group.startswith(group):
                return resource
        known = [resource.plural for resource in self.resources()]
        hint = did_you_mean(wanted, known)
        raise CliError(
            f"no kind of object is called {word!r}",
            Exit.USAGE,
            hint if hint.startswith("did") else "`knlocal get --help` shows what there is",
        )

    def category(self, word: str) -> list[Resource]:
        """The kinds that a category such as "sources" means, each in its preferred version."""
        found: dict[tuple[str, str], Resource] = {}
        for resource in self.resources():
            if word in resource.categories:
                found.setdefault((resource.group, resource.plural), resource)
        return list(found.values())

    def resource_of(self, obj: Obj) -> Resource:
        """The kind of an object in hand."""
        for resource in self.resources():
            if (resource.api_version, resource.kind) == (obj["apiVersion"], obj["kind"]):
                return resource
        raise CliError(f"no kind {obj['kind']!r} in {obj['apiVersion']}", Exit.USAGE)


def _discovered(group: Obj) -> Iterator[Resource]:
    name = group["metadata"].get("name", "")
    for version in group["versions"]:
        for entry in version["resources"]:
            kind = entry["responseKind"]["kind"]
            names = (
                entry["resource"], entry.get("singularResource") or kind.lower(), kind.lower(),
                *entry.get("shortNames", ()),
            )  # fmt: skip
            yield Resource(
                group=name,
                version=version["version"],
                kind=kind,
                plural=entry["resource"],
                namespaced=entry["scope"] == "Namespaced",
                names=tuple(dict.fromkeys(names)),
                categories=tuple(entry.get("categories") or ()),
            )


def _decoded(status: int, data: bytes, response: http.client.HTTPResponse) -> Any:
    body: Any = data.decode("utf-8", "replace")
    if "json" in (response.getheader("Content-Type") or ""):
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError:
            pass
    if status >= 300:
        raise ApiError(status, body, data.decode("utf-8", "replace"))
    return body


def _gone(error: Exception) -> CliError:
    return CliError(
        f"the daemon does not answer: {error}", Exit.NO_DAEMON, "`knlocal up` starts it"
    )
