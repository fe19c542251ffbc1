"""The runtime interface: a pod is a sandbox plus containers. `docker` and `process` implement it.

The runtime knows containers, not Kubernetes objects: `workloads/kubelet.py` turns Pod objects into
the plans below. Every call has a deadline of its own and raises `RuntimeFailure` (or a subclass)
with a message meant for people.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple


class RuntimeFailure(Exception):
    """Something the engine refused or could not do. `reason` is Kubernetes' word for it
    ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "CreateContainerError",
    "RunContainerError", "EngineUnavailable", …)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class EngineUnavailable(RuntimeFailure):
    """The engine does not answer (Docker stopped, socket gone). Worth retrying."""

    def __init__(self, message: str) -> None:
        super().__init__("EngineUnavailable", message)


class ImageMissing(RuntimeFailure):
    """The image is not here and cannot be fetched."""

    def __init__(self, message: str, reason: str = "ErrImagePull") -> None:
        super().__init__(reason, message)


class PodId(NamedTuple):
    """Which pod: its namespace, name and uid (names are reused, uids never)."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Mount:
    """A host folder or file put into a container. `tmpfs` mounts memory instead of `source`."""

    target: str
    source: Path | None = None
    read_only: bool = False
    tmpfs: bool = False
    size_limit: int | None = None
    """Bytes, for tmpfs."""


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """One container to be run: everything resolved (env values final, volumes on the host)."""

    name: str
    image: str
    command: Sequence[str] | None = None
    """Replaces the image's ENTRYPOINT."""
    args: Sequence[str] | None = None
    """Replaces the image's CMD."""
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str | None = None
    mounts: Sequence[Mount] = ()
    cpu_limit: float | None = None
    """Cores."""
    cpu_request: float | None = None
    memory_limit: int | None = None
    """Bytes."""
    user: int | None = None
    group: int | None = None
    supplemental_groups: Sequence[int] = ()
    read_only_root: bool = False
    privileged: bool = False
    allow_privilege_escalation: bool | None = None
    capabilities_add: Sequence[str] = ()
    capabilities_drop: Sequence[str] = ()
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    """Its stdin ends when that of the first client attached to it does."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    local_command: Sequence[str] | None = None
    """For the process runtime: what to run instead of an image (annotation knlocal.dev/run)."""
    local_dir: Path | None = None
    """For the process runtime: where to run it (a source snapshot)."""


@dataclass(frozen=True, slots=True)
class PodPlan:
    """One pod to be run. Containers share the sandbox's network, host name and hosts file."""

    id: PodId
    containers: Sequence[ContainerPlan]
    init_containers: Sequence[ContainerPlan] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    """Put on every container beside the runtime's own (project, pod, uid, role)."""
    hostname: str = ""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Extra names for /etc/hosts, name to address ("host-gateway" allowed)."""
    dns_servers: Sequence[str] = ()
    dns_search: Sequence[str] = ()
    ports: Sequence[int] = ()
    """Container ports that the daemon must be able to reach."""
    grace_seconds: float = 30.0
    termination_message_path: str = "/dev/termination-log"


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What the engine says about one container. Times are aware, UTC."""

    name: str
    state: Literal["missing", "created", "running", "paused", "exited"]
    container_id: str = ""
    image_id: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class PodState:
    """What the engine says about one pod. `ip` is what the pod's own programs see."""

    id: PodId
    ip: str
    containers: Mapping[str, ContainerState]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """Something that happened to a container without being asked for here, or as asked."""

    id: PodId
    container: str
    """"" for the sandbox."""
    what: Literal["started", "exited", "oom", "removed", "paused", "unpaused"]
    """The last two only where someone else than knlocal can do it (an engine)."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """`digest` is `repo@sha256:…`: the repo digest, or for an image built here its image id."""

    id: str
    digest: str
    user: str = ""
    entrypoint: Sequence[str] = ()
    cmd: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    exposed_ports: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which of a container's lines to read, and how."""

    follow: bool = False
    """Go on until the container stops."""
    tail: int | None = None
    """Only the last lines of what there is already."""
    since: datetime | None = None
    timestamps: bool = False
    """Put its date before each line."""
    previous: bool = False
    """Of the container before its last restart."""


#: All there is by now.
WHOLE_LOG = LogOptions()


@dataclass(frozen=True, slots=True)
class ExecResult:
    exit_code: int
    output: bytes
    """stdout and stderr, in order of arrival."""


