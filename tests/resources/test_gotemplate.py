from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from knlocal.resources import gotemplate
from knlocal.resources.gotemplate import TemplateError


@dataclass
class Values:
    Name: str = "hello"
    Namespace: str = "default"
    Domain: str = "example.com"
    Annotations: dict[str, str] = field(default_factory=lambda: {"sub": "blue", "a/b": "x"})
    Count: int = 3
    Items: list[str] = field(default_factory=lambda: ["a", "b"])

    def Get(self, key: str) -> str:
        return f"<{key}>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{.Name}}.{{.Namespace}}.{{.Domain}}", "hello.default.example.com"),
        ("{{ .Name }}-{{.Namespace }}", "hello-default"),
        ('{{index .Annotations "sub"}}.{{.Domain}}', "blue.example.com"),
        ('{{index .Annotations "a/b"}}', "x"),
        ('{{index .Annotations "none"}}.x', ".x"),
        ("{{.Annotations.none}}", "<no value>"),
        ("{{if .Name}}yes{{else}}no{{end}}", "yes"),
        ('{{if eq .Namespace "x"}}a{{else if eq .Namespace "default"}}b{{else}}c{{end}}', "b"),
        ("{{with .Annotations}}{{.sub}}{{end}}", "blue"),
        ("{{range $i, $e := .Items}}{{$i}}={{$e}};{{end}}", "0=a;1=b;"),
        ("{{range .Items}}{{.}}{{end}}{{len .Items}}", "ab2"),
        ("a {{- .Name -}} b", "ahellob"),
        ("{{/* a comment */}}x", "x"),
        ('{{printf "%s-%03d" .Name .Count}}', "hello-003"),
        ('{{.Name | printf "%q"}}', '"hello"'),
        ("{{$x := .Name}}{{$x}}{{$.Domain}}", "helloexample.com"),
        ("{{(index .Items 1)}}", "b"),
        ('{{and .Name "z"}} {{or "" .Name}} {{not .Count}}', "z hello false"),
        ('{{js "a\\"b<c>"}}', 'a\\"b\\u003Cc\\u003E'),
        ('{{.Get "key"}}', "<key>"),
        ('{{ `raw "text"` }}', 'raw "text"'),
        ("{{ 1.5 }} {{ true }} {{ gt .Count 2 }}", "1.5 true true"),
        ("no action", "no action"),
    ],
)
def test_a_template_is_rendered_as_go_does(text: str, expected: str) -> None:
    assert gotemplate.render(text, Values()) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{.Name", "unclosed action"),
        ("{{nope .Name}}", 'function "nope" not defined'),
        ("{{if .Name}}x", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{}}", "missing value for command"),
        ("{{.Nope}}", "can't evaluate field Nope in type Values"),
        ('{{template "x"}}', "{{template}} is not supported here"),
        ("{{.Name | }}", "missing value for command"),
        ("{{$y}}", "undefined variable: $y"),
    ],
)
def test_a_broken_template_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(TemplateError) as caught:
        gotemplate.render(text, Values())
    assert said in str(caught.value)
