"""Programs for other machines, run here: natively where they are at home, else under qemu-user."""

from __future__ import annotations

import platform
import shutil

import pytest

_NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}
_EMULATORS = {"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}

each_architecture = pytest.mark.parametrize("architecture", ["amd64", "arm64"])


def runner(architecture: str) -> list[str]:
    """What to put before a Linux program of that architecture. Skips the test where none is."""
    if platform.system() != "Linux":
        pytest.skip("a Linux program")
    if _NATIVE.get(platform.machine()) == architecture:
        return []
    emulator = shutil.which(_EMULATORS[architecture])
    if emulator is None:
        pytest.skip(f"{_EMULATORS[architecture]} (qemu-user) is not installed")
    return [emulator]
