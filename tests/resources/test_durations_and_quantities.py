from __future__ import annotations

import re
from decimal import Decimal

import pytest

from knlocal.resources import duration, quantity


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        ("100ms", 0.1),
        ("0", 0.0),
        ("-5s", -5.0),
        ("1h2m3s", 3723.0),
        (".5s", 0.5),
        ("2us", 2e-6),
    ],
)
def test_a_go_duration_is_read(text: str, seconds: float) -> None:
    assert duration.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", 'time: invalid duration ""'),
        ("5", 'time: missing unit in duration "5"'),
        ("5d", 'time: unknown unit "d" in duration "5d"'),
        ("abc", 'time: invalid duration "abc"'),
        ("-", 'time: invalid duration "-"'),
    ],
)
def test_a_wrong_go_duration_is_refused_in_go_words(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        duration.parse(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (90, "1m30s"),
        (3600, "1h0m0s"),
        (0.2, "200ms"),
        (0, "0s"),
        (1.5, "1.5s"),
        (-5, "-5s"),
        (0.0000015, "1.5µs"),
    ],
)
def test_a_duration_is_written_as_go_does(seconds: float, text: str) -> None:
    assert duration.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("PT0.2S", 0.2), ("PT1H", 3600), ("P1D", 86400), ("P1DT12H", 129600), ("-PT5S", -5)],
)
def test_an_iso_duration_is_read(text: str, seconds: float) -> None:
    assert duration.parse_iso8601(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "P", "PT", "5s", "PT5", "P1H"])
def test_a_wrong_iso_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        duration.parse_iso8601(text)


def test_an_iso_duration_is_written() -> None:
    assert duration.format_iso8601(0.2) == "PT0.2S"
    assert duration.format_iso8601(3725) == "PT1H2M5S"
    assert duration.format_iso8601(0) == "PT0S"


@pytest.mark.parametrize(
    ("text", "canonical", "number"),
    [
        ("0.5", "500m", "0.5"),
        (0.5, "500m", "0.5"),
        (1, "1", "1"),
        ("1000m", "1", "1"),
        ("1500m", "1500m", "1.5"),
        ("1024Mi", "1Gi", str(1024**3)),
        ("1.5Gi", "1536Mi", str(1536 * 1024**2)),
        ("512", "512", "512"),
        ("0.5Ki", "512", "512"),
        ("1e3", "1e3", "1000"),
        ("1E", "1E", "1000000000000000000"),
        ("100M", "100M", "100000000"),
        ("0", "0", "0"),
        ("0Mi", "0", "0"),
        ("-1Gi", "-1Gi", str(-(1024**3))),
        ("1n", "1n", "0.000000001"),
        ("0.1n", "1n", "0.000000001"),
        ("2000Ki", "2000Ki", "2048000"),
    ],
)
def test_a_quantity_has_one_spelling(text: str | float, canonical: str, number: str) -> None:
    assert quantity.canonical(text) == canonical
    assert quantity.parse(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "1Zi", "abc", "1 Gi", "1e", "--1"])
def test_a_wrong_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantit"):
        quantity.parse(text)


def test_whole_values_round_up() -> None:
    assert quantity.parse_int("100m") == 1
    assert quantity.parse_milli("0.1") == 100
    assert quantity.parse_milli("1u") == 1
