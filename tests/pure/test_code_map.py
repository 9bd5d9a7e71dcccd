"""The map of the code is current, and the structure that it shows stays small."""

from pathlib import Path

import pytest

from docs import make_code_map
from tests.fixtures.run import ROOT

MAX_ARROWS, MAX_LEVELS, MAX_FLAT_FILES = 70, 11, 10


def test_the_map_is_current() -> None:
    """`make docs` writes both files again."""
    assert make_code_map.PICTURE.read_text() == make_code_map.picture()
    assert make_code_map.PAGE.read_text() == make_code_map.page()


def test_orchestrator_stays_small_and_layered() -> None:
    graph = make_code_map.graph_of("orchestrator")
    assert sum(map(len, graph.values())) <= MAX_ARROWS
    assert max(make_code_map.levels_of(graph).values()) <= MAX_LEVELS
    assert len(list((ROOT / "orchestrator").glob("*.py"))) <= MAX_FLAT_FILES


def test_levels_and_drawn_arrows() -> None:
    graph = {"a": {"b", "c"}, "b": {"c"}, "c": set[str]()}
    assert make_code_map.levels_of(graph) == {"c": 1, "b": 2, "a": 3}
    assert make_code_map.drawn_arrows(graph) == [("a", "b"), ("b", "c")]
    with pytest.raises(ValueError, match="import circle between a, b"):
        make_code_map.levels_of({"a": {"b"}, "b": {"a"}})


def test_imports_are_found_at_any_depth(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("import a.b\ndef f():\n    from c.d import e\n")
    assert make_code_map.imports_of(file) == {"a.b", "c.d.e"}
