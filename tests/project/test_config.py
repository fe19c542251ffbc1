"""knlocal.toml: what is right becomes typed, what is wrong is answered with what to try."""

from pathlib import Path

import pytest

from knlocal.project import config
from knlocal.project.errors import ProjectError

GOOD = """
[project]
name = "shop"

[services.orders]
image = "acme/orders:1"
env = { GREETING = "hello", PORTS = 3, DEBUG = true }
scale = { min = 0, max = 4, concurrency = 10, idle = "stop", window = "60s" }
traffic = [{ revision = "latest", percent = 90 }, { revision = "orders-00001", percent = 10 }]

[sources.tick]
kind = "ping"
schedule = "*/5 * * * *"
sink = "orders"
"""


def problems(text: str) -> str:
    with pytest.raises(ProjectError) as caught:
        config.parse(text)
    return str(caught.value)


def test_a_good_file_becomes_typed_settings() -> None:
    settings = config.parse(GOOD)
    orders = settings.services["orders"]
    assert settings.project.name == "shop"
    assert orders.scale.concurrency == 10
    assert [target.percent for target in orders.traffic] == [90, 10]


def test_numbers_and_truth_values_in_env_become_text() -> None:
    env = config.parse(GOOD).services["orders"].env
    assert env == {"GREETING": "hello", "PORTS": "3", "DEBUG": "true"}


def test_a_project_without_a_name_is_called_after_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "My Shop"
    folder.mkdir()
    (folder / "knlocal.toml").write_text("")
    assert config.load(folder / "knlocal.toml").project.name == "my-shop"


def test_the_file_is_found_from_a_folder_below(tmp_path: Path) -> None:
    (tmp_path / "knlocal.toml").write_text("")
    below = tmp_path / "src" / "orders"
    below.mkdir(parents=True)
    assert config.find(below) == (tmp_path / "knlocal.toml").resolve()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[services.a]\nimage='x'\nscale = { windw = '6s' }", ":3: [services.a] scale: unknown"),
        ("[services.a]\nimage='x'\nscale = { windw = '6s' }", "did you mean 'window'?"),
        ("[service.a]\nimage='x'", "did you mean 'services'?"),
        ("[services.a]\nimage = 3", "[services.a] image: must be text, not the number 3"),
        ("[services.a]\nimage = 3", 'write it in quotes: "3"'),
        ("[services.a]\nimage='x'\nscale.min='2'", "write it without quotes: 2"),
        ("[services.a]\nimage='x'\nscale.min=-2", "must be at least 0, not -2"),
        ("[services.a]\nimage='x'\nscale.idle='slep'", "must be 'stop' or 'freeze', not 'slep'"),
        ("[services.a]\nimage='x'\nscale.idle='freze'", "did you mean 'freeze'?"),
        ("[services.a]\n", "needs an image"),
        ("[services.a]\nimage='x'\nsource='y'", "either image or source, not both"),
        ("[services.A_b]\nimage='x'", "'A_b' cannot be a name"),
        ("[services.a]\nimage='x'\ntimeout='5 minutes'", "'5 minutes' is no duration"),
        ("[services.a]\nimage='x'\nenv=['A=1']", "env: must be a table, not a list"),
        ("[sources.t]\nkind='pign'\nsink='a'", "did you mean 'ping'?"),
        ("[sources.t]\nsink='a'", "missing key 'kind'"),
        ("[sources.t]\nkind='ping'\nscedule='x'\nsink='a'", "did you mean 'schedule'?"),
        ("[triggers.t]\nfilter={}", "missing key 'sink'"),
        ("[triggers.t]\nsink=3", "must be text or a table"),
        ("[project]\nruntime='dokcer'", "did you mean 'docker'?"),
        ("[gateway]\nport=80800", "must be at most 65535"),
        ("[project]\nname=1\n[gateway]\nprot=1", "did you mean 'port'?"),
    ],
)
def test_a_mistake_is_answered_with_where_what_and_what_to_try(text: str, said: str) -> None:
    assert said in problems(text)


@pytest.mark.parametrize(
    ("traffic", "said"),
    [
        ("[{percent=30},{percent=50, revision='a-1'}]", "add up to 80, not to 100"),
        ("[{revision='latest'},{revision='a-1'}]", "give each target a percent"),
        ("[{percent=50,tag='x'},{percent=50,tag='x',revision='a-1'}]", "each tag may be used once"),
    ],
)
def test_traffic_that_does_not_add_up_is_refused(traffic: str, said: str) -> None:
    assert said in problems(f"[services.a]\nimage='x'\ntraffic={traffic}")


def test_a_table_that_there_is_not_is_shown_with_its_line() -> None:
    said = problems("[project]\nname='x'\n[service.a]\nimage='x'\n")
    assert said.startswith("knlocal.toml:3: unknown key 'service'")


def test_what_is_about_one_key_of_a_table_is_shown_with_its_line() -> None:
    said = problems("[services.a]\nimage='x'\ntraffic=[{percent=30}]\n")
    assert said.startswith("knlocal.toml:3: [services.a] traffic: the percentages add up to 30")


def test_broken_toml_is_shown_with_its_line() -> None:
    said = problems("[project]\nname = 'x'\n[services.a\nimage = 'x'\n")
    assert said.startswith("knlocal.toml:3: not valid TOML")
    assert "^" in said


def test_every_mistake_is_told_at_once() -> None:
    said = problems("[project]\nnam='x'\n[services.a]\nimge='x'\n")
    assert "'nam'" in said
    assert "'imge'" in said


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "knlocal.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProjectError, match="not UTF-8 text"):
        config.load(tmp_path / "knlocal.toml")
