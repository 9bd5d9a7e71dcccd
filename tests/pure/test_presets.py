"""The presets against the paper's hyperparameters, as tables of its numbers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from env_workers.sandbox.pool import execution_deadline_s
from orchestrator.inputs.inputs import TaskSets
from sdpo.config import RunConfig
from sdpo.config.load import dump_run_config, load_run_config

EXAMPLES = Path(__file__).parents[2] / "examples"
MODELS = {"qwen3_8b": "models/Qwen3-8B", "olmo3_7b": "models/Olmo-3-7B-Instruct"}
PRESETS = ("lcb_rich_feedback", "science_no_feedback", "tool_use")

EVERYWHERE: dict[str, Any] = {
    "batch.tasks": 32,
    "batch.samples_per_task": 8,
    "batch.max_staleness": 0,
    "model.enable_thinking": False,
    "model.dtype": "bfloat16",
    "model.max_model_len_tokens": 18944,
    "tasks.max_prompt_tokens": 2048,
    "rollout.sampling.max_response_tokens": 8192,
    "rollout.sampling.temperature": 1.0,
    "rollout.sampling.top_p": 1.0,
    "evaluation.every_steps": 5,
    "evaluation.temperature": 0.6,
    "evaluation.top_p": 0.95,
    "learner.optimizer.weight_decay": 0.01,
    "learner.optimizer.beta1": 0.9,
    "learner.optimizer.beta2": 0.999,
    "learner.optimizer.max_grad_norm": 1.0,
    "learner.lora": None,
    "objective.tis_clip": 2.0,
    "objective.reference_kl": 0.0,
}
SDPO: dict[str, Any] = {
    "objective.kind": "sdpo",
    "objective.estimator": "support",
    "objective.tail": True,
    "objective.is_clip": 2.0,
    "objective.advantage_clip": None,
    "objective.grpo_weight": 0.0,
    "teacher.regularisation.kind": "ema",
    "teacher.regularisation.every": "batch",
    "hindsight.max_prompt_tokens": 10240,
    "hindsight.success_threshold": 0.5,
    "hindsight.include_demo": True,
    "hindsight.include_own_attempt": False,
    "hindsight.exclude_own_success": True,
    "hindsight.remove_thinking": True,
    "hindsight.feedback_only_without_demo": True,
}
SDPO_SECTION_3: dict[str, Any] = {
    "batch.mini_batch_tasks": 32,
    "objective.divergence": "js",
    "objective.js_teacher_weight": 0.5,
    "objective.top_k": 100,
    "teacher.regularisation.rate": 0.05,
    "learner.optimizer.learning_rate": 1e-5,
    "hindsight.include_feedback": False,
}
SDPO_SECTION_4: dict[str, Any] = {
    "batch.mini_batch_tasks": 1,
    "objective.divergence": "reverse_kl",
    "objective.top_k": 20,
    "teacher.regularisation.rate": 0.01,
    "learner.optimizer.learning_rate": 1e-6,
    "hindsight.include_feedback": True,
}
GRPO: dict[str, Any] = {
    "objective.kind": "grpo",
    "objective.clip_low": 0.2,
    "objective.clip_high": 0.28,
    "objective.dual_clip": 3.0,
    "batch.mini_batch_tasks": 8,
    "learner.optimizer.learning_rate": 1e-6,
}
SECTION_3: dict[str, Any] = {
    "steps": 150,
    "evaluation.samples_per_task": 16,
    "learner.optimizer.warmup_steps": 10,
}
SECTION_4: dict[str, Any] = {
    "steps": 80,
    "evaluation.samples_per_task": 4,
    "learner.optimizer.warmup_steps": 0,
}
STEPS_PER_BATCH = {
    ("lcb_rich_feedback", "sdpo"): 32,
    ("science_no_feedback", "sdpo"): 1,
    ("tool_use", "sdpo"): 1,
    ("lcb_rich_feedback", "grpo"): 4,
    ("science_no_feedback", "grpo"): 4,
    ("tool_use", "grpo"): 4,
}
OBJECTIVES_OWN = (
    "name",
    "batch.mini_batch_tasks",
    "objective",
    "hindsight",
    "teacher",
    "placement.rollout.workers",
    "placement.teacher",
)
"""What a GRPO run may have otherwise than its twin; besides optimizer steps, the engine's log-probs and the wait."""


def load(preset: str, model: str, objective: str) -> RunConfig:
    suffix = "_grpo" if objective == "grpo" else ""
    return load_run_config(EXAMPLES / preset / f"{model}{suffix}.yaml")


