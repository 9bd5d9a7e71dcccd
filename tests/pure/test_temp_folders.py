"""TMPDIR and RAY_TMPDIR: what Ray and the engines cannot use is refused by train and named by doctor."""

import errno
import tempfile
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.cluster import temp_folders
from orchestrator.cluster.temp_folders import check_folders, ray_folder, unusable_folders
from orchestrator.commands.doctor.finding import Level
from orchestrator.commands.doctor.machine import examine_disks
from sdpo.errors import ConfigError

MOST_RAY = temp_folders.LONGEST_SOCKET_BYTES - len(temp_folders.RAY_SOCKET)
MOST_TMP = temp_folders.LONGEST_SOCKET_BYTES - len(temp_folders.ENGINE_SOCKET)


def of_length(num_bytes: int) -> str:
    return "/tmp/" + "x" * (num_bytes - 5)


def test_ray_looks_at_its_own_variable_first_then_at_tmpdir() -> None:
    assert ray_folder({}) == "/tmp"
    assert ray_folder({"TMPDIR": "/a"}) == "/a"
    assert ray_folder({"TMPDIR": "/a", "RAY_TMPDIR": "/b"}) == "/b"


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"TMPDIR": of_length(MOST_RAY + 1)}, f"{MOST_RAY + 1} bytes long"),
        ({"TMPDIR": "/tmp/" + "ü" * 20}, "45 bytes long"),
        ({"RAY_TMPDIR": of_length(MOST_RAY + 1), "TMPDIR": "/tmp"}, "RAY_TMPDIR="),
        ({"RAY_TMPDIR": "/tmp", "TMPDIR": of_length(MOST_TMP + 1)}, "TMPDIR="),
        ({"TMPDIR": "tmp"}, "TMPDIR=tmp: not an absolute path"),
        ({"TMPDIR": ""}, "TMPDIR=: not an absolute path"),
        ({"TMPDIR": "/proc/x"}, "TMPDIR=/proc/x: cannot be written to"),
        ({"TMPDIR": "/etc/hostname"}, "TMPDIR=/etc/hostname: cannot be written to"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_line(environ: dict[str, str], line: str) -> None:
    (found,) = unusable_folders(environ)
    assert line in found
    assert "\n" not in found
    with pytest.raises(ConfigError):
        check_folders(environ)
    check_folders(environ | {"RAY_ADDRESS": "head:6379"})
    named = [f for f in examine_disks(None, environ) if f.name == "temporary folders"]
    assert [f.level for f in named] == [Level.BROKEN]
    assert found.startswith(named[0].message)
    assert named[0].fix


def test_the_longest_that_is_allowed_is_allowed(tmp_path: Path) -> None:
    assert list(unusable_folders({"TMPDIR": of_length(MOST_RAY)})) == []
    assert list(unusable_folders({"RAY_TMPDIR": "/tmp", "TMPDIR": of_length(MOST_TMP) + "/"})) == []
    assert list(unusable_folders({})) == []


def test_a_full_disk_and_a_read_only_one_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for number, words in ((errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")):

        def refuse(*_: Any, number: int = number, words: str = words, **__: Any) -> None:
            raise OSError(number, words)

        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
        (line,) = unusable_folders({"TMPDIR": "/tmp"})
        assert words in line


def test_train_refuses_such_a_folder_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", of_length(MOST_RAY + 1))
    run_file = Path(__file__).parents[2] / "examples/tinycoder.yaml"
    assert main(["train", str(run_file), f"dir={tmp_path}/runs"]) == 2
    assert "RAY_TMPDIR=" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
