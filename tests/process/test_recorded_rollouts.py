"""Recorded rollouts: what is written is read again to the bit, damage is one clear error, and so is another model."""

import dataclasses
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from orchestrator.commands.doctor.run import gather_run
from orchestrator.inputs.inputs import Inputs, load_tokenizer
from orchestrator.recorded.batch_file import (
    RecordedAttempt,
    RecordedBatch,
    batch_file,
    read_batch,
    read_tasks,
    write_batch,
)
from orchestrator.recorded.fingerprint import fingerprint
from orchestrator.recorded.manifest import Manifest
from orchestrator.recorded.recording import Recording, narrowed
from sdpo.config import RunConfig
from sdpo.errors import ConfigError, RecordingError, UserError
from sdpo.types import FinishReason, Message, Rollout, RolloutHeader, Segment, Task, Verdict, Version, VersionSpan
from tests.fixtures.run import ROOT

MODEL = ROOT / "examples/tinycoder/model"
DIGESTS = {"tasks.train": "a", "env.code": ""}
SAMPLED = (Version(incarnation=1, batch=0), Version(incarnation=1, batch=1))


def task(name: str, payload: bool = True) -> Task:
    question = (Message(role="system", content="Be brief."), Message(role="user", content=f"Write {name}(x) – ü."))
    return Task(id=name, messages=question, environment="code", payload={"tests": [1]} if payload else {})


def segments(rng: np.random.Generator, lengths: tuple[int, ...], support: int) -> Iterator[Segment]:
    """Model, environment, model, …; the first of the model's spans two versions."""
    for turn, length in enumerate(lengths):
        ids = rng.integers(0, 640, length, dtype=np.int32)
        if turn % 2:
            yield Segment(author="environment", token_ids=ids)
            continue
        yield Segment(
            author="model",
            token_ids=ids,
            log_probs=np.log(rng.random(length)).astype(np.float32),
            support_ids=rng.integers(0, 640, (length, support), dtype=np.int32) if support else None,
            support_log_probs=np.log(rng.random((length, support))).astype(np.float32) if support else None,
            versions=(
                VersionSpan(version=SAMPLED[0], start=0, end=length // 2),
                VersionSpan(version=SAMPLED[1], start=length // 2, end=length),
            ),
        )


def attempt(group: int, index: int, lengths: tuple[int, ...], support: int, *, lost: bool = False) -> RecordedAttempt:
    rng = np.random.default_rng([group, index, *lengths])
    rollout = Rollout(
        task_id=f"t{group}",
        sample_index=index,
        prompt_ids=rng.integers(0, 640, 3 + index, dtype=np.int32),
        segments=tuple(segments(rng, lengths, support)),
        finish_reason=FinishReason.LENGTH if index else FinishReason.STOP,
    )
    header = RolloutHeader(
        task_id=rollout.task_id,
        sample_index=index,
        text=f"def f(x):\n    return {index}\u2028\x00",
        reply="𝕏",
        num_prompt_tokens=len(rollout.prompt_ids),
        num_response_tokens=sum(lengths),
        num_environment_tokens=sum(lengths[1::2]),
        num_turns=len(lengths[::2]),
        last_token_id=7,
        finish_reason=rollout.finish_reason,
        versions=SAMPLED,
    )
    verdict = Verdict(reward=0.1 + index, success=index > 0, kind="k", feedback="x\ny", details={"failed": [1, None]})
    if lost:
        verdict = Verdict(reward=None, success=False, kind="infrastructure_error", infrastructure_error="it broke")
    return RecordedAttempt(group=group, header=header, verdict=verdict, rollout=None if lost else rollout)


def batch(index: int = 0, support: int = 5) -> RecordedBatch:
    found = [attempt(0, 0, (4,), support), attempt(0, 1, (3, 2, 5), support), attempt(1, 0, (1, 6), support, lost=True)]
    return RecordedBatch(
        batch_index=index, tasks=(task("t0", payload=False), task("t1", payload=False)), attempts=tuple(found)
    )


def same(left: Any, right: Any) -> bool:
    """Equal to the bit, dtypes included."""
    if isinstance(left, np.ndarray):
        return bool(left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes())
    if dataclasses.is_dataclass(left):
        names = [field.name for field in dataclasses.fields(left)]
        return type(left) is type(right) and all(same(getattr(left, n), getattr(right, n)) for n in names)
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.integers(0, 9), min_size=1, max_size=5).map(tuple), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    support=st.integers(0, 4),
)
def test_what_is_written_is_read_again_to_the_bit(tmp_path: Path, shapes: list[Any], support: int) -> None:
    attempts = [attempt(g, i, lengths, support, lost=lost) for i, (g, lengths, lost) in enumerate(shapes)]
    tasks = tuple(task(f"t{i}", payload=False) for i in range(3))
    written = RecordedBatch(batch_index=7, tasks=tasks, attempts=tuple(attempts))
    size = write_batch(tmp_path, written)
    assert size == batch_file(tmp_path, 7).stat().st_size
    assert same(read_batch(tmp_path, 7), written)
    assert read_tasks(tmp_path, 7) == list(tasks)


