"""Functions, as `kn func create` makes them, in every version of func.yaml."""

import shutil
import subprocess
from pathlib import Path

import pytest

from knlocal.build import golang
from knlocal.build.functions import name_of
from knlocal.build.recipes import Deploy, NotASource, Options, Recipe, recognise

PYTHON = "def new(): ...\n"


def made(root: Path, func: str, **files: str) -> Recipe:
    folder(root, func, **files)
    return recognise(root)


def folder(root: Path, func: str, **files: str) -> Path:
    (root / "func.yaml").write_text(func)
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def deployed(root: Path, func: str) -> Deploy:
    return made(root, f"name: f\nruntime: python\n{func}", func_dot_py=PYTHON).deploy


def test_todays_python_function_gets_its_middleware_and_its_own_code_stays_a_folder(
    tmp_path: Path,
) -> None:
    recipe = made(
        tmp_path,
        "specVersion: 0.36.0\nname: f\nruntime: python\ninvoke: cloudevent\n",
        function__func_dot_py=PYTHON,
        pyproject_dot_toml='[project]\nname = "function"\ndependencies = ["httpx", "a<2"]\n',
    )
    text = recipe.dockerfile or ""
    assert "pip install --no-cache-dir httpx 'a<2' func-python\n" in text
    assert '"function/func.py", "--invoke=cloudevent", "--function"' in text
    assert recipe.target == "/app"


def test_a_function_that_needs_nothing_is_built_without_fetching_anything(tmp_path: Path) -> None:
    recipe = made(tmp_path, "name: f\nruntime: python\n", function__func_dot_py=PYTHON)
    assert "pip install" not in (recipe.dockerfile or "")


def test_an_older_python_function_runs_on_parliament_with_the_sdk_that_it_knows(
    tmp_path: Path,
) -> None:
    recipe = made(
        tmp_path,
        "name: f\nruntime: python\n",
        func_dot_py="from parliament import Context\ndef main(context): ...",
        requirements_dot_txt="parliament-functions==0.1.0\n",
        Procfile="web: python -m parliament .\n",
    )
    assert "-r requirements.txt 'cloudevents<2'" in (recipe.dockerfile or "")
    assert recipe.program[:2] == ("python3", "/knlocal/serve_python.py")


def test_a_procfile_says_how_a_python_function_is_started(tmp_path: Path) -> None:
    recipe = made(
        tmp_path,
        "name: f\nruntime: python\n",
        func_dot_py="from flask import Flask\n",
        requirements_dot_txt="flask\ngunicorn\n",
        Procfile="web: gunicorn func:app --bind=0.0.0.0:8080\n",
    )
    assert recipe.program == ("sh", "-c", "exec gunicorn func:app --bind=0.0.0.0:8080")


NODE = """{"main": "index.js", "dependencies": {"faas-js-runtime": "^2.2.2"}, "scripts":
  {"start": "FUNC_LOG_LEVEL=info faas-js-runtime ./index.js"}}"""


def test_a_node_function_starts_as_its_package_says_on_the_port_it_is_given(
    tmp_path: Path,
) -> None:
    recipe = made(
        tmp_path, "name: f\nruntime: node\n", package_dot_json=NODE, index_dot_js="exports.handle"
    )
    assert recipe.program[2].endswith("exec env FUNC_LOG_LEVEL=info faas-js-runtime ./index.js")
    assert 'FUNC_PORT="$PORT"' in recipe.program[2]
    assert "PATH=/node_modules/.bin:$PATH" in (recipe.dockerfile or "")
    assert recipe.target == "/app"


def test_a_typescript_function_is_compiled_in_its_image(tmp_path: Path) -> None:
    recipe = made(
        tmp_path,
        "name: f\nruntime: typescript\nbuild: {buildEnvs: [{name: BP_NODE_RUN_SCRIPTS, "
        "value: build}]}\n",
        package_dot_json=NODE.replace('{"start"', '{"build": "tsc", "start"'),
        tsconfig_dot_json="{}",
        src__index_dot_ts="export const handle = 1",
    )
    text = recipe.dockerfile or ""
    assert "ARG BP_NODE_RUN_SCRIPTS\n" in text
    assert "COPY . .\nRUN npm run build\n" in text
    assert recipe.args == {"BP_NODE_RUN_SCRIPTS": "build"}
    assert recipe.target is None


ENVS = """
  - {name: PLAIN, value: '1'}
  - {name: LOCAL, value: '{{ env:KNLOCAL_TEST_HERE }}'}
  - {name: KEY, value: '{{ secret:mysecret:key }}'}
  - {name: MAP, value: '{{configMap:settings:level}}'}
  - value: '{{ secret:all }}'
  - value: '{{ configMap:both }}'
"""


@pytest.mark.parametrize("where", ["run:\n  envs:", "envs:"], ids=["today", "before 0.34"])
def test_variables_come_from_here_from_secrets_and_from_config_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("KNLOCAL_TEST_HERE", "from here")
    found = deployed(tmp_path, where + ENVS)
    assert found.env == {
        "PLAIN": "1",
        "LOCAL": "from here",
        "KEY": {"secretKeyRef": {"name": "mysecret", "key": "key"}},
        "MAP": {"configMapKeyRef": {"name": "settings", "key": "level"}},
    }
    assert found.env_from == ({"secretRef": {"name": "all"}}, {"configMapRef": {"name": "both"}})


