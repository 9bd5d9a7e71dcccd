"""Instruments that vLLM's logger uses as if they were prometheus_client's."""

from typing import Any

import pytest

from rollout_workers import engine_metrics
from rollout_workers.engine_metrics import Instrument


class Heard:
    """As an instrument of Ray, of which Ray refuses counting 0."""

    def __init__(self) -> None:
        self.values: list[tuple[float, dict[str, str]]] = []

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0
        self.values.append((value, tags))

    set = inc


def test_series_carry_the_labels_of_vllm_and_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, asked = Heard(), list[Any]()

    def make(*arguments: Any) -> Heard:
        asked.append(arguments)
        return heard

    monkeypatch.setattr(engine_metrics, "_metric", make)
    counter = type("Counter", (Instrument,), {"kind": "counter", "ours": ("demo-1", "rollout-0")})
    counted = counter("vllm:tokens_total", documentation="Tokens.", labelnames=["model", "engine"])
    assert asked[0][:4] == ("counter", "vllm_tokens_total", "Tokens.", ("model", "engine", "run", "actor"))
    first, second = counted.labels("m", 0), counted.labels(model="m", engine=1)
    first.inc(3)
    first.inc(0)
    second.inc()
    ours = {"run": "demo-1", "actor": "rollout-0", "model": "m"}
    assert heard.values == [(3, {**ours, "engine": "0"}), (1.0, {**ours, "engine": "1"})]
    assert len(asked) == 1, "one metric of Ray for all series"


def test_labels_that_are_not_ascii_are_written_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    monkeypatch.setattr(engine_metrics, "_metric", lambda *_: heard)
    Instrument("vllm:x", labelnames=["model_name"]).labels("/home/jürgen/m").set(1)
    assert heard.values[0][1]["model_name"] == r"/home/j\xfcrgen/m"
