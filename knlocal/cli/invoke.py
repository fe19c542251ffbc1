"""`invoke`: one HTTP request to a service, through the gateway."""

from __future__ import annotations

import http.client
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import click

from knlocal.cli.context import Context, namespace_option, note, pass_context
from knlocal.cli.exits import CliError, Exit


@click.command("invoke")
@click.argument("service")
@click.argument("path", default="/")
@click.option("-X", "--method", help="GET, or POST when there is data.")
@click.option("-d", "--data", help="The body; @FILE reads a file, - standard input.")
@click.option("-H", "--header", "headers", multiple=True, metavar="NAME: VALUE")
@click.option("-t", "--tag", help="The traffic target with this tag.")
@click.option("-i", "--include", is_flag=True, help="Show status and headers too.")
@click.option("--timeout", type=float, default=310, show_default=True, help="Seconds.")
@namespace_option
@pass_context
def invoke_command(
    context: Context, service: str, path: str, method: str | None, data: str | None,
    headers: tuple[str, ...], tag: str | None, include: bool, timeout: float,
    namespace: str | None,
) -> int:  # fmt: skip
    """Send a request to a service and print the answer.

    Exit code 1 for an answer of 400 and above.
    """
    url = _url(context, service, namespace or context.namespace, tag)
    parts = urlsplit(url)
    local = (parts.hostname or "").endswith(".svc.cluster.local")
    host, _, port = (context.card.internal if local else context.card.gateway).rpartition(":")
    body = _body(data)
    sent = {"Host": parts.netloc, "User-Agent": "knlocal-invoke"}
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise CliError(f"-H {header!r} is not NAME: VALUE", Exit.USAGE)
        sent[name.strip()] = value.strip()
    connection = http.client.HTTPConnection(host, int(port), timeout=timeout)
    began = time.perf_counter()
    try:
        verb = (method or ("POST" if body is not None else "GET")).upper()
        connection.request(verb, path if path.startswith("/") else f"/{path}", body, sent)
        response = connection.getresponse()
        if include:
            note(f"HTTP/1.1 {response.status} {response.reason}")
            for name, value in response.getheaders():
                note(f"{name}: {value}")
            note("")
        last = b""
        while block := response.read1(65536):
            sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
            last = block
    except TimeoutError:
        raise CliError(f"no answer within {timeout:g} s", Exit.TIMEOUT) from None
    except (OSError, http.client.HTTPException) as error:
        raise CliError(f"no answer from {url}: {error}") from None
    finally:
        connection.close()
    if sys.stdout.isatty() and last and not last.endswith(b"\n"):
        click.echo()
    if include:
        note(f"({(time.perf_counter() - began) * 1000:.0f} ms)")
    if response.status >= 400:
        if not include:
            note(f"knlocal: {service} answered {response.status} {response.reason}")
        return Exit.FAILURE
    return Exit.OK


def _url(context: Context, service: str, namespace: str, tag: str | None) -> str:
    client = context.client
    resource = client.resource("services.serving.knative.dev")
    found = client.request("GET", resource.path(namespace, service))
    status = found.get("status") or {}
    if tag:
        for target in status.get("traffic") or []:
            if target.get("tag") == tag and target.get("url"):
                return str(target["url"])
        tags = sorted(t["tag"] for t in status.get("traffic") or [] if t.get("tag"))
        hint = f"there are: {', '.join(tags)}" if tags else "it has no tags"
        raise CliError(f"{service} has no tag {tag!r}", Exit.NOT_FOUND, hint)
    if not status.get("url"):
        from knlocal.cli.describe import why_not_ready

        raise CliError(f"{service} has no URL yet: {why_not_ready(found)}")
    return str(status["url"])


def _body(data: str | None) -> bytes | None:
    if data is None:
        return None
    if data == "-":
        return sys.stdin.buffer.read()
    if data.startswith("@"):
        try:
            return Path(data[1:]).read_bytes()
        except OSError as error:
            raise CliError(f"{data[1:]}: {error.strerror}", Exit.USAGE) from None
    return data.encode()
