"""The README.md of an exported model: Hugging Face's front matter, then the facts of the run, as far as known."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from orchestrator.run_view import RunView
from sdpo.config import ClippedPolicyGradient, EmaTeacher, RunConfig, SdpoObjective, TrustRegionTeacher

CARD = "README.md"
Row = tuple[str, str]
_HUB_CACHE = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What lies beside the card. `base`: the folder that the run started from, where it lies now."""

    steps: int
    base: Path
    dtype: str
    num_parameters: int | None = None
    is_teacher: bool = False
    is_adapter: bool = False


def model_card(view: RunView, exported: Exported) -> str:
    """Markdown. No path of a person's machine is in it, only base names of files and folders."""
    config = view.config
    method = "SDPO" if isinstance(config.objective, SdpoObjective) else "GRPO"
    sections = [
        _front_matter(config, exported),
        f"# {config.name}\n\n{_what(config, exported, method)}",
        "## Results\n\n" + _results(view, exported),
        "## Training\n\n" + _table(_training(view, exported)),
        "## Data and environments\n\n" + _table(_data(view)),
        "## Made with\n\n" + _table(_versions(view)),
        "## Limits\n\n" + _limits(exported),
    ]
    return "\n\n".join(sections) + "\n"


def hub_id(folder: Path) -> str | None:
    """`Qwen/Qwen3-8B` for a snapshot in the Hugging Face cache; None where the path does not tell."""
    found = _HUB_CACHE.search(f"{folder.absolute()}/")
    return f"{found[1]}/{found[2]}" if found else None


def _front_matter(config: RunConfig, exported: Exported) -> str:
    """The hub refuses a `base_model` that is no repository: it is named only where it is known."""
    tags = [config.objective.kind, "reinforcement-learning", *(["lora"] if config.learner.lora else [])]
    known = hub_id(exported.base)
    base = {} if known is None else {"base_model": known}
    library = "peft" if exported.is_adapter else "transformers"
    facts = {**base, "library_name": library, "pipeline_tag": "text-generation", "tags": tags}
    return f"---\n{yaml.safe_dump(facts, sort_keys=False)}---"


def _what(config: RunConfig, exported: Exported, method: str) -> str:
    kind = _architecture(exported.base)
    base = hub_id(exported.base) or exported.base.absolute().name
    role = "The teacher's moving average" if exported.is_teacher else "The policy"
    form = "a LoRA adapter" if exported.is_adapter else "whole weights"
    return (
        f"{role} of {method} run `{config.name}` after {exported.steps} of {config.steps} rollout batches, as {form} "
        f"in {exported.dtype}. It started from `{base}` ({kind}) and learned from the verdicts and the feedback of the "
        f"environments named below."
    )


def _results(view: RunView, exported: Exported) -> str:
    """Held-out before and after; what was not measured is said to be so."""
    if view.config.tasks.heldout is None:
        return "The run had no held-out tasks: nothing was measured."
    records = {record["step"]: record for record in view.metrics}
    if exported.is_teacher:
        after = "not measured (held-out results are the policy's)"
    else:
        after = _pass_at_1(records.get(exported.steps, {}))
    evaluation = view.config.evaluation
    rows = [
        ("before training", _pass_at_1(records.get(0, {}))),
        (f"after step {exported.steps} (these weights)", after),
    ]
    how = (
        f"Mean over the held-out tasks, samples a task: {evaluation.samples_per_task}, at temperature "
        f"{evaluation.temperature:g}, top-p {evaluation.top_p:g}; intervals are bootstrapped over tasks."
    )
    return f"{_table(rows, ('held-out pass@1', '95 % interval in brackets'))}\n\n{how}"


def _pass_at_1(record: dict[str, Any]) -> str:
    rate = record.get("heldout/pass@1")
    if rate is None:
        return "not measured"
    low, high = record.get("heldout/pass@1_low"), record.get("heldout/pass@1_high")
    interval = "no interval" if low is None or high is None else f"{low:.3f} to {high:.3f}"
    return f"{rate:.3f} [{interval}], {record['heldout/samples']:.0f} samples"


