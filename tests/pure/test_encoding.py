"""Files that are not UTF-8 are refused with the form that they have; a UTF-8 byte order mark is no matter."""

import json
from pathlib import Path

import pytest

from sdpo.config.load import load_run_config
from sdpo.encoding import decode
from sdpo.errors import ConfigError, TaskFileError
from sdpo.taskfile import load_tasks

TASK = {
    "id": "café",
    "messages": [{"role": "user", "content": "Écris f."}],
    "environment": "code",
    "payload": {},
}
OTHERS = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


def test_utf_8_with_and_without_a_mark() -> None:
    assert decode("é\n".encode()) == decode("é\n".encode("utf-8-sig")) == "é\n"
    assert decode(b"") == ""


@pytest.mark.parametrize("encoding", OTHERS)
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_wide_characters_are_named(tmp_path: Path, encoding: str, suffix: str) -> None:
    path = tmp_path / f"tasks.{suffix}"
    path.write_bytes((json.dumps(TASK, ensure_ascii=False) + "\n").encode(encoding) * 2)
    form = encoding[:6].upper()
    with pytest.raises(TaskFileError, match=rf"^{path}: {form} text; allowed: UTF-8$"):
        load_tasks(path)
    run_file = tmp_path / "run.yaml"
    run_file.write_bytes("name: café\nsteps: 3\n".encode(encoding))
    with pytest.raises(ConfigError, match=rf"^{run_file}: {form} text; allowed: UTF-8$"):
        load_run_config(run_file)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp437"])
def test_single_bytes_are_named_with_their_line(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "tasks.jsonl"
    plain = json.dumps(TASK | {"id": "cafe"}) + "\n"
    path.write_bytes((plain + json.dumps(TASK, ensure_ascii=False) + "\n").encode(encoding))
    with pytest.raises(
        TaskFileError, match=rf"^{path}, line 2: not UTF-8 text: 0x[0-9a-f]{{2}} at byte 12 \(Latin-1\?\)"
    ):
        load_tasks(path)
    run_file = tmp_path / "run.yaml"
    run_file.write_bytes("steps: 3\nname: café\n".encode(encoding))
    with pytest.raises(ConfigError, match=rf"^{run_file}: not UTF-8 text: 0x[0-9a-f]{{2}} at line 2, byte 10"):
        load_run_config(run_file)
