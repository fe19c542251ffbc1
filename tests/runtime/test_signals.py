"""Whether a program would notice SIGTERM."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from knlocal.runtime.signals import hears_sigterm


@pytest.mark.parametrize(
    ("inner", "caught", "blocked", "hears"),
    [
        ("1", "0000000000004002", "0", True),  # a handler
        ("1", "0000000000000002", "0000000000004000", True),  # blocked, to be waited for
        ("1", "0000000000000002", "0", False),
        ("7", "0000000000000002", "0", True),  # not the first: the signal ends it
    ],
)
def test_the_first_process_needs_a_handler(
    tmp_path: Path, inner: str, caught: str, blocked: str, hears: bool
) -> None:
    status = tmp_path / "42" / "status"
    status.parent.mkdir()
    status.write_text(f"Name:\tx\nNSpid:\t42\t{inner}\nSigBlk:\t{blocked}\nSigCgt:\t{caught}\n")
    assert hears_sigterm(42, tmp_path) is hears


def test_what_cannot_be_told_is_taken_to_hear() -> None:
    assert hears_sigterm(0)
    assert hears_sigterm(os.getpid())
