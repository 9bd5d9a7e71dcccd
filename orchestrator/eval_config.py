"""What `sdpo eval` runs with: a run config of which only engine, environments and evaluation count.

What neither a run file nor the command line says is made to fit the model, the tasks and this machine.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.doctor.checks_machine import has_bfloat16
from orchestrator.doctor.facts_machine import gather_memory, gather_processor
from orchestrator.doctor.memory_plan import kv_bytes_per_token
from orchestrator.eval_model import is_run_dir
from orchestrator.model_config import CacheShape, text_part
from sdpo.config import RunConfig
from sdpo.config.load import load_run_config
from sdpo.errors import ConfigError

GIB = 2**30
BLOCK_TOKENS = 128
"""Size of vLLM's cache blocks on CPU."""
KV_CACHE_GIB = (0.125, 4.0)
"""The least and the most that is taken unasked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The command line of `sdpo eval`. None: as the run file says, or the default. `model`: never a URI, but its copy.

    `settings`: values of config keys that have options of their own, by dotted key; `overrides` are applied last.
    """

    model: Path
    tasks: str
    step: int | None = None
    best: bool = False
    ks: tuple[int, ...] | None = None
    run_file: Path | None = None
    train_tasks: str | None = None
    adapter: str | None = None
    options: tuple[str, ...] = ()
    settings: Mapping[str, Any]
    overrides: tuple[str, ...] = ()
    out: Path | None = None
    save_samples: Path | None = None

    @property
    def base(self) -> Path | None:
        """The run file: the one that was given, or that of the run whose model is evaluated."""
        if self.run_file is None and is_run_dir(self.model):
            return self.model / "config.yaml"
        if self.run_file is not None and self.run_file.is_dir():
            return self.run_file / "config.yaml"
        return self.run_file

    @property
    def assigned(self) -> list[str]:
        """The command line as overrides of the run file."""
        given: dict[str, Any] = {
            "name": "eval",
            "tasks.heldout": self.tasks,
            "tasks.max_heldout": None,
            "evaluation.measure_repair": False,
            "hindsight.max_prompt_tokens": 1,  # there is no hindsight: it is not to ask for room in the window
            "batch.mini_batch_tasks": None,
        }
        if self.adapter is not None:
            given |= {"tasks.adapter": None if self.adapter == "none" else self.adapter, "tasks.options": {}}
        lines = [f"{key}={json.dumps(value)}" for key, value in (given | dict(self.settings)).items()]
        return [*lines, *(f"tasks.options.{option}" for option in self.options), *self.overrides]


def first_config(request: Request, model: Path, model_config: Mapping[str, Any]) -> RunConfig:
    """The config with the model's whole window: enough to load the tasks with. Raises `ConfigError`."""
    return _load(request, model, {"model.max_model_len_tokens": model_window(model_config)})


def fitted_config(
    request: Request, model: Path, model_config: Mapping[str, Any], longest_prompt_tokens: int, num_tasks: int
) -> tuple[RunConfig, list[str]]:
    """The config of the evaluation, and what a person should know about it. Raises `ConfigError`."""
    config = first_config(request, model, model_config)
    dtype, remarks = _dtype(config)
    found: dict[str, Any] = {
        "model.dtype": dtype,
        "model.max_model_len_tokens": _window(config, model_config, longest_prompt_tokens),
    }
    if "kv_cache_gib" not in config.rollout.model_fields_set:
        on_gpu = config.placement.rollout.num_gpus > 0 and not config.deterministic
        sized = _load(request, model, found)
        found["rollout.kv_cache_gib"] = None if on_gpu else kv_cache_gib(sized, model_config, num_tasks)
    return _load(request, model, found), remarks


def _dtype(config: RunConfig) -> tuple[str, list[str]]:
    """The config's where it names one, else what this machine computes fast; and what to say about it."""
    slow = config.placement.rollout.num_gpus == 0 and not has_bfloat16(gather_processor())
    if "dtype" not in config.model.model_fields_set:
        reason = "this processor has no bf16 instructions" if slow else "the default"
        dtype = "float32" if slow else "bfloat16"
        return dtype, [f"model.dtype={dtype}: {reason}"]
    if slow and config.model.dtype == "bfloat16":
        return "bfloat16", ["model.dtype=bfloat16: slow, this processor has no bf16 instructions"]
    return config.model.dtype, []


def _window(config: RunConfig, model_config: Mapping[str, Any], longest_prompt_tokens: int) -> int:
    """The longest prompt and a whole response. Raises `ConfigError` if the model's own window is shorter."""
    response, most = config.rollout.sampling.max_response_tokens, model_window(model_config)
    if longest_prompt_tokens + response > most:
        raise ConfigError(
            f"rollout.sampling.max_response_tokens={response}: the longest prompt has {longest_prompt_tokens} tokens; "
            f"allowed: at most {most - longest_prompt_tokens}, what that leaves of the model's window of {most}"
        )
    return longest_prompt_tokens + response


def _load(request: Request, model: Path, found: Mapping[str, Any]) -> RunConfig:
    """`found` stands before the command line: what is given there holds."""
    values = {"model.path": str(model), **found}
    lines = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    return load_run_config(request.base or os.devnull, [*lines, *request.assigned])


def model_window(model_config: Mapping[str, Any]) -> int:
    """Tokens that the model was made for; a model that names none has no bound."""
    window = text_part(model_config).get("max_position_embeddings")
    return window if isinstance(window, int) else 2**31


def kv_cache_gib(config: RunConfig, model_config: Mapping[str, Any], num_tasks: int) -> float:
    """Room for all sequences that one engine decodes at once, within `KV_CACHE_GIB` and a quarter of free memory.

    At least two sequences fit. A model whose shape is not known gets the config's default.
    """
    token_bytes = _cache_bytes_per_token(config, model_config)
    if not token_bytes:
        return config.rollout.kv_cache_gib or KV_CACHE_GIB[0]
    blocks: int = math.ceil(config.model.max_model_len_tokens / BLOCK_TOKENS) + 1
    sequence_gib = blocks * BLOCK_TOKENS * token_bytes / GIB
    samples: int = math.ceil(num_tasks * config.evaluation.samples_per_task / config.placement.rollout.workers)
    wanted = min(config.rollout.max_num_seqs, samples) * sequence_gib
    most = KV_CACHE_GIB[1]
    if not config.deterministic:  # what repeats itself must not depend on what else runs
        most = min(most, gather_memory().usable / GIB / 4 / config.placement.rollout.workers)
    return math.ceil(1000 * max(2 * sequence_gib, KV_CACHE_GIB[0], min(wanted, most))) / 1000


def _cache_bytes_per_token(config: RunConfig, model_config: Mapping[str, Any]) -> int:
    """0 for a model whose shape is not known."""
    try:
        return kv_bytes_per_token(config, CacheShape.of(text_part(model_config)))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return 0
