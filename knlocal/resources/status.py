"""Errors in the one shape that the Kubernetes API has for them: `Status`."""

from __future__ import annotations

from typing import Any

from knlocal.resources.base import Obj


class StatusError(Exception):
    """A refusal that a client sees as a Kubernetes `Status`.

    `code` is the HTTP status, `reason` the CamelCase word that clients branch on, `message` the
    sentence that people read, `causes` the details (`{"reason","message","field"}`).
    """

    code = 500
    reason = "InternalError"

    def __init__(
        self,
        message: str,
        *,
        group: str = "",
        kind: str = "",
        name: str = "",
        uid: str = "",
        causes: list[dict[str, str]] | None = None,
        retry_after_seconds: int | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        """`metadata` is that of the Status itself (how to go on with a list)."""
        super().__init__(message)
        self.message = message
        self.metadata = metadata or {}
        self.details: dict[str, Any] = {
            key: value
            for key, value in {
                "name": name,
                "group": group,
                "kind": kind,
                "uid": uid,
                "causes": causes,
                "retryAfterSeconds": retry_after_seconds,
            }.items()
            if value
        }

    def to_status(self) -> Obj:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            **({"details": self.details} if self.details else {}),
            "code": self.code,
        }


class BadRequest(StatusError):
    code, reason = 400, "BadRequest"


class Unauthorized(StatusError):
    code, reason = 401, "Unauthorized"


class Forbidden(StatusError):
    code, reason = 403, "Forbidden"


class NotFound(StatusError):
    code, reason = 404, "NotFound"


class MethodNotAllowed(StatusError):
    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(StatusError):
    code, reason = 406, "NotAcceptable"


class AlreadyExists(StatusError):
    code, reason = 409, "AlreadyExists"


class Conflict(StatusError):
    code, reason = 409, "Conflict"


class Gone(StatusError):
    code, reason = 410, "Expired"


class TooLarge(StatusError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(StatusError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(StatusError):
    code, reason = 422, "Invalid"


class TooManyRequests(StatusError):
    code, reason = 429, "TooManyRequests"


class Unavailable(StatusError):
    code, reason = 503, "ServiceUnavailable"


class Timeout(StatusError):
    code, reason = 504, "Timeout"
