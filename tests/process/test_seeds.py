"""Seeds: a function of their arguments alone, in range, and apart from each other."""

import subprocess
import sys

from sdpo.seeds import sample_seed


def test_seed_is_stable_across_processes_and_releases() -> None:
    code = "from sdpo.seeds import sample_seed; print(sample_seed(0, 'train', 3, 'double-it', 5))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert int(printed.stdout) == sample_seed(0, "train", 3, "double-it", 5) == 1600467764


def test_every_argument_matters() -> None:
    seeds = {
        sample_seed(run, purpose, step, task, index)
        for run in range(3)
        for purpose in ("train", "evaluate")
        for step in range(5)
        for task in ("a", "b", "c")
        for index in range(8)
    }
    assert len(seeds) == 3 * 2 * 5 * 3 * 8
    assert all(0 <= seed < 2**31 for seed in seeds)
