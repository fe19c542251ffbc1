"""Tests marked `docker` are skipped without an engine (and fail with CI=true)."""

from tests.conftest import pytest_runtest_setup

__all__ = ["pytest_runtest_setup"]
