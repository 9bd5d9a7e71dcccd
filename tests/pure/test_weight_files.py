"""Weights that no run can load are refused from their headers, with one line, before anything starts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from orchestrator.cli import main
from orchestrator.recorded import fingerprint
from orchestrator.recorded.fingerprint import model_digests
from rollout_workers.engine import check_model_folder
from rollout_workers.weight_files import INDEX, weight_files
from sdpo.errors import ModelError

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples/tinycoder/model"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODEL, tmp_path / "m"))


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def longer(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"x")


def write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def index(weight_map: object) -> Callable[[Path], object]:
    return write(INDEX, json.dumps({"weight_map": weight_map}).encode())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "model.safetensors is damaged or cut off"),
        (longer, "model.safetensors is damaged or cut off"),
        (write("model.safetensors", b""), "model.safetensors is damaged or cut off"),
        (write("model.safetensors", b"<html>not found</html>" * 9), "model.safetensors is damaged or cut off"),
        (write("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"), "damaged or cut off"),
        (index({"a": "model-00001-of-00002.safetensors"}), "1 weight files are missing, first model-00001-of-00002"),
        (index({"a.weight": "model.safetensors"}), "names a.weight in model.safetensors, which does not hold it"),
        (index([1]), "allowed: a mapping `weight_map`"),
        (index({"a": 3}), "allowed: a mapping `weight_map`"),
        (write(INDEX, b"[]"), "allowed: a mapping `weight_map`"),
        (write(INDEX, b"{"), "is not readable"),
        (write("config.json", b"{"), "config.json is not readable"),
        (write("config.json", b"\xff"), "config.json is not readable"),
        (write("config.json", b"[]"), "config.json: allowed: a mapping"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no *.safetensors weights"),
    ],
)
def test_damaged_weights_are_one_line(model: Path, damage: Callable[[Path], object], words: str) -> None:
    assert check_model_folder(model)
    damage(model)
    with pytest.raises(ModelError) as caught:
        check_model_folder(model)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_train_refuses_them_and_leaves_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    cut(model)
    assert main(["train", "examples/tinycoder.yaml", f"model.path={model}", f"dir={tmp_path}/runs"]) == 2
    assert not (tmp_path / "runs").exists()


def test_only_the_files_of_the_index_are_weights(model: Path) -> None:
    save_file({"x": np.zeros(3, np.float32)}, model / "other.safetensors")
    assert [file.name for file in weight_files(model)] == ["model.safetensors", "other.safetensors"]
    index({"x": "other.safetensors"})(model)
    assert [file.name for file in weight_files(model)] == ["other.safetensors"]


def change_one_value(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("whole_file_bytes", [fingerprint.WHOLE_FILE_BYTES, 0])
@pytest.mark.parametrize(
    ("change", "part"),
    [
        (change_one_value, "model weights"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "model tokenizer"),
        (lambda folder: (folder / "chat_template.jinja").write_text("x"), "model tokenizer"),
        (lambda folder: (folder / "config.json").write_text('{"vocab_size": 3}'), "model config"),
        (lambda folder: (folder / "README.md").write_text("x"), None),
    ],
)
def test_a_model_is_known_by_its_files(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole_file_bytes: int,
    change: Callable[[Path], object],
    part: str | None,
) -> None:
    monkeypatch.setattr(fingerprint, "WHOLE_FILE_BYTES", whole_file_bytes)
    before = model_digests(model)
    change(model)
    now = model_digests(model)
    assert [key for key in before if before[key] != now[key]] == ([] if part is None else [part])
