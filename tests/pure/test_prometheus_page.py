"""docs/prometheus.md is what its script writes, and shows every metric."""

import runpy
from pathlib import Path

from sdpo.telemetry.catalogue import CATALOGUE

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_current() -> None:
    text = runpy.run_path(str(DOCS / "make_prometheus_reference.py"))["render"]()
    assert (DOCS / "prometheus.md").read_text() == text, "run python docs/make_prometheus_reference.py"
    assert all(f"| `{name}` |" in text for name in CATALOGUE)
