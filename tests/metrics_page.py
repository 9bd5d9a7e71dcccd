"""The table of docs/metrics.md, to be held against what a run records."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/metrics.md"


def patterns() -> list[str]:
    """Every name in the first column; `*` stands for any."""
    cells = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def undocumented(names: Iterable[str]) -> list[str]:
    """Those that the table does not have."""
    known = patterns()
    return sorted({name for name in names if not any(fnmatchcase(name, pattern) for pattern in known)})
