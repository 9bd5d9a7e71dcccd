"""Resuming to the bit, refusing damaged checkpoints, exporting a folder that transformers loads."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from learner.backends.fsdp2 import Fsdp2Backend
from learner.export import export_model
from learner.model import checkpoint_names
from learner.rank import LearnerRank
from sdpo.config import RunConfig
from sdpo.errors import CheckpointError
from tests.fixtures.learner import make_config, masters, one_rank, random_experiences, train_calls
from tests.fixtures.tiny_models import make_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"))


def train(learner: LearnerRank, steps: range) -> list[dict[str, float]]:
    metrics = []
    for step in steps:
        measured = learner.train(*train_calls(random_experiences(6, seed=step), tokens=90)[0])
        learner.update_teacher()
        metrics.append({k: v for k, v in measured.items() if k != "seconds"})
    return metrics


def everything(learner: LearnerRank) -> dict[str, torch.Tensor]:
    """Masters, AdamW's moments and the average, whole."""
    backend, ema = learner._backend, learner._ema
    assert isinstance(backend, Fsdp2Backend)
    assert ema is not None
    tensors = masters(learner) | {f"ema.{n}": t.clone() for n, t in ema.tensors.items()}
    for name, parameter in backend._trained.items():
        for key, value in backend._optimizer.state[parameter].items():
            tensors[f"{key}.{name}"] = value.full_tensor().clone() if hasattr(value, "full_tensor") else value.clone()
    return tensors


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_resume_goes_on_to_the_bit(folder: Path, tmp_path: Path, dtype: str) -> None:
    config = make_config(folder, dtype=dtype, learner={"optimizer": {"learning_rate": 1e-3, "warmup_steps": 3}})
    with one_rank(config) as learner:
        first = train(learner, range(2))
        learner.save(str(tmp_path / "checkpoint"))
        whole = first + train(learner, range(2, 4))
        want = everything(learner)
    with one_rank(config, str(tmp_path / "checkpoint")) as learner:
        assert learner._backend.optimizer_step == 2
        assert train(learner, range(2, 4)) == whole[2:]
        got = everything(learner)
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name]) for name in want)
    assert any(not torch.equal(want[name], want[f"ema.{name}"]) for name in want if f"ema.{name}" in want)


@pytest.fixture(scope="module")
def saved(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], RunConfig]:
    """A checkpoint after one step; called with a folder it copies the files there."""
    config, source = make_config(folder), tmp_path_factory.mktemp("saved")
    with one_rank(config) as learner:
        train(learner, range(1))
        learner.save(str(source))

    def copy(target: Path) -> RunConfig:
        target.mkdir()
        for path in source.iterdir():
            (target / path.name).write_bytes(path.read_bytes())
        return config

    return copy


def _flip_a_byte(folder: Path) -> None:
    (path,) = folder.glob("*.distcp")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(folder: Path) -> None:
    (path,) = folder.glob("*.distcp")
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    "damage",
    [
        _flip_a_byte,
        _truncate,
        lambda folder: next(folder.glob("*.distcp")).unlink(),
        lambda folder: (folder / ".metadata").unlink(),
        lambda folder: (folder / ".metadata").write_bytes(b"x"),
        lambda folder: (folder / "digests-rank0.json").unlink(),
        lambda folder: (folder / "digests-rank0.json").write_text("[]"),
    ],
)
def test_damaged_checkpoint_is_one_line(
    saved: Callable[[Path], RunConfig], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    config = saved(tmp_path / "checkpoint")
    damage(tmp_path / "checkpoint")
    with (
        pytest.raises(CheckpointError, match=str(tmp_path / "checkpoint")) as caught,
        one_rank(config, str(tmp_path / "checkpoint")),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_checkpoint_without_the_average_is_refused(folder: Path, tmp_path: Path) -> None:
    with one_rank(make_config(folder, objective={"kind": "grpo"})) as learner:
        learner.save(str(tmp_path / "grpo"))
    with (
        pytest.raises(CheckpointError, match=r"ema\..* is not in it"),
        one_rank(make_config(folder), str(tmp_path / "grpo")),
    ):
        pass


def test_checkpoint_of_another_shape_is_refused(folder: Path, tmp_path: Path) -> None:
    with one_rank(make_config(folder)) as learner:
        learner.save(str(tmp_path / "saved"))
    other = make_tiny_model(tmp_path / "other", hidden_size=32)
    with pytest.raises(CheckpointError) as caught, one_rank(make_config(other), str(tmp_path / "saved")):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [True, False])
def test_export_loads_in_transformers(tmp_path: Path, dtype: str, tied: bool) -> None:
    source = make_tiny_model(tmp_path / "model", tie_word_embeddings=tied)
    with one_rank(make_config(source, dtype=dtype)) as learner:
        train(learner, range(1))
        learner.export(str(tmp_path / "export"))
        want = masters(learner)
    torch_dtype = getattr(torch, dtype)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    assert model.dtype == torch_dtype
    got = dict(model.named_parameters())
    assert got.keys() == want.keys() == checkpoint_names(str(source)) == checkpoint_names(str(tmp_path / "export"))
    assert all(torch.equal(got[name], want[name].to(torch_dtype)) for name in want)
    chat = [{"role": "user", "content": "double it"}]
    rendered = [
        AutoTokenizer.from_pretrained(path).apply_chat_template(chat, tokenize=False)
        for path in (source, tmp_path / "export")
    ]
    assert rendered[0] == rendered[1]


def test_export_in_several_files(folder: Path, tmp_path: Path) -> None:
    with one_rank(make_config(folder)) as learner:
        tensors = learner._backend.full_tensors(torch.float32)
        export_model(str(tmp_path), str(folder), tensors, torch.float32, shard_bytes=100_000)
        want = masters(learner)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    assert not list(tmp_path.glob("*.tmp"))
    got = dict(AutoModelForCausalLM.from_pretrained(tmp_path).named_parameters())
    assert all(torch.equal(got[name], want[name]) for name in want)
