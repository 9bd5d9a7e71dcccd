"""Models in the shapes that published ones come in, through every part that a step of training has: prompts, engine,
sandbox, teacher, learner, new weights in the engine, export.
"""

import json
import os
import signal
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from env_workers.environment import Reply
from env_workers.worker import EnvWorker
from learner.teacher import TeacherWorker
from orchestrator.inputs.inputs import Inputs
from sdpo.chat import render_prompt
from sdpo.config import RunConfig
from sdpo.reprompt import Attempt, build_hindsight, route_group
from sdpo.types import Experience, GenerationRequest, Int32, Rollout, SamplingParams, Task, Verdict, Version
from sdpo.weights import WeightAudit, WeightBucket, WeightManifest
from tests.fixtures.engine_process import EngineProcess, engine_process
from tests.fixtures.learner import ObservedRank, masters, one_rank, scores_only, train_calls
from tests.fixtures.model_shapes import SHAPES, make_shaped_model
from tests.fixtures.rollout import load_reference, next_log_probs

pytestmark = pytest.mark.timeout(1200)
AGREE = 1e-4
FIRST, SECOND = Version(incarnation=0, batch=0), Version(incarnation=1, batch=1)
TASK = {
    "id": "double-it",
    "messages": [
        {"role": "system", "content": "You write Python."},
        {"role": "user", "content": "Write f(x): double it."},
    ],
    "environment": "code",
    "payload": {"tests": [{"kind": "functional", "function": "f", "inputs": [2], "expected": 4}]},
}


@pytest.fixture(scope="module")
def judge() -> Iterator[EnvWorker]:
    """With a real sandbox."""
    worker = EnvWorker(RunConfig().env, "env-0")
    worker.ready()
    yield worker
    worker.close()


@pytest.fixture(scope="module", autouse=True)
def imports_once() -> Iterator[None]:
    """Ends the process from which the engines were forked."""
    yield
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tasks") / "tasks.json"
    file.write_text(json.dumps([TASK]))
    return file


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_a_step_of_training(name: str, tmp_path: Path, tasks: Path, judge: EnvWorker) -> None:
    folder = make_shaped_model(tmp_path / "model", name)
    config = config_of(folder, tasks)
    inputs = Inputs.load(config)
    task = inputs.heldout[0]
    prompt_ids = render_prompt(inputs.tokenizer, task.messages)
    require_template(inputs.tokenizer, prompt_ids, name)
    request, reference = request_of(prompt_ids), load_reference(folder)
    until_end = add_end_token(folder, reference, prompt_ids)
    with one_rank(config) as learner, engine_process(config) as engine:
        samples = engine.samples(request)
        rollouts = [rollout for _, rollout in samples]
        ((greedy, ended),) = engine.samples(request_of(prompt_ids, samples=1, temperature=0.0))
        assert (greedy.finish_reason, ended.response_ids.tolist()) == ("stop", until_end)
        require_agreement(reference, rollouts)
        assert {str(s.version) for rollout in rollouts for s in rollout.segments[0].versions} == {"0.0"}

        attempts = [
            Attempt(
                sample_index=header.sample_index,
                text=header.text,
                reward=0.0,
                success=False,
                feedback=judged(judge, task, header.reply).feedback,
            )
            for header, _ in samples
        ]
        routings = route_group(attempts, config.hindsight)
        hindsights = [
            build_hindsight(task, attempts, i, routing, inputs.tokenizer, config.hindsight)
            for i, routing in enumerate(routings)
        ]
        assert all(hindsight.used_feedback for hindsight in hindsights)
        teacher = TeacherWorker(config, 0)
        teacher.start(FIRST)
        scores = scores_only(teacher.score(FIRST, 1.0, hindsights, *rollouts))
        before = masters(learner)
        experiences = [Experience(rollout=r, advantage=0.0, scores=s) for r, s in zip(rollouts, scores, strict=True)]
        metrics = learner.train(*train_calls(experiences)[0])
        assert metrics["steps_taken"] == 1
        assert np.isfinite(metrics["loss"])
        moved = [key for key, tensor in masters(learner).items() if not torch.equal(tensor, before[key])]
        assert sorted(moved) == sorted(before)

        assert push(learner, engine, inputs.probe_ids).max_abs_diff < AGREE
        learner.export(str(tmp_path / "export"))
        exported = load_reference(tmp_path / "export")
        later = [rollout for _, rollout in engine.samples(request)]
        assert {str(s.version) for rollout in later for s in rollout.segments[0].versions} == {"1.1"}
        require_agreement(exported, later)
        with pytest.raises(AssertionError, match="differ"):
            require_agreement(reference, later)


