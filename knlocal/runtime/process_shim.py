"""What stands between the daemon and one local process: a program of its own, not a module.

It outlives the daemon (as a container engine would), so that a daemon that was killed can find the
process, its log and its exit code again. It starts the process in a session and group of its own,
writes what that prints to a log that is rotated, kills what is left of the group when the process
ends, and leaves the exit code in a file.

Run as `python -I -S process_shim.py`, and told what to do on stdin, fields separated by NUL; told
nothing, it ends. It imports next to nothing: each wake of a service may wait for it. Beside
`clock.py` it is the only place that reads the wall clock: it plays the engine's part, and engines
have real time.

In FOLDER: `bell` (a FIFO made by the daemon; a byte says what happened, its end that the shim is
gone), `log` and `log.1` (lines as Kubernetes' container log format has them), `pid` (process id and
start, nanoseconds), `exit` (exit code, end, message).
"""

try:
    # What `signal` is made of, without the cost of its enums.
    import _signal as signal  # type: ignore[import-not-found]
except ImportError:
    import signal
import os
import select
import time

STARTED, FAILED, LOGGED = b"s", b"f", b"l"

#: Signals that Python itself changes, beside SIGPIPE.
OTHERS = tuple(getattr(signal, name) for name in ("SIGXFSZ", "SIGCHLD") if hasattr(signal, name))

#: Lines are cut into pieces of this many bytes, as container engines do.
LONGEST_PIECE = 16 * 1024
#: Followers are told of new lines at most this often, in seconds.
BELL_PAUSE = 0.02


reaped: "dict[int, int]" = {}


def main() -> None:
    os.setsid()  # at once: what is typed in the daemon's terminal is not meant for it
    with open(0, "rb", closefd=False) as stdin:
        told = stdin.read()
    if not told:
        return  # one that was started ahead, and nobody needs it any more
    fields = told.split(b"\0")
    log_max, user, group, groups, cwd, count = fields[1:7]
    folder = os.fsdecode(fields[0])
    argv = fields[7 : 7 + int(count)]
    env = dict(field.split(b"=", 1) for field in fields[7 + int(count) :] if field)

    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    bell = os.open(f"{folder}/bell", os.O_RDWR | os.O_NONBLOCK)
    woken, wake = os.pipe()
    for fd in (woken, wake):
        os.set_blocking(fd, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    out, out_end = os.pipe()
    err, err_end = os.pipe()
    trouble, trouble_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        identity, outputs = (user, group, groups), (null, out_end, err_end)
        become(argv, env, cwd, identity, outputs, trouble_end)
    for fd in (out_end, err_end, trouble_end, null):
        os.close(fd)
    if message := os.read(trouble, 4096):
        os.waitpid(pid, 0)
        number, _, text = message.partition(b" ")
        note(folder, "exit", b"%s\n%d\n%s" % (number, time.time_ns(), text))
        os.write(bell, FAILED)
        return
    note(folder, "pid", b"%d\n%d" % (pid, time.time_ns()))
    os.write(bell, STARTED)
    code = watch(pid, out, err, woken, Log(f"{folder}/log", int(log_max)), bell)
    note(folder, "exit", b"%d\n%d\n" % (code, time.time_ns()))


def become(
    argv: "list[bytes]",
    env: "dict[bytes, bytes]",
    cwd: bytes,
    identity: "tuple[bytes, bytes, bytes]",
    outputs: "tuple[int, int, int]",
    trouble: int,
) -> None:
    """In the child: turn into the process, or say through `trouble` why not."""
    code = 126
    user, group, groups = identity
    try:
        os.setsid()
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, *OTHERS):
            signal.signal(one, signal.SIG_DFL)
        for target, fd in enumerate(outputs):
            os.dup2(fd, target)
        os.umask(0o022)
        if groups:
            os.setgroups([int(one) for one in groups.split(b",")])
        if group:
            os.setgid(int(group))
        if user:
            os.setuid(int(user))
        os.chdir(cwd)
        code = 127
        os.execvpe(argv[0], argv, env)
    except OSError as failed:
        if not isinstance(failed, FileNotFoundError):
            code = 126
        where = os.fsdecode(argv[0] if code == 127 or failed.filename is None else cwd)
        text = f"{code} cannot run {where}: {failed.strerror}"
        os.write(trouble, text.encode(errors="replace"))
    finally:
        os._exit(code)


