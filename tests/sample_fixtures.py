"""Run directories with hand-made recorded attempts."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdpo.config.load import dump_run_config, load_run_config

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "<|im_start|>user\nDouble x.\n\nCorrect solution:\nreturn x + x<|im_end|>\n<|im_start|>assistant\n"


def sample_of(
    tokens: Sequence[str] = ("return", " x", "<|im_end|>"),
    credit: Sequence[float | None] | None = None,
    **changed: Any,
) -> dict[str, Any]:
    """A failure whose tokens have `credit` (all 0 by default; None: the environment wrote the token)."""
    credit = [0.0] * len(tokens) if credit is None else credit
    by_model = [c is not None for c in credit]
    log_p = [-1.0 if own else None for own in by_model]
    log_q = [None if c is None else c - 1.0 for c in credit]
    teacher = {"version": "1.0", "log_p": log_p, "log_q": log_q, "credit": list(credit)}
    sample = {
        "form": 1,
        "step": 1,
        "task": "double",
        "sample": 0,
        "messages": [{"role": "user", "content": "Double x."}],
        "response": "".join(tokens[:-1]),
        "finish_reason": "stop",
        "versions": ["1.0"],
        "verdict": {"reward": 0.0, "success": False, "kind": "wrong_answer", "details": {"num_tests": 3}},
        "feedback": "Expected: 4",
        "advantage": -0.5,
        "token_ids": list(range(100, 100 + len(tokens))),
        "tokens": list(tokens),
        "authors": ["model" if own else "environment" for own in by_model],
        "log_p": log_p,
        "hindsight": {
            "prompt": PROMPT,
            "shown": True,
            "demo": {"sample": 5, "text": "return x + x"},
            "used_feedback": False,
            "demo_chars_cut": 0,
            "feedback_chars_cut": 0,
            "attempt_chars_cut": 0,
        },
        "teacher": teacher | {"entropy": [0.5 if own else None for own in by_model]},
    }
    return sample | changed


def verdict_of(kind: str) -> dict[str, Any]:
    success = kind == "passed"
    return {"reward": float(success), "success": success, "kind": kind, "details": {}}


def write_run(
    folder: Path, steps: Mapping[int, Iterable[Mapping[str, Any]]], alarms: Iterable[Mapping[str, Any]] = ()
) -> Path:
    """A run directory `folder` with these attempts at these steps."""
    (folder / "samples").mkdir(parents=True)
    config = load_run_config(ROOT / "examples/tinycoder.yaml", [f"name={folder.name}"])
    (folder / "config.yaml").write_text(dump_run_config(config))
    for step, samples in steps.items():
        lines = [json.dumps({**sample, "step": step}) + "\n" for sample in samples]
        (folder / "samples" / f"step-{step:06d}.jsonl").write_text("".join(lines))
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"step": step}) + "\n" for step in steps))
    (folder / "alarms.jsonl").write_text("".join(json.dumps(alarm) + "\n" for alarm in alarms))
    return folder
