"""What is recorded of an attempt, and the texts of its tokens."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from transformers import AutoTokenizer

from orchestrator.group import Group
from orchestrator.run_dir import samples
from orchestrator.run_dir.run_view import RunView
from orchestrator.run_dir.sample_form import question_parts
from orchestrator.run_dir.token_pieces import token_pieces
from sdpo.errors import ConfigError
from sdpo.types import (
    FinishReason,
    Message,
    PolicyScores,
    Rollout,
    Segment,
    Task,
    TeacherScores,
    Version,
)
from tests.fixtures.orchestrator import Ref, attempt
from tests.fixtures.sample import ROOT, sample_of, write_run


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(ROOT / "examples/tinycoder/model")


def of_bytes(vocabulary: Sequence[bytes]) -> Callable[[Sequence[int]], str]:
    """Decoding as tokenizers of bytes do it."""
    return lambda ids: b"".join(vocabulary[i] for i in ids).decode(errors="replace")


def of_sentences(vocabulary: Sequence[str]) -> Callable[[Sequence[int]], str]:
    """Decoding as tokenizers of words do it: no space at the very beginning."""
    return lambda ids: "".join(vocabulary[i] for i in ids).removeprefix(" ")


def test_a_character_stands_with_the_token_of_its_first_byte(tokenizer: Any) -> None:
    assert token_pieces([0, 1, 2], of_bytes([b"a", b"b\n", b"c"])) == ["a", "b\n", "c"]
    book = "世".encode()
    parts = [b"x " + book[:1], book[1:2], book[2:] + book[:2], book[2:], b"!"]
    assert token_pieces(range(5), of_bytes(parts)) == ["x 世", "", "世", "", "!"]
    assert token_pieces([0, 1, 0, 2], of_bytes([b"\xff", book[:2], b"a"])) == ["\ufffd", "\ufffd", "\ufffd", "a"]
    assert token_pieces([0, 1, 1], of_sentences([" a", " b"])) == ["a", " b", " b"]
    text = "naïve 世界 \U0001d518\u200d👩‍👧!"
    ids = tokenizer.encode(text)
    pieces = token_pieces(ids, tokenizer.decode)
    assert "".join(pieces) == text
    assert len(pieces) == len(ids)
    assert pieces.count("") >= 10, "most of these characters take several tokens"


def test_many_broken_bytes_in_a_row_stay_with_their_tokens(tokenizer: Any) -> None:
    ids = np.random.default_rng(0).integers(0, len(tokenizer), 600).tolist()
    assert "".join(token_pieces(ids, tokenizer.decode)) == tokenizer.decode(ids)
    broken = [b"\xff"] * 40 + [b"\xe4", b"\xb8", b"\x96", b"z"]
    assert token_pieces(range(44), of_bytes(broken)) == ["\ufffd"] * 40 + ["世", "", "", "z"]


def test_recorded_values_stand_one_a_token_and_null_where_the_environment_wrote(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "get", lambda ref, timeout: ref.value)
    numbers = [np.array(row, np.float32) for row in ([-0.5, -1.0], [-0.25], [-1.5, -0.5, -9.0, -0.5])]
    mine, theirs = tokenizer.encode("世"), tokenizer.encode("x")
    assert len(mine) >= 2
    own = [np.array(mine[:2], np.int32), np.array(theirs[:1], np.int32)]
    segments = (
        Segment(author="model", token_ids=own[0], log_probs=numbers[0]),
        Segment(author="environment", token_ids=own[1]),
        Segment(author="model", token_ids=own[1], log_probs=numbers[1]),
    )
    same = {"task_id": "t", "sample_index": 0}
    recorded = attempt("t", 0)
    recorded.rollout = Ref(
        Rollout(**same, prompt_ids=own[0], segments=segments, finish_reason=FinishReason.STOP)  # type: ignore[arg-type]
    )
    nothing: dict[str, Any] = {"support_ids": None, "support_log_probs": None, "tail_log_probs": None} | same
    recorded.scores = Ref(
        TeacherScores(
            sampled_log_probs=numbers[2], entropy=-numbers[2], version=Version(incarnation=1, batch=7), **nothing
        )
    )
    tools = ({"type": "function", "function": {"name": "add_up"}},)
    task = Task(id="t", messages=(Message(role="user", content="?"),), environment="code", payload={}, tools=tools)
    group = Group(batch_index=6, index=0, task=task, attempts=[recorded, attempt("t", 1)])
    samples.record_samples(tmp_path / "samples/step-000007.jsonl", [group], 1, tokenizer, 1.0)
    (line,) = (tmp_path / "samples/step-000007.jsonl").read_text().splitlines()
    sample = json.loads(line)
    assert (sample["step"], sample["task"], sample["sample"]) == (7, "t", 0)
    assert sample["token_ids"] == [*mine[:2], theirs[0], theirs[0]]
    assert sample["authors"] == ["model", "model", "environment", "model"]
    assert question_parts(sample) == [("tools", json.dumps(tools[0])), ("user", "?")]
    assert sample["log_p"] == [-0.5, -1.0, None, -0.25]
    assert sample["teacher"]["log_q"] == [-1.5, -0.5, None, -0.5]
    assert sample["teacher"]["credit"] == [-1.0, 0.5, None, -0.25]
    assert sample["hindsight"]["shown"] is True
    assert sample["hindsight"]["demo"] is None

    learner = Ref(PolicyScores(sampled_log_probs=np.array([-1.0, -1.0, -3.0, -1.0], np.float32), **nothing))
    recorded.policy = learner
    recorded.hindsight, recorded.scores = None, recorded.scores
    samples.record_samples(tmp_path / "samples/step-000007.jsonl", [group], 1, tokenizer, 1.0)
    sample = json.loads((tmp_path / "samples/step-000007.jsonl").read_text())
    assert sample["hindsight"] is None
    assert sample["log_p"] == [-0.5, -1.0, None, -0.25], "the engine's, also where the learner was asked"
    assert sample["teacher"]["log_p"] == [-1.0, -1.0, None, -1.0]
    assert sample["teacher"]["credit"] == [-0.5, 0.5, None, 0.5]


def test_records_of_another_form_are_one_clear_line(tmp_path: Path) -> None:
    view = RunView(write_run(tmp_path / "run", {1: [sample_of()], 2: [{"step": 2}]}))
    assert [sample["task"] for sample in view.samples(1)] == ["double"]
    with pytest.raises(ConfigError, match=r"step-000002.jsonl: form=none of recorded samples; allowed: 1 \("):
        list(view.samples(2))
