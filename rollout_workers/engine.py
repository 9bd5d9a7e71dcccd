"""What a run's config means to vLLM: model folder checks, environment variables, engine arguments.

`prepare_environment` must run before vllm is imported in the process; the imports here are lazy for that reason.
"""

import ctypes
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdpo.config import RunConfig
from sdpo.errors import ConfigError, InfrastructureError, ModelError
from sdpo.logs import library_config

if TYPE_CHECKING:
    from vllm import AsyncEngineArgs

EXTENSION_CLASS = "rollout_workers.transfer.EngineExtension"
GIB = 2**30
MIN_BATCHED_TOKENS = 4096


def check_model_folder(folder: Path) -> dict[str, Any]:
    """The model's config.json. Raises `ModelError` for a folder from which an engine could not start."""
    if not folder.is_dir():
        raise ModelError(f"model.path={folder}: no such folder; allowed: a Hugging Face causal LM folder")
    if not (folder / "config.json").is_file():
        raise ModelError(f"model.path={folder}: config.json is missing")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        raise ModelError(f"model.path={folder}: tokenizer.json is missing")
    index = folder / "model.safetensors.index.json"
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        shards = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else set()
    except (ValueError, KeyError) as error:
        raise ModelError(f"model.path={folder}: config.json or the weights' index is not readable: {error}") from error
    missing = sorted(name for name in shards if not (folder / name).is_file())
    if missing:
        raise ModelError(f"model.path={folder}: {len(missing)} weight files are missing, first {missing[0]}")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"model.path={folder}: no *.safetensors weights")
    return config


def check_limits(config: RunConfig, model: dict[str, Any]) -> None:
    """Raises `ConfigError` where the run asks for a longer window than the model has."""
    limit = model.get("max_position_embeddings")
    wanted = config.model.max_model_len_tokens
    if isinstance(limit, int) and wanted > limit:
        raise ConfigError(f"model.max_model_len_tokens={wanted}: allowed: at most {limit}, the model's window")


def why_not_loadable() -> str:
    """Why vLLM's build for CPUs cannot be loaded, as far as what it is linked to is missing; "" if nothing is."""
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError as error:
        return str(error)
    return ""


def check_libraries(config: RunConfig) -> None:
    """Raises `InfrastructureError` where vLLM's build for CPUs lacks what it is linked to: vLLM would only warn, and
    fail later for another reason.
    """
    if config.placement.rollout.num_gpus == 0 and (reason := why_not_loadable()):
        raise InfrastructureError(f"vLLM cannot be loaded: {reason}; install it: apt-get install libnuma1")


def prepare_environment(config: RunConfig, scratch: Path, name: str) -> None:
    """Set what vLLM and OpenMP read from the environment, for this process and the engine processes.

    Without GPUs the engine core and the model share one process: one import of vllm less and no busy hop between
    them. vLLM would bind the threads to cores that other processes use as well; here they float, and they sleep
    instead of spinning while they wait. Sums are split by thread: their number is fixed. vLLM's warnings become lines
    of the actor `name`.
    """
    logging_config = scratch / "logging.json"
    logging_config.write_text(json.dumps(library_config("vllm", name)))
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


def transfer_backend(config: RunConfig) -> str:
    """vLLM's name of the weight-transfer engine: ours ("shm") takes what Ray brought."""
    return "shm" if config.weights_backend == "ray" else config.weights_backend


def engine_args(config: RunConfig) -> "AsyncEngineArgs":
    """The engine's arguments. Imports vllm."""
    from vllm import AsyncEngineArgs
    from vllm.config import WeightTransferConfig

    rollout = config.rollout
    # a seeded request whose prefill is split kills vLLM's CPU engine: its generator would have to be wound back;
    # elsewhere vLLM's own limit depends on the memory that it finds
    whole_prompts = config.placement.rollout.num_gpus == 0 or config.deterministic
    return AsyncEngineArgs(
        model=config.model.path,
        dtype=config.model.dtype,
        max_model_len=config.model.max_model_len_tokens,
        max_logprobs=rollout.max_logprobs,
        logprobs_mode="processed_logprobs",
        max_num_seqs=rollout.max_num_seqs,
        max_num_batched_tokens=max(MIN_BATCHED_TOKENS, config.model.max_model_len_tokens) if whole_prompts else None,
        enable_chunked_prefill=False if whole_prompts else None,
        kv_cache_memory_bytes=None if rollout.kv_cache_gib is None else int(rollout.kv_cache_gib * GIB),
        enforce_eager=rollout.enforce_eager,
        tensor_parallel_size=config.placement.rollout.tensor_parallel,
        enable_prefix_caching=not config.deterministic,  # what an earlier batch left behind must not be seen
        async_scheduling=False if config.deterministic else None,  # it lets timing decide who shares a forward
        seed=config.seed,
        weight_transfer_config=WeightTransferConfig(backend=transfer_backend(config)),
        worker_extension_cls=EXTENSION_CLASS,
        use_tqdm_on_load=False,
        disable_log_stats=True,
        enable_log_requests=False,
    )