def watch(pid: int, out: int, err: int, woken: int, log: "Log", bell: int) -> int:
    """Copy output until the process ends; its exit code, 128 + n for signal n."""
    names = {out: b"stdout", err: b"stderr"}
    poll = select.poll()
    for fd in (out, err, woken):
        os.set_blocking(fd, False)
        poll.register(fd, select.POLLIN)
    rung, due = 0.0, False
    while True:
        ready = poll.poll(BELL_PAUSE * 1000 if due else None)
        for fd, _ in ready:
            if fd == woken:
                os.read(woken, 4096)
            elif copy(fd, names[fd], log) == b"":
                poll.unregister(fd)
            else:
                due = True
        if due and time.monotonic() - rung > BELL_PAUSE:
            rung, due = time.monotonic(), False
            ring(bell)
        if has_ended(pid):
            break
    # The process is not reaped yet, so its group's number cannot have become another's.
    kill_group(pid)
    status = reaped[pid] if pid in reaped else os.waitpid(pid, 0)[1]
    for fd, name in names.items():
        while copy(fd, name, log):
            pass
        log.end(name)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def has_ended(pid: int) -> bool:
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    # Without it (macOS, before Python 3.13) the process is reaped here; its status is kept.
    ended, status = os.waitpid(pid, os.WNOHANG)
    if ended:
        reaped[pid] = status
    return ended != 0


def kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass


def copy(fd: int, name: bytes, log: "Log") -> "bytes | None":
    """What was read; b"" at the end, None when there is nothing just now."""
    try:
        data = os.read(fd, 65536)
    except BlockingIOError:
        return None
    log.add(name, data)
    return data


def ring(bell: int) -> None:
    try:
        os.write(bell, LOGGED)
    except OSError:
        pass  # full: nobody listens just now


def note(folder: str, name: str, content: bytes) -> None:
    """Write a file so that it is seen whole or not at all."""
    try:
        with open(f"{folder}/.{name}", "wb") as file:
            file.write(content)
        os.rename(f"{folder}/.{name}", f"{folder}/{name}")
    except OSError:
        pass  # the folder was removed, or the disk is full


class Log:
    """`log`, and the one before it as `log.1`; each at most half of what is allowed."""

    def __init__(self, path: str, limit: int) -> None:
        self.path = path
        self.limit = max(limit // 2, LONGEST_PIECE)
        self.size = 0
        self.fd = -1
        self.open: dict[bytes, bytes] = {}

    def add(self, name: bytes, data: bytes) -> None:
        *lines, rest = (self.open.get(name, b"") + data).split(b"\n")
        pieces = []
        for line in lines:
            while len(line) > LONGEST_PIECE:
                pieces.append((b"P", line[:LONGEST_PIECE]))
                line = line[LONGEST_PIECE:]
            pieces.append((b"F", line))
        while len(rest) >= LONGEST_PIECE:
            pieces.append((b"P", rest[:LONGEST_PIECE]))
            rest = rest[LONGEST_PIECE:]
        self.open[name] = rest
        self.write(name, pieces)

    def end(self, name: bytes) -> None:
        if rest := self.open.get(name):
            self.write(name, [(b"P", rest)])

    def write(self, name: bytes, pieces: "list[tuple[bytes, bytes]]") -> None:
        if not pieces:
            return
        now = time.time_ns()
        date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
        head = b"%s.%09dZ %s " % (date.encode(), now % 10**9, name)
        text = b"".join(b"%s%s %s\n" % (head, tag, line) for tag, line in pieces)
        try:
            if self.fd < 0 or self.size + len(text) > self.limit:
                self.turn()
            self.size += os.write(self.fd, text)
        except OSError:
            pass  # a full disk must not stop the process; its output is lost

    def turn(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            os.rename(self.path, self.path + ".1")
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.size = 0


if __name__ == "__main__":
    main()
