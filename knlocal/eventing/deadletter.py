"""What a dead letter says about the failure that made it one (behaviour E39)."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from knlocal.eventing.subscription import Answer

ERROR_DATA_LIMIT = 1024
"""Characters of knativeerrordata."""


def error_attributes(destination: str, answer: Answer) -> dict[str, Any]:
    """The extensions for an event that `destination` did not take."""
    body = answer.body
    status = answer.status
    if not status:
        status, body = 500, f"dispatch error: {answer.error}".encode()
    elif not body and answer.error:
        body = answer.error.encode()
    attributes: dict[str, Any] = {
        "knativeerrordest": _sanitized(destination),
        "knativeerrorcode": status,
    }
    data = base64.b64encode(body[:ERROR_DATA_LIMIT]).decode()[:ERROR_DATA_LIMIT]
    if data:
        attributes["knativeerrordata"] = data
    return attributes


def _sanitized(url: str) -> str:
    """Without what is nobody's business: user, password, query and fragment."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
