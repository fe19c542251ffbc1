"""`send`, `events`, `explain`, `replay`: where did my event go?"""

from __future__ import annotations

import base64
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import orjson

from knlocal.cli.context import Context, echo, is_terminal, namespace_option, note, pass_context
from knlocal.cli.exits import CliError, Exit
from knlocal.cli.trails import headline, told

DOOR = "/knlocal/v1"
_PLACES = {
    "broker": "brokers.eventing.knative.dev",
    "channel": "channels.messaging.knative.dev",
    "imc": "inmemorychannels.messaging.knative.dev",
    "sequence": "sequences.flows.knative.dev",
    "parallel": "parallels.flows.knative.dev",
    "service": "services.serving.knative.dev",
    "jobsink": "jobsinks.sinks.knative.dev",
}


def _output(function: Any) -> Any:
    return click.option("-o", "output", type=click.Choice(["text", "json"]), default="text")(
        function
    )


def _selecting(function: Any) -> Any:
    """The options that choose events."""
    for option in reversed(
        (
            click.option("--type", "type_", help="Type; * and ? allowed.", metavar="PATTERN"),
            click.option("--source", help="Source; * and ? allowed.", metavar="PATTERN"),
            click.option("--door", help="Broker or channel: NAME, NAMESPACE/NAME.", metavar="DOOR"),
            click.option("--attribute", "attributes", multiple=True, metavar="NAME=PATTERN"),
            click.option("--failed", is_flag=True, help="Only what somebody did not get."),
            click.option("--since", help="A time, or how long ago: 10m, 2h.", metavar="WHEN"),
            click.option("--until", help="The same, for the end.", metavar="WHEN"),
        )
    ):
        function = option(function)
    return function


# -- events ---------------------------------------------------------------------------------------