def _training(view: RunView, exported: Exported) -> Iterator[Row]:
    config = view.config
    batch, optimizer, sampling = config.batch, config.learner.optimizer, config.rollout.sampling
    yield "objective", _objective(config)
    if config.uses_teacher:
        yield "teacher", _teacher(config)
    yield "rollout batches", f"{exported.steps}, each of {batch.tasks} tasks with {batch.samples_per_task} attempts"
    mini_batch = batch.mini_batch_tasks
    yield "optimizer steps a batch", "1" if mini_batch is None else f"one for every {mini_batch} tasks"
    yield "sampling", f"temperature {sampling.temperature:g}, at most {sampling.max_response_tokens} tokens"
    yield "window", f"{config.model.max_model_len_tokens} tokens"
    yield (
        "optimizer",
        (
            f"AdamW, learning rate {optimizer.learning_rate:g}, warm-up {optimizer.warmup_steps} steps, weight decay "
            f"{optimizer.weight_decay:g}, betas {optimizer.beta1:g} and {optimizer.beta2:g}, gradient norm at most "
            f"{optimizer.max_grad_norm:g}"
        ),
    )
    lora = config.learner.lora
    if lora is not None:
        yield "LoRA", f"rank {lora.rank}, alpha {lora.alpha:g}, on {', '.join(lora.targets)}"
    yield "compute type", f"{config.model.dtype}; master weights float32"
    yield "learner", f"{config.learner.backend}, ranks: {config.placement.learner.ranks}"
    if exported.num_parameters is not None:
        yield "parameters", f"{exported.num_parameters / 1e6:.2f} M"
    yield "seed", f"{config.seed}{', deterministic' if config.deterministic else ''}"


def _objective(config: RunConfig) -> str:
    objective = config.objective
    if not isinstance(objective, SdpoObjective):
        assert isinstance(objective, ClippedPolicyGradient)
        return f"GRPO, clipped at {objective.clip_low:g} and {objective.clip_high:g}"
    support = f", support {objective.support} of {objective.top_k} tokens" if objective.top_k else ""
    tail = " and a tail" if objective.top_k and objective.tail else ""
    mixed = f", mixed with GRPO at weight {objective.grpo_weight:g}" if objective.grpo_weight else ""
    return f"SDPO, {objective.divergence} by estimator {objective.estimator}{support}{tail}{mixed}"


def _teacher(config: RunConfig) -> str:
    teacher = config.teacher.regularisation
    match teacher:
        case EmaTeacher():
            how = f"ema, rate {teacher.rate:g} every {teacher.every.replace('_', ' ')}"
        case TrustRegionTeacher():
            how = "trust_region, " + ", ".join(f"{k} {v}" for k, v in teacher.model_dump(exclude={"kind"}).items())
        case _:
            how = teacher.kind
    return f"{how}; hindsight template {config.hindsight.template_version}"


def _data(view: RunView) -> Iterator[Row]:
    config, counted = view.config, view.facts.get("tasks", {})
    for key, path in (("train", config.tasks.train), ("heldout", config.tasks.heldout)):
        if path is None:
            continue
        number = f", {counted[key]} tasks" if key in counted else ""
        digest = view.inputs.get(f"tasks.{key}")
        yield f"tasks.{key}", f"`{Path(path).name}`{number}" + (f", SHA-256 `{digest}`" if digest else "")
    if config.tasks.adapter is not None:
        yield "adapter", f"`{config.tasks.adapter}`"
    environments = counted.get("environments")
    if environments:
        yield "environments", ", ".join(f"`{name}` ({number} tasks)" for name, number in environments.items())
    if config.env.code:
        files = ", ".join(f"`{Path(path).name}`" for path in config.env.code)
        yield "code of its own", f"{files}, SHA-256 `{view.inputs.get('env.code', 'not recorded')}`"
    yield "sandbox", config.env.sandbox.kind
    yield "feedback", config.env.feedback


def _versions(view: RunView) -> Iterator[Row]:
    """Of the run, not of the export."""
    facts = view.facts
    yield "run started", facts.get("started", "not recorded")
    yield "exported", datetime.now(UTC).isoformat(timespec="seconds")
    versions: dict[str, str] = facts.get("versions", {})
    yield "versions", ", ".join(f"{name} {number}" for name, number in versions.items()) or "not recorded"


def _limits(exported: Exported) -> str:
    lines = [
        "- It was trained by the rewards and the words of the environments above, and of nothing else. What these "
        "environments do not check, nobody checked.",
        "- It was evaluated on the held-out tasks above only: not on other tasks or languages, not for safety, and "
        "not for what the base model could do before.",
        "- License, data and biases are the base model's; they are not described here.",
    ]
    if exported.is_teacher:
        lines.append("- These are the teacher's weights, an average over training: the policy that sampled is another.")
    return "\n".join(lines)


def _architecture(base: Path) -> str:
    names: list[str] = json.loads((base / "config.json").read_text()).get("architectures") or ["unknown architecture"]
    return ", ".join(names)


def _table(rows: Iterable[Row], head: Row = ("", "")) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    lines += [f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in rows]
    return "\n".join(lines)
