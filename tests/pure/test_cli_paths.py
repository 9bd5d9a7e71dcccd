"""Arguments of `sdpo` that are paths follow the rule of the run file's keys: `~` at the beginning is a home folder."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli import COMMANDS, main
from orchestrator.commands import location, path

PATHS = ("RUN.yaml", "RUN_DIR", "RUN", "MODEL", "TASKS", "OUT", "FOLDER", "FILE")


def arguments() -> Iterator[tuple[str, argparse.Action]]:
    for command in COMMANDS:
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        for action in parser._actions:
            yield command.NAME, action


def test_every_argument_that_is_a_path_is_of_the_type_for_paths() -> None:
    found = [(name, action) for name, action in arguments() if str(action.metavar).split(".")[0] in {"FILE", *PATHS}]
    found += [(name, action) for name, action in arguments() if action.metavar == "RUN.yaml"]
    assert len({name for name, _ in found}) > 10
    wrong = [f"{name} {action.metavar}" for name, action in found if action.type not in (location, path)]
    assert wrong == []


def test_a_tilde_is_a_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/a/home")
    assert location("~/x") == "/a/home/x"
    assert path("~") == Path("/a/home")
    assert [location(text) for text in ("s3://b/~/x", "./~", "a~", "-")] == ["s3://b/~/x", "./~", "a~", "-"]


@pytest.mark.parametrize("name", ["~nobody-has-this-name/x", "a\nb"])
def test_a_path_that_cannot_be_used_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "runs/x", f"--out={name}"]) == 2
    assert "argument --out: " in capsys.readouterr().err
