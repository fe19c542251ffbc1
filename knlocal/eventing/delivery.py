"""How hard a delivery is tried: retries, back-off, timeouts, Retry-After (behaviours E36–E38).

Pure rules, from knative.dev/eventing pkg/kncloudevents (retries.go) and the delivery spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from knlocal.events.event import Mode
from knlocal.resources.duration import parse_iso8601

DEFAULT_TIMEOUT = 600.0
"""Seconds that one attempt may take when nothing is said. Knative waits for ever, and an ordered
queue behind a subscriber that never answers would never move."""

BackoffPolicy = Literal["", "linear", "exponential"]

#: Statuses below 500 that are worth another attempt.
RETRYABLE = frozenset({404, 408, 409, 429})
HONOURS_RETRY_AFTER = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """A delivery spec, ready to use; durations in seconds."""

    retry: int = 0
    backoff_policy: BackoffPolicy = ""
    backoff_delay: float = 0.0
    timeout: float = DEFAULT_TIMEOUT
    retry_after_max: float = 0.0
    mode: Mode | None = None
    """The mode that the subscriber gets; None keeps what came in."""
    backoff_max: float = 0.0
    """The most that back-off grows to; 0 sets no bound. A Retry-After has its own."""

    def pause(self, retry: int, status: int, retry_after: str, now: datetime) -> float:
        """Seconds before retry number `retry` (the first is 0), after an answer of `status`."""
        pause = self.backoff(retry)
        if self.retry_after_max > 0 and status in HONOURS_RETRY_AFTER:
            asked = retry_after_seconds(retry_after, now)
            pause = max(pause, min(asked, self.retry_after_max))
        return pause

    def backoff(self, retry: int) -> float:
        pause = 0.0
        if self.backoff_policy == "linear":
            pause = self.backoff_delay * retry
        elif self.backoff_policy == "exponential":
            # Beyond 2^31 seconds nobody waits; the exponent must not run away.
            pause = self.backoff_delay * 2.0 ** min(retry, 31)
        return min(pause, self.backoff_max) if self.backoff_max else pause


def policy_of(delivery: Mapping[str, Any] | None) -> DeliveryPolicy:
    """The policy of an (admitted, so valid) delivery spec; one attempt when there is none."""
    if not delivery:
        return DeliveryPolicy()
    formats: dict[str | None, Mode] = {"json": "structured", "binary": "binary"}
    return DeliveryPolicy(
        retry=delivery.get("retry") or 0,
        backoff_policy=delivery.get("backoffPolicy") or "",
        backoff_delay=_seconds(delivery.get("backoffDelay")),
        timeout=_seconds(delivery.get("timeout")) or DEFAULT_TIMEOUT,
        retry_after_max=_seconds(delivery.get("retryAfterMax")),
        mode=formats.get(delivery.get("format")),
        backoff_max=_seconds(delivery.get("backoffMax")),
    )


def should_retry(status: int) -> bool:
    """Whether an answer is worth another attempt. Status 0 stands for no answer at all."""
    return status == 0 or status >= 500 or status in RETRYABLE


def retry_after_seconds(header: str, now: datetime) -> float:
    """What a Retry-After asks for (seconds or an HTTP date); 0 when it asks for nothing."""
    header = header.strip()
    if not header:
        return 0.0
    if header.isascii() and header.isdigit():
        return float(header) if len(header) < 10 else 1e9
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _seconds(text: Any) -> float:
    try:
        return max(0.0, parse_iso8601(text)) if text else 0.0
    except ValueError:
        return 0.0