class ExecStream(ABC):
    """A running `exec` or `attach`: channels as kubectl has them."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[tuple[Literal["stdout", "stderr"], bytes]]: ...

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """To its stdin; b"" closes it."""

    @abstractmethod
    async def resize(self, width: int, height: int) -> None: ...

    @abstractmethod
    async def wait(self) -> int:
        """The exit code."""

    @abstractmethod
    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    username: str
    password: str


class Runtime(ABC):
    """Runs pods. All methods are idempotent: asking twice, or for what is gone, is no error."""

    name: str

    @abstractmethod
    async def start(self) -> None:
        """Connect; raise EngineUnavailable when there is no engine."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections and threads. Containers stay as they are."""

    @abstractmethod
    async def healthy(self) -> bool: ...

    # -- pods ---------------------------------------------------------------------------------

    @abstractmethod
    async def prepare(self, plan: PodPlan) -> PodState:
        """Make the sandbox (running) and all containers (created, not started)."""

    async def hold(self, plan: PodPlan, container: str, late: str) -> bool:
        """Prepare a pod, and start one container as far as that goes without its program: what
        is mounted at `late` is decided by the plan that `start_container` is given. A plan that
        differs in more has the container made anew. False (and nothing made) where this runtime
        has no way to do that, or the container is there already."""
        return False

    @abstractmethod
    async def start_container(self, plan: PodPlan, container: str) -> ContainerState:
        """Start one container of a prepared pod; re-create it first when it has run before
        (its logs stay readable as the "previous" ones)."""

    @abstractmethod
    async def stop_container(self, pod: PodId, container: str, grace_seconds: float) -> None:
        """SIGTERM, then SIGKILL after the grace."""

    @abstractmethod
    async def pause(self, pod: PodId) -> None: ...

    @abstractmethod
    async def unpause(self, pod: PodId) -> None: ...

    @abstractmethod
    async def remove(self, pod: PodId, grace_seconds: float = 0) -> None:
        """Stop what runs (SIGTERM, grace, SIGKILL) and remove every trace of the pod."""

    @abstractmethod
    async def inspect(self, pod: PodId) -> PodState | None: ...

    @abstractmethod
    async def pods(self) -> list[PodState]:
        """All pods of this project that the engine knows: what a restarted daemon adopts."""

    @abstractmethod
    def events(self) -> AsyncIterator[ContainerEvent]:
        """What happens to containers, for as long as it is iterated; survives engine restarts."""

    @abstractmethod
    def address(self, pod: PodState, port: int) -> tuple[str, int]:
        """Where the daemon reaches the pod's port (its own address, or a published one)."""

    @abstractmethod
    def env_port(self, pod: PodId, port: int) -> int:
        """The port number a container must listen on to be reachable as `port`: the same one,
        except for processes, which share the machine's ports."""

    @abstractmethod
    async def termination_message(self, pod: PodId, container: str) -> str:
        """What the container wrote to its termination message path ("" when nothing)."""

    async def hears_sigterm(self, pod: PodId, container: str) -> bool:
        """False when the container's program is known to ignore SIGTERM, so that waiting for it to
        end would be in vain. True when that cannot be told."""
        return True

    # -- looking inside -----------------------------------------------------------------------

    @abstractmethod
    def logs(
        self, pod: PodId, container: str, options: LogOptions = WHOLE_LOG
    ) -> AsyncIterator[bytes]:
        """Chunks of the container's stdout and stderr, whole lines."""

    @abstractmethod
    async def exec(
        self, pod: PodId, container: str, command: Sequence[str], *, timeout_seconds: float = 10
    ) -> ExecResult: ...

    @abstractmethod
    async def exec_stream(
        self, pod: PodId, container: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> ExecStream: ...

    @abstractmethod
    async def attach(self, pod: PodId, container: str, *, stdin: bool) -> ExecStream:
        """To the container's own program: what it writes from now on, and its stdin if it has
        one (`ContainerPlan.stdin`)."""

    @abstractmethod
    async def stats(self, pod: PodId) -> Mapping[str, tuple[float, int]]:
        """Per container: cores in use, bytes in use."""

    # -- images -------------------------------------------------------------------------------

    @abstractmethod
    async def image(self, image: str) -> ImageInfo | None:
        """What is known locally about an image (by tag, digest or id)."""

    @abstractmethod
    async def pull(
        self,
        image: str,
        auth: RegistryAuth | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> ImageInfo:
        """Fetch an image; ImageMissing with the registry's words when that fails. `progress` is
        given lines for people."""

    # -- ground -------------------------------------------------------------------------------

    @abstractmethod
    async def host_address(self) -> str:
        """The address under which containers reach this machine (the bridge's gateway), or
        "host-gateway" where only the engine knows it (Docker Desktop): nothing can listen there,
        but `PodPlan.hosts` takes it, and what listens on loopback is reached through it."""
