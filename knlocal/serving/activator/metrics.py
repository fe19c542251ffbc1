"""Request metrics under Knative's names, as Prometheus text.

Sources: knative.dev/serving/pkg/queue/request_metric.go (`revision_…`), pkg/activator
(`activator_…`), pkg/autoscaler/metrics (`autoscaler_…`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence

#: Milliseconds (knative.dev/serving/pkg/queue: defaultLatencyDistribution).
LATENCY_BUCKETS = (
    5, 10, 20, 40, 60, 80, 100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700, 800, 900, 1000,
    2000, 5000, 10000, 20000, 50000, 100000,
)  # fmt: skip

Labels = tuple[tuple[str, str], ...]


class Histogram:
    """Counts of observed values per bucket."""

    __slots__ = ("bounds", "count", "counts", "total")

    def __init__(self, bounds: Sequence[float] = LATENCY_BUCKETS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.count = 0
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.count += 1
        self.total += value


class RevisionMetrics:
    """What one revision's requests came to: per response code, how many and how long."""

    __slots__ = ("app", "labels", "requests")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.requests: dict[int, Histogram] = {}
        """From the arrival to the end (queueing and cold start included), by response code."""
        self.app: dict[int, Histogram] = {}
        """The container's share, by response code."""

    def record(self, status: int, milliseconds: float, app_milliseconds: float) -> None:
        whole = self.requests.get(status)
        if whole is None:
            whole = self.requests[status] = Histogram()
            self.app[status] = Histogram()
        whole.observe(milliseconds)
        self.app[status].observe(app_milliseconds)


class Gauges:
    """Numbers that are worked out when somebody asks: name → label values → value."""

    def __init__(self) -> None:
        self._sources: list[Callable[[], Iterable[tuple[str, str, Labels, float]]]] = []

    def add(self, source: Callable[[], Iterable[tuple[str, str, Labels, float]]]) -> None:
        """`source()` gives (name, help, labels, value)."""
        self._sources.append(source)

    def collect(self) -> dict[str, tuple[str, list[tuple[Labels, float]]]]:
        found: dict[str, tuple[str, list[tuple[Labels, float]]]] = {}
        for source in self._sources:
            for name, help_text, labels, value in source():
                found.setdefault(name, (help_text, []))[1].append((labels, value))
        return found


_FAMILIES = (
    ("revision_request", "requests", "routed to the revision's queue-proxy"),
    ("revision_app_request", "app", "routed to the user-container"),
    ("activator_request", "requests", "routed to the activator"),
)


def render(revisions: Iterable[RevisionMetrics], gauges: Gauges | None = None) -> str:
    """Everything as Prometheus text (exposition format 0.0.4)."""
    revisions = list(revisions)
    out: list[str] = []
    for prefix, attribute, what in _FAMILIES:
        _render_counts(out, prefix, attribute, what, revisions)
        _render_latencies(out, prefix, attribute, what, revisions)
    for name, (help_text, samples) in sorted((gauges.collect() if gauges else {}).items()):
        out += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
        out += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
    return "\n".join(out) + "\n"


def _render_counts(
    out: list[str], prefix: str, attribute: str, what: str, revisions: list[RevisionMetrics]
) -> None:
    name = f"{prefix}_count"
    out += [f"# HELP {name} The number of requests that are {what}", f"# TYPE {name} counter"]
    for revision in revisions:
        by_code: Mapping[int, Histogram] = getattr(revision, attribute)
        for code, histogram in sorted(by_code.items()):
            out.append(f"{name}{_labels(revision.labels + _code(code))} {histogram.count}")


def _render_latencies(
    out: list[str], prefix: str, attribute: str, what: str, revisions: list[RevisionMetrics]
) -> None:
    name = f"{prefix}_latencies"
    out += [
        f"# HELP {name} The response time in millisecond of requests {what}",
        f"# TYPE {name} histogram",
    ]
    for revision in revisions:
        by_code: Mapping[int, Histogram] = getattr(revision, attribute)
        for code, histogram in sorted(by_code.items()):
            labels = revision.labels + _code(code)
            running = 0
            for bound, count in zip(histogram.bounds, histogram.counts, strict=False):
                running += count
                out.append(f"{name}_bucket{_labels((*labels, ('le', _number(bound))))} {running}")
            out.append(f"{name}_bucket{_labels((*labels, ('le', '+Inf')))} {histogram.count}")
            out.append(f"{name}_sum{_labels(labels)} {_number(histogram.total)}")
            out.append(f"{name}_count{_labels(labels)} {histogram.count}")


def _code(code: int) -> Labels:
    return (("response_code", str(code)), ("response_code_class", f"{code // 100}xx"))


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escape(value)}"' for key, value in labels) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
