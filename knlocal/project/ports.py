"""Ports: take the one that is wanted, or say who holds it."""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import psutil

from knlocal.project.errors import Problem, ProjectError

#: How many further ports are tried when the usual one is taken.
TRIES = 100


class Taken(NamedTuple):
    """A port that was taken, and a word for people when it is not the one that was wanted."""

    port: int
    note: str = ""


async def take(
    listen: Callable[[int], Awaitable[int]],
    host: str,
    port: int,
    *,
    where: str,
    asked_for: bool,
) -> Taken:
    """Listen on `port`, or on the next free one when nobody asked for just this one.

    `listen` opens the port and raises OSError when it cannot. A port that was asked for and cannot
    be had is a ProjectError that names who holds it.
    """
    try:
        return Taken(await listen(port))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise ProjectError(_not_allowed(host, port, where)) from None
        if error.errno != errno.EADDRINUSE:
            raise ProjectError(
                Problem(where, f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}")
            ) from None
    holder = holder_of(port)
    if asked_for:
        hint = "choose another port there, or 0 for any free one"
        raise ProjectError(Problem(where, f"port {port} is held by {holder}", hint=hint)) from None
    for other in range(port + 1, port + 1 + TRIES):
        try:
            found = await listen(other)
        except OSError:
            continue
        return Taken(found, f"port {port} is held by {holder}; using {found}")
    raise ProjectError(Problem(where, f"no free port from {port} to {port + TRIES}"))


def _not_allowed(host: str, port: int, where: str) -> Problem:
    return Problem(
        where, f"not allowed to listen on {host}:{port}", hint="choose a port above 1023"
    )


def holder_of(port: int) -> str:
    """Who listens on a TCP port, as a person would name it."""
    pids: list[int | None] = []
    for _ in range(2):  # one that began to listen while we looked has no owner yet
        try:
            connections = psutil.net_connections("tcp")
        except (psutil.AccessDenied, OSError):
            return "another process (its name is hidden from this user)"
        pids = [
            connection.pid
            for connection in connections
            if connection.status == psutil.CONN_LISTEN
            and getattr(connection.laddr, "port", None) == port
        ]
        if pids != [None]:
            break
    if not pids:
        return "another process"
    return "another user's process" if pids[0] is None else _named(pids[0])


def _named(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        words = process.cmdline()
        name = process.name()
        if any(word.endswith("knlocal") or word == "knlocal" for word in words[:3]):
            name = f"another knlocal in {process.cwd()}"
        elif len(words) > 1 and name.startswith(("python", "node", "java", "ruby")):
            name = " ".join([name, *words[1 : 3 if words[1] == "-m" else 2]])
        return f"{name} (pid {pid})"
    except psutil.Error:
        return f"pid {pid}"
