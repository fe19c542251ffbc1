"""Correlation ids of RequestReply (E76), and the CESQL function KN_VERIFY_CORRELATION_ID.

An id is `<event id>:<base64url of an AES-GCM seal over it>:<pod index>`, so that only a reply to
something asked here is taken for one. The keys are where Knative has them: in the Secret
`request-reply-keys` of knative-eventing, one or more for each RequestReply, as
`<namespace>.<name>.<key>`.
"""

from __future__ import annotations

import base64
import os
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from knlocal.eventing.cesql.functions import Function, define
from knlocal.eventing.cesql.values import CesqlError
from knlocal.resources.base import GroupKind, Obj
from knlocal.resources.ducks import EVENTING_CONTROLLER, SYSTEM_NAMESPACE
from knlocal.store.store import Store, WriteOptions

SECRET_NAME = "request-reply-keys"
_SECRET = GroupKind("", "Secret")
_NONCE = 12


class CorrelationKeys:
    """The keys of all RequestReplies, as they are in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, namespace: str, name: str, secret: str = SECRET_NAME) -> list[bytes]:
        """The keys of one RequestReply, the newest last."""
        found = self._store.find(_SECRET, SYSTEM_NAMESPACE, secret)
        data = (found or {}).get("data") or {}
        prefix = f"{namespace}.{name}."
        keys = []
        for entry in sorted(data):
            if entry.startswith(prefix):
                try:
                    keys.append(base64.b64decode(data[entry] or ""))
                except ValueError:
                    continue
        return [key for key in keys if len(key) in (16, 24, 32)]

    def make(self, namespace: str, name: str) -> None:
        """See to it that a RequestReply has a key."""
        if self.of(namespace, name):
            return
        entry = f"{namespace}.{name}.key-0"
        value = base64.b64encode(AESGCM.generate_key(256)).decode()
        options = WriteOptions(user=EVENTING_CONTROLLER)
        if self._store.find(_SECRET, SYSTEM_NAMESPACE, SECRET_NAME) is None:
            metadata = {"name": SECRET_NAME, "namespace": SYSTEM_NAMESPACE}
            secret: Obj = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque"}
            self._store.create({**secret, "metadata": metadata, "data": {entry: value}}, options)
            return

        def add(secret: Obj) -> None:
            secret["data"] = {**(secret.get("data") or {}), entry: value}

        self._store.modify(_SECRET, SYSTEM_NAMESPACE, SECRET_NAME, add, options)

    def forget(self, namespace: str, name: str) -> None:
        """The RequestReply is gone."""
        if not self.of(namespace, name):
            return
        prefix = f"{namespace}.{name}."

        def drop(secret: Obj) -> None:
            data = secret.get("data") or {}
            secret["data"] = {key: data[key] for key in data if not key.startswith(prefix)}

        options = WriteOptions(user=EVENTING_CONTROLLER)
        self._store.modify(_SECRET, SYSTEM_NAMESPACE, SECRET_NAME, drop, options)

    def seal(self, namespace: str, name: str, event_id: str) -> str:
        """The correlation id of an event that is asked."""
        self.make(namespace, name)
        nonce = os.urandom(_NONCE)
        cipher = _cipher(self.of(namespace, name)[-1])
        sealed = nonce + cipher.encrypt(nonce, event_id.encode(), None)
        return f"{event_id}:{base64.urlsafe_b64encode(sealed).decode()}:0"

    def verify(
        self, correlation: str, namespace: str, name: str, secret: str = SECRET_NAME
    ) -> bool:
        """Whether the id was given by this RequestReply."""
        event_id, _, encoded = correlation.rpartition(":")[0].rpartition(":")
        try:
            sealed = base64.urlsafe_b64decode(encoded)
        except ValueError:
            return False
        for key in self.of(namespace, name, secret):
            try:
                opened = _cipher(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
            except (ValueError, InvalidTag):
                continue
            if opened == event_id.encode():
                return True
        return False


@lru_cache(maxsize=256)
def _cipher(key: bytes) -> AESGCM:
    return AESGCM(key)


# --- the function in expressions ------------------------------------------------------------------

_serving: CorrelationKeys | None = None


def serve(keys: CorrelationKeys | None) -> None:
    """Let expressions verify by these keys. Functions of CESQL are the process' own."""
    global _serving
    _serving = keys


def _verify(
    errors: list[CesqlError],
    correlation: str,
    name: str,
    namespace: str,
    secret: str,
    pod: int,
    replicas: int,
) -> bool:
    index = correlation.rpartition(":")[2]
    if _serving is None or replicas <= 0 or not (index.isascii() and index.isdigit()):
        return False
    if int(index[:20]) % replicas != pod:
        return False
    return _serving.verify(correlation, namespace, name, secret)


define(
    "KN_VERIFY_CORRELATION_ID",
    Function("Boolean", ("String", "String", "String", "String", "Integer", "Integer"), _verify),
)
