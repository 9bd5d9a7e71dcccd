"""The next turn of an attempt: its prompt is all tokens so far, its result one rollout of all segments."""

from dataclasses import replace

import numpy as np

from sdpo.types import GenerationRequest, Rollout, RolloutHeader, Segment, TurnRequest


def turn_prompt(turn: TurnRequest, previous: Rollout) -> GenerationRequest:
    """Return the model's turn as a request of one sample, whose prompt has exactly the token ids of `previous`."""
    prompt_ids = np.concatenate([previous.prompt_ids, previous.response_ids, turn.observation_ids])
    return GenerationRequest(
        task_id=turn.task_id,
        prompt_ids=prompt_ids.astype(np.int32, copy=False),
        sample_indices=(turn.sample_index,),
        seeds=(turn.seed,),
        sampling=turn.sampling,
        support_size=turn.support_size,
    )


def merge_turn(
    turn: TurnRequest, previous: Rollout, header: RolloutHeader, sampled: Rollout
) -> tuple[RolloutHeader, Rollout]:
    """Return `previous`, the environment's tokens and the turn `sampled` after them as one attempt."""
    environment = Segment(author="environment", token_ids=turn.observation_ids)
    segments = (*previous.segments, environment, *sampled.segments)
    rollout = replace(sampled, prompt_ids=previous.prompt_ids, segments=segments)
    by_model = rollout.model_mask
    versions = dict.fromkeys(span.version for segment in segments for span in segment.versions)
    header = replace(
        header,
        text=turn.transcript + header.reply,
        num_prompt_tokens=len(previous.prompt_ids),
        num_response_tokens=len(by_model),
        num_environment_tokens=int((~by_model).sum()),
        num_turns=sum(segment.author == "model" for segment in segments),
        versions=tuple(versions),
    )
    return header, rollout
