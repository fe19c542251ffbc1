"""Whether a program would notice SIGTERM."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from knlocal.runtime.signals import hears_sigterm


@pytest.mark.parametrize(
    ("inner", "caught", "blocked", "ignored", "hears"),
    [
        ("1", "4002", "0", "0", True),  # a handler
        ("1", "2", "4000", "0", True),  # blocked, to be waited for
        ("1", "2", "0", "0", False),
        ("7", "2", "0", "0", True),  # not the first: the signal ends it
        ("7", "2", "0", "4000", False),
        ("7", "2", "4000", "4000", True),
    ],
)
def test_a_program_needs_a_handler_when_it_is_the_first_or_ignores_the_signal(
    tmp_path: Path, inner: str, caught: str, blocked: str, ignored: str, hears: bool
) -> None:
    status = tmp_path / "42" / "status"
    status.parent.mkdir()
    status.write_text(
        f"Name:\tx\nNSpid:\t42\t{inner}\nSigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t{caught}\n"
    )
    assert hears_sigterm(42, tmp_path) is hears


def test_what_cannot_be_told_is_taken_to_hear() -> None:
    assert hears_sigterm(0)
    assert hears_sigterm(os.getpid())
