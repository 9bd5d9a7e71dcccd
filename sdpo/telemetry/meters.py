"""Instruments for the metrics of the catalogue, made once in a process. The backend is passed in."""

import math
from collections.abc import Hashable
from functools import cache
from itertools import product
from typing import Any, Literal, Protocol

from sdpo.telemetry.catalogue import CATALOGUE, Metric
from sdpo.telemetry.labels import LABELS, MAX_ACTORS, OTHER, RUN_ACTOR, bounded

MAX_KEPT = 65_536
"""Labels that are kept ready; texts from outside (kinds of verdicts) must not fill the memory."""


class Backend(Hashable, Protocol):
    """What `ray.util.metrics` offers: three classes of instruments."""

    Counter: Any
    Gauge: Any
    Histogram: Any


class Meters:
    """Counts, sets and observes metrics by name for one run, checked against the catalogue.

    Example: `Meters(ray.util.metrics, "demo-1").add("sdpo_attempts_total", 3, outcome="passed")`. Thread-safe as far
    as the backend is. Raises `KeyError` for a name or a label that the catalogue does not have.
    """

    def __init__(
        self,
        backend: Backend,
        run: str,
        *,
        actor: str = RUN_ACTOR,
        emitter: Literal["orchestrator", "env"] = "orchestrator",
    ) -> None:
        """`actor`: the label of series for which no other actor is given. Counters with known labels begin at 0."""
        self._run, self._actor = run, actor
        mine = [metric for metric in CATALOGUE.values() if metric.emitter == emitter]
        self._instruments = {metric.name: _instrument(backend, metric) for metric in mine}
        self._names = {actor}
        self._tags = dict[tuple[str, ...], dict[str, str]]()
        self._gauges = dict[tuple[str, ...], tuple[float, dict[str, str]]]()
        for metric in mine:
            if metric.kind == "counter" and (emitter == "env" or not metric.per_actor):
                self._begin_at_zero(metric, actor)

    def add(self, name: str, amount: float = 1.0, *, actor: str | None = None, **labels: str) -> None:
        """Count `amount` more; 0 and less change nothing."""
        if amount > 0:
            self._instruments[name].inc(amount, tags=self._tags_of(name, actor, labels))

    def set(self, name: str, value: float, *, actor: str | None = None, **labels: str) -> None:
        """A gauge's value; one that is not finite leaves the gauge as it is."""
        if not math.isfinite(value):
            return
        tags = self._tags_of(name, actor, labels)
        self._instruments[name].set(value, tags=tags)
        self._gauges[name, *tags.values()] = value, tags

    def refresh(self) -> None:
        """Set every gauge again, as often as every 10 s: Ray drops those that were not set for 20 s."""
        for (name, *_), (value, tags) in list(self._gauges.items()):
            self._instruments[name].set(value, tags=tags)

    def forget(self, actor: str) -> None:
        """The gauges of an actor that is gone end."""
        for key, (_, tags) in list(self._gauges.items()):
            if tags["actor"] == actor:
                del self._gauges[key]

    def observe(self, name: str, value: float, *, actor: str | None = None, **labels: str) -> None:
        """One more value of a histogram."""
        self._instruments[name].observe(value, tags=self._tags_of(name, actor, labels))

    def introduce(self, actor: str, role: str) -> None:
        """An actor of the run appears: its counters begin at 0."""
        for metric in CATALOGUE.values():
            if metric.name in self._instruments and metric.kind == "counter" and metric.per_actor:
                self._begin_at_zero(metric, actor, role=role)

    def _begin_at_zero(self, metric: Metric, actor: str, **fixed: str) -> None:
        free = [label for label in metric.labels if label not in fixed]
        for values in product(*(LABELS[label] for label in free)):
            labels = fixed | dict(zip(free, values, strict=True))
            # Ray's `inc` refuses 0, but a series that begins at 1 hides its first event from Prometheus' rate()
            self._instruments[metric.name]._record(0.0, tags=self._tags_of(metric.name, actor, labels))

    def _tags_of(self, name: str, actor: str | None, labels: dict[str, str]) -> dict[str, str]:
        """Made once for every series."""
        key = (name, actor or self._actor, *labels.values())
        if key not in self._tags:
            if labels.keys() != set(CATALOGUE[name].labels):
                raise KeyError(f"{name}: labels {sorted(labels)}; allowed: {sorted(CATALOGUE[name].labels)}")
            known = {label: bounded(label, value) for label, value in labels.items()}
            tags = {"run": self._run, "actor": self._known_actor(actor or self._actor), **known}
            if len(self._tags) >= MAX_KEPT:
                return tags
            self._tags[key] = tags
        return self._tags[key]

    def _known_actor(self, actor: str) -> str:
        if actor not in self._names and len(self._names) > MAX_ACTORS:
            return OTHER
        self._names.add(actor)
        return actor


@cache
def _instrument(backend: Backend, metric: Metric) -> Any:
    keys = ("run", "actor", *metric.labels)
    if metric.kind == "histogram":
        return backend.Histogram(metric.name, metric.meaning, boundaries=list(metric.buckets), tag_keys=keys)
    make = backend.Counter if metric.kind == "counter" else backend.Gauge
    return make(metric.name, metric.meaning, tag_keys=keys)
