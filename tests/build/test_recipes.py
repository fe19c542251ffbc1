"""What a source folder is, and how it becomes an image or a process."""

import sys
from pathlib import Path

import pytest

from knlocal.build import dockerfile
from knlocal.build.recipes import NotASource, Options, recognise


def folder(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_dockerfile_wins_and_a_program_beside_it_can_run_as_a_process(tmp_path: Path) -> None:
    folder(tmp_path, Dockerfile="FROM x\nCOPY . /app\n", main_dot_py="if __name__ == '__main__': 1")
    recipe = recognise(tmp_path)
    assert recipe.kind == "Dockerfile"
    assert not recipe.generated
    assert recipe.run == (sys.executable, "main.py")
    assert recipe.target == "/app"


def test_the_projects_base_image_reaches_a_dockerfile_that_asks_for_one(tmp_path: Path) -> None:
    folder(tmp_path, Dockerfile="ARG BASE_IMAGE=python:3.12-slim\nFROM ${BASE_IMAGE}\n")
    assert recognise(tmp_path, Options(base_image="mine:1")).args == {"BASE_IMAGE": "mine:1"}
    own = Options(base_image="mine:1", args={"BASE_IMAGE": "other:1"})
    assert recognise(tmp_path, own).args == {"BASE_IMAGE": "other:1"}


def test_a_plain_python_program_gets_a_dockerfile(tmp_path: Path) -> None:
    folder(
        tmp_path,
        main_dot_py="import http.server\nhttp.server.HTTPServer(('', 1), None).serve_forever()",
        requirements_dot_txt="flask",
    )
    recipe = recognise(tmp_path, Options(base_image="python:test"))
    assert recipe.generated
    text = recipe.dockerfile or ""
    assert text.startswith("FROM python:test\n")
    assert "pip install --no-cache-dir -r requirements.txt" in text
    assert 'CMD ["python3", "main.py"]' in text
    assert recipe.run == (sys.executable, "main.py")


def test_a_python_app_that_does_not_serve_itself_gets_a_launcher(tmp_path: Path) -> None:
    folder(tmp_path, app_dot_py="def app(environ, start_response): ...")
    recipe = recognise(tmp_path)
    assert "serve_python.py" in (recipe.dockerfile or "")
    assert recipe.run is not None
    assert recipe.run[-1] == "app.py"
    assert recipe.files


def test_a_folders_own_virtual_environment_runs_it(tmp_path: Path) -> None:
    folder(tmp_path, main_dot_py="if __name__ == '__main__': 1", _dot_venv__bin__python="")
    assert (recognise(tmp_path).run or ())[0] == str(tmp_path / ".venv" / "bin" / "python")


def test_a_node_folder_runs_its_start_script_without_npm_in_between(tmp_path: Path) -> None:
    folder(tmp_path, package_dot_json='{"scripts": {"start": "node server.js"}}')
    assert recognise(tmp_path).run == ("node", "server.js")


def test_a_function_takes_its_settings_from_func_yaml(tmp_path: Path) -> None:
    folder(
        tmp_path,
        func_dot_yaml="name: f\nruntime: python\nrun:\n  envs:\n  - {name: A, value: '1'}\n",
        func_dot_py="def main(context): ...",
    )
    recipe = recognise(tmp_path)
    assert recipe.kind == "function (python)"
    assert recipe.deploy.env == {"A": "1"}
    assert "func.yaml" in recipe.rebuild


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "looked for a Dockerfile"),
        ({"func_dot_yaml": "runtime: cobol"}, "runtime 'cobol' is not supported"),
        ({"func_dot_yaml": "a: ["}, "not valid YAML"),
        ({"package_dot_json": "{"}, "not valid JSON"),
    ],
)
def test_a_folder_that_is_nothing_is_told_so(
    tmp_path: Path, files: dict[str, str], said: str
) -> None:
    with pytest.raises(NotASource, match=said):
        recognise(folder(tmp_path, **files))


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("FROM a\nWORKDIR /app\nCOPY . .\nCMD x", "/app"),
        ("FROM a\nCOPY . /srv/\n", "/srv"),
        ("FROM a\nCOPY --chown=1:1 . /srv\n", "/srv"),
        ('FROM a\nWORKDIR /w\nCOPY [".", "sub"]\n', "/w/sub"),
        (
            "FROM a\nWORKDIR /app\nCOPY requirements.txt .\nRUN pip install -r r.txt\nCOPY . .",
            "/app",
        ),
        ("FROM a\nWORKDIR /app\nCOPY package.json .\nRUN npm ci\nCOPY . .", None),
        ("FROM a\nWORKDIR /app\nCOPY . .\nRUN make", None),
        ("FROM a AS b\nCOPY . /app\nFROM c\nCOPY --from=b /app /app", None),
        ("FROM a\nCOPY src /app", None),
        ("FROM a\nCOPY . /", None),
    ],
)
def test_where_a_newer_source_may_stand_in_an_image_unbuilt(text: str, target: str | None) -> None:
    assert dockerfile.source_target(dockerfile.parse(text)) == target


def test_instructions_keep_their_lines() -> None:
    text = "# syntax\nFROM a\n\nRUN one \\\n  && two\nRUN <<EOF\nsome words\nEOF\nCMD x"
    found = [(i.line, i.name) for i in dockerfile.parse(text)]
    assert found == [(2, "FROM"), (4, "RUN"), (6, "RUN"), (9, "CMD")]
