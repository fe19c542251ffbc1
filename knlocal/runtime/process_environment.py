"""What a local process finds in its environment: the plan's variables, and of the daemon's own only
those without which programs do not run (as a container would not see the rest either)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from knlocal.runtime.api import Mount

_KEPT = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "TEMP",
        "TMP",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "all_proxy",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "PYENV_ROOT",
        "NVM_DIR",
        "GOPATH",
        "GOROOT",
        "GOCACHE",
        "JAVA_HOME",
        "CARGO_HOME",
        "RUSTUP_HOME",
        "LD_LIBRARY_PATH",
        "SYSTEMROOT",
    }
)
_KEPT_PREFIXES = ("LC_", "DYLD_", "XDG_")


#: Tells whose a process is, even when it has left its process group.
POD_UID = "KNLOCAL_POD_UID"


def environment(
    planned: Mapping[str, str], hostname: str, pod_uid: str, mounts: Sequence[Mount] = ()
) -> dict[str, str]:
    """Variables that name a place in a mount name the folder behind it, as nothing is mounted."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    places = {name: _behind(value, mounts) for name, value in planned.items()}
    return {"PATH": os.defpath, **kept, "HOSTNAME": hostname, **places, POD_UID: pod_uid}


def _behind(value: str, mounts: Sequence[Mount]) -> str:
    """The place on this machine, when `value` is a path in a mount."""
    for mount in sorted(mounts, key=lambda one: len(one.target), reverse=True):
        target = mount.target.rstrip("/")
        if (
            mount.source is not None
            and target
            and (value == target or value.startswith(f"{target}/"))
        ):
            return f"{mount.source}{value[len(target) :]}"
    return value
