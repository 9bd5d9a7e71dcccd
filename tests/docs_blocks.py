"""The shell blocks of the documentation, and who runs each of them."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.run_fixtures import ROOT

DOCS = ROOT / "docs"
LANGUAGES = ("sh", "text", "python", "json", "yaml", "toml", "promql", "dockerfile")
TOURED_BEFORE = ("doctor.md",)
TOURED = ("report.md", "inspect.md", "models.md", "evaluation.md", "preview.md")
"""Their blocks are run in this order by tests/integration/test_docs_tour.py: before and after a short run."""
WALKED = {
    "environments.md": "tests/integration/test_walkthrough.py",
    "python.md": "tests/integration/test_python_api.py",
}
"""Their blocks are run by a test of their own."""
_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>not run|run by): (?P<reason>[^\n]+?) -->\n)?```(?P<info>[^\n]*)\n(?P<text>.*?)^```$",
    re.S | re.M,
)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `mark`: "not run" or "run by", with its reason or test file; blank if there is none."""

    page: Path
    language: str
    text: str
    mark: str
    reason: str


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found = []
    for match in _FENCE.finditer(page.read_text()):
        language = match["info"].split(" ")[0]
        found.append(Block(page, language, match["text"], match["mark"] or "", match["reason"] or ""))
    return found


def pages() -> list[Path]:
    """README.md and every page of docs/."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
