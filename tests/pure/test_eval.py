"""`sdpo eval` without actors: its arithmetic, the overlap with training tasks, what it makes of a command line."""

import itertools
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.commands.eval.config import Request, fitted_config
from orchestrator.commands.eval.console import table
from orchestrator.commands.eval.numbers import default_ks, numbers
from orchestrator.group import AttemptRecord
from orchestrator.inputs.machine import gather_processor, has_bfloat16
from rollout_workers.engine import check_model_folder
from sdpo.errors import ConfigError
from sdpo.metrics import bootstrap_interval, wilson_interval
from sdpo.types import FinishReason, Message, RolloutHeader, Task, Verdict

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples/tinycoder/model"
HELDOUT = ROOT / "examples/tinycoder/tasks/heldout.jsonl"


def task(name: str, words: str = "?") -> Task:
    return Task(id=name, messages=(Message(role="user", content=words),), environment="code", payload={})


def judged(name: str, sample: int, outcome: bool | None, tokens: int = 10, cut: bool = False) -> AttemptRecord:
    """outcome None: lost to infrastructure. The reward of a failure is 0.25."""
    header = RolloutHeader(
        task_id=name,
        sample_index=sample,
        text="",
        reply="",
        num_prompt_tokens=1,
        num_response_tokens=tokens,
        num_environment_tokens=0,
        num_turns=1,
        last_token_id=0,
        finish_reason=FinishReason.LENGTH if cut else FinishReason.STOP,
        versions=(),
    )
    if outcome is None:
        lost = Verdict(reward=None, success=False, kind="infrastructure_error", infrastructure_error="no engine")
        return AttemptRecord(task=task(name), header=header, rollout=None, verdict=lost)
    kind = "passed" if outcome else "cut" if cut else "wrong_answer"
    verdict = Verdict(reward=1.0 if outcome else 0.25, success=outcome, kind=kind)
    return AttemptRecord(task=task(name), header=header, rollout=None, verdict=verdict)


def outcomes(**by_task: list[bool | None]) -> list[AttemptRecord]:
    return [judged(name, i, outcome) for name, row in by_task.items() for i, outcome in enumerate(row)]


def _rewards(row: list[bool | None]) -> list[float]:
    return [1.0 if outcome else 0.25 for outcome in row]


def test_pass_at_k_is_the_mean_share_of_subsets_with_a_success() -> None:
    rows: dict[str, list[bool | None]] = {
        "a": [True, False, False, False],
        "b": [True, True, True, True],
        "c": [False] * 4,
        "d": [False, True, True, False],
    }
    found = numbers(outcomes(**rows), [1, 2, 3, 4])
    for k in (1, 2, 3, 4):
        shares = [statistics.fmean(any(s) for s in itertools.combinations(row, k)) for row in rows.values()]
        assert found["pass@k"][str(k)]["mean"] == pytest.approx(statistics.fmean(shares), abs=1e-12)
        bests = [statistics.fmean(max(s) for s in itertools.combinations(_rewards(row), k)) for row in rows.values()]
        assert found["best@k"][str(k)]["mean"] == pytest.approx(statistics.fmean(bests), abs=1e-12)
        firsts = [statistics.fmean(bool(o) for o in row[:k]) for row in rows.values()]
        average = found["avg@k"][str(k)]
        assert average["success"]["mean"] == pytest.approx(statistics.fmean(firsts), abs=1e-12)
        assert average["reward"]["mean"] == pytest.approx(0.25 + 0.75 * statistics.fmean(firsts), abs=1e-12)
    low, high = bootstrap_interval([0.25, 1.0, 0.0, 0.5])
    assert found["pass@1"] == {"mean": 0.4375, "low": low, "high": high, "tasks": 4, "interval": "bootstrap"}
    low, high = wilson_interval(3, 4)
    assert found["pass@k"]["4"] == {"mean": 0.75, "low": low, "high": high, "tasks": 4, "interval": "wilson"}


def test_what_infrastructure_lost_is_no_failure_and_shortens_a_task() -> None:
    found = numbers(outcomes(a=[True, None], b=[None, None], c=[None, False], d=[True, True]), [1, 2])
    assert found["tasks"] == {"asked": 4, "judged": 3}
    assert found["samples"] == {"asked": 8, "judged": 4, "passed": 3}
    assert found["infrastructure"] == {"lost": 4, "share": 0.5, "reasons": {"no engine": 4}}
    assert (found["pass@1"]["mean"], found["pass@1"]["tasks"]) == (pytest.approx(2 / 3), 3)
    assert (found["pass@k"]["2"]["mean"], found["pass@k"]["2"]["tasks"]) == (1.0, 1)
    assert [kind["kind"] for kind in found["kinds"]] == ["passed", "wrong_answer"]
    nothing = numbers(outcomes(a=[None]), [1])
    assert nothing["pass@1"] == {"mean": None, "low": None, "high": None, "tasks": 0, "interval": None}


