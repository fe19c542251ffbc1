"""docs/configuration.md says of every key what the models say: its name, its default."""

import re
from pathlib import Path

import pytest
import tomli
from pydantic import BaseModel

from knlocal.project import config, eventing_settings, settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
#: Which model each table of the page describes; what it leaves to another table comes second.
DESCRIBED = {
    "[project]": (settings.Project, None),
    "[gateway]": (settings.Gateway, None),
    "[api]": (settings.Api, None),
    "[build]": (settings.Build, None),
    "[logs]": (settings.Logs, None),
    "[services.NAME]": (settings.Service, settings.Container),
    "Containers": (settings.Container, None),
    "Earlier revisions": (settings.Earlier, None),
    "Scale": (settings.Scale, None),
    "Traffic": (settings.TrafficTarget, None),
    "Probes": (settings.Probe, None),
    "Volumes": (settings.Volume, None),
    "Delivery": (eventing_settings.Delivery, None),
    "[brokers.NAME]": (eventing_settings.Broker, eventing_settings.Delivery),
    "[triggers.NAME]": (eventing_settings.Trigger, eventing_settings.Delivery),
    "[channels.NAME]": (eventing_settings.Channel, eventing_settings.Delivery),
    "[subscriptions.NAME]": (eventing_settings.Subscription, eventing_settings.Delivery),
    "[sequences.NAME]": (eventing_settings.Sequence, None),
    "[parallels.NAME]": (eventing_settings.Parallel, None),
    "Branches": (eventing_settings.Branch, eventing_settings.Delivery),
    "[sources.NAME]": (eventing_settings.SourceTable, None),
    'kind = "ping"': (eventing_settings.PingSource, eventing_settings.SourceTable),
    'kind = "container"': (eventing_settings.ContainerSource, eventing_settings.SourceTable),
    'kind = "apiserver"': (eventing_settings.ApiServerSource, eventing_settings.SourceTable),
    'kind = "binding"': (eventing_settings.SinkBinding, eventing_settings.SourceTable),
    "Watched kinds": (eventing_settings.WatchedKind, None),
    "Subjects": (eventing_settings.Subject, None),
    "References": (eventing_settings.Reference, None),
}


def sections() -> dict[str, str]:
    parts = re.split(r"^##+ (.+)$", PAGE.read_text(), flags=re.M)[1:]
    return {
        title.replace("`", ""): body for title, body in zip(parts[::2], parts[1::2], strict=True)
    }


def rows(body: str) -> dict[str, str]:
    """Key and default of each line of the section's table."""
    found = re.findall(r"^\| `(\w+)` \| (.+?) \|", body, flags=re.M)
    return {key: default.strip("`") for key, default in found}


def expected(model: type[BaseModel], elsewhere: type[BaseModel] | None) -> dict[str, str]:
    left_out = set(elsewhere.model_fields) if elsewhere else set()
    found = {}
    for name, field in model.model_fields.items():
        if name in left_out:
            continue
        default = field.get_default(call_default_factory=True)
        if field.is_required():
            text = "needed"
        elif default is None:
            text = "–"
        elif isinstance(default, BaseModel):
            text = "{}"
        elif isinstance(default, bool):
            text = str(default).lower()
        elif isinstance(default, str):
            text = f'"{default}"'
        else:
            text = str(default)
        found[field.alias or name] = text
    return found


@pytest.mark.parametrize("title", DESCRIBED)
def test_each_table_has_all_keys_of_its_model_with_their_defaults(title: str) -> None:
    assert rows(sections()[title]) == expected(*DESCRIBED[title])


def test_every_table_of_the_file_is_described() -> None:
    described = {model for model, _ in DESCRIBED.values()}
    models = {
        one
        for one in (*vars(settings).values(), *vars(eventing_settings).values())
        if isinstance(one, type) and issubclass(one, settings.Table)
    }
    assert models - described == {settings.Table, settings.Settings, eventing_settings.Step}
    titles = " ".join(sections())
    for name in set(settings.Settings.model_fields) - {"root"}:
        assert f"[{name}" in titles


def test_the_examples_are_valid() -> None:
    for example in re.findall(r"```toml\n(.*?)```", PAGE.read_text(), flags=re.S):
        assert tomli.loads(example)
        config.parse(example)


def test_every_link_of_the_page_leads_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in sections()
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE.read_text())) <= anchors
