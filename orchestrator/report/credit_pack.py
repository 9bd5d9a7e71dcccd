"""Recorded attempts as compact JSON for the page: every text once, numbers as little-endian integers in base64."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

PARTS_PER_NAT = 1000
"""Log-probs and entropies are rounded to thousandths of a nat, and clipped at 32.767."""
NOT_A_NUMBER = -32768
"""Stands where the environment wrote."""

Sample = Mapping[str, Any]


class Pack:
    """Collects attempts until `room` bytes are used; the first one is always taken."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.texts: list[str] = []
        """What the attempts refer to by number."""
        self._number: dict[str, int] = {}
        self._is_empty = True

    def add(self, sample: Sample) -> dict[str, Any] | None:
        """The attempt as the page reads it, or None if there is no room for it."""
        num_known = len(self.texts)
        packed = self._attempt(sample)
        new_texts = self.texts[num_known:]
        num_bytes = len(safe_json([packed, new_texts]))
        if num_bytes > self.room and not self._is_empty:
            for text in new_texts:
                del self._number[text]
            del self.texts[num_known:]
            return None
        self.room -= num_bytes
        self._is_empty = False
        return packed

    def _attempt(self, sample: Sample) -> dict[str, Any]:
        verdict, hindsight, teacher = sample["verdict"], sample["hindsight"], sample["teacher"]
        return {
            "task": sample["task"],
            "sample": sample["sample"],
            "messages": [[message["role"], self._text(message["content"])] for message in sample["messages"]],
            "reward": _short(verdict["reward"]),
            "success": verdict["success"],
            "kind": verdict["kind"],
            "feedback": self._text(sample["feedback"]),
            "finish": sample["finish_reason"],
            "versions": sample["versions"],
            "advantage": _short(sample["advantage"]),
            "tokens": sample["tokens"],
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
        if text not in self._number:
            self._number[text] = len(self.texts)
            self.texts.append(text)
        return self._number[text]


def why_no_credit(sample: Sample) -> str:
    """Why an attempt has no teacher's credit, in words."""
    if sample["hindsight"] is None:
        return (
            "The objective of this run asks no teacher: every token of the attempt has the same weight, its "
            f"group-relative advantage of {sample['advantage']:+.3f}."
        )
    if not sample["hindsight"]["shown"]:
        return (
            "Masked: there was nothing to show to the teacher, since no other attempt at the task gave a "
            "demonstration and there was no feedback to use."
        )
    return "The teacher did not score this attempt."


def safe_json(value: Any) -> str:
    """ASCII JSON that can stand in a script element: `<` is escaped."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _teacher(engine: Sequence[float | None], teacher: Mapping[str, Any]) -> dict[str, Any]:
    """`p` is set only where the credit was not made with the engine's log-probs."""
    packed = {"version": teacher["version"], "q": _packed(teacher["log_q"]), "entropy": _packed(teacher["entropy"])}
    return packed if teacher["log_p"] == engine else packed | {"p": _packed(teacher["log_p"])}


def _packed(values: Sequence[float | None]) -> str:
    """int16 [T]."""
    numbers = np.array([np.nan if v is None else v for v in values], np.float64) * PARTS_PER_NAT
    clipped = np.nan_to_num(np.clip(np.round(numbers), -32767, 32767), nan=NOT_A_NUMBER)
    return _base64(clipped.astype("<i2"))


def _base64(array: Any) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
