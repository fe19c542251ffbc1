"""Field errors in Knative's words and shape (knative.dev/pkg/apis/field_error.go).

Text: `<message>: <path>[, <path>…]`, then the details on a line of their own; several errors are
merged when message and details agree, sorted, and joined by line breaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from knlocal.resources.structural import Finding

CURRENT_FIELD = ""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One finding: what is wrong (`message`), where (`paths`, relative until `via_*` is called)."""

    message: str
    paths: tuple[str, ...]
    details: str = ""
    warning: bool = False

    def __str__(self) -> str:
        text = f"{self.message}: {', '.join(self.paths)}"
        return f"{text}\n{self.details}" if self.details else text


def _join(prefix: str, path: str) -> str:
    if not path:
        return prefix
    return f"{prefix}{path}" if path.startswith("[") else f"{prefix}.{path}"


@dataclass(slots=True)
class FieldErrors:
    """A collection of findings; falsy when there is no *error* (warnings alone do not count)."""

    items: list[FieldError] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(not item.warning for item in self.items)

    def __iter__(self) -> Iterator[FieldError]:
        return iter(self.items)

    def also(self, *others: FieldErrors | FieldError | None) -> FieldErrors:
        """Add findings; returns self, so that calls chain."""
        for other in others:
            if isinstance(other, FieldError):
                self.items.append(other)
            elif other is not None:
                self.items.extend(other.items)
        return self

    def via_field(self, *prefix: str) -> FieldErrors:
        """The same findings below `prefix` (`via_field("spec", "template")`)."""
        joined = ".".join(prefix)
        return FieldErrors(
            [replace(e, paths=tuple(_join(joined, p) for p in e.paths)) for e in self.items]
        )

    def via_index(self, index: int) -> FieldErrors:
        return FieldErrors(
            [replace(e, paths=tuple(_join(f"[{index}]", p) for p in e.paths)) for e in self.items]
        )

    def via_field_index(self, name: str, index: int) -> FieldErrors:
        return self.via_index(index).via_field(name)

    def via_key(self, key: str) -> FieldErrors:
        return FieldErrors(
            [replace(e, paths=tuple(_join(f"[{key}]", p) for p in e.paths)) for e in self.items]
        )

    def via_field_key(self, name: str, key: str) -> FieldErrors:
        return self.via_key(key).via_field(name)

    def at_warning_level(self) -> FieldErrors:
        return FieldErrors([replace(e, warning=True) for e in self.items])

    def warnings(self) -> list[str]:
        return [str(e) for e in self._merged(warning=True)]

    def __str__(self) -> str:
        return "\n".join(str(e) for e in self._merged(warning=False))

    def _merged(self, *, warning: bool) -> list[FieldError]:
        merged: dict[tuple[str, str], set[str]] = {}
        for item in self.items:
            if item.warning == warning:
                merged.setdefault((item.message, item.details), set()).update(item.paths)
        errors = [
            FieldError(message, tuple(sorted(paths)), details, warning)
            for (message, details), paths in merged.items()
        ]
        return sorted(errors, key=lambda e: (e.message, e.details))


#: How a Kubernetes message begins, and the reason that its `Status` cause then carries.
_REASONS = {
    "Required value": "FieldValueRequired",
    "Duplicate value": "FieldValueDuplicate",
    "Unsupported value": "FieldValueNotSupported",
    "Not found": "FieldValueNotFound",
    "Forbidden": "FieldValueForbidden",
    "Too long": "FieldValueTooLong",
    "Too many": "FieldValueTooMany",
}


def findings(errors: FieldErrors) -> list[Finding]:
    """The errors as Kubernetes' own API shows them, one per path, for kinds without a webhook."""
    return [
        Finding(
            path,
            f"{item.message}: {item.details}" if item.details else item.message,
            _REASONS.get(item.message.partition(":")[0], "FieldValueInvalid"),
        )
        for item in errors
        if not item.warning
        for path in item.paths
    ]


def _one(message: str, paths: Iterable[str], details: str = "") -> FieldErrors:
    return FieldErrors([FieldError(message, tuple(paths), details)])


def missing(*paths: str) -> FieldErrors:
    return _one("missing field(s)", paths)


def disallowed(*paths: str) -> FieldErrors:
    return _one("must not set the field(s)", paths)


def invalid_value(value: object, path: str, details: str = "") -> FieldErrors:
    return _one(f"invalid value: {value}", [path], details)


def missing_one_of(*paths: str) -> FieldErrors:
    return _one("expected exactly one, got neither", paths)


def multiple_one_of(*paths: str) -> FieldErrors:
    return _one("expected exactly one, got both", paths)


def missing_at_least_one_of(*paths: str) -> FieldErrors:
    return _one("expected at least one, got none", paths)


def invalid_key(key: str, path: str, details: str = "") -> FieldErrors:
    return _one(f'invalid key name "{key}"', [path], details)


def out_of_bounds(value: object, lower: object, upper: object, path: str) -> FieldErrors:
    return _one(f"expected {lower} <= {value} <= {upper}", [path])


def generic(message: str, *paths: str, details: str = "") -> FieldErrors:
    return _one(message, paths or (CURRENT_FIELD,), details)
