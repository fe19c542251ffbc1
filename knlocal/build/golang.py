"""Go functions: a program around `New` or `Handle`, made in the function's own module.

Source: knative/func `templates/go/scaffolding`, `pkg/scaffolding/detectors.go`;
knative-extensions/func-go (signatures, health, hooks, shutdown).
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from knlocal.build.recipe import LAUNCHER, NotASource, Options, Recipe, json_words

GO_BASE = "golang:1.24"
#: The program's package, within the function's module.
MAIN = "knlocalmain"
SDK = "github.com/cloudevents/sdk-go/v2"


def go_function(folder: Path, options: Options, invoke: str, args: Sequence[str]) -> Recipe:
    """A folder with a go.mod, and `func New` or `func Handle` in its package."""
    base = options.base(GO_BASE)
    # The standard library is compiled in a layer of its own: a save then compiles the rest only.
    before = ["go", "build", "-mod=mod", "net/http", *([SDK] if invoke == "cloudevent" else [])]
    lines = [
        f"FROM {base} AS build",
        *(f"ARG {name}" for name in args),
        "ENV CGO_ENABLED=0",
        "WORKDIR /src",
        "COPY go.* ./",
        f"RUN {json_words(before)}",
        "COPY . .",
        f"RUN {json_words(build_command('/function'))}",
        f"FROM {base}",
        "COPY --from=build /function /function",
        'CMD ["/function"]',
        "",
    ]
    return Recipe(
        kind="",
        dockerfile="\n".join(lines),
        files={f"{MAIN}/main.go": main_go(folder, invoke).encode()},
        run=(sys.executable, str(LAUNCHER / "serve_go.py"), invoke) if shutil.which("go") else None,
        why_not="`go` is not installed here, and without Docker it must be",
        language="go",
        program=("/function",),
    )


def build_command(binary: str) -> list[str]:
    """What makes the program, in the function's folder with the program's package in it."""
    return ["go", "build", "-mod=mod", "-o", binary, f"./{MAIN}"]


def main_go(folder: Path, invoke: str) -> str:
    """The program around a function."""
    source = "\n".join(
        path.read_text("utf-8", "replace")
        for path in sorted(folder.glob("*.go"))
        if not path.name.endswith("_test.go")
    )
    static = re.search(r"^func\s+Handle\s*\(", source, re.M)
    if not static and not re.search(r"^func\s+New\s*\(", source, re.M):
        raise NotASource(f"{folder}: a Go function needs func New() or func Handle(…)")
    handle = "f.Handle" if static else "made.Handle"
    function = [] if static else ["\tmade := f.New()", "\tinstance = made"]
    imports, handler = _EVENT if invoke == "cloudevent" else _HTTP
    function.append(f"\thandler, err := handlerOf(ctx, {handle})")
    text = (LAUNCHER / "serve_go.go.txt").read_text("utf-8")
    return (
        text.replace("%IMPORTS%", imports)
        .replace("%MODULE%", _module(folder))
        .replace("%FUNCTION%", "\n".join(function))
        .replace("%HANDLER%", handler)
    )


def _module(folder: Path) -> str:
    try:
        text = (folder / "go.mod").read_text("utf-8", "replace")
    except OSError:
        raise NotASource(f"{folder}: a Go function needs a go.mod") from None
    found = re.search(r"^module\s+(\S+)", text, re.M)
    if found is None:
        raise NotASource(f"{folder / 'go.mod'}: declares no module")
    return found[1].strip('"')


#: Imports, and what makes a handler of the function: HTTP (with a context before 0.40), or events
#: in all the signatures that the SDK takes.
_HTTP = (
    "",
    """\
func handlerOf(_ context.Context, handle interface{}) (http.Handler, error) {
	switch handle := handle.(type) {
	case func(http.ResponseWriter, *http.Request):
		return http.HandlerFunc(handle), nil
	case func(context.Context, http.ResponseWriter, *http.Request):
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handle(r.Context(), w, r)
		}), nil
	case func(context.Context, http.ResponseWriter, *http.Request) error:
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := handle(r.Context(), w, r); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		}), nil
	}
	return nil, fmt.Errorf("Handle is %T; wanted func(http.ResponseWriter, *http.Request)", handle)
}
""",
)
_EVENT = (
    f'\tcloudevents "{SDK}"\n\n',
    """\
func handlerOf(ctx context.Context, handle interface{}) (http.Handler, error) {
	protocol, err := cloudevents.NewHTTP()
	if err != nil {
		return nil, err
	}
	return cloudevents.NewHTTPReceiveHandler(ctx, protocol, handle)
}
""",
)
