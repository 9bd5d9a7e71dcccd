"""Pack recorded attempts as compact JSON: every text once, numbers as little-endian integers in base64."""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.commands.report.page import script_json
from orchestrator.run_dir.sample_form import Sample, question_parts, why_no_credit

PARTS_PER_NAT = 1000
"""Log-probs and entropies are rounded to thousandths of a nat, and clipped at 32.767."""
NOT_A_NUMBER = -32768
"""The value at tokens that the environment wrote."""


class Pack:
    """Collects attempts until `budget_bytes` are used; the first one is always taken."""

    def __init__(self, budget_bytes: int) -> None:
        self.left_bytes = budget_bytes
        self._index: dict[str, int] = {}

    @property
    def texts(self) -> list[str]:
        """The texts that the attempts refer to by index."""
        return list(self._index)

    def add(self, sample: Sample) -> dict[str, Any] | None:
        """Return the attempt as the page reads it, or None if it does not fit."""
        num_texts = len(self._index)
        packed = self._attempt(sample)
        new_texts = self.texts[num_texts:]
        num_bytes = len(script_json([packed, new_texts]))
        if num_bytes > self.left_bytes and num_texts:
            for text in new_texts:
                del self._index[text]
            return None
        self.left_bytes -= num_bytes
        return packed

    def _attempt(self, sample: Sample) -> dict[str, Any]:
        verdict, hindsight, teacher = sample["verdict"], sample["hindsight"], sample["teacher"]
        return {
            **{name: sample[name] for name in ("task", "sample", "finish_reason", "versions", "tokens")},
            **{name: verdict[name] for name in ("success", "kind")},
            "messages": [[role, self._text(text)] for role, text in question_parts(sample)],
            "reward": _short(verdict["reward"]),
            "feedback": self._text(sample["feedback"]),
            "advantage": _short(sample["advantage"]),
            "ids": _base64(np.array(sample["token_ids"], "<i4")),
            "p": _packed(sample["log_p"]),
            "hindsight": None if hindsight is None else self._hindsight(hindsight),
            "teacher": None if teacher is None else _teacher(sample["log_p"], teacher),
            "why": "" if teacher is not None else why_no_credit(sample),
        }

    def _hindsight(self, hindsight: Mapping[str, Any]) -> dict[str, Any]:
        demo = hindsight["demo"]
        return {
            "prompt": self._text(hindsight["prompt"]),
            "demo": None if demo is None else [demo["sample"], self._text(demo["text"])],
            "used_feedback": hindsight["used_feedback"],
            "cut": [hindsight[f"{part}_chars_cut"] for part in ("demo", "feedback", "attempt")],
        }

    def _text(self, text: str) -> int:
        return self._index.setdefault(text, len(self._index))


def _teacher(engine: Sequence[float | None], teacher: Mapping[str, Any]) -> dict[str, Any]:
    """Return the teacher's numbers; with `p` only where the credit was not made with the engine's log-probs."""
    packed = {"version": teacher["version"], "q": _packed(teacher["log_q"]), "entropy": _packed(teacher["entropy"])}
    return packed if teacher["log_p"] == engine else packed | {"p": _packed(teacher["log_p"])}


def _packed(values: Sequence[float | None]) -> str:
    """Return int16 [T] in thousandths of a nat, in base64."""
    numbers = np.array([np.nan if v is None else v for v in values], np.float64) * PARTS_PER_NAT
    clipped = np.nan_to_num(np.clip(np.round(numbers), -32767, 32767), nan=NOT_A_NUMBER)
    return _base64(clipped.astype("<i2"))


def _base64(array: Any) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 3)
