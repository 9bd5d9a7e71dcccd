"""The config of a run for vLLM: model folder checks, environment variables, engine arguments.

`prepare_environment` must run before vllm is imported in the process; the imports here are lazy for that reason.
"""

import ctypes
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollout_workers.weight_files import check_weight_files
from sdpo.config import RunConfig
from sdpo.errors import ConfigError, InfrastructureError, ModelError
from sdpo.logs import library_config
from sdpo.show import show_error

if TYPE_CHECKING:
    from vllm import AsyncEngineArgs

EXTENSION_CLASS = "rollout_workers.transfer.EngineExtension"
GIB = 2**30
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+,=@~-]+")
CAUSES = "causes.txt"
"""File in the engine's scratch folder: the errors that ended its processes, the first one first."""
MIN_BATCHED_TOKENS = 4096
"""Fewest tokens of one forward pass: shorter windows share a pass."""


def check_model_folder(folder: Path) -> dict[str, Any]:
    """Return the model's config.json. Raises `ModelError` for a folder from which an engine cannot start."""
    if not folder.is_dir():
        raise ModelError(f"model.path={folder}: no such folder; allowed: a Hugging Face causal LM folder")
    if not (folder / "config.json").is_file():
        raise ModelError(f"model.path={folder}: config.json is missing")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        raise ModelError(f"model.path={folder}: tokenizer.json is missing")
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"model.path={folder}: config.json is not readable: {error}") from None
    if not isinstance(config, dict):
        raise ModelError(f"model.path={folder}: config.json: allowed: a mapping")
    check_weight_files(folder)
    return config


def text_part(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the language model's part of a config.json: its `text_config` if it has one, else all of it."""
    return model.get("text_config") or model


def context_window(model: Mapping[str, Any]) -> int | None:
    """Return the longest sequence in tokens that a config.json names, also in its `text_config`; None if it names none.

    Shared by `sdpo train`, which refuses a longer window, and `sdpo eval`, which fits its window to it.
    """
    window = text_part(model).get("max_position_embeddings")
    return window if isinstance(window, int) else None


def check_limits(config: RunConfig, model: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if the run asks for a longer window than the model has."""
    limit, wanted = context_window(model), config.model.max_model_len_tokens
    if limit is not None and wanted > limit:
        raise ConfigError(f"model.max_model_len_tokens={wanted}: allowed: at most {limit}, the model's window")


def batched_tokens(config: RunConfig) -> int:
    """Return the tokens of one forward pass in which every prompt fits whole."""
    return max(MIN_BATCHED_TOKENS, config.model.max_model_len_tokens)


def why_not_loadable() -> str:
    """Return which linked library is missing for vLLM's CPU build; "" if none is."""
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError as error:
        return str(error)
    return ""


def check_libraries(config: RunConfig) -> None:
    """Raise `InfrastructureError` where a linked library of vLLM's CPU build is missing.

    vLLM itself would only warn, and fail later with a misleading error.
    """
    if config.placement.rollout.num_gpus == 0 and (reason := why_not_loadable()):
        raise InfrastructureError(f"vLLM cannot be loaded: {reason}; install it: apt-get install libnuma1")


def prepare_environment(config: RunConfig, scratch: Path, name: str) -> None:
    """Set the environment variables that vLLM and OpenMP read, for this process and the engine processes.

    Without GPUs the engine core and the model share one process, which saves an import of vllm and a busy loop between
    two. vLLM would bind the threads to cores that other processes use as well; here they are not bound, and they sleep
    while they wait. Their number is fixed, because sums are split by thread. vLLM's warnings become log lines of the
    actor `name`.
    """
    logging_config = scratch / "logging.json"
    logging_config.write_text(json.dumps(library_config("vllm", name, scratch / CAUSES)))
    os.environ.update(
        VLLM_LOGGING_LEVEL="WARNING",
        VLLM_LOGGING_CONFIG_PATH=str(logging_config),
        VLLM_NO_USAGE_STATS="1",
        VLLM_RPC_BASE_PATH=str(scratch),
        VLLM_CPU_OMP_THREADS_BIND="nobind",
        OMP_NUM_THREADS=str(config.rollout.num_threads),
        OMP_DYNAMIC="FALSE",
        OMP_WAIT_POLICY="PASSIVE",
    )
    if config.placement.rollout.num_gpus == 0 and config.placement.rollout.tensor_parallel == 1:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if config.weights_backend == "ipc":  # handles of GPU memory reach the engine's process as pickles
        os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"


def first_cause(scratch: Path, error: Exception) -> str:
    """Return the error that ended the first of the engine's processes, on one line; `error` where none wrote one down.

    vLLM's own error in this process only says that another process ended.
    """
    file = scratch / CAUSES
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    return lines[0] if lines else f"{type(error).__name__}: {show_error(error)}"


def transfer_backend(config: RunConfig) -> str:
    """Return vLLM's name of the weight-transfer engine; "shm" is the one for weights that Ray has transported."""
    return "shm" if config.weights_backend == "ray" else config.weights_backend


def plain_model_path(path: str, scratch: Path) -> str:
    """Return a path to the model folder that vLLM can read: `path` itself, or a link to it in the folder `scratch`.

    vLLM takes a path with `[`, `*` or `?` for a pattern, and one with `:` can name a file in a repository. Raises
    `ConfigError` where `scratch`, which is below TMPDIR, is no plain path itself.
    """
    folder = str(Path(path).absolute())
    if _PLAIN_PATH.fullmatch(folder):
        return path
    if not _PLAIN_PATH.fullmatch(str(scratch)):
        raise ConfigError(
            f"TMPDIR={scratch.parent}: allowed with model.path={path}: a folder with letters, digits and ._- only"
        )
    link = scratch / "weights"
    link.symlink_to(folder, target_is_directory=True)
    return str(link)


def engine_args(config: RunConfig, model_path: str) -> "AsyncEngineArgs":
    """Return the engine's arguments for the model at `model_path`, which `plain_model_path` returned. Imports vllm.

    vLLM's name of the model, a label of its metrics, is the run's: Ray refuses labels that are not ASCII.
    """
    from vllm import AsyncEngineArgs
    from vllm.config import WeightTransferConfig

    rollout = config.rollout
    # a seeded request whose prefill is split kills vLLM's CPU engine, which cannot rewind the generator;
    # elsewhere vLLM's own limit depends on the free memory
    whole_prompts = config.placement.rollout.num_gpus == 0 or config.deterministic
    return AsyncEngineArgs(
        model=model_path,
        served_model_name=config.name,
        dtype=config.model.dtype,
        max_model_len=config.model.max_model_len_tokens,
        max_logprobs=rollout.max_logprobs,
        logprobs_mode="processed_logprobs",
        max_num_seqs=rollout.max_num_seqs,
        max_num_batched_tokens=batched_tokens(config) if whole_prompts else None,
        enable_chunked_prefill=False if whole_prompts else None,
        kv_cache_memory_bytes=None if rollout.kv_cache_gib is None else int(rollout.kv_cache_gib * GIB),
        enforce_eager=rollout.enforce_eager,
        tensor_parallel_size=config.placement.rollout.tensor_parallel,
        enable_prefix_caching=not config.deterministic,  # the cache of an earlier batch would change the last bits
        async_scheduling=False
        if config.deterministic
        else None,  # timing would decide which sequences share a forward pass
        seed=config.seed,
        weight_transfer_config=WeightTransferConfig(backend=transfer_backend(config)),
        worker_extension_cls=EXTENSION_CLASS,
        use_tqdm_on_load=False,
        disable_log_stats=True,
        enable_log_requests=False,
    )
