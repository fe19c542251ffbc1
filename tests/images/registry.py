"""A registry of one image on loopback, from an image the engine has: enough to be pulled from.

The real protocol (OCI distribution specification, the pull half) over a real socket; engines treat
registries on loopback as insecure ones that need no TLS.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import dataclass, field

from aiohttp import web

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass
class Registry:
    """`async with Registry("knlocal-test/httpd:1") as registry: registry.image`."""

    source: str
    login: tuple[str, str] | None = None
    """User and password that it asks for."""
    host: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifest: bytes = b""

    @property
    def image(self) -> str:
        return f"{self.host}/team/app:v1"

    @property
    def digest(self) -> str:
        return _digest(self.manifest)

    async def __aenter__(self) -> Registry:
        self._load()
        app = web.Application()
        app.router.add_get("/v2/{path:.*}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.host = f"127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def _load(self) -> None:
        saved = subprocess.run(["docker", "save", self.source], capture_output=True, check=True)
        with tarfile.open(fileobj=io.BytesIO(saved.stdout)) as tar:

            def read(name: str) -> bytes:
                file = tar.extractfile(name)
                assert file is not None
                return file.read()

            (entry,) = json.loads(read("manifest.json"))
            # A label of its own makes it an image that the engine does not have yet.
            config = json.loads(read(entry["Config"]))
            config.setdefault("config", {}).setdefault("Labels", {})
            config["config"]["Labels"] = {"registry": self.host or str(id(self))}
            layers = [gzip.compress(read(name), mtime=0) for name in entry["Layers"]]
        shown = {"mediaType": "application/vnd.docker.container.image.v1+json"}
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": shown | self._blob(json.dumps(config).encode()),
                "layers": [
                    {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip"}
                    | self._blob(layer)
                    for layer in layers
                ],
            }
        ).encode()

    def _blob(self, data: bytes) -> dict[str, object]:
        self.blobs[_digest(data)] = data
        return {"digest": _digest(data), "size": len(data)}

    async def _answer(self, request: web.Request) -> web.Response:
        if self.login is not None:
            wanted = "Basic " + base64.b64encode(":".join(self.login).encode()).decode()
            if request.headers.get("Authorization") != wanted:
                return web.Response(
                    status=401, headers={"WWW-Authenticate": 'Basic realm="registry"'}
                )
        path = request.match_info["path"]
        if path == "":
            return web.Response()
        name, _, last = path.rpartition("/")
        if name == "team/app/manifests" and last in {"v1", self.digest}:
            headers = {"Docker-Content-Digest": self.digest, "Content-Type": MANIFEST}
            return web.Response(body=self.manifest, headers=headers)
        if name == "team/app/blobs" and last in self.blobs:
            return web.Response(body=self.blobs[last])
        unknown = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
        return web.json_response(unknown, status=404)


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
