"""Helpers of the rollout tests: requests, collected streams, weight streams made from model folders."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from transformers import AutoModelForCausalLM

from sdpo.config import RunConfig
from sdpo.types import Float32, GenerationRequest, Int32, Rollout, RolloutHeader, SamplingParams, Version
from sdpo.weights import StreamTally, UInt8, WeightAudit, WeightManifest, make_buckets

PROBE_IDS = np.arange(5, 37, dtype=np.int32)


def run_config(model: Path, **overrides: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"path": str(model), "max_model_len_tokens": 1024, "dtype": "float32"},
            "rollout": {"kv_cache_gib": 0.1, "num_threads": 1},
            "hindsight": {"max_prompt_tokens": 256},
            **overrides,
        }
    )


def request(
    *, samples: int = 1, support_size: int = 20, max_tokens: int = 32, temperature: float = 1.0, first_seed: int = 0
) -> GenerationRequest:
    return GenerationRequest(
        task_id="double-it",
        prompt_ids=np.arange(10, 47, dtype=np.int32),
        sample_indices=tuple(range(samples)),
        seeds=tuple(range(first_seed, first_seed + samples)),
        sampling=SamplingParams(temperature=temperature, max_tokens=max_tokens),
        support_size=support_size,
    )


def collect(worker: Any, wanted: GenerationRequest) -> dict[int, tuple[RolloutHeader, Rollout]]:
    """Every sample of a request, by sample index."""
    items = [ray.get(ref, timeout=60) for ref in worker.generate.remote(wanted)]
    return {h.sample_index: (h, r) for h, r in zip(items[::2], items[1::2], strict=True)}


def load_reference(folder: Path) -> torch.nn.Module:
    """The model in float32."""
    model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def next_log_probs(model: torch.nn.Module, token_ids: Int32) -> Float32:
    """float32 [P, V]: row i is the distribution of token i + 1."""
    with torch.no_grad():
        logits = model(torch.from_numpy(token_ids.astype(np.int64))[None]).logits[0]
    scores: Float32 = torch.log_softmax(logits.float(), -1).numpy()
    return scores


def named_tensors(folder: Path) -> Iterator[tuple[str, str, tuple[int, ...], UInt8]]:
    """The model's parameters in bfloat16 as the learner would send them; tied weights once."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    for name, parameter in model.named_parameters():
        raw = parameter.detach().contiguous().view(torch.uint8).numpy().reshape(-1)
        yield name, "bfloat16", tuple(parameter.shape), raw


def manifest_of(tally: StreamTally, version: Version, folder: Path) -> WeightManifest:
    log_probs = next_log_probs(load_reference(folder), PROBE_IDS)
    return WeightManifest(
        version=version,
        num_buckets=tally.num_buckets,
        num_tensors=tally.num_tensors,
        num_bytes=tally.num_bytes,
        digest=tally.digest,
        probe_ids=PROBE_IDS,
        probe_log_probs=log_probs[np.arange(len(PROBE_IDS) - 1), PROBE_IDS[1:]],
    )


def publish(
    worker: Any, folder: Path, version: Version, *, bucket_bytes: int = 50_000, probe_of: Path | None = None
) -> WeightAudit:
    """Send a model folder's weights to a worker, with the probe's log-probs of `probe_of` (the same folder if None)."""
    tally = StreamTally()
    ray.get(worker.begin_update.remote(version), timeout=60)
    for bucket in make_buckets(named_tensors(folder), bucket_bytes):
        tally.add(bucket)
        ray.get(worker.receive_bucket.remote(bucket), timeout=60)
    manifest = manifest_of(tally, version, probe_of or folder)
    audit: WeightAudit = ray.get(worker.finish_update.remote(manifest), timeout=60)
    return audit