def test_versions_are_recorded_as_text(tmp_path: Path) -> None:
    """The form of recordings of earlier versions of this program, which are read, too."""
    write_batch(tmp_path, batch())
    with safe_open(batch_file(tmp_path, 0), framework="numpy") as opened:
        line = json.loads(opened.get_tensor("attempts").tobytes().decode().splitlines()[0])
    assert line["header"]["versions"] == ["1.0", "1.1"]
    assert line["segments"][0]["versions"] == [["1.0", 0, 2], ["1.1", 2, 4]]


def test_answer_keys_are_not_recorded(tmp_path: Path) -> None:
    write_batch(tmp_path, dataclasses.replace(batch(), tasks=(task("t0"), task("t1"))))
    assert same(read_batch(tmp_path, 0), batch())


def test_a_support_is_cut_to_the_most_likely_ids() -> None:
    rollout = attempt(0, 1, (3, 2, 5), 5).rollout
    assert rollout is not None
    cut = narrowed(rollout, 2)
    for whole, part in zip(rollout.segments, cut.segments, strict=True):
        assert same(
            dataclasses.replace(whole, support_ids=None, support_log_probs=None),
            dataclasses.replace(part, support_ids=None, support_log_probs=None),
        )
        if whole.support_ids is not None and whole.support_log_probs is not None:
            assert same(part.support_ids, whole.support_ids[:, :2])
            assert same(part.support_log_probs, whole.support_log_probs[:, :2])
    assert same(narrowed(rollout, 5), rollout)
    assert all(s.support_ids is None and s.support_log_probs is None for s in narrowed(rollout, 0).segments)


def damage(folder: Path) -> str | None:
    """What is said of batch 0; None where nothing is, and then nothing may be wrong with it."""
    try:
        read = read_batch(folder, 0)
    except RecordingError as error:
        return str(error)
    assert same(read, batch())
    return None


def test_every_damage_is_found_and_named(tmp_path: Path) -> None:
    write_batch(tmp_path, batch())
    file = batch_file(tmp_path, 0)
    whole, rng = file.read_bytes(), random.Random(0)
    found = 0
    for _ in range(300):
        place = rng.randrange(len(whole))
        file.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << rng.randrange(8))]) + whole[place + 1 :])
        said = damage(tmp_path)
        found += said is not None
        assert said is None or (str(file) in said and "\n" not in said)
    assert found > 290, "what may change without harm is padding"
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(RecordingError, match=r"batch-000000\.safetensors: damaged"):
            read_batch(tmp_path, 0)


def test_a_batch_under_another_name_or_of_another_format_is_refused(tmp_path: Path) -> None:
    write_batch(tmp_path, batch(index=3))
    shutil.move(batch_file(tmp_path, 3), batch_file(tmp_path, 1))
    with pytest.raises(RecordingError, match="holds batch 3"):
        read_tasks(tmp_path, 1)
    with pytest.raises(RecordingError, match=r"batch-000002\.safetensors: no such file"):
        read_batch(tmp_path, 2)


