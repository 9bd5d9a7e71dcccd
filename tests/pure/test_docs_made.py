"""What scripts make of the documentation is current, and what it quotes from the code is there."""

import re
from pathlib import Path

from docs import make_drawing
from tests.fixtures.run import ROOT

TROUBLES = ROOT / "docs" / "troubleshooting.md"
PACKAGES = ("sdpo", "rollout_workers", "env_workers", "learner", "orchestrator")


def test_the_drawing_is_current() -> None:
    assert make_drawing.TARGET.read_text() == make_drawing.drawing()


def spoken(source: str) -> str:
    """A module with its broken string literals joined."""
    return re.sub(r'"\s*\n\s*f?"', "", source)


def test_quoted_messages_are_said_somewhere() -> None:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    said = "\n".join(spoken(Path(file).read_text()) for file in files)
    rows = re.findall(r"^\| (`.+?) \| ", TROUBLES.read_text(), re.MULTILINE)
    pieces = [piece.strip() for row in rows for quote in re.findall(r"`([^`]+)`", row) for piece in quote.split("…")]
    unsaid = [piece for piece in pieces if len(piece) > 3 and piece not in said]
    assert rows
    assert unsaid == []
