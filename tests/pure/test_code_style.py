"""Sizes of files and functions, and plain words."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sdpo", "rollout_workers", "env_workers", "learner", "orchestrator")
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80
METAPHORS = re.compile(r"\b(houses?|luggage|whoever|front desk|so much |so many |told|mends?|mended)\b", re.IGNORECASE)
SOURCES = sorted(
    path for folder in (*PACKAGES, "tests", "examples", "docs", "deploy") for path in (ROOT / folder).rglob("*.py")
)


def test_every_package_exists():
    assert {name for name in PACKAGES if (ROOT / name / "__init__.py").is_file()} == set(PACKAGES)


def test_no_file_is_long():
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in SOURCES}
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_no_function_is_long():
    long = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None
        if node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert long == {}


def test_the_packages_say_what_they_mean():
    """No line uses the words of METAPHORS, which once stood for actors, code, users, errors and fixes."""
    lines = {
        f"{path.relative_to(ROOT)}:{number}": line.strip()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if METAPHORS.search(line)
    }
    assert lines == {}