def test_lengths_by_success_and_failures_by_kind() -> None:
    samples = [judged("t", i, i == 0, tokens, cut) for i, (tokens, cut) in enumerate([(4, False), (10, False)])]
    samples += [judged("u", i, False, 64, True) for i in range(2)]
    found = numbers(samples, [1])
    assert found["response_tokens"]["all"] == {"mean": 35.5, "median": 37.0, "p90": 64.0, "truncated_fraction": 0.5}
    assert found["response_tokens"]["passed"]["mean"] == 4
    assert found["response_tokens"]["failed"]["median"] == 64
    assert found["kinds"] == [
        {"kind": "cut", "count": 2, "share": 0.5, "example": "u"},
        {"kind": "passed", "count": 1, "share": 0.25, "example": "t"},
        {"kind": "wrong_answer", "count": 1, "share": 0.25, "example": "t"},
    ]


def test_default_ks() -> None:
    assert [default_ks(n) for n in (1, 2, 5, 8)] == [[1], [1, 2], [1, 2, 4, 5], [1, 2, 4, 8]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--samples", "4", "--k", "8"], ("--k 8", "from 1 to 4", "--samples")),
        (["--samples", "2", "--temperature", "0"], ("--samples 2", "--temperature 0", "1")),
        (["--top-p", "1.5"], ("--top-p: 1.5", "at most 1")),
        (["--max-response-tokens", "1020"], ("max_response_tokens=1020", "longest prompt", "at most")),
        (["--step", "3"], ("MODEL=", "run directory")),
        (["--adapter", "mbbp"], ("tasks.adapter=mbbp", "mbpp")),
        (["--option", "limit=3"], ("tasks.options", "tasks.adapter")),
        (["--train-tasks", "nowhere.jsonl"], ("nowhere.jsonl",)),
        (["--run", "nowhere.yaml"], ("nowhere.yaml",)),
        (["--out", "no/such/folder/a.json"], ("--out no/such/folder/a.json", "folder that exists")),
        (["placement.rollout.workerz=2"], ("rollout.workerz", "placement.rollout.workers")),
    ],
)
def test_bad_command_lines(capsys: pytest.CaptureFixture[str], arguments: list[str], words: tuple[str, ...]) -> None:
    assert main(["eval", str(MODEL), str(HELDOUT), "--limit", "4", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert all(word in line for word in words), line


def test_bad_models_and_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    broken, run = tmp_path / "broken", tmp_path / "run"
    shutil.copytree(MODEL, broken, ignore=shutil.ignore_patterns("*.safetensors"))
    run.mkdir()
    (run / "config.yaml").write_text("name: run\n")
    for model, tasks, word in (
        (MODEL, tmp_path / "empty.jsonl", "holds no tasks"),
        (MODEL, tmp_path / "none.jsonl", "none.jsonl: no such file"),
        (broken, HELDOUT, "no *.safetensors weights"),
        (tmp_path / "nowhere", HELDOUT, "no such folder"),
        (run, HELDOUT, "no exported model yet"),
    ):
        assert main(["eval", str(model), str(tasks)]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert word in line


def request(**options: Any) -> Request:
    given: dict[str, Any] = {"model": MODEL, "tasks": str(HELDOUT), "settings": {}}
    return Request(**(given | options))


def test_what_is_not_given_is_made_to_fit() -> None:
    """Window: the longest prompt and a response. KV cache: within the limits. dtype: what the processor has."""
    model = check_model_folder(MODEL)
    settings = {"rollout.sampling.max_response_tokens": 100, "evaluation.samples_per_task": 3}
    config, remarks = fitted_config(request(settings=settings), MODEL, model, longest_prompt_tokens=60, num_tasks=5)
    assert config.model.max_model_len_tokens == 160
    assert config.evaluation.samples_per_task == 3
    assert config.rollout.kv_cache_gib == 0.125
    assert config.model.dtype == ("bfloat16" if has_bfloat16(gather_processor()) else "float32")
    assert config.model.dtype in remarks[0]
    overrides = ("model.dtype=float32", "model.max_model_len_tokens=200", "rollout.kv_cache_gib=0.25")
    config, remarks = fitted_config(request(overrides=overrides), MODEL, model, longest_prompt_tokens=60, num_tasks=5)
    assert (config.model.max_model_len_tokens, config.rollout.kv_cache_gib, remarks) == (200, 0.25, [])


def test_a_larger_model_gets_a_larger_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 x 30 layers x 3 heads x 64 x 4 bytes: 46,080 a token; 128 sequences of 5 blocks of 128 tokens: 3.5 GiB."""
    shape = {"num_hidden_layers": 30, "num_key_value_heads": 3, "num_attention_heads": 9, "hidden_size": 576}
    model = shape | {"max_position_embeddings": 8192}
    overrides = ("model.dtype=float32", "rollout.sampling.max_response_tokens=256")
    config, _ = fitted_config(request(overrides=overrides), MODEL, model, longest_prompt_tokens=200, num_tasks=1000)
    assert config.rollout.kv_cache_gib is not None
    assert 2 * 5 * 128 * 46080 / 2**30 <= config.rollout.kv_cache_gib <= 3.52
    repeatable = request(overrides=(*overrides, "deterministic=true"))
    monkeypatch.delattr("orchestrator.commands.eval.config.gather_memory")
    config, _ = fitted_config(repeatable, MODEL, model, longest_prompt_tokens=200, num_tasks=1000)
    assert config.rollout.kv_cache_gib == pytest.approx(128 * 5 * 128 * 46080 / 2**30, abs=1e-3)
    with pytest.raises(ConfigError, match=r"longest prompt has 8000 tokens; allowed: at most 192"):
        fitted_config(request(overrides=overrides), MODEL, model, longest_prompt_tokens=8000, num_tasks=1)


def test_a_run_files_settings_hold_but_not_its_tasks(tmp_path: Path) -> None:
    run_file = tmp_path / "run.yaml"
    run_file.write_text(
        "seed: 7\nmodel: {dtype: float32}\nrollout: {kv_cache_gib: 0.5}\nplacement: {rollout: {workers: 2}}\n"
        "tasks: {train: t.jsonl, heldout: h.jsonl, adapter: mbpp, options: {unsupported: skip}, max_heldout: 3}\n"
    )
    model = check_model_folder(MODEL)
    config, _ = fitted_config(request(run_file=run_file), MODEL, model, 60, 5)
    assert (config.seed, config.placement.rollout.workers, config.rollout.kv_cache_gib) == (7, 2, 0.5)
    assert (config.tasks.heldout, config.tasks.max_heldout) == (str(HELDOUT), None)
    assert (config.tasks.adapter, config.tasks.options) == ("mbpp", {"unsupported": "skip"})
    config, _ = fitted_config(request(run_file=run_file, adapter="none"), MODEL, model, 60, 5)
    assert (config.tasks.adapter, config.tasks.options) == (None, {})
    options = request(run_file=run_file, adapter="records", options=("prompt='{q}'", "id=key"))
    config, _ = fitted_config(options, MODEL, model, 60, 5)
    assert (config.tasks.adapter, config.tasks.options) == ("records", {"prompt": "{q}", "id": "key"})


def test_the_table_says_what_the_result_says() -> None:
    found = numbers([*outcomes(a=[True, False], b=[False, None]), judged("c", 0, False, 64, True)], [1, 2])
    result = found | {
        "model": {"given": "m", "sha256": {"weights": "0123456789abcdef"}},
        "tasks_file": {"path": "t.jsonl"},
        "sampling": {"samples": 2, "temperature": 1.0, "top_p": 1.0, "max_response_tokens": 64, "seed": 0},
        "speed": {"tokens_per_s": 10.0, "samples_per_s": 1.0, "start_s": 1.0, "evaluate_s": 2.0, "total_s": 3.0},
        "overlap": {"checked": False, "reason": "no training tasks are known"},
    }
    text = table(result)
    assert "lost to infrastructure: 1 of 5 samples (20.0%); no engine" in text
    low, high = found["pass@1"]["low"], found["pass@1"]["high"]
    assert f"pass@1          0.167  {low:>7.3f} to {high:.3f}       3" in text
    assert "best@" not in text, "of rewards of 0 and 1 it is pass@k"
    partial = table(result | numbers(outcomes(a=[False, False]), [1, 2]))
    assert f"{'best@2':12}  {0.25:>7.3f}" in partial
    assert "not checked, no training tasks are known" in text
    assert max(map(len, text.splitlines())) <= 100
