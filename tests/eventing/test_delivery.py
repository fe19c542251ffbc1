"""The rules of delivery: what is tried again, and when."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from knlocal.eventing.delivery import (
    DEFAULT_TIMEOUT,
    DeliveryPolicy,
    policy_of,
    retry_after_seconds,
    should_retry,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_no_delivery_spec_means_one_attempt() -> None:
    assert policy_of(None) == DeliveryPolicy(retry=0, timeout=DEFAULT_TIMEOUT)


def test_a_delivery_spec_is_read() -> None:
    spec = {
        "retry": 3, "backoffPolicy": "exponential", "backoffDelay": "PT0.5S", "timeout": "PT2S",
        "retryAfterMax": "PT1M", "format": "json", "deadLetterSink": {"uri": "http://x"},
        "backoffMax": "PT10M",
    }  # fmt: skip
    expected = DeliveryPolicy(3, "exponential", 0.5, 2.0, 60.0, "structured", 600.0)
    assert policy_of(spec) == expected


@pytest.mark.parametrize(
    ("policy", "pauses"),
    [
        ("exponential", [0.2, 0.4, 0.8, 1.6, 3.2]),
        ("linear", [0.0, 0.2, 0.4, 0.6, 0.8]),
        ("", [0.0, 0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_back_off_grows_by_policy(policy: Any, pauses: list[float]) -> None:
    delivery = DeliveryPolicy(5, policy, 0.2)
    assert [delivery.backoff(k) for k in range(5)] == pytest.approx(pauses)


@pytest.mark.parametrize(
    ("policy", "pauses"),
    [("exponential", [1.0, 2.0, 3.0, 3.0]), ("linear", [0.0, 1.0, 2.0, 3.0]), ("", [0.0] * 4)],
)
def test_back_off_grows_no_further_than_its_maximum(policy: Any, pauses: list[float]) -> None:
    delivery = DeliveryPolicy(100, policy, 1.0, backoff_max=3.0)
    assert [delivery.backoff(k) for k in range(4)] == pauses
    assert delivery.backoff(90) == (3.0 if policy else 0.0)


@pytest.mark.parametrize("status", [0, 404, 408, 409, 429, 500, 502, 503, 504, 599])
def test_these_are_tried_again(status: int) -> None:
    assert should_retry(status)


@pytest.mark.parametrize("status", [301, 302, 304, 400, 401, 403, 405, 406, 410, 413, 415, 422])
def test_these_are_final(status: int) -> None:
    assert not should_retry(status)


@pytest.mark.parametrize(
    ("status", "header", "maximum", "pause"),
    [
        (429, "5", 10.0, 5.0),
        (503, "5", 10.0, 5.0),
        (503, "50", 10.0, 10.0),
        (503, "5", 0.0, 1.0),
        (500, "5", 10.0, 1.0),
        (404, "5", 10.0, 1.0),
        (429, "0", 10.0, 1.0),
        (429, "", 10.0, 1.0),
        (429, "soon", 10.0, 1.0),
        (429, "²", 10.0, 1.0),
        (429, "Thu, 01 Jan 2026 00:00:07 GMT", 10.0, 7.0),
        (429, "Thu, 01 Jan 2025 00:00:00 GMT", 10.0, 1.0),
    ],
)
def test_retry_after_is_honoured_within_its_limit(
    status: int, header: str, maximum: float, pause: float
) -> None:
    policy = DeliveryPolicy(1, "exponential", 1.0, retry_after_max=maximum)
    assert policy.pause(0, status, header, NOW) == pause


def test_a_monstrous_retry_after_is_only_long() -> None:
    assert retry_after_seconds("9" * 400, NOW) == 1e9
