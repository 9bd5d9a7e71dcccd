"""The worked examples of CONTRIBUTING.md work as they stand, and touch as few files as the page says."""

import re
from pathlib import Path

import pytest

from tests.fixtures.run import ROOT
from tests.fixtures.worked_examples import changed_text, copy_repository, examples_of, follow

PAGE = ROOT / "CONTRIBUTING.md"
EXAMPLES = examples_of(PAGE)


def test_every_kind_of_extension_has_an_example() -> None:
    wanted = {"environment", "divergence", "objective", "teacher", "backend", "tracker", "command"}
    assert {word for title in EXAMPLES for word in wanted if word in title} == wanted


@pytest.mark.parametrize("title", EXAMPLES)
def test_a_worked_example_works(title: str, tmp_path: Path) -> None:
    copy_repository(tmp_path)
    touched, printed = follow(EXAMPLES[title], tmp_path, timeout_s=300)
    promised = re.search(r"touches (\d+) files", EXAMPLES[title])
    assert promised is not None
    assert len(touched) == int(promised[1]), touched
    assert "passed" in printed or "pytest" not in EXAMPLES[title]


def test_a_diff_needs_its_context_once() -> None:
    assert changed_text("a\nb\nc\n", " a\n+x\n-b\n") == "a\nx\nc\n"
    with pytest.raises(ValueError, match="0 times"):
        changed_text("a\n", " b\n+x\n")
    with pytest.raises(ValueError, match="2 times"):
        changed_text("a\na\n", " a\n+x\n")
