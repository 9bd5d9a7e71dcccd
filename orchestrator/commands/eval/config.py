"""The config of `sdpo eval`: a run config of which only engine, environments and evaluation are used.

Values that neither a run file nor the command line gives are fitted to the model, the tasks and this machine.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.commands.eval.model import is_run_dir
from orchestrator.inputs.machine import gather_memory, gather_processor, has_bfloat16
from orchestrator.inputs.model_config import CacheShape, kv_cache_gib, round_up_gib
from rollout_workers.engine import context_window, text_part
from sdpo.config import RunConfig
from sdpo.config.load import load_run_config
from sdpo.errors import ConfigError
from sdpo.run_layout import CONFIG

GIB = 2**30
KV_CACHE_GIB = (0.125, 4.0)
"""The smallest and the largest cache that is chosen without being asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The command line of `sdpo eval`. None stands for the run file's value or the default.

    `model` is a local path, the copy of a URI. `settings` has the config keys that have options of their own, by dotted
    key; `overrides` are applied last.
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
        """The run file: the given one, or that of the run whose model is evaluated."""
        if self.run_file is None and is_run_dir(self.model):
            return self.model / CONFIG
        if self.run_file is not None and self.run_file.is_dir():
            return self.run_file / CONFIG
        return self.run_file

    @property
    def assigned(self) -> list[str]:
        """The command line as overrides of the run file."""
        given: dict[str, Any] = {
            "name": "eval",
            "tasks.heldout": self.tasks,
            "tasks.max_heldout": None,
            "evaluation.measure_repair": False,
            "hindsight.max_prompt_tokens": 1,  # nothing looks back: hindsight needs no tokens of the window
            "batch.mini_batch_tasks": None,
        }
        if self.adapter is not None:
            given |= {"tasks.adapter": None if self.adapter == "none" else self.adapter, "tasks.options": {}}
        lines = [f"{key}={json.dumps(value)}" for key, value in (given | dict(self.settings)).items()]
        return [*lines, *(f"tasks.options.{option}" for option in self.options), *self.overrides]


def first_config(request: Request, model: Path, model_config: Mapping[str, Any]) -> RunConfig:
    """Return the config with the model's whole window, with which tasks are loaded. Raises `ConfigError`."""
    return _load(request, model, {"model.max_model_len_tokens": model_window(model_config)})


def fitted_config(
    request: Request, model: Path, model_config: Mapping[str, Any], longest_prompt_tokens: int, num_tasks: int
) -> tuple[RunConfig, list[str]]:
    """Return the config of the evaluation, and remarks on it for the user. Raises `ConfigError`."""
    config = first_config(request, model, model_config)
    dtype, remarks = _dtype(config)
    fitted: dict[str, Any] = {
        "model.dtype": dtype,
        "model.max_model_len_tokens": _window(config, model_config, longest_prompt_tokens),
    }
    if "kv_cache_gib" not in config.rollout.model_fields_set:
        on_gpu = config.placement.rollout.num_gpus > 0 and not config.deterministic
        sized = _load(request, model, fitted)
        fitted["rollout.kv_cache_gib"] = None if on_gpu else fitted_cache_gib(sized, model_config, num_tasks)
    return _load(request, model, fitted), remarks


def _dtype(config: RunConfig) -> tuple[str, list[str]]:
    """Return the config's dtype where it names one, else one that this machine computes fast; and remarks on it."""
    slow = config.placement.rollout.num_gpus == 0 and not has_bfloat16(gather_processor())
    if "dtype" not in config.model.model_fields_set:
        reason = "this processor has no bf16 instructions" if slow else "the default"
        dtype = "float32" if slow else "bfloat16"
        return dtype, [f"model.dtype={dtype}: {reason}"]
    if slow and config.model.dtype == "bfloat16":
        return "bfloat16", ["model.dtype=bfloat16: slow, this processor has no bf16 instructions"]
    return config.model.dtype, []


def _window(config: RunConfig, model_config: Mapping[str, Any], longest_prompt_tokens: int) -> int:
    """Return the tokens of the longest prompt and a response. Raises `ConfigError` if the model's window is shorter."""
    response, most = config.rollout.sampling.max_response_tokens, model_window(model_config)
    if longest_prompt_tokens + response > most:
        raise ConfigError(
            f"rollout.sampling.max_response_tokens={response}: the longest prompt has {longest_prompt_tokens} tokens; "
            f"allowed: at most {most - longest_prompt_tokens}, what that leaves of the model's window of {most}"
        )
    return longest_prompt_tokens + response


def _load(request: Request, model: Path, fitted: Mapping[str, Any]) -> RunConfig:
    """Load the run file, then the values of `fitted`, then the command line: the later one holds."""
    values = {"model.path": str(model), **fitted}
    lines = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    return load_run_config(request.base or os.devnull, [*lines, *request.assigned])


def model_window(model_config: Mapping[str, Any]) -> int:
    """Return the model's context window in tokens; a model that names none has no bound."""
    return context_window(model_config) or 2**31


def fitted_cache_gib(config: RunConfig, model_config: Mapping[str, Any], num_tasks: int) -> float:
    """Return a cache for all sequences that one engine decodes at once, within `KV_CACHE_GIB` and a quarter of memory.

    At least two sequences fit. A model whose config.json lacks a size gets the config's default.
    """
    try:
        sequence_gib = kv_cache_gib(config, CacheShape.of(text_part(model_config)), num_sequences=1)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return config.rollout.kv_cache_gib or KV_CACHE_GIB[0]
    samples: int = math.ceil(num_tasks * config.evaluation.samples_per_task / config.placement.rollout.workers)
    wanted = min(config.rollout.max_num_seqs, samples) * sequence_gib
    most = KV_CACHE_GIB[1]
    if not config.deterministic:  # what repeats itself must not depend on what else runs
        most = min(most, gather_memory().usable / GIB / 4 / config.placement.rollout.workers)
    return round_up_gib(max(2 * sequence_gib, KV_CACHE_GIB[0], min(wanted, most)))
