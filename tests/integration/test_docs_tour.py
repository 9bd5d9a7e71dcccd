"""The commands of the documentation, page by page, as a reader gives them after a first run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.docs_blocks import DOCS, TOURED, TOURED_BEFORE, blocks_of
from tests.fixtures.run import ROOT, RUN_FILE, command, finished, small

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
MADE = [
    "runs/demo/report.html",
    "compare.html",
    "plots",
    "out/config.json",
    "best/config.json",
    "early/config.json",
    "result.json",
    "answers.jsonl",
]
"""What the commands say that they write."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `examples/` and the command."""
    clone = tmp_path_factory.mktemp("tour")
    (clone / "examples").symlink_to(ROOT / "examples")
    (clone / "bin").mkdir()
    (clone / "bin/sdpo").write_text(f'#!/bin/sh\nexec {sys.executable} -m orchestrator "$@"\n')
    (clone / "bin/sdpo").chmod(0o755)
    return clone


@pytest.fixture(scope="module")
def place(clone: Path) -> Path:
    """The same with the finished run `runs/tinycoder` and copies of it under the names that pages use."""
    place = clone
    arguments = small(place / "runs", name="tinycoder", checkpoint__keep_best=1, checkpoint__keep_last=2)
    finished(command(RUN_FILE, *arguments), place / "log", timeout_s=600)
    for name in ("demo", "a-0", "a-1", "b-0"):
        shutil.copytree(place / "runs/tinycoder", place / "runs" / name)
    return place


def run(script: str, place: Path) -> None:
    path = f"{place / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin:/usr/sbin:/sbin"
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=place,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def follow(page: str, place: Path) -> None:
    shell = [block for block in blocks_of(DOCS / page) if block.language == "sh" and not block.mark]
    assert shell
    for block in shell:
        run(block.text, place)


@pytest.mark.parametrize("page", TOURED_BEFORE)
def test_commands_before_a_run(page: str, clone: Path) -> None:
    follow(page, clone)


@pytest.mark.parametrize("page", TOURED)
def test_commands_after_a_run(page: str, place: Path) -> None:
    follow(page, place)


def test_they_have_written_what_they_said(place: Path) -> None:
    assert [name for name in MADE if not (place / name).exists()] == []
