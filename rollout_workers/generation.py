"""Conversion of requests to vLLM's sampling parameters, and of its outputs to rollouts of numpy arrays."""

from typing import Any, Protocol

import numpy as np
from vllm.logprobs import FlatLogprobs
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.sampling_params import SamplingParams as EngineSamplingParams

from sdpo.errors import InfrastructureError
from sdpo.types import (
    FinishReason,
    Float32,
    GenerationRequest,
    Int32,
    Rollout,
    RolloutHeader,
    Segment,
    Version,
    VersionSpan,
)


class Decoder(Protocol):
    """The part of a tokenizer that is needed for headers."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str: ...


def engine_sampling(request: GenerationRequest, seed: int) -> EngineSamplingParams:
    """Return vLLM's parameters for one sample, with only the final output and no text."""
    sampling = request.sampling
    return EngineSamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        max_tokens=sampling.max_tokens,
        seed=seed,
        logprobs=request.support_size,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def probe_sampling() -> EngineSamplingParams:
    """Return parameters that score a prompt: the log-prob of every prompt token after the first, at temperature 1."""
    return EngineSamplingParams(
        temperature=0.0,
        max_tokens=1,
        prompt_logprobs=0,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _rows(flat: FlatLogprobs, num_tokens: int, support_size: int) -> tuple[Int32, Float32]:
    """Return ids and log-probs [T, 1 + K]: the sampled token first, then the K most likely ones, best first."""
    width = support_size + 1
    if len(flat.logprobs) != num_tokens * width:
        raise InfrastructureError(
            f"the engine returned {len(flat.logprobs)} log-probs for {num_tokens} tokens, expected {width} for each"
        )
    ids = np.asarray(flat.token_ids, np.int32).reshape(num_tokens, width)
    return ids, np.asarray(flat.logprobs, np.float32).reshape(num_tokens, width)


def probe_log_probs(output: RequestOutput) -> Float32:
    """Return the log-probs of prompt tokens 1..P-1, float32 [P-1]."""
    flat: Any = output.prompt_logprobs
    log_probs: Float32 = np.asarray(flat.logprobs, np.float32)[np.asarray(flat.start_indices[1:])]
    return log_probs


def to_rollout(
    request: GenerationRequest, sample_index: int, output: RequestOutput, decoder: Decoder
) -> tuple[RolloutHeader, Rollout]:
    """Return header and arrays of one finished sample. Raises `InfrastructureError` if the engine aborted it."""
    completion = output.outputs[0]
    if completion.finish_reason not in ("stop", "length"):
        raise InfrastructureError(
            f"task {request.task_id}: the engine ended a sample with {completion.finish_reason!r}"
        )
    finish_reason = FinishReason(completion.finish_reason)
    token_ids = np.asarray(completion.token_ids, np.int32)
    flat: Any = completion.logprobs
    ids, log_probs = _rows(flat, len(token_ids), request.support_size)
    spans = tuple(
        VersionSpan(version=Version.parse(span.version), start=span.start, end=span.end)
        for span in completion.weight_versions or ()
    )
    segment = Segment(
        author="model",
        token_ids=token_ids,
        log_probs=log_probs[:, 0].copy(),
        support_ids=ids[:, 1:].copy() if request.support_size else None,
        support_log_probs=log_probs[:, 1:].copy() if request.support_size else None,
        versions=spans,
    )
    rollout = Rollout(
        task_id=request.task_id,
        sample_index=sample_index,
        prompt_ids=request.prompt_ids,
        segments=(segment,),
        finish_reason=finish_reason,
    )
    reply = decoder.decode(token_ids.tolist(), skip_special_tokens=True)
    header = RolloutHeader(
        task_id=request.task_id,
        sample_index=sample_index,
        text=reply,
        reply=reply,
        num_prompt_tokens=len(request.prompt_ids),
        num_response_tokens=len(token_ids),
        num_environment_tokens=0,
        num_turns=1,
        last_token_id=int(token_ids[-1]),
        finish_reason=finish_reason,
        versions=tuple(span.version for span in spans),
    )
    return header, rollout
