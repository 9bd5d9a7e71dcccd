"""The next turn of an attempt: what the engine is asked, and what the attempt is afterwards."""

from dataclasses import replace

import numpy as np

from rollout_workers.turns import merge_turn, turn_prompt
from sdpo.types import FinishReason, Rollout, RolloutHeader, SamplingParams, Segment, TurnRequest, Version, VersionSpan


def ids(*values: int) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
    return np.asarray(values, np.int32)


FIRST_WEIGHTS, NEXT_WEIGHTS = Version(incarnation=1, batch=0), Version(incarnation=1, batch=1)


def by_model(version: Version, *tokens: int) -> Segment:
    count = len(tokens)
    return Segment(
        author="model",
        token_ids=ids(*tokens),
        log_probs=-np.asarray(tokens, np.float32),
        support_ids=np.tile(ids(1, 2), (count, 1)),
        support_log_probs=np.zeros((count, 2), np.float32),
        versions=(VersionSpan(version=version, start=0, end=count),),
    )


FIRST = Rollout(
    task_id="t",
    sample_index=3,
    prompt_ids=ids(10, 11),
    segments=(by_model(FIRST_WEIGHTS, 20, 21),),
    finish_reason=FinishReason.STOP,
)
TURN = TurnRequest(
    task_id="t",
    sample_index=3,
    observation_ids=ids(30, 31, 32),
    transcript="one\n\n[user]\nno\n\n[assistant]\n",
    seed=7,
    sampling=SamplingParams(temperature=0.5, max_tokens=9),
    support_size=2,
)


def sampled(segment: Segment) -> tuple[RolloutHeader, Rollout]:
    """As the engine gives a sample of `turn_prompt`."""
    rollout = replace(FIRST, prompt_ids=ids(0), segments=(segment,), finish_reason=FinishReason.LENGTH)
    header = RolloutHeader(
        task_id="t",
        sample_index=3,
        text="two",
        reply="two",
        num_prompt_tokens=7,
        num_response_tokens=len(segment.token_ids),
        num_environment_tokens=0,
        num_turns=1,
        last_token_id=int(segment.token_ids[-1]),
        finish_reason=FinishReason.LENGTH,
        versions=tuple(span.version for span in segment.versions),
    )
    return header, rollout


def test_the_engine_reads_every_token_so_far_as_it_is() -> None:
    request = turn_prompt(TURN, FIRST)
    assert request.prompt_ids.tolist() == [10, 11, 20, 21, 30, 31, 32]
    assert request.prompt_ids.dtype == np.int32
    assert (request.sample_indices, request.seeds) == ((3,), (7,))
    assert (request.sampling, request.support_size) == (TURN.sampling, 2)


def test_an_attempt_of_three_turns_knows_who_wrote_every_token_and_under_which_weights() -> None:
    header, rollout = merge_turn(TURN, FIRST, *sampled(by_model(NEXT_WEIGHTS, 40)))
    header, rollout = merge_turn(
        replace(TURN, transcript=header.text + "|"), rollout, *sampled(by_model(NEXT_WEIGHTS, 50, 51))
    )
    assert rollout.prompt_ids.tolist() == [10, 11]
    assert rollout.response_ids.tolist() == [20, 21, 30, 31, 32, 40, 30, 31, 32, 50, 51]
    assert "".join("em"[int(bit)] for bit in rollout.model_mask) == "mmeeemeeemm"
    assert [s.author for s in rollout.segments] == ["model", "environment", "model", "environment", "model"]
    assert rollout.segments[0] is FIRST.segments[0], "nothing is made anew"
    assert [s.versions[0].version for s in rollout.segments if s.versions] == [
        FIRST_WEIGHTS,
        NEXT_WEIGHTS,
        NEXT_WEIGHTS,
    ]
    assert rollout.finish_reason is FinishReason.LENGTH
    assert header.text == "one\n\n[user]\nno\n\n[assistant]\ntwo|two"
    assert (header.reply, header.last_token_id, header.num_turns, header.versions) == (
        "two",
        51,
        3,
        (FIRST_WEIGHTS, NEXT_WEIGHTS),
    )
    assert (header.num_prompt_tokens, header.num_response_tokens, header.num_environment_tokens) == (2, 11, 6)
