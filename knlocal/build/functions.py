"""Knative Functions: folders with a `func.yaml`, as `kn func create` makes them, in any version.

They run on the middleware that `kn func` builds them with, where it can be installed: func-python
(or parliament, for older ones), faas-js-runtime, func-go.
Source: knative/func `pkg/functions`, `pkg/knative/deployer.go`, `templates/`.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from knlocal.build import golang, node, python
from knlocal.build.recipe import (
    DEPENDENCIES,
    LAUNCHER,
    Deploy,
    NotASource,
    Options,
    Recipe,
    in_shell,
)

FILE = "func.yaml"
#: Where every function answers, if its func.yaml names no other places.
LIVENESS, READINESS = "/health/liveness", "/health/readiness"
#: Languages whose templates need tools of their own.
ELSEWHERE = ("quarkus", "springboot", "rust")


def function(folder: Path, options: Options) -> Recipe | None:
    """A folder with a func.yaml."""
    path = folder / FILE
    if not path.is_file():
        return None
    spec = read(path)
    runtime = str(spec.get("runtime") or "")
    args = _values(_spec(spec, "build", "buildEnvs"), path, "build.buildEnvs")
    if runtime in _MAKERS:
        recipe = _MAKERS[runtime](folder, options, invocation(spec), tuple(args))
    elif options.buildpacks:
        recipe = Recipe("", "")
    elif runtime in ELSEWHERE:
        raise NotASource(
            f"{path}: a {runtime} function is built with a Dockerfile here; add one, or set "
            'builder = "buildpacks" where `pack` is installed'
        )
    else:
        known = ", ".join((*_MAKERS, *ELSEWHERE))
        raise NotASource(f"{path}: runtime {runtime!r} is not supported; known: {known}")
    return replace(
        recipe,
        kind=f"function ({runtime})",
        dockerfile_name=f"(generated for {FILE}, {runtime})",
        generated=True,
        language=recipe.language or runtime,
        deploy=deploy(spec, path, runtime),
        rebuild=(*DEPENDENCIES, FILE),
        args=args,
    )


def deploy_beside(folder: Path) -> Deploy:
    """What a func.yaml says that lies beside a Dockerfile of one's own, whose program may have no
    health endpoints."""
    path = folder / FILE
    if not path.is_file():
        return Deploy()
    spec = read(path)
    found = deploy(spec, path, str(spec.get("runtime") or "other"))
    return found if _spec(spec, "deploy", "healthEndpoints") else replace(found, probes={})


def name_of(folder: Path) -> str:
    """The name that a function has in its func.yaml, "" when it has none."""
    try:
        return str(read(folder / FILE).get("name") or "")
    except (NotASource, OSError):
        return ""


def read(path: Path) -> dict[str, Any]:
    """The func.yaml itself. Raises NotASource."""
    try:
        spec: Any = yaml.safe_load(path.read_text("utf-8", "replace")) or {}
    except yaml.YAMLError as error:
        raise NotASource(f"{path}: not valid YAML: {error}") from None
    if not isinstance(spec, dict):
        raise NotASource(f"{path}: not a mapping; needs name, runtime, …")
    return spec


def invocation(spec: Mapping[str, Any]) -> str:
    """How it is called: "http" or "cloudevent" (`invocation.format` before 0.35)."""
    older = spec.get("invocation")
    old = older.get("format") if isinstance(older, dict) else None
    template = "cloudevent" if spec.get("template") in ("events", "cloudevents") else None
    return str(spec.get("invoke") or old or template or "http")


# -- what it says about its Service ---------------------------------------------------------------


def deploy(spec: Mapping[str, Any], path: Path, runtime: str) -> Deploy:
    """Its settings for running; before 0.34 they stood at the top of the file."""
    entries = _spec(spec, "run", "envs")
    options = _mapping(_spec(spec, "deploy", "options"), path, "deploy.options")
    resources = _mapping(options.get("resources"), path, "deploy.options.resources")
    limits = dict(_mapping(resources.get("limits"), path, "deploy.options.resources.limits"))
    concurrency = limits.pop("concurrency", None)
    health = _mapping(_spec(spec, "deploy", "healthEndpoints"), path, "healthEndpoints")
    requests = resources.get("requests")
    labels = {
        "function.knative.dev": "true",
        "function.knative.dev/runtime": runtime,
        **({"function.knative.dev/name": str(spec["name"])} if spec.get("name") else {}),
    }
    labels |= _labels(_spec(spec, "deploy", "labels"), path)
    annotations = _mapping(_spec(spec, "deploy", "annotations"), path, "annotations")
    return Deploy(
        env=_env(entries, path),
        env_from=_env_from(entries, path),
        volumes=tuple(_volumes(_spec(spec, "run", "volumes"), path)),
        labels=labels,
        annotations={str(key): str(value) for key, value in annotations.items()},
        scale=_scale(spec, options, path),
        resources={
            **({"requests": _texts(requests)} if requests else {}),
            **({"limits": _texts(limits)} if limits else {}),
        },
        concurrency=int(concurrency) if concurrency is not None else None,
        service_account=str((spec.get("deploy") or {}).get("serviceAccountName") or ""),
        probes={
            "livenessProbe": {"httpGet": {"path": health.get("liveness") or LIVENESS}},
            "readinessProbe": {"httpGet": {"path": health.get("readiness") or READINESS}},
        },
        subscriptions=tuple(
            (str(one.get("source") or "default"), _texts(one.get("filters")))
            for one in (spec.get("deploy") or {}).get("subscriptions") or ()
        ),
    )


def _spec(spec: Mapping[str, Any], part: str, key: str) -> Any:
    table = spec.get(part)
    found = table.get(key) if isinstance(table, dict) else None
    return found if found is not None else spec.get(key)


def _mapping(value: Any, path: Path, where: str) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise NotASource(f"{path}: {where} is no mapping")
    return value or {}


def _texts(value: Any) -> dict[str, str]:
    return {str(key): str(one) for key, one in (value or {}).items()}


_REFERENCE = re.compile(r"^\{\{\s*(\w+)\s*:\s*([^\s:}]+)\s*(?::\s*([^\s}]+)\s*)?\}\}$")


def _entries(value: Any, path: Path, where: str) -> Iterator[Mapping[str, Any]]:
    if value is not None and not isinstance(value, list):
        raise NotASource(f"{path}: {where} is no list")
    for entry in value or ():
        if not isinstance(entry, dict):
            raise NotASource(f"{path}: {where}: {entry!r} is no mapping with name and value")
        yield entry


def _local(value: str, path: Path, where: str) -> str:
    """The value, with `{{ env:NAME }}` replaced by the variable here."""
    found = _REFERENCE.match(value)
    if found is None or found[1] != "env":
        return value
    if found[2] not in os.environ:
        raise NotASource(
            f"{path}: {where} is {value}, and there is no environment variable {found[2]!r} here"
        )
    return os.environ[found[2]]


def _values(entries: Any, path: Path, where: str) -> dict[str, str]:
    return {
        str(entry["name"]): _local(str(entry.get("value", "")), path, f"{where} {entry['name']}")
        for entry in _entries(entries, path, where)
        if entry.get("name")
    }


def _env(entries: Any, path: Path) -> dict[str, str | Mapping[str, Any]]:
    env: dict[str, str | Mapping[str, Any]] = {}
    for entry in _entries(entries, path, "run.envs"):
        if not entry.get("name"):
            continue
        name, value = str(entry["name"]), str(entry.get("value", ""))
        found = _REFERENCE.match(value)
        kind = found[1] if found else ""
        if kind in ("secret", "configMap") and found is not None:
            if not found[3]:
                raise NotASource(f"{path}: run.envs {name} is {value}: which key of it?")
            env[name] = {f"{kind}KeyRef": {"name": found[2], "key": found[3]}}
        else:
            env[name] = _local(value, path, f"run.envs {name}")
    return env


def _env_from(entries: Any, path: Path) -> tuple[Mapping[str, Any], ...]:
    """Entries without a name take all of a Secret or ConfigMap."""
    whole = []
    for entry in _entries(entries, path, "run.envs"):
        if entry.get("name"):
            continue
        found = _REFERENCE.match(str(entry.get("value", "")))
        if found is None or found[1] not in ("secret", "configMap") or found[3]:
            raise NotASource(
                f"{path}: run.envs: {entry.get('value')!r} has no name; without one it must be "
                "'{{ secret:NAME }}' or '{{ configMap:NAME }}'"
            )
        whole.append({f"{found[1]}Ref": {"name": found[2]}})
    return tuple(whole)


def _labels(entries: Any, path: Path) -> dict[str, str]:
    return {
        str(entry["key"]): _local(str(entry.get("value") or ""), path, f"label {entry['key']}")
        for entry in _entries(entries, path, "deploy.labels")
        if entry.get("key")
    }


def _volumes(entries: Any, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for entry in _entries(entries, path, "run.volumes"):
        # The misspelt one is knative/func's own, until 0.36.
        claim = entry.get("persistentVolumeClaim") or entry.get("presistentVolumeClaim")
        if not entry.get("path"):
            raise NotASource(f"{path}: run.volumes: {dict(entry)} has no path")
        if entry.get("secret"):
            source: dict[str, Any] = {"secret": {"secretName": str(entry["secret"])}}
        elif entry.get("configMap"):
            source = {"configMap": {"name": str(entry["configMap"])}}
        elif claim:
            source = {"persistentVolumeClaim": dict(claim)}
        elif entry.get("emptyDir") is not None:
            source = {"emptyDir": dict(entry["emptyDir"])}
        else:
            raise NotASource(
                f"{path}: run.volumes: {entry['path']} needs one of secret, configMap, "
                "persistentVolumeClaim and emptyDir"
            )
        yield str(entry["path"]), source


def _scale(spec: Mapping[str, Any], options: Mapping[str, Any], path: Path) -> dict[str, str]:
    """`scale` (0.38 and later, with `kpa`), else `deploy.options.scale`."""
    scale = _mapping(spec.get("scale") or options.get("scale"), path, "scale")
    kpa = _mapping(scale.get("kpa"), path, "scale.kpa")
    values = {
        "min-scale": scale.get("min"),
        "max-scale": scale.get("max"),
        "metric": kpa.get("metric", scale.get("metric")),
        "target": kpa.get("target", scale.get("target")),
        "target-utilization-percentage": kpa.get("utilization", scale.get("utilization")),
    }
    return {
        f"autoscaling.knative.dev/{key}": f"{value:g}" if isinstance(value, float) else str(value)
        for key, value in values.items()
        if value is not None
    }


# -- languages ------------------------------------------------------------------------------------


def _python(folder: Path, options: Options, invoke: str, args: Sequence[str]) -> Recipe:
    launcher = LAUNCHER / "serve_python.py"
    entry = next(
        (n for n in ("function/func.py", "func.py", "function/__init__.py", "main.py", "app.py")
         if (folder / n).is_file()),
        None,
    )  # fmt: skip
    if entry is None:
        raise NotASource(f"{folder}: a Python function needs function/func.py or func.py")
    words = [entry, f"--invoke={invoke}", "--function"]
    command = _web(folder) or ["python3", "/knlocal/serve_python.py", *words]
    named = python.dependencies_of(folder / "pyproject.toml")
    # Where nothing is to be fetched, the launcher does all that the middleware does.
    also = ["func-python"] if named is None or named else []
    return Recipe(
        kind="",
        dockerfile=python.python_dockerfile(folder, options, command, also=also, args=args),
        files=python.launcher_file(),
        run=(python.python_of(folder), str(launcher), *words),
        program=tuple(command),
        target="/app",
        needs=python.needs(folder, also),
    )


def _web(folder: Path) -> list[str] | None:
    """How a Procfile says it is started; parliament is served by the launcher, on any port."""
    try:
        text = (folder / "Procfile").read_text("utf-8", "replace")
    except OSError:
        return None
    found = re.search(r"^web\s*:\s*(.+)$", text, re.M)
    if found is None or "parliament" in found[1]:
        return None
    return in_shell(found[1].strip()) or ["sh", "-c", found[1].strip()]


def _node(folder: Path, options: Options, invoke: str, args: Sequence[str]) -> Recipe:
    package = node.package_of(folder)
    if "faas-js-runtime" in (package.get("dependencies") or {}):
        command = node.start_command(folder) or _faas(package)
        if command[:2] == ["sh", "-c"]:
            command = ["sh", "-c", f'export FUNC_PORT="$PORT"; {command[2]}']
        builds = node.must_build(folder)
        return Recipe(
            kind="",
            dockerfile=node.node_dockerfile(folder, options, command, builds=builds, args=args),
            run=tuple(node.locally(command, builds=builds)),
            language="node",
            program=tuple(command),
            target=None if builds else "/app",
        )
    return _launched(folder, options, package, invoke, args)


def _faas(package: Mapping[str, Any]) -> list[str]:
    entry = shlex.quote(f"./{package.get('main') or 'index.js'}")
    return ["sh", "-c", f"exec faas-js-runtime {entry}"]


def _launched(
    folder: Path,
    options: Options,
    package: Mapping[str, Any],
    invoke: str,
    args: Sequence[str],
) -> Recipe:
    """On knlocal's own small launcher, which needs no packages."""
    launcher = LAUNCHER / "serve_node.mjs"
    entry = str(package.get("main") or "index.js")
    if not (folder / entry).is_file():
        raise NotASource(f"{folder}: a Node function needs {entry}")
    words = [entry, f"--invoke={invoke}"]
    command = ["node", "/knlocal/serve_node.mjs", *words]
    files = ["COPY .knlocal-launcher /knlocal"]
    return Recipe(
        kind="",
        dockerfile=node.node_dockerfile(folder, options, command, args=args, files=files),
        files={".knlocal-launcher/serve_node.mjs": launcher.read_bytes()},
        run=("node", str(launcher), *words),
        language="node",
        program=tuple(command),
        target="/app",
    )


_MAKERS: dict[str, Callable[[Path, Options, str, Sequence[str]], Recipe]] = {
    "python": _python, "node": _node, "typescript": _node, "go": golang.go_function,
}  # fmt: skip
