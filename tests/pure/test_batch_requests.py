"""What is sampled for a prompt: seeds, sampling parameters, labels."""

import numpy as np

from orchestrator.batch.requests import evaluation_request, training_request
from sdpo.seeds import sample_seed
from sdpo.types import SamplingParams
from tests.fixtures.orchestrator import Words, config_of, task_of

CONFIG = config_of(
    seed=7,
    batch={"samples_per_task": 3},
    rollout={"sampling": {"temperature": 0.6, "max_response_tokens": 50}},
    evaluation={"temperature": 0.2, "top_p": 0.9},
    objective={"kind": "sdpo", "top_k": 11},
)
TASK = task_of("x")


def test_training_attempts_have_seeds_of_their_batch_and_a_support() -> None:
    request = training_request(CONFIG, Words(), 4, TASK)
    generation = request.generation
    assert (request.task, request.label, request.batch_index) == (TASK, "train-4", 4)
    assert "".join(map(chr, generation.prompt_ids.tolist())) == "[user]?[assistant]"
    assert generation.sample_indices == (0, 1, 2)
    assert generation.seeds == tuple(sample_seed(7, "train", 4, "x", i) for i in range(3))
    assert generation.sampling == SamplingParams(temperature=0.6, max_tokens=50)
    assert generation.support_size == 11


def test_evaluations_have_seeds_of_their_label_and_no_support() -> None:
    ids = np.arange(5, dtype=np.int32)
    request = evaluation_request(CONFIG, TASK, ids, [6], "repair-2")
    generation = request.generation
    assert (request.label, request.batch_index) == ("repair-2", None)
    assert generation.prompt_ids is ids
    assert (generation.sample_indices, generation.seeds) == ((6,), (sample_seed(7, "repair-2", 0, "x", 0),))
    assert generation.sampling == SamplingParams(temperature=0.2, top_p=0.9, max_tokens=50)
    assert generation.support_size == 0