def test_volumes_labels_resources_and_scale_are_those_of_the_service(tmp_path: Path) -> None:
    found = deployed(
        tmp_path,
        """
run:
  volumes:
  - {secret: mysecret, path: /workspace/secret}
  - {configMap: settings, path: /workspace/config}
  - {persistentVolumeClaim: {claimName: data, readOnly: true}, path: /data}
  - {emptyDir: {sizeLimit: 1Gi}, path: /tmp/x}
deploy:
  annotations: {division: finance}
  labels: [{key: role, value: backend}]
  serviceAccountName: robot
  healthEndpoints: {liveness: /alive}
  options:
    scale: {min: 0, max: 10, metric: rps, target: 75.5, utilization: 75}
    resources:
      requests: {cpu: 100m, memory: 128Mi}
      limits: {cpu: 1000m, memory: 256Mi, concurrency: 100}
  subscriptions: [{source: default, filters: {type: order.created}}]
""",
    )
    assert [path for path, _ in found.volumes] == [
        "/workspace/secret", "/workspace/config", "/data", "/tmp/x",
    ]  # fmt: skip
    assert found.volumes[0][1] == {"secret": {"secretName": "mysecret"}}
    assert found.volumes[2][1] == {"persistentVolumeClaim": {"claimName": "data", "readOnly": True}}
    assert found.labels["role"] == "backend"
    assert found.labels["function.knative.dev/name"] == "f"
    assert found.annotations == {"division": "finance"}
    assert found.scale["autoscaling.knative.dev/target"] == "75.5"
    assert found.resources["limits"] == {"cpu": "1000m", "memory": "256Mi"}
    assert found.concurrency == 100
    assert found.service_account == "robot"
    assert found.probes["livenessProbe"] == {"httpGet": {"path": "/alive"}}
    assert found.probes["readinessProbe"] == {"httpGet": {"path": "/health/readiness"}}
    assert found.subscriptions == (("default", {"type": "order.created"}),)


def test_scale_stands_at_the_top_since_0_38(tmp_path: Path) -> None:
    found = deployed(tmp_path, "scale: {min: 1, kpa: {metric: concurrency, target: 5}}\n")
    assert found.scale == {
        "autoscaling.knative.dev/min-scale": "1",
        "autoscaling.knative.dev/metric": "concurrency",
        "autoscaling.knative.dev/target": "5",
    }


@pytest.mark.parametrize(
    ("func", "said"),
    [
        ("runtime: cobol", "runtime 'cobol' is not supported; known: python, node"),
        ("runtime: quarkus", "built with a Dockerfile here"),
        ("a: [", "not valid YAML"),
        ("- a", "not a mapping"),
        ("runtime: python\nrun: {envs: [{name: A, value: '{{ env:NOT_HERE_AT_ALL }}'}]}",
         "no environment variable 'NOT_HERE_AT_ALL' here"),
        ("runtime: python\nrun: {envs: [{value: 'x'}]}", "without one it must be"),
        ("runtime: python\nrun: {envs: {A: b}}", "run.envs is no list"),
        ("runtime: python\nrun: {volumes: [{path: /a}]}", "needs one of secret, configMap"),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_told(tmp_path: Path, func: str, said: str) -> None:
    with pytest.raises(NotASource, match=said):
        recognise(folder(tmp_path, func, func_dot_py=PYTHON))


def test_buildpacks_need_to_know_no_language(tmp_path: Path) -> None:
    folder(tmp_path, "name: f\nruntime: quarkus\n")
    assert recognise(tmp_path, Options(buildpacks=True)).kind == "function (quarkus)"


def test_a_function_has_its_own_name(tmp_path: Path) -> None:
    assert name_of(folder(tmp_path, "name: my-function\nruntime: python\n")) == "my-function"
    assert name_of(tmp_path / "nowhere") == ""


def test_a_dockerfile_of_ones_own_keeps_what_func_yaml_says_but_for_its_health(
    tmp_path: Path,
) -> None:
    found = made(tmp_path, "name: f\nruntime: go\nrun: {envs: [{name: A, value: b}]}",
                 Dockerfile="FROM x")  # fmt: skip
    assert found.deploy.env == {"A": "b"}
    assert not found.deploy.probes


HTTP = "func {name}(w http.ResponseWriter, r *http.Request) {{ fmt.Fprint(w, {said}) }}"
GO = {
    "static": HTTP.format(name="Handle", said='"static"'),
    "instanced": "type F struct{ said string }\nfunc New() *F { return &F{} }\n"
    + HTTP.format(name="Handle", said="f.said").replace("func ", "func (f *F) ")
    + "\nfunc (f *F) Start(ctx context.Context, env map[string]string) error "
    '{ f.said = "instanced"; return nil }',
    "with a context": "func Handle(ctx context.Context, w http.ResponseWriter, r *http.Request) "
    '{ fmt.Fprint(w, "with a context") }',
}


@pytest.mark.skipif(shutil.which("go") is None, reason="go is not installed")
def test_go_functions_of_each_kind_compile(tmp_path: Path) -> None:
    for at, source in enumerate(GO.values()):
        root = tmp_path / str(at)
        root.mkdir()
        imports = ["context"] if "context." in source else []
        used = "".join(f'\t"{name}"\n' for name in [*imports, "fmt", "net/http"])
        folder(root, "name: f\nruntime: go\n", go_dot_mod="module function\n\ngo 1.14\n",
               function_dot_go=f"package function\n\nimport (\n{used})\n\n{source}\n")  # fmt: skip
        recipe = recognise(root)
        assert recipe.language == "go"
        (root / golang.MAIN).mkdir()
        (root / golang.MAIN / "main.go").write_bytes(recipe.files[f"{golang.MAIN}/main.go"])
        done = subprocess.run(["go", "vet", f"./{golang.MAIN}"], cwd=root, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()


def test_a_go_function_without_new_or_handle_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(NotASource, match=r"needs func New\(\) or func Handle"):
        made(tmp_path, "name: f\nruntime: go\n", go_dot_mod="module f\n", f_dot_go="package f\n")