def config_of(folder: Path, tasks: Path) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"path": str(folder), "max_model_len_tokens": 768, "dtype": "float32"},
            "tasks": {"train": str(tasks), "heldout": str(tasks)},
            "batch": {"tasks": 1, "samples_per_task": 4},
            "objective": {"kind": "sdpo", "top_k": 20},
            "hindsight": {"max_prompt_tokens": 640},
            "rollout": {"kv_cache_gib": 0.1, "num_threads": 1, "sampling": {"max_response_tokens": 48}},
            "teacher": {"num_threads": 1, "regularisation": {"kind": "ema"}},
            "learner": {"num_threads": 1, "optimizer": {"learning_rate": 1e-2}},
            "weights": {"audit_tolerance": AGREE},
        }
    )


def judged(judge: EnvWorker, task: Task, text: str) -> Verdict:
    """A random model writes no program: every attempt is told what is wrong."""
    verdict = judge.step("attempt", task, (), Reply(text=text, truncated=True))
    assert isinstance(verdict, Verdict)
    assert (verdict.reward, verdict.infrastructure_error) == (0.0, None)
    return verdict


def request_of(prompt_ids: Int32, samples: int = 4, temperature: float = 1.0) -> GenerationRequest:
    return GenerationRequest(
        task_id="double-it",
        prompt_ids=prompt_ids,
        sample_indices=tuple(range(samples)),
        seeds=tuple(range(samples)),
        sampling=SamplingParams(temperature=temperature, max_tokens=48),
        support_size=20,
    )


def require_template(tokenizer: Any, prompt_ids: Int32, name: str) -> None:
    """The template's text, its control tokens as single ones; one BOS where the tokenizer would add another."""
    text, shape = tokenizer.decode(prompt_ids), SHAPES[name]
    assert "You write Python." in text
    assert text.rstrip().endswith("</think>" if name == "qwen3" else "assistant" if shape.bos is None else "_id|>")
    assert text.count("Write f(x): double it.") == 1
    known = [tokenizer.convert_tokens_to_ids(token) for token in shape.specials]
    assert np.isin(prompt_ids, known).sum() >= 5
    assert prompt_ids.max() < len(tokenizer) <= shape.vocabulary
    if shape.bos is not None:
        assert prompt_ids.tolist().count(tokenizer.bos_token_id) == 1
        assert tokenizer(shape.bos).input_ids == [tokenizer.bos_token_id] * 2, "the tokenizer adds none: no trap here"


def add_end_token(folder: Path, model: torch.nn.Module, prompt_ids: Int32) -> list[int]:
    """Make the third token that the model says greedily one of the folder's end tokens; the response up to it."""
    said = list[int]()
    for _ in range(3):
        ids = np.concatenate([prompt_ids, np.asarray(said, np.int32)])
        said.append(int(next_log_probs(model, ids)[-1].argmax()))
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text())
    assert settings["top_k"] == 3, "a default that must not reach the engine"
    file.write_text(json.dumps(settings | {"eos_token_id": [*settings["eos_token_id"], said[-1]]}))
    return said[: said.index(said[-1]) + 1]


def require_agreement(model: torch.nn.Module, rollouts: list[Rollout]) -> None:
    """The engine's log-probs are the whole softmax's at temperature 1: no default of the folder has changed them."""
    for rollout in rollouts:
        ids = np.concatenate([rollout.prompt_ids, rollout.response_ids])
        scores = next_log_probs(model, ids)[len(rollout.prompt_ids) - 1 : -1]
        got = rollout.segments[0].log_probs
        difference = np.abs(scores[np.arange(len(scores)), rollout.response_ids] - got).max()
        assert difference < AGREE, f"log-probs differ by {difference:.3g}"


def push(learner: ObservedRank, engine: EngineProcess, probe_ids: Int32) -> WeightAudit:
    """The learner's stream into the engine, as the orchestrator passes it on."""
    engine.call("begin_update", SECOND)
    parts: list[Any] = list(learner.publish("policy", SECOND, probe_ids))
    for part in parts:
        if isinstance(part, WeightBucket):
            engine.call("receive_bucket", part)
    assert isinstance(parts[-1], WeightManifest)
    audit: WeightAudit = engine.call("finish_update", parts[-1])
    return audit