def value_of(config: RunConfig, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize("objective", ["sdpo", "grpo"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_the_papers_numbers(preset: str, model: str, objective: str) -> None:
    section = SECTION_4 if preset == "lcb_rich_feedback" else SECTION_3
    sdpo = SDPO | (SDPO_SECTION_4 if preset == "lcb_rich_feedback" else SDPO_SECTION_3)
    expected = EVERYWHERE | section | (sdpo if objective == "sdpo" else GRPO)
    config = load(preset, model, objective)
    assert {key: value_of(config, key) for key in expected} == expected
    assert config.model.path == MODELS[model]
    assert config.steps_per_batch == STEPS_PER_BATCH[preset, objective]
    assert execution_deadline_s(config.env) <= config.deadlines.environment_s
    assert config.weights_backend == "nccl"
    roles = [
        config.placement.rollout.workers * config.placement.rollout.num_gpus,
        config.placement.learner.ranks * config.placement.learner.num_gpus,
    ]
    assert sum(roles) + (config.placement.teacher.num_gpus if config.uses_teacher else 0) == 4, "one node of 4 GPUs"
    longest = config.hindsight.max_prompt_tokens + config.rollout.sampling.max_response_tokens
    assert config.teacher.tokens_per_forward >= longest or not config.uses_teacher


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("preset", PRESETS)
def test_twins_differ_in_the_objective_only(preset: str, model: str) -> None:
    sdpo, grpo = (load(preset, model, objective).model_dump() for objective in ("sdpo", "grpo"))
    assert sdpo["name"] != grpo["name"]
    own = {"learner.optimizer.learning_rate", "rollout.max_logprobs", "deadlines.score_s", *OBJECTIVES_OWN}
    assert flat(sdpo, own) == flat(grpo, own)


def flat(values: dict[str, Any], left_out: set[str], prefix: str = "") -> dict[str, Any]:
    """Dotted keys and values, without those that are left out."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        key = prefix + name
        if key not in left_out:
            found |= flat(value, left_out, f"{key}.") if isinstance(value, dict) else {key: value}
    return found


def test_every_preset_is_in_the_tables_and_reads_back_as_itself(tmp_path: Path) -> None:
    files = sorted(f for preset in PRESETS for f in (EXAMPLES / preset).glob("*.yaml"))
    assert [f.stem for f in files] == sorted([*MODELS, *(f"{m}_grpo" for m in MODELS)]) * len(PRESETS)
    names = set()
    for file in files:
        config = load_run_config(file)
        names.add(config.name)
        (tmp_path / "again.yaml").write_text(dump_run_config(config))
        assert load_run_config(tmp_path / "again.yaml") == config
        assert all(len(line) <= 120 for line in file.read_text().splitlines())
    assert len(names) == len(files), "every preset has a run directory of its own"


MCQ = {
    "idx": 7,
    "kind": "mcq",
    "answer": "B",
    "prompt": "Which gas do plants take in?\n\nA: argon\nB: carbon dioxide\nC: helium\nD: neon\nReason step by step.",
    "system": "\nChoose one option and answer as <answer>LETTER</answer>.\n",
}
CALL = {
    "prompt": "Your task is to use tools.\nName: Clock\nDescription: time of day\nDocumentation:\n"
    'getTime: Tell the time.\nParameters: {"city": "Required. string. The city."}\nOutput: a time.\n\nQuestion: Bern?',
    "answer": '[{"Action": "getTime", "Action_Input": "{\\"city\\": \\"Bern\\"}"}]',
}
PROBLEM = {
    "question_id": "sum_a",
    "question_content": "Read two numbers, print their sum.",
    "starter_code": "",
    "platform": "atcoder",
    "difficulty": "easy",
    "contest_date": "2025-03-01T00:00:00",
    "metadata": "{}",
    "public_test_cases": "[]",
    "private_test_cases": json.dumps(
        [{"input": f"{n} 1", "output": f"{n + 1}", "testtype": "stdin"} for n in range(4)]
    ),
}
OLD_PROBLEM = PROBLEM | {"question_id": "sum_b", "contest_date": "2025-01-31T00:00:00"}
RECORDS: dict[str, list[dict[str, Any]]] = {
    "lcb_rich_feedback": [PROBLEM, OLD_PROBLEM],
    "science_no_feedback": [MCQ],
    "tool_use": [CALL],
}
ENVIRONMENTS = {"lcb_rich_feedback": "code", "science_no_feedback": "multiple_choice", "tool_use": "tool_matching"}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_makes_tasks_of_records_in_the_published_form(preset: str, tmp_path: Path) -> None:
    config = load(preset, "qwen3_8b", "sdpo")
    file = tmp_path / Path(config.tasks.train).name
    file.write_text("".join(json.dumps(record) + "\n" for record in RECORDS[preset]))
    tasks = config.tasks.model_copy(update={"train": str(file), "heldout": str(file)})
    sets = TaskSets.load(config.model_copy(update={"tasks": tasks}))
    assert [task.environment for task in sets.train + sets.heldout] == [ENVIRONMENTS[preset]] * 2
    assert RECORDS[preset][0].get("prompt", PROBLEM["question_content"]) in sets.train[0].messages[-1].content
    trained, evaluated = sets.train[0].payload, sets.heldout[0].payload
    if preset == "lcb_rich_feedback":
        assert (len(trained["tests"]), len(evaluated["tests"])) == (2, 4), "half of the tests, and all of them"
        assert all(test in evaluated["tests"] for test in trained["tests"])
    else:
        assert trained == evaluated


@pytest.mark.parametrize("page", ["objective.md", "health.md"])
def test_what_the_pages_show_resolves(page: str, tmp_path: Path) -> None:
    text = (EXAMPLES.parent / "docs" / page).read_text()
    fragments = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert fragments
    for fragment in fragments:
        (tmp_path / "run.yaml").write_text(fragment)
        load_run_config(tmp_path / "run.yaml")
