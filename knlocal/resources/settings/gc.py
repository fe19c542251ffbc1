"""config-gc (knative.dev/serving/pkg/gc/config.go)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from knlocal.resources.settings.parsing import SettingsError, as_duration, as_int, read, setting

DISABLED = "disabled"


def _duration_or_disabled(text: str) -> float | None:
    if text.strip().lower() == DISABLED:
        return None
    seconds = as_duration(text)
    if seconds < 0:
        raise ValueError(f"must be non-negative, was: {text}")
    return seconds


def _int_or_disabled(text: str) -> int | None:
    if text.strip().lower() == DISABLED:
        return None
    number = as_int(text)
    if number < 0:
        raise ValueError(f"must be non-negative, was: {text}")
    return number


@dataclass(frozen=True, slots=True)
class Gc:
    """Which old revisions go. Durations are seconds; None means that the bound is off."""

    retain_since_create_time: float | None = setting(
        "retain-since-create-time",
        48 * 3600.0,
        'Age below which a revision is kept, or "disabled".',
        parse=_duration_or_disabled,
        shown="48h",
    )
    retain_since_last_active_time: float | None = setting(
        "retain-since-last-active-time",
        15 * 3600.0,
        'Time since its last use during which a revision is kept, or "disabled".',
        parse=_duration_or_disabled,
        shown="15h",
    )
    min_non_active_revisions: int = setting(
        "min-non-active-revisions", 20, "Unused revisions that are always kept."
    )
    max_non_active_revisions: int | None = setting(
        "max-non-active-revisions",
        1000,
        'Unused revisions above which the oldest go, whatever their age, or "disabled".',
        parse=_int_or_disabled,
    )

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> Gc:
        found = read(cls, data)
        if found.min_non_active_revisions < 0:
            raise SettingsError(
                "min-non-active-revisions must be non-negative, "
                f"was: {found.min_non_active_revisions}"
            )
        maximum = found.max_non_active_revisions
        if maximum is not None and found.min_non_active_revisions > maximum:
            raise SettingsError(
                f"min-non-active-revisions(={found.min_non_active_revisions}) "
                f"must be <= max-non-active-revisions(={maximum})"
            )
        return found
