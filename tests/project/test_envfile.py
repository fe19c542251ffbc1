from pathlib import Path

import pytest

from knlocal.project import envfile
from knlocal.project.errors import ProjectError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A=1\n\n# note\nB = two words ", {"A": "1", "B": "two words"}),
        ("export A=1", {"A": "1"}),
        ("A=x # note\nB=x#y", {"A": "x", "B": "x#y"}),
        ('A="x \\"y\\"\\n" # note', {"A": 'x "y"\n'}),
        ("A='$B \\n'", {"A": "$B \\n"}),
        ('KEY="-----\nabc\n-----"\nB=1', {"KEY": "-----\nabc\n-----", "B": "1"}),
        ("A=\nHERE\nGONE", {"A": "", "HERE": "yes"}),
        ("A=a=b", {"A": "a=b"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
    ],
)
def test_an_env_file_is_read_as_docker_reads_it(text: str, values: dict[str, str]) -> None:
    assert envfile.parse(text, environ={"HERE": "yes"}) == values


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A=1\nB C", "orders.env:2: not KEY=VALUE: 'B C'"),
        ("A=1\n=x", "orders.env:2: not KEY=VALUE"),
        ('A="x\ny', 'orders.env:1: A: the " is never closed'),
    ],
)
def test_a_broken_line_is_named(text: str, said: str) -> None:
    with pytest.raises(ProjectError) as caught:
        envfile.parse(text, "orders.env")
    assert said in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"orders\.env: no such env file"):
        envfile.load(tmp_path / "orders.env", tmp_path)
