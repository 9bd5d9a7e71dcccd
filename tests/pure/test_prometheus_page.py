"""docs/prometheus.md is what its script writes, and shows every metric; no page names a metric that does not exist."""

import re
import runpy
from pathlib import Path

from sdpo.telemetry.catalogue import CATALOGUE

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_current() -> None:
    text = runpy.run_path(str(DOCS / "make_prometheus_reference.py"))["render"]()
    assert (DOCS / "prometheus.md").read_text() == text, "run python docs/make_prometheus_reference.py"
    assert all(f"| `{name}` |" in text for name in CATALOGUE)


def test_pages_name_metrics_that_exist() -> None:
    pages = [page for page in DOCS.glob("*.md") if page.name != "code-map.md"]
    named = {name for page in pages for name in re.findall(r"\b(?:ray_)?(sdpo_[a-z0-9_]+)\b", page.read_text())}
    known = {name + suffix for name in CATALOGUE for suffix in ("", "_bucket", "_sum", "_count")}
    assert len(named) >= len(CATALOGUE)
    assert sorted(named - known) == []