def config(folder: Path, **changes: Any) -> RunConfig:
    base: dict[str, Any] = {
        "steps": 2,
        "batch": {"tasks": 2, "samples_per_task": 2},
        "tasks": {"train": "not/there.jsonl", "heldout": None},
        "model": {"path": str(MODEL)},
        "objective": {"kind": "sdpo", "top_k": 5},
        "rollout": {"recorded": str(folder), "sampling": {"max_response_tokens": 64}},
        "hindsight": {"max_prompt_tokens": 300},
    }
    return RunConfig.model_validate(base | changes)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Two batches that the embedded model could have produced."""
    folder = tmp_path / "recorded"
    would_record = config(folder, rollout={"sampling": {"max_response_tokens": 64}})
    model = fingerprint(MODEL, load_tokenizer(str(MODEL)))
    Manifest.of(would_record, model, DIGESTS, "fixed").write(folder)
    for step in range(2):
        write_batch(folder, batch(step))
    return folder


def test_the_folder_alone_suffices(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = Inputs.load(config(recorded))
    assert inputs.recording is inputs.source
    assert [t.id for t in inputs.source.batch(1)] == ["t0", "t1"]
    assert inputs.heldout == []
    assert "batches after the first are off-policy" in capsys.readouterr().out


def test_the_doctor_needs_no_task_files_either(recorded: Path) -> None:
    facts = gather_run(config(recorded))
    assert (facts.refused, facts.num_tasks, facts.num_heldout, facts.measured) == ("", 2, 0, True)
    none = gather_run(config(recorded, steps=0))
    assert (none.refused, none.num_tasks, none.measured) == ("", 0, False)


def sampling(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"rollout": {"recorded": str(folder), "sampling": {"max_response_tokens": 64} | changes}}


def test_what_does_not_fit_the_recording_is_refused_before_anything_starts(recorded: Path) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"steps": 3}, r"steps=3: .*holds 2 batches before batch-000002.safetensors is missing; allowed: at most 2"),
        ({"objective": {"kind": "sdpo", "top_k": 6}}, r"objective\.top_k=6: .*holds 5 ids.*allowed: at most 5, or"),
        ({"batch": {"tasks": 3, "samples_per_task": 2}}, r"batch\.tasks=3: allowed .*: 2, as recorded"),
        (sampling(recorded, temperature=0.5), r"rollout\.sampling\.temperature=0\.5: allowed .*: 1\.0, as recorded"),
        (sampling(recorded.parent), r"no manifest\.json in it"),
        ({"hindsight": {"max_prompt_tokens": 10}}, r"task t0: the question and the hindsight template take"),
    ]
    for changes, message in refused:
        with pytest.raises(UserError, match=message):
            Inputs.load(config(recorded, **changes))
    for kept in ({"objective": {"kind": "sdpo", "top_k": 3}}, {"objective": {"kind": "grpo"}},
                 {"objective": {"kind": "sdpo", "top_k": 9, "support": "student"}}, {"steps": 1}):  # fmt: skip
        assert Inputs.load(config(recorded, **kept)).recording is not None
    with pytest.raises(ValueError, match=r"tasks\.heldout=.*allowed: none"):
        config(recorded, tasks={})
    with pytest.raises(ValueError, match=r"record\.rollouts=true: .*allowed: false"):
        config(recorded, record={"rollouts": True})


def test_another_model_is_refused_and_a_later_checkpoint_is_off_policy(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(MODEL, other)
    weights = other / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    described = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(described | {"dtype": "bfloat16"}))
    Inputs.load(config(recorded, model={"path": str(other)}))
    assert "every batch is off-policy" in capsys.readouterr().out
    (other / "config.json").write_text(json.dumps(described | {"rms_norm_eps": 0.5}))
    with pytest.raises(ConfigError, match=r"a model of another architecture than model\.path="):
        Inputs.load(config(recorded, model={"path": str(other)}))
    (other / "config.json").write_text(json.dumps(described))
    text = (other / "tokenizer.json").read_text()
    tokens = json.loads(text)
    vocabulary = tokens["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    with pytest.raises(ConfigError, match=r"a model of another tokenizer than model\.path="):
        Inputs.load(config(recorded, model={"path": str(other)}))


def test_a_recording_goes_on_only_as_it_began(recorded: Path) -> None:
    before = Manifest.read(recorded)
    assert before is not None
    model = before.model

    def now(**changes: Any) -> Manifest:
        settings = {"rollout": {"sampling": {"max_response_tokens": 64}}} | changes
        return Manifest.of(config(recorded, **settings), model, DIGESTS, "fixed")

    before.check_continues(now(steps=9, placement={"env": {"max_workers": 7}}, deadlines={"start_s": 1}), recorded)
    with pytest.raises(ConfigError, match=r"seed=1 \(was 0\): not what .* was begun with"):
        before.check_continues(now(seed=1), recorded)
    with pytest.raises(ConfigError, match=r"support_size=4 \(was 5\)"):
        before.check_continues(now(objective={"kind": "sdpo", "top_k": 4}), recorded)
    with pytest.raises(ConfigError, match=r"model\.weights: not what"):
        before.check_continues(now().model_copy(update={"model": model.model_copy(update={"weights": "x"})}), recorded)


def test_the_digest_of_a_recording_stays_when_it_grows(recorded: Path) -> None:
    first = Recording(recorded).digest
    write_batch(recorded, batch(2))
    assert Recording(recorded).digest == first
    write_batch(recorded, batch(0, support=4))
    assert Recording(recorded).digest != first
