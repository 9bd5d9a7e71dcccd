"""`sdpo export`: which checkpoint, the weights to the bit, the card's facts, whole or not at all."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from learner.rank import LearnerRank
from orchestrator.cli import main
from orchestrator.recorder import RunRecorder
from orchestrator.run_dir.facts import start_facts
from orchestrator.run_dir.model_card import CARD, Exported, hub_id, model_card
from orchestrator.run_dir.run_dir import RunDir
from orchestrator.run_dir.run_view import RunView
from sdpo.config import RunConfig
from tests.fixtures.learner import make_config, masters, one_rank, random_experiences, train_calls
from tests.fixtures.tiny_models import make_tiny_model

LORA = {"rank": 4, "alpha": 8.0, "targets": ["q_proj", "down_proj"]}
Weights = dict[str, torch.Tensor]


@dataclass
class Run:
    """A run directory that a learner of one rank made, and its weights at each checkpoint."""

    path: Path
    base: Path
    weights: dict[int, Weights]
    teacher: dict[int, Weights]


def make_run(folder: Path, base: Path, rates: dict[int, float | None], **sections: Any) -> Run:
    """A checkpoint after each of the steps `rates`, with its held-out pass@1."""
    config = make_config(base, "bfloat16", name="tried", dir=str(folder), checkpoint={"keep_last": 9}, **sections)
    run_dir = RunDir(config)
    facts = start_facts({"train": 7, "heldout": 3, "environments": {"code": 7}})
    run_dir.open({"env.code": "", "tasks.train": "aa11", "tasks.heldout": "bb22"}, facts)
    run = Run(run_dir.path, base, {}, {})
    records: list[dict[str, Any]] = [measured(0, 0.25)]
    with one_rank(config) as learner:
        for steps, rate in rates.items():
            learner.train(*train_calls(random_experiences(4, seed=steps))[0])
            learner.update_teacher()
            unfinished = run_dir.checkpoints.begin(steps)
            learner.save(unfinished)
            run_dir.checkpoints.commit(unfinished, steps, rate)
            records.append(measured(steps, rate))
            run.weights[steps], run.teacher[steps] = masters(learner), teacher_of(learner)
    run_dir.close()
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return run


def measured(steps: int, rate: float | None) -> dict[str, Any]:
    if rate is None:
        return {"step": steps}
    names = {"heldout/pass@1": rate, "heldout/pass@1_low": rate - 0.1, "heldout/pass@1_high": rate + 0.1}
    return {"step": steps, **names, "heldout/samples": 6.0}


def teacher_of(learner: LearnerRank) -> Weights:
    return {name: tensor.clone() for name, tensor in learner._backend.full_tensors(torch.float32, learner._average)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("runs")
    base = make_tiny_model(root / "base", dtype=torch.float32)
    return make_run(root, base, {2: 0.75, 4: 0.75, 6: 0.5, 8: None})


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("lora")
    base = make_tiny_model(root / "base", dtype=torch.float32)
    return make_run(root, base, {1: None}, learner={"lora": LORA, "optimizer": {"learning_rate": 1e-2}})


def loaded(folder: Path) -> tuple[Weights, torch.dtype]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    return dict(model.named_parameters()), model.dtype


@pytest.mark.parametrize(
    ("options", "steps", "dtype"),
    [
        ([], 8, torch.bfloat16),
        (["--best"], 4, torch.bfloat16),
        (["--step", "2", "--dtype", "float32"], 2, torch.float32),
        (["--teacher", "--dtype", "float32"], 8, torch.float32),
    ],
)
def test_the_weights_are_the_learners_to_the_bit(
    run: Run, tmp_path: Path, options: list[str], steps: int, dtype: torch.dtype
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert main(["export", str(run.path), str(out), *options]) == 0
    want = run.teacher[steps] if "--teacher" in options else run.weights[steps]
    got, found = loaded(out)
    assert found == dtype
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name].to(dtype)) for name in want)
    chat = [{"role": "user", "content": "double it"}]
    texts = [AutoTokenizer.from_pretrained(f).apply_chat_template(chat, tokenize=False) for f in (run.base, out)]
    assert texts[0] == texts[1]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_adapters_leave_merged_or_as_peft_reads_them(lora_run: Run, tmp_path: Path) -> None:
    for name, options in (("merged", []), ("adapter", ["--adapter"])):
        assert main(["export", str(lora_run.path), str(tmp_path / name), "--dtype", "float32", *options]) == 0
    merged, _ = loaded(tmp_path / "merged")
    want = lora_run.weights[1]
    assert all(torch.equal(merged[name], want[name]) for name in want)
    frozen = AutoModelForCausalLM.from_pretrained(lora_run.base, dtype=torch.bfloat16).float()
    whole = PeftModel.from_pretrained(frozen, str(tmp_path / "adapter")).merge_and_unload()
    for name, tensor in whole.named_parameters():
        torch.testing.assert_close(tensor, want[name], atol=1e-6, rtol=0)
    assert "library_name: peft" in (tmp_path / "adapter" / CARD).read_text()


def test_the_card_says_what_the_run_was(run: Run, tmp_path: Path) -> None:
    view = RunView(run.path)
    text = model_card(view, Exported(steps=4, base=run.base, dtype="bfloat16"))
    _, front, body = text.split("---\n", 2)
    facts = yaml.safe_load(front)
    assert facts == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["sdpo", "reinforcement-learning"],
    }
    for said in (
        "| before training | 0.250 [0.150 to 0.350], 6 samples |",
        "| after step 4 (these weights) | 0.750 [0.650 to 0.850], 6 samples |",
        "ema, rate 0.05",
        "learning rate 0.001",
        "| tasks.train | `train.jsonl`, 7 tasks, SHA-256 `aa11` |",
        "`code` (7 tasks)",
        f"torch {torch.__version__}",
        "What they do not check was not checked.",
    ):
        assert said in body
    assert str(run.path.parent) not in text
    unmeasured = model_card(view, Exported(steps=8, base=run.base, dtype="bfloat16"))
    assert "| after step 8 (these weights) | not measured |" in unmeasured
    snapshot = tmp_path / "models--Qwen--Qwen3-8B/snapshots/abc"
    assert hub_id(snapshot) == "Qwen/Qwen3-8B"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert "\nbase_model: Qwen/Qwen3-8B\n" in f"\n{model_card(view, Exported(steps=4, base=snapshot, dtype='x'))}"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--step", "3"], "--step=3: .* allowed: --step 2, 4, 6, 8"),
        (["--adapter"], "trained all weights; allowed: runs with learner.lora"),
        (["--base", "nowhere"], "--base=nowhere: no model there"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    assert main(["export", str(run.path), str(tmp_path / "out"), *options]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert re.search(told, error)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_kept_and_a_damaged_checkpoint_leaves_nothing(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes").write_text("mine")
    assert main(["export", str(run.path), str(tmp_path / "mine")]) == 2
    assert "exists and is not empty" in capfd.readouterr().err
    copy = tmp_path / "run"
    (copy / "checkpoints/step-000009.1").mkdir(parents=True)
    (copy / "config.yaml").write_bytes((run.path / "config.yaml").read_bytes())
    for path in (run.path / "checkpoints/step-000002.1").iterdir():
        (copy / "checkpoints/step-000009.1" / path.name).write_bytes(path.read_bytes())
    (shard,) = copy.glob("checkpoints/*/*.distcp")
    shard.write_bytes(shard.read_bytes()[:-9])
    assert main(["export", str(copy), str(tmp_path / "out")]) == 2
    assert "is damaged" in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "run"]


def test_a_run_without_an_average_has_no_teacher_to_export(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    base = make_tiny_model(tmp_path / "base")
    config: RunConfig = make_config(base, name="grpo", dir=str(tmp_path), objective={"kind": "grpo"})
    run_dir = RunDir(config)
    run_dir.open({})
    with one_rank(config) as learner:
        unfinished = run_dir.checkpoints.begin(1)
        learner.save(unfinished)
        run_dir.checkpoints.commit(unfinished, 1, None)
    run_dir.close()
    assert main(["export", str(run_dir.path), str(tmp_path / "out"), "--teacher"]) == 2
    assert "holds no teacher's average" in capfd.readouterr().err
    assert main(["export", str(run_dir.path), str(tmp_path / "out"), "--best"]) == 2
    assert "--best: held-out pass@1 was measured at no checkpoint" in capfd.readouterr().err


async def test_the_model_at_the_end_of_a_run_is_what_its_last_checkpoint_exports(tmp_path: Path) -> None:
    """A longer run of the same name replaces the folder, also files that it no longer has."""
    base = make_tiny_model(tmp_path / "base", dtype=torch.float32)
    config = make_config(base, "bfloat16", name="end", dir=str(tmp_path))
    run_dir = RunDir(config)
    run_dir.open({})
    (run_dir.path / "model").mkdir()
    (run_dir.path / "model/model-00001-of-00002.safetensors").write_bytes(b"of an earlier end")
    with one_rank(config) as learner:

        class Gang:
            async def save(self, folder: Path) -> None:
                learner.save(str(folder))

            async def export(self, folder: Path, texts: dict[str, str]) -> None:
                learner.export(str(folder), texts)

        recorder = RunRecorder.__new__(RunRecorder)
        recorder._config, recorder._run_dir, recorder._checkpointed_steps, recorder._measured = (
            config,
            run_dir,
            None,
            None,
        )
        recorder._actors = SimpleNamespace(gang=Gang())  # type: ignore[assignment]
        await recorder.checkpoint(3)
        assert await recorder.export() == run_dir.model
    run_dir.close()
    model = run_dir.path / "model"
    assert main(["export", str(run_dir.path), str(tmp_path / "out")]) == 0
    names = sorted(path.name for path in model.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert CARD in names
    assert (model / "model.safetensors").read_bytes() == (tmp_path / "out/model.safetensors").read_bytes()
    assert f"after 3 of {config.steps} rollout batches" in (model / CARD).read_text()
    assert sorted(path.name for path in run_dir.path.iterdir() if path.name.startswith(".")) == []