@click.command("events")
@_selecting
@click.option("-n", "--last", type=click.IntRange(0), default=20, help="How many past ones.")
@click.option("-f", "--follow", is_flag=True, help="Go on as events come.")
@click.option("--record", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the events to a file that can be replayed.")  # fmt: skip
@_output
@pass_context
def events_command(
    context: Context, /, last: int, follow: bool, record: Path | None, output: str, **how: Any
) -> int:
    """List the events that passed brokers and channels."""
    query = _query(how)
    writer = record.open("wb") if record else None
    count = 0
    try:
        for entry in _entries(context, query, last, follow, outcomes=writer is None):
            count += 1
            if writer is not None:
                writer.write(orjson.dumps(_line(entry)) + b"\n")
                writer.flush()
            elif output == "json":
                echo(orjson.dumps(entry).decode())
            else:
                echo(headline(entry, colour=is_terminal()))
    except KeyboardInterrupt:
        if not follow:
            raise
    finally:
        if writer is not None:
            writer.close()
    if record:
        note(f"{count} {'event' if count == 1 else 'events'} in {record}")
    elif not count and not follow:
        note("no such event passed here" if query else "no event passed here yet")
    return Exit.OK


def _entries(
    context: Context, query: dict[str, str], last: int, follow: bool, *, outcomes: bool
) -> Any:
    if not follow:
        answer = context.client.request(
            "GET", f"{DOOR}/events", query={**query, "limit": str(last)}
        )
        yield from answer["items"]
        return
    query = {**query, "follow": "true", "backlog": str(last), "outcomes": str(outcomes).lower()}
    for line in context.client.stream(f"{DOOR}/events", query):
        yield orjson.loads(line)


def _line(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A journal entry as a recording keeps it."""
    event = {k: v for k, v in entry["event"].items() if not k.startswith("knative")}
    line = {"time": entry["time"], "door": entry["door"]["url"], "event": event}
    return line | ({"reply": True} if entry.get("parent") else {})


# -- explain --------------------------------------------------------------------------------------


@click.command("explain")
@click.argument("event_id", metavar="ID")
@_output
@pass_context
def explain_command(context: Context, event_id: str, output: str) -> int:
    """Tell what became of an event: who got it, who did not and why, replies, dead letters."""
    answer = context.client.request("GET", f"{DOOR}/events/{quote(event_id, safe='')}")
    if output == "json":
        echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
        return Exit.OK
    for number, entry in enumerate(answer["items"]):
        if number:
            echo()
        echo(told(entry, colour=is_terminal()))
    return Exit.OK


# -- send -----------------------------------------------------------------------------------------


@click.command("send")
@click.argument("to", default="broker:default")
@click.option("-t", "--type", "type_", help="The event's type.")
@click.option("-s", "--source", default="/knlocal/send", show_default=True)
@click.option("-d", "--data", help="Data; @FILE reads a file, - standard input.")
@click.option("--content-type", help="Of the data (JSON when it is, else text).")
@click.option("--id", "event_id", help="The id (a new one when not given).")
@click.option("-a", "--attribute", "attributes", multiple=True, metavar="NAME=VALUE",
              help="Any other attribute or extension.")  # fmt: skip
@click.option("--event", "file", metavar="FILE", help="A whole event as JSON; - is standard input.")
@click.option("--binary/--structured", default=True, help="The HTTP content mode.")
@namespace_option
@_output
@pass_context
def send_command(
    context: Context, /, to: str, file: str | None, binary: bool, namespace: str | None,
    output: str, **parts: Any,
) -> int:  # fmt: skip
    """Send an event to broker:NAME, channel:NAME, service:NAME, … or a URL."""
    event = _read_event(file) if file else _made(**parts)
    url = _address(context, to, namespace or context.namespace)
    body = {"event": event, "to": url, "mode": "binary" if binary else "structured"}
    answer = context.client.request("POST", f"{DOOR}/send", body)
    if output == "json":
        echo(orjson.dumps(answer).decode())
    elif answer["status"] and answer["status"] < 300:
        echo(f"{answer['id']}  accepted by {to} ({answer['status']})")
        if _has_trails(to):
            note(f"  what became of it: knlocal explain {answer['id']}")
        elif answer.get("response"):
            note(f"  it answered: {answer['response'].strip()}")
    else:
        why = answer.get("error") or f"status {answer['status']}: {answer.get('response', '')}"
        raise CliError(f"{to} did not take the event: {why.strip()}")
    return Exit.OK if 0 < answer["status"] < 300 else Exit.FAILURE


def _has_trails(to: str) -> bool:
    """Whether what is sent there is followed: at brokers and channels it is."""
    return to.partition(":")[0] not in ("service", "jobsink", "http", "https")


def _made(
    type_: str | None, source: str, data: str | None, content_type: str | None,
    event_id: str | None, attributes: tuple[str, ...],
) -> dict[str, Any]:  # fmt: skip
    if not type_:
        raise CliError(
            "an event needs a type", Exit.USAGE, "knlocal send broker:default -t my.type"
        )
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": event_id or str(uuid.uuid4()),
        "type": type_,
        "source": source,
        **_pairs(attributes, "-a"),
    }
    if data is not None:
        _put_data(event, _read(data), content_type)
    return event


def _put_data(event: dict[str, Any], data: bytes, content_type: str | None) -> None:
    try:
        value = orjson.loads(data) if content_type is None or "json" in content_type else None
        is_json = content_type is None or "json" in content_type
    except orjson.JSONDecodeError:
        if content_type is not None:
            raise CliError(
                "the data is not JSON, though its content type says so", Exit.USAGE
            ) from None
        is_json, value = False, None
    if is_json:
        event["datacontenttype"] = content_type or "application/json"
        event["data"] = value
        return
    try:
        event["data"] = data.decode()
        event["datacontenttype"] = content_type or "text/plain"
    except UnicodeDecodeError:
        event["data_base64"] = base64.b64encode(data).decode()
        event["datacontenttype"] = content_type or "application/octet-stream"


def _read_event(file: str) -> dict[str, Any]:
    try:
        document = orjson.loads(_read("-" if file == "-" else f"@{file}"))
    except orjson.JSONDecodeError as error:
        raise CliError(f"{file} is not JSON: {error}", Exit.USAGE) from None
    if isinstance(document, dict) and isinstance(document.get("event"), dict):
        document = document["event"]  # a saved journal entry
    if not isinstance(document, dict):
        raise CliError(f"{file} holds no event: a JSON object is expected", Exit.USAGE)
    return document


def _address(context: Context, to: str, namespace: str) -> str:
    if to.startswith(("http://", "https://")):
        return to
    kind, colon, name = to.partition(":")
    if not colon:
        kind, name = "service", to
    if kind not in _PLACES or not name:
        raise CliError(
            f"{to!r} names no place for events", Exit.USAGE,
            f"write one of {', '.join(f'{k}:NAME' for k in _PLACES)} or a URL",
        )  # fmt: skip
    resource = context.client.resource(_PLACES[kind])
    found = context.client.request("GET", resource.path(namespace, name))
    url = ((found.get("status") or {}).get("address") or {}).get("url")
    if not url:
        raise CliError(
            f"{to} has no address yet", hint=f"`knlocal describe {kind} {name}` says why"
        )
    return str(url)


# -- replay ---------------------------------------------------------------------------------------


@click.command("replay")
@click.argument("event_id", metavar="[ID]", required=False)
@_selecting
@click.option("--file", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="A recording (`knlocal events --record FILE`).")  # fmt: skip
@click.option("--to", help="Another place than where it went: broker:NAME, … or a URL.")
@click.option("--keep-pace", is_flag=True, help="Keep the pauses between the events.")
@namespace_option
@_output
@pass_context
def replay_command(
    context: Context, /, event_id: str | None, file: Path | None, to: str | None, keep_pace: bool,
    namespace: str | None, output: str, **how: Any,
) -> int:  # fmt: skip
    """Send an event, or all that are chosen, again."""
    body: dict[str, Any] = _query(how)
    if event_id:
        body["id"] = event_id
    if file is not None:
        body = {"events": _recording(file)}
    if not body:
        raise CliError("which events?", Exit.USAGE, "give an ID, --file, --type, --since, …")
    if to:
        body["to"] = _address(context, to, namespace or context.namespace)
    body["keepPace"] = keep_pace
    answer = context.client.request("POST", f"{DOOR}/replay", body)
    failed = 0
    for item in answer["items"]:
        ok = 0 < item["status"] < 300
        failed += not ok
        if output == "json":
            echo(orjson.dumps(item).decode())
        else:
            said = item.get("error") or f"status {item['status']}"
            echo(f"{item['id']}  {item['type']}  {'accepted' if ok else said}  {item['to']}")
    return Exit.FAILURE if failed else Exit.OK


def _recording(file: Path) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise CliError(f"{file}, line {number}: not JSON: {error}", Exit.USAGE) from None
        if isinstance(entry, dict) and not entry.get("reply"):
            found.append(entry)
    return found


# -- words ----------------------------------------------------------------------------------------


def _query(how: Mapping[str, Any]) -> dict[str, str]:
    query = {
        name: str(how[key])
        for name, key in (("type", "type_"), ("source", "source"), ("door", "door"))
        if how.get(key)
    }
    for name, value in _pairs(how.get("attributes") or (), "--attribute").items():
        query[f"attribute.{name}"] = value
    if how.get("failed"):
        query["failed"] = "true"
    for name in ("since", "until"):
        if how.get(name):
            query[name] = _moment(how[name], name)
    return query


def _pairs(given: tuple[str, ...], option: str) -> dict[str, str]:
    found = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise CliError(f"{option} {pair!r} is not NAME=VALUE", Exit.USAGE)
        found[name] = value
    return found


def _moment(text: str, option: str) -> str:
    """A time as the API takes it, from a time or from how long ago."""
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    if text[:-1].isdigit() and text[-1] in units:
        # The command line is a program of its own: people mean the time on their wall.
        ago = timedelta(**{units[text[-1]]: int(text[:-1])})
        return (datetime.now(UTC) - ago).isoformat()
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise CliError(
            f"--{option} {text!r} is no time", Exit.USAGE, "write 10m, 2h, or 2026-01-31T12:00:00Z"
        ) from None
    return moment.astimezone(UTC).isoformat()


def _read(source: str) -> bytes:
    if source == "-":
        return sys.stdin.buffer.read()
    if source.startswith("@"):
        try:
            return Path(source[1:]).read_bytes()
        except OSError as error:
            raise CliError(f"cannot read {source[1:]}: {error.strerror}", Exit.USAGE) from None
    return source.encode()
