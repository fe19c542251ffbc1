"""Manifests are read as kubectl reads them, and mistakes name file and line."""

import io
from pathlib import Path

import pytest

from knlocal.project import manifests
from knlocal.project.errors import ProjectError
from knlocal.resources.kinds import Kind, KindRegistry

OBJECT = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\n"
OPEN = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def test_documents_lists_and_anchors_become_objects() -> None:
    text = (
        OBJECT % "a"
        + "---\n# nothing here\n---\n"
        + "apiVersion: v1\nkind: List\nitems:\n- &base\n  apiVersion: v1\n  kind: Secret\n"
        + "  metadata: {name: b}\n- <<: *base\n  metadata: {name: c}\n"
    )
    found = manifests.parse(text, "x.yaml")
    assert [(m.obj["kind"], m.obj["metadata"]["name"], m.line) for m in found] == [
        ("ConfigMap", "a", 1),
        ("Secret", "b", 10),
        ("Secret", "c", 14),
    ]


def test_json_is_read_too() -> None:
    text = '{"apiVersion":"v1","kind":"ConfigMapList","items":[{"metadata":{"name":"a"}}]}'
    assert manifests.parse(text)[0].obj["kind"] == "ConfigMap"


def test_values_are_what_kubectl_takes_them_for() -> None:
    data = manifests.parse(
        OBJECT % "a" + "data: {time: 12:30:45, day: 2020-01-01, yes: on, oct: 010, big: 1e3}"
    )[0].obj["data"]
    assert data == {"time": "12:30:45", "day": "2020-01-01", "true": True, "oct": 8, "big": 1000.0}


def test_standard_input_folders_and_globs_are_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "k8s" / "deep").mkdir(parents=True)
    (tmp_path / "k8s" / "one.yaml").write_text(OBJECT % "one")
    (tmp_path / "k8s" / "two.yml").write_text(OBJECT % "two")
    (tmp_path / "k8s" / "notes.txt").write_text("not a manifest")
    (tmp_path / "k8s" / "deep" / "three.yaml").write_text(OBJECT % "three")
    monkeypatch.setattr("sys.stdin", io.StringIO(OBJECT % "piped"))

    def names(*patterns: str, recursive: bool = False) -> list[str]:
        found = manifests.load(patterns, tmp_path, recursive=recursive)
        return [manifest.obj["metadata"]["name"] for manifest in found]

    assert names("k8s") == ["one", "two"]
    assert names("k8s", recursive=True) == ["three", "one", "two"]
    assert names("k8s/*.yaml") == ["one"]
    assert names("k8s/**/*.yaml") == ["three", "one"]
    assert names("-", "k8s/two.yml") == ["piped", "two"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: b\n c: d", "x.yaml:2: not valid YAML"),
        ("a: 1\nb: 2\na: 3", "x.yaml:3: not valid YAML: key 'a' is given twice (first in line 1)"),
        ("a:\n\t- b", "indent with spaces"),
        ("just words", "x.yaml:1: not an object"),
        ("kind: A\nmetadata: {name: a}", "apiVersion not set"),
        ("apiversion: v1\nkind: A\nmetadata: {name: a}", "there is 'apiversion'"),
        ("apiVersion: v1\nkind: A\nmetadata: {}", "metadata.name not set"),
        ("apiVersion: v1\nkind: A\nmetadata: {name: 3}", "write it in quotes"),
        ("a: *nowhere", "undefined alias"),
        ("a: @x", "x.yaml:1: not valid YAML: a value cannot begin with '@'"),
        ('a: 1\nb: "x\nc: 2', "x.yaml:2: not valid YAML: a quote that does not end"),
        ("a: {b\nc: 1", "x.yaml:1: not valid YAML: a bracket that does not end"),
        ("a:\n  - b\n c: 1", "x.yaml:3: not valid YAML: the indentation does not fit"),
        ("a: !name", "a value that begins with '!' needs quotes"),
        ("a: 1\nb: !!int word", "x.yaml:2: not valid YAML: a value is not what its tag says"),
        ("a: !!timestamp word", "a value is not what its tag says"),
        ("name: {{ .Values.name }}", "a template, not YAML\n  name: {{"),
        ("\x00", "not valid YAML"),
        ("[" * 5000, "x.yaml:1: not valid YAML: nested too deep"),
        ("{a: " * 100_000, "x.yaml:1: not valid YAML: nested too deep"),
    ],
)
def test_a_broken_manifest_is_answered_with_file_and_line(text: str, said: str) -> None:
    with pytest.raises(ProjectError) as caught:
        manifests.parse(text, "x.yaml")
    assert said in str(caught.value)


def test_a_refusal_points_at_the_field_that_it_is_about() -> None:
    text = (
        "# first line\napiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  annotations:\n"
        "    a.b/c-d: x\nspec:\n  containers:\n  - image: one\n  - image: ${TWO}\n    env: []\n"
    )
    [manifest] = manifests.parse(text, "x.yaml")

    def line(what: str) -> int:
        return manifest.problem(what).line

    assert line("invalid value: spec.containers[1].env") == 12
    assert line("invalid value: metadata.annotations.a.b/c-d") == 7
    assert line("invalid value: metadata.annotations[a.b/c-d]") == 7
    assert line("missing field(s): spec.containers[0].name") == 10
    assert line("missing field(s): spec.containers[7].name") == 9
    assert line("no field is named") == 2
    refused = manifest.problem("invalid value: ${TWO}: spec.containers[1].image")
    assert "envsubst" in refused.hint
    assert refused.line == 11


def test_a_pattern_that_matches_nothing_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="matches no file"):
        manifests.load(["k8s/*.yaml"], tmp_path)
    with pytest.raises(ProjectError, match="no such file"):
        manifests.load(["k8s.yaml"], tmp_path)


def test_unknown_kinds_are_named_and_misspelt_ones_corrected() -> None:
    registry = KindRegistry(
        [
            Kind("serving.knative.dev", "v1", "Service", "services", OPEN),
            Kind("serving.knative.dev", "v1", "Route", "routes", OPEN),
        ]
    )

    def check(api_version: str, kind: str) -> list[manifests.Manifest]:
        text = f"apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a}}"
        return manifests.check_kinds(manifests.parse(text, "x.yaml"), registry)

    assert check("serving.knative.dev/v1", "Service") == []
    assert check("monitoring.coreos.com/v1", "ServiceMonitor")[0].obj["kind"] == "ServiceMonitor"
    with pytest.raises(ProjectError, match="did you mean 'Service'"):
        check("serving.knative.dev/v1", "Servce")
    with pytest.raises(ProjectError, match=r"write apiVersion: serving\.knative\.dev/v1"):
        check("serving.knative.dev/v1alpha1", "Service")
    with pytest.raises(ProjectError, match=r"did you mean 'serving\.knative\.dev'"):
        check("serving.knatve.dev/v1", "Service")
