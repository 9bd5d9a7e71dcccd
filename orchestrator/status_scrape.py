"""The series of this project that Ray's nodes export in Prometheus' text form."""

import re
import urllib.request
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

PREFIX = "ray_sdpo_"
SCRAPE_WITHIN_S = 5.0
_SAMPLE = re.compile(r"(?P<name>[a-zA-Z_:]\w*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)(?: -?\d+)?")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_MEANT = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One series now. `name` is without Ray's prefix `ray_`."""

    name: str
    value: float
    labels: dict[str, str] = field(default_factory=dict)


def parse(text: str) -> list[Sample]:
    """Our samples of one page; those of Ray, vLLM and others are left out."""
    return [sample for line in text.splitlines() if line.startswith(PREFIX) for sample in _sample(line)]


def scrape(targets: Sequence[str]) -> tuple[list[Sample], list[str]]:
    """The samples of all targets (host:port), read side by side; and the targets that did not answer in time."""
    with ThreadPoolExecutor(max_workers=min(32, max(1, len(targets)))) as pool:
        pages = list(pool.map(_page, targets))
    silent = [target for target, page in zip(targets, pages, strict=True) if page is None]
    return [sample for page in pages if page is not None for sample in parse(page)], silent


def _page(target: str) -> str | None:
    try:
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=SCRAPE_WITHIN_S) as answer:
            text: str = answer.read().decode("utf-8", errors="replace")
    except OSError:
        return None
    return text


def _sample(line: str) -> Iterable[Sample]:
    found = _SAMPLE.fullmatch(line.rstrip())
    if found is not None:
        labels = {
            key: re.sub(r'\\[\\"n]', lambda e: _MEANT[e[0]], text)
            for key, text in _LABEL.findall(found["labels"] or "")
        }
        yield Sample(found["name"].removeprefix("ray_"), float(found["value"]), labels)
