"""Run the pure tests that import a changed file: `python -m tests.select_pure FILE.py …`. All of them, without files.

A test is chosen if it, or a helper in `tests/fixtures`, reaches a changed module by imports within the repository.
"""

import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sdpo", "rollout_workers", "env_workers", "learner", "orchestrator", "tests")


def module_of(file: str) -> str:
    """Return the dotted name of a Python file of the repository."""
    return ".".join(Path(file).with_suffix("").parts).removesuffix(".__init__")


def tests_of(files: list[str]) -> list[str]:
    """Return the files in `tests/pure` that import one of `files`, directly or through other modules."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    changed = {module for file in files if (module := module_of(file)) in graph.modules}
    reached = changed.union(*(graph.find_downstream_modules(module) for module in changed))
    chosen = (f"{module.replace('.', '/')}.py" for module in reached if module.startswith("tests.pure.test_"))
    return sorted(chosen)


def main(files: list[str]) -> int:
    """Run the chosen tests; returns pytest's exit code, 0 if there are none to run."""
    chosen = tests_of(files) if files else ["tests/pure"]
    return int(pytest.main(["-q", "-x", *chosen])) if chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
