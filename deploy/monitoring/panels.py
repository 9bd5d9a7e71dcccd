"""The parts of the Grafana boards. Names of our metrics are checked against `sdpo.telemetry`, Ray's are not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sdpo.telemetry.catalogue import CATALOGUE
from sdpo.telemetry.labels import LABELS

WINDOW = "$__rate_interval"
Shape = Literal["lines", "stack", "number", "bars", "heatmap"]


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression; `legend` in Grafana's form, for example "{{role}}"."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """`unit` is one of Grafana's unit ids; `top` an upper bound of the axis; `shape` chooses the kind of panel."""

    title: str
    what: str
    queries: tuple[Query, ...]
    unit: str = "short"
    shape: Shape = "lines"
    top: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """`variables`: names out of run, actor, instance, in the order of selection."""

    file: str
    title: str
    what: str
    variables: tuple[str, ...]
    rows: tuple[Row, ...]


def series(name: str, *, per_actor: bool = False, suffix: str = "", **labels: str) -> str:
    """Return the selector of one of our metrics, for the selected run.

    `labels`: exact values, or regular expressions after `~`.
    Raises `ValueError` for a metric, a label or a value that the catalogue does not know.
    """
    metric = CATALOGUE.get(name)
    if metric is None:
        raise ValueError(f"{name}: no such metric in sdpo.telemetry.catalogue")
    if (metric.kind == "histogram") != bool(suffix):
        raise ValueError(f"{name}: a {metric.kind} with the suffix {suffix!r}")
    matchers = ['run=~"$run"', *(['actor=~"$actor"'] if per_actor else [])]
    for label, value in labels.items():
        if label not in metric.labels:
            raise ValueError(f"{name}: no label {label}; known: {', '.join(metric.labels)}")
        if not value.startswith("~") and value not in LABELS[label]:
            raise ValueError(f"{name}: {label}={value}; known: {', '.join(LABELS[label])}")
        matchers.append(f'{label}=~"{value[1:]}"' if value.startswith("~") else f'{label}="{value}"')
    return f"{metric.exported}{suffix}{{{','.join(matchers)}}}"


def rate(name: str, by: str, *, per_actor: bool = False, **labels: str) -> str:
    """Return a counter's growth per second, summed by labels."""
    return f"sum by ({by}) (rate({series(name, per_actor=per_actor, **labels)}[{WINDOW}]))"


def quantiles(name: str, by: str = "run", *, per_actor: bool = False, **labels: str) -> tuple[Query, ...]:
    """Return the median and the 95th percentile of a histogram."""
    keys = [key for key in by.split(", ") if key != "run"]
    label = " ".join(f"{{{{{key}}}}}" for key in keys)
    bucket = series(name, per_actor=per_actor, suffix="_bucket", **labels)
    return tuple(
        Query(
            f"histogram_quantile({q}, sum by (le, {by}) (rate({bucket}[{WINDOW}])))", f"{label} p{q * 100:.0f}".strip()
        )
        for q in (0.5, 0.95)
    )


def signal(title: str, what: str, names: Sequence[str], unit: str = "short") -> Panel:
    """Return values of metrics.jsonl over time."""
    unknown = [name for name in names if name not in LABELS["signal"]]
    if unknown:
        raise ValueError(f"sdpo_signal: {', '.join(unknown)} is not exported")
    selectors = [Query(series("sdpo_signal", signal=name), name) for name in names]
    return Panel(title, what, tuple(selectors), unit)
