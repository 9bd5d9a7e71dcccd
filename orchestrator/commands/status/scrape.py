"""Reads the metrics of this project that Ray's nodes export in Prometheus' text format."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from orchestrator.cluster.connect import read_in_cluster

PREFIX = "ray_sdpo_"
SCRAPE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The present value of one series. `name` is without Ray's prefix `ray_`."""

    name: str
    value: float
    labels: dict[str, str] = field(default_factory=dict)


def parse(text: str) -> list[Sample]:
    """Return the samples of this project on one page; those of Ray, vLLM and others, and a torn line, are left out."""
    return [sample for line in text.splitlines() if line.startswith(PREFIX) for sample in _parse_line(line)]


def scrape(targets: Sequence[str]) -> tuple[list[Sample], list[str]]:
    """Read all targets (host:port) at once; return their samples, and the targets without an answer in time."""
    with ThreadPoolExecutor(max_workers=min(32, max(1, len(targets)))) as pool:
        pages = list(pool.map(_read, targets))
    silent = [target for target, page in zip(targets, pages, strict=True) if page is None]
    return [sample for page in pages if page is not None for sample in parse(page)], silent


def _read(target: str) -> str | None:
    try:
        page = read_in_cluster(f"http://{target}/metrics", SCRAPE_TIMEOUT_S)
    except OSError:
        return None
    return page.decode("utf-8", errors="replace")


def _parse_line(line: str) -> list[Sample]:
    try:
        [family] = text_string_to_metric_families(line)
    except ValueError:
        return []
    return [Sample(s.name.removeprefix("ray_"), s.value, s.labels) for s in family.samples]
