"""Every command in the documentation is run by a test, or says why not; every page is in the site's menu."""

from pathlib import Path

import pytest
import yaml

from tests.fixtures.docs_blocks import DOCS, LANGUAGES, TOURED, TOURED_BEFORE, WALKED, Block, blocks_of, pages
from tests.fixtures.run import ROOT


def problem(block: Block) -> str | None:
    """What is wrong with a block; None if nothing is."""
    if block.language not in LANGUAGES:
        return f"```{block.language}: allowed: {', '.join(LANGUAGES)}"
    if block.mark == "run by":
        test = ROOT / block.reason
        return None if test.is_file() and block.page.name in test.read_text() else f"{block.reason} does not run it"
    if block.language != "sh" or block.mark == "not run":
        return None
    name = block.page.name
    return None if name in (*TOURED_BEFORE, *TOURED, *WALKED) else "no test runs it, and it does not say why not"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_shell_block_is_run_or_says_why_not(page: Path) -> None:
    found = {block.text: said for block in blocks_of(page) if (said := problem(block))}
    assert page.read_text().count("\n```") % 2 == 0
    assert found == {}


def test_walked_pages_are_walked() -> None:
    for page, test in WALKED.items():
        assert page in (ROOT / test).read_text()


def test_every_page_is_in_the_menu_once() -> None:
    def leaves(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        values = entry.values() if isinstance(entry, dict) else entry
        return [leaf for value in values for leaf in leaves(value)]  # type: ignore[attr-defined]

    menu = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(menu) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
