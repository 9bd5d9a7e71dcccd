"""vLLM's own metrics through Ray, with the labels that all series of a run have.

vLLM's logger for Prometheus takes the classes of its instruments from class attributes; those here record with
`ray.util.metrics`. (vLLM's own classes for Ray need all of Ray Serve.)
"""

import re
import time
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from ray.util import metrics

if TYPE_CHECKING:
    from vllm.v1.metrics.loggers import PrometheusStatLogger

RUN_LABELS = ("run", "actor")
DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def stat_logger(run: str, actor: str) -> "type[PrometheusStatLogger]":
    """Return vLLM's logger, whose series have the labels `run` and `actor` after vLLM's own. Imports vllm.

    Ray exports them as `ray_vllm_…`; vLLM documents them.
    """
    from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorProm
    from vllm.v1.metrics.loggers import PrometheusStatLogger
    from vllm.v1.metrics.perf import PerfMetricsProm
    from vllm.v1.spec_decode.metrics import SpecDecodingProm

    classes = {
        f"_{kind}_cls": type(kind.title(), (Instrument,), {"kind": kind, "ours": (run, actor)})
        for kind in ("gauge", "counter", "histogram")
    }
    groups = {
        "_spec_decoding_cls": type("SpecDecoding", (SpecDecodingProm,), classes),
        "_kv_connector_cls": type("KvConnector", (KVConnectorProm,), classes),
        "_perf_metrics_cls": type("Performance", (PerfMetricsProm,), classes),
    }
    return type("StatLogger", (PrometheusStatLogger,), classes | groups)


class Instrument:
    """An instrument with the interface of prometheus_client: `labels(...)`, then `set`, `inc` or `observe`."""

    kind = "gauge"
    ours: tuple[str, str] = ("", "")
    """Values of `RUN_LABELS`."""

    def __init__(
        self,
        name: str,
        documentation: str = "",
        labelnames: Sequence[str] = (),
        buckets: Sequence[float] = DEFAULT_BUCKETS,
        **_: Any,
    ) -> None:
        """Further arguments, for several processes that write to one registry, are ignored."""
        self._names = tuple(labelnames or ())
        keys = (*self._names, *RUN_LABELS)
        clean = re.sub(r"[^a-zA-Z0-9_]", "_", name)
        self._metric = _metric(self.kind, clean, documentation, keys, tuple(b for b in buckets if b > 0))
        self._tags = dict(zip(RUN_LABELS, self.ours, strict=True))

    def labels(self, *values: object, **named: object) -> Self:
        """Return the same instrument for these label values, in ASCII: Ray ends the process for others."""
        labelled = type(self).__new__(type(self))
        labelled._names, labelled._metric = self._names, self._metric
        given = dict(zip(self._names, values, strict=False)) | named
        labelled._tags = self._tags | {
            key: str(value).encode("ascii", "backslashreplace").decode() for key, value in given.items()
        }
        return labelled

    def set(self, value: float) -> None:
        """Set a gauge."""
        self._metric.set(value, tags=self._tags)

    def set_to_current_time(self) -> None:
        """Set a gauge to the seconds since 1970."""
        self.set(time.time())

    def inc(self, amount: float = 1.0) -> None:
        """Increase a counter; an amount of 0, which Ray refuses, is skipped."""
        if amount > 0:
            self._metric.inc(amount, tags=self._tags)

    def observe(self, value: float) -> None:
        """Add a value to a histogram."""
        self._metric.observe(value, tags=self._tags)


@cache
def _metric(kind: str, name: str, documentation: str, keys: tuple[str, ...], buckets: tuple[float, ...]) -> Any:
    """Return Ray's instrument of this name, one per process."""
    if kind == "histogram":
        return metrics.Histogram(name, documentation, boundaries=list(buckets), tag_keys=keys)
    return (metrics.Counter if kind == "counter" else metrics.Gauge)(name, documentation, tag_keys=keys)
