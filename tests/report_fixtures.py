"""Run directories for the report, written by hand."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sdpo.config.load import dump_run_config, load_run_config
from sdpo.health import RULES
from tests.sample_fixtures import sample_of

ROOT = Path(__file__).resolve().parent.parent


def step_record(step: int, pass_rate: float = 0.5, **changed: Any) -> dict[str, Any]:
    """Metrics of a step of an SDPO run whose parts of time leave .5 s over."""
    record = {
        "step": step,
        "rollout/pass_rate": pass_rate,
        "rollout/reward": pass_rate,
        "rollout/response_tokens": 30.0 + step,
        "rollout/truncated_fraction": 0.0,
        "verdict/passed": pass_rate,
        "verdict/wrong_answer": 1 - pass_rate,
        "signal/samples_fraction": 1.0,
        "train/teacher_gap": -0.5,
        "train/teacher_kl": 0.4,
        "train/entropy": 0.2,
        "train/teacher_entropy": 0.1,
        "train/engine_gap_mean": 1e-6,
        "train/engine_gap_p99": 1e-5,
        "train/grad_norm": 0.1,
        "train/tis_clipped_fraction": 0.0,
        "time/collect_s": 2.0,
        "time/train_s": 1.0,
        "time/update_teacher_s": 0.25,
        "time/publish_policy_s": 0.25,
        "time/step_s": 4.0,
        "memory/learner_bytes": 2.0**30,
        "speed/generated_tokens_per_s": 500.0,
    }
    return record | {f"health/{name}": 0.0 for name in RULES} | changed


def heldout(pass_at_1: float) -> dict[str, float]:
    """Metrics of an evaluation with an interval of .1 to both sides."""
    return {
        "heldout/pass@1": pass_at_1,
        "heldout/pass@1_low": pass_at_1 - 0.1,
        "heldout/pass@1_high": pass_at_1 + 0.1,
        "heldout/response_tokens": 30.0,
    }


def write_report_run(
    folder: Path,
    records: Iterable[Mapping[str, Any]],
    overrides: Iterable[str] = (),
    alarms: Iterable[Mapping[str, Any]] = (),
    samples: Iterable[Mapping[str, Any]] | None = None,
) -> Path:
    """A run directory `folder`, its name the run's; `samples` are those of step 1."""
    folder.mkdir(parents=True)
    config = load_run_config(ROOT / "examples/tinycoder.yaml", [f"name={folder.name}", *overrides])
    (folder / "config.yaml").write_text(dump_run_config(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "alarms.jsonl").write_text("".join(json.dumps(alarm) + "\n" for alarm in alarms))
    if samples is not None:
        (folder / "samples").mkdir()
        (folder / "samples/step-000001.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples))
    return folder


def whole_run(folder: Path, seed: int = 0, **more: Any) -> Path:
    """Twelve steps with two evaluations, an alarm, recorded attempts and a text that must be escaped."""
    records = [{"step": 0, **heldout(0.1)}]
    records += [step_record(step, 0.05 * step + 0.1 * seed) for step in range(1, 12)]
    records.append(step_record(12, 0.7, **heldout(0.6 + 0.1 * seed)) | {"health/pass_rate_collapse": 1.0})
    alarm = {"name": "pass_rate_collapse", "step": 12, "message": "<script>alert(1)</script> & fell; threshold: none"}
    written = [sample_of(("return", " x", "</script>", "<|im_end|>"), (0.5, -1.5, 0.1, 0.0))]
    return write_report_run(folder, records, [f"seed={seed}", *more.pop("overrides", ())], [alarm], written)
