"""vLLM's own metrics through Ray, with the labels that all series of a run have."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.v1.metrics.ray_wrappers import RayPrometheusStatLogger


def stat_logger(run: str, actor: str) -> "type[RayPrometheusStatLogger]":
    """vLLM's logger for Ray, whose series carry `run` and `actor` beside vLLM's own labels. Imports vllm.

    Ray exports them as `ray_vllm_…`; vLLM documents them.
    """
    from vllm.v1.metrics import ray_wrappers as made_by_vllm

    ours = {"run": run, "actor": actor}

    def labelled(instrument: Any) -> Any:
        """`instrument` with our labels behind its own."""

        def begin(self: Any, *arguments: Any, **named: Any) -> None:
            instrument.__init__(self, *arguments, **named)
            self._tags |= ours

        def keys(labelnames: list[str] | None) -> tuple[str, ...]:
            return (*instrument._get_tag_keys(labelnames), *ours)

        def tags(self: Any, *labels: Any, **named: Any) -> Any:
            by_name = dict(zip(self.metric._tag_keys, labels, strict=False))
            return instrument._build_tags(self, **by_name, **named) | ours

        members = {"__init__": begin, "_get_tag_keys": staticmethod(keys), "_build_tags": tags}
        return type(instrument.__name__, (instrument,), members)

    gauge, counter = labelled(made_by_vllm.RayGaugeWrapper), labelled(made_by_vllm.RayCounterWrapper)
    instruments = {
        "_gauge_cls": gauge,
        "_counter_cls": counter,
        "_histogram_cls": labelled(made_by_vllm.RayHistogramWrapper),
    }

    def with_ours(group: Any, **more: Any) -> Any:
        return type(group.__name__, (group,), {**instruments, **more})

    logger: type[RayPrometheusStatLogger] = with_ours(
        made_by_vllm.RayPrometheusStatLogger,
        _spec_decoding_cls=with_ours(made_by_vllm.RaySpecDecodingProm),
        _kv_connector_cls=with_ours(made_by_vllm.RayKVConnectorProm),
        _perf_metrics_cls=with_ours(made_by_vllm.RayPerfMetricsProm),
    )
    return logger
